/* Instances, the validation layer, and the list of devices. */
#include "vulkan/instance.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME
#define VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME "VK_KHR_portability_enumeration"
#define VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR 1
#endif

static const char *const validation_layer = "VK_LAYER_KHRONOS_validation";

/* volk keeps the loader's entry points in globals: opened once, under this. */
static pthread_mutex_t loader_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool loader_open;

static bool open_loader(void) {
    pthread_mutex_lock(&loader_mutex);
    if (!loader_open) loader_open = volkInitialize() == VK_SUCCESS;
    const bool open = loader_open && vkEnumerateInstanceVersion;
    pthread_mutex_unlock(&loader_mutex);
    return open;
}

/* *version: the Vulkan that the layer was written for. */
static hk_status find_validation_layer(uint32_t *version) {
    uint32_t count = 0;
    VkResult result = vkEnumerateInstanceLayerProperties(&count, NULL);
    VkLayerProperties *layers = result == VK_SUCCESS ? calloc(count + 1, sizeof *layers) : NULL;
    if (layers) result = vkEnumerateInstanceLayerProperties(&count, layers);
    const bool known = layers && result == VK_SUCCESS;
    *version = 0;
    for (uint32_t i = 0; i < count && known && !*version; i++)
        if (!strcmp(layers[i].layerName, validation_layer)) *version = layers[i].specVersion;
    free(layers);
    if (*version) return HK_OK;
    if (!known)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "validation: out of memory while looking for the layer (VkResult %d)", result);
    return hk_fail(HK_ERROR_UNSUPPORTED, "validation: the layer %s is not installed (Debian, Ubuntu: apt install "
                   "vulkan-validationlayers)", validation_layer);
}

static bool has_instance_extension(const char *layer, const char *name) {
    uint32_t count = 0;
    bool found = false;
    if (vkEnumerateInstanceExtensionProperties(layer, &count, NULL) != VK_SUCCESS) return false;
    VkExtensionProperties *extensions = calloc(count + 1, sizeof *extensions);
    if (extensions && vkEnumerateInstanceExtensionProperties(layer, &count, extensions) == VK_SUCCESS)
        for (uint32_t i = 0; i < count && !found; i++) found = !strcmp(extensions[i].extensionName, name);
    free(extensions);
    return found;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    struct vk_instance *instance = user;
    (void)types;
    instance->messages++;
    hk_remark(severity >= VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT ? HK_LOG_ERROR : HK_LOG_WARNING, "validation: %s",
              data->pMessage);
    return VK_FALSE;
}

static bool load_functions(struct vk_instance *instance) {
    bool all = true;
#define X(name) \
    instance->name = (PFN_##name)vkGetInstanceProcAddr(instance->handle, #name); \
    all = all && instance->name;
    VK_INSTANCE_FUNCTIONS(X)
#undef X
    return all;
}

static void create_messenger(struct vk_instance *instance, const VkDebugUtilsMessengerCreateInfoEXT *info) {
    const PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance->handle, "vkCreateDebugUtilsMessengerEXT");
    instance->destroy_messenger =
        (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance->handle, "vkDestroyDebugUtilsMessengerEXT");
    if (create && instance->destroy_messenger) create(instance->handle, info, NULL, &instance->messenger);
}

/* What the driver cannot know better is asked for by name: portability (MoltenVK), and what validation needs. */
static uint32_t choose_extensions(bool validate, bool portability, const char *extensions[4]) {
    uint32_t count = 0;
    if (portability) extensions[count++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
    if (!validate) return count;
    extensions[count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (has_instance_extension(validation_layer, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME))
        extensions[count++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
#ifdef VK_EXT_layer_settings
    if (has_instance_extension(validation_layer, VK_EXT_LAYER_SETTINGS_EXTENSION_NAME))
        extensions[count++] = VK_EXT_LAYER_SETTINGS_EXTENSION_NAME;
#endif
    return count;
}

/* next: structures for validation, or NULL. */
static hk_status create_instance(struct vk_instance *instance, const void *next) {
    const char *extensions[4];
    const bool portability = has_instance_extension(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME);
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .pEngineName = "Hekla",
                                           .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = next,
        .flags = portability ? (VkInstanceCreateFlags)VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR : 0,
        .pApplicationInfo = &application,
        .enabledLayerCount = next != NULL,
        .ppEnabledLayerNames = &validation_layer,
        .enabledExtensionCount = choose_extensions(next != NULL, portability, extensions),
        .ppEnabledExtensionNames = extensions};
    const VkResult result = vkCreateInstance(&info, NULL, &instance->handle);
    if (result == VK_SUCCESS) return HK_OK;
    instance->handle = VK_NULL_HANDLE;
    if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "vulkan: out of memory while the driver starts (VkResult %d)", result);
    return hk_fail(HK_ERROR_NO_DEVICE, "no Vulkan device: the loader found no driver (VkResult %d)", result);
}

/* Creates the instance with the layer, and asks it for all of its checks that have a bearing here. */
static hk_status create_validated(struct vk_instance *instance, uint32_t layer_version, const void *messenger) {
    const VkValidationFeatureEnableEXT checks[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    const VkValidationFeaturesEXT features = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                              .pNext = messenger, /* sees messages about the instance itself */
                                              .enabledValidationFeatureCount = 1,
                                              .pEnabledValidationFeatures = checks};
    /* from here on they leave out what shaders access, and the layer says the same thing ten times at most */
    if (layer_version < VK_MAKE_API_VERSION(0, 1, 3, 296)) return create_instance(instance, &features);
#ifdef VK_EXT_layer_settings
    const VkBool32 yes = VK_TRUE, no = VK_FALSE;
    const VkLayerSettingEXT settings[] = {
        {validation_layer, "syncval_shader_accesses_heuristic", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &yes},
        {validation_layer, "enable_message_limit", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &no}};
    const VkLayerSettingsCreateInfoEXT all = {.sType = VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT,
                                              .pNext = &features,
                                              .settingCount = HK_LENGTH(settings),
                                              .pSettings = settings};
    return create_instance(instance, &all);
#else
    hk_remark(HK_LOG_WARNING, "validation: barriers between shaders are not checked: Hekla was built with Vulkan headers "
              "that are older than the layer");
    return create_instance(instance, &features);
#endif
}

hk_status vk_instance_open(struct vk_instance *instance, bool validate) {
    *instance = (struct vk_instance){0};
    if (!open_loader()) return hk_fail(HK_ERROR_NO_DEVICE, "no Vulkan device: no Vulkan loader (libvulkan.so.1) is installed");
    uint32_t layer_version = 0;
    if (validate && find_validation_layer(&layer_version)) return hk_error_status();
    /* not GENERAL: those are the loader's remarks on other drivers */
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = instance};
    const hk_status status =
        validate ? create_validated(instance, layer_version, &messenger) : create_instance(instance, NULL);
    if (status) return status;
    if (!load_functions(instance)) {
        vk_instance_close(instance);
        return hk_fail(HK_ERROR_NO_DEVICE, "no Vulkan device: the loader is older than Vulkan 1.1");
    }
    if (validate) create_messenger(instance, &messenger);
    return HK_OK;
}

void vk_instance_close(struct vk_instance *instance) {
    if (!instance->handle) return;
    if (instance->messenger) instance->destroy_messenger(instance->handle, instance->messenger, NULL);
    if (instance->vkDestroyInstance) instance->vkDestroyInstance(instance->handle, NULL);
    instance->handle = VK_NULL_HANDLE;
}

/* A driver that does not come up is no device; a machine without memory may have devices. */
static hk_status enumeration_failed(VkResult result) {
    if (result != VK_ERROR_OUT_OF_HOST_MEMORY && result != VK_ERROR_OUT_OF_DEVICE_MEMORY) return HK_OK;
    return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of memory while looking for Vulkan devices (VkResult %d)", result);
}

hk_status vk_instance_devices(const struct vk_instance *instance, VkPhysicalDevice **out, int *count) {
    uint32_t n = 0;
    *out = NULL, *count = 0;
    VkResult result = instance->vkEnumeratePhysicalDevices(instance->handle, &n, NULL);
    if (result != VK_SUCCESS) return enumeration_failed(result);
    if (!n) return HK_OK;
    VkPhysicalDevice *devices = calloc(n, sizeof *devices);
    if (!devices) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    result = instance->vkEnumeratePhysicalDevices(instance->handle, &n, devices);
    if (result != VK_SUCCESS && result != VK_INCOMPLETE) {
        free(devices);
        return enumeration_failed(result);
    }
    for (uint32_t i = 0; i < n; i++) {
        VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
        instance->vkGetPhysicalDeviceProperties2(devices[i], &properties);
        if (properties.properties.apiVersion >= VK_API_VERSION_1_3) devices[(*count)++] = devices[i];
        else hk_remark(HK_LOG_INFO, "vulkan: %s has no Vulkan 1.3 and is left out", properties.properties.deviceName);
    }
    *out = devices;
    return HK_OK;
}

void vk_instance_load_device(const struct vk_instance *instance, VkDevice device, struct VolkDeviceTable *table) {
    pthread_mutex_lock(&loader_mutex);
    vkGetDeviceProcAddr = instance->vkGetDeviceProcAddr; /* the global that volk asks */
    volkLoadDeviceTable(table, device);
    pthread_mutex_unlock(&loader_mutex);
}
