/* Vulkan between the library and the loader: calls that return a VkResult are counted and can be made to fail, objects are
   counted as they come and go. A call that fails does not reach the driver, and leaves what it should have set undefined,
   as the specification allows. */
#include "faults/faults.h"

#ifdef HK_WITH_VULKAN
#include "vulkan/device.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static atomic_long live;
static struct VolkDeviceTable real; /* all devices of a test are of one driver: one table is as good as another */
static PFN_vkGetInstanceProcAddr real_get;
static PFN_vkCreateInstance real_vkCreateInstance;
static PFN_vkEnumerateInstanceExtensionProperties real_vkEnumerateInstanceExtensionProperties;
static PFN_vkEnumerateInstanceLayerProperties real_vkEnumerateInstanceLayerProperties;
static PFN_vkEnumeratePhysicalDevices real_vkEnumeratePhysicalDevices;
static PFN_vkEnumerateDeviceExtensionProperties real_vkEnumerateDeviceExtensionProperties;
static PFN_vkCreateDevice real_vkCreateDevice;
static PFN_vkDestroyInstance real_vkDestroyInstance;

long fault_live_vulkan(void) { return atomic_load(&live); }

/* What else than running out of memory, of the host and (where the mask says so) of the device, may be their result. */
enum { HOST = 1, DEVICE = 2, LOST = 4, INITIALIZATION = 8, MAP = 16, SHADER = 32, MANY = 64, FEATURE = 128, DRIVER = 256 };

static int choose_result(int mask, int variant) {
    static const VkResult results[] = {VK_ERROR_OUT_OF_HOST_MEMORY,     VK_ERROR_OUT_OF_DEVICE_MEMORY, VK_ERROR_DEVICE_LOST,
                                       VK_ERROR_INITIALIZATION_FAILED,  VK_ERROR_MEMORY_MAP_FAILED,    VK_ERROR_INVALID_SHADER_NV,
                                       VK_ERROR_TOO_MANY_OBJECTS,       VK_ERROR_FEATURE_NOT_PRESENT,
                                       VK_ERROR_INCOMPATIBLE_DRIVER};
    int chosen[HK_LENGTH(results)], n = 0;
    for (size_t i = 0; i < HK_LENGTH(results); i++)
        if (mask >> i & 1) chosen[n++] = results[i];
    const int result = chosen[(unsigned)variant % (unsigned)n];
    fault_result(result, n);
    return result;
}

/* Fails with one of the results, or calls the driver. out is the pointer that the call would have set, or NULL. */
static VkResult fails(const char *name, int mask, void *out, size_t bytes) {
    int variant;
    if (!fault_hits(FAULT_VULKAN, name, &variant)) return VK_SUCCESS;
    if (out) memset(out, 0x5a, bytes);
    return (VkResult)choose_result(mask, variant);
}

static VkResult count_new(VkResult result) {
    if (result == VK_SUCCESS) atomic_fetch_add(&live, 1);
    return result;
}

typedef const VkAllocationCallbacks *allocator;

/* ---- Keeping: one device under all that are opened one after the other, and what it compiled ---- */

enum { MOST_KEPT = 512, MOST_MODULES = 16 };

static bool keeping;
static VkInstance kept_instance;
static VkDevice kept_device;
static pthread_mutex_t kept_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t key;
    VkPipeline pipeline;
} kept[MOST_KEPT];
static int n_kept;
static struct {
    VkShaderModule module;
    uint64_t hash;
} modules[MOST_MODULES]; /* that there are now */

void fault_vulkan_keep(bool keep) {
    keeping = keep;
    if (keep || !kept_device) return;
    for (int i = 0; i < n_kept; i++) real.vkDestroyPipeline(kept_device, kept[i].pipeline, NULL);
    real.vkDestroyDevice(kept_device, NULL);
    real_vkDestroyInstance(kept_instance, NULL);
    n_kept = 0, kept_device = NULL, kept_instance = NULL;
}

static VkResult create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info, allocator a, VkDevice *device) {
    if (!keeping) return real_vkCreateDevice(physical, info, a, device);
    const VkResult result = kept_device ? VK_SUCCESS : real_vkCreateDevice(physical, info, a, &kept_device);
    *device = kept_device;
    return result;
}

static VkResult create_instance(const VkInstanceCreateInfo *info, allocator a, VkInstance *instance) {
    if (!keeping) return real_vkCreateInstance(info, a, instance);
    const VkResult result = kept_instance ? VK_SUCCESS : real_vkCreateInstance(info, a, &kept_instance);
    *instance = kept_instance;
    return result;
}

static VkResult create_module(VkDevice device, const VkShaderModuleCreateInfo *info, allocator a, VkShaderModule *module) {
    const VkResult result = real.vkCreateShaderModule(device, info, a, module);
    pthread_mutex_lock(&kept_mutex);
    int i = 0;
    while (i < MOST_MODULES - 1 && modules[i].module) i++;
    modules[i].module = *module;
    modules[i].hash = hk_hash(info->pCode, info->codeSize, 0);
    pthread_mutex_unlock(&kept_mutex);
    return result;
}

static void forget_module(VkShaderModule module) {
    pthread_mutex_lock(&kept_mutex);
    for (int i = 0; i < MOST_MODULES; i++)
        if (modules[i].module == module) modules[i].module = VK_NULL_HANDLE;
    pthread_mutex_unlock(&kept_mutex);
}

/* A pipeline is what it was made of, but for the cache. */
static uint64_t key_of(const VkComputePipelineCreateInfo *info) {
    const VkSpecializationInfo *spec = info->stage.pSpecializationInfo;
    for (int i = 0; i < MOST_MODULES; i++)
        if (modules[i].module == info->stage.module)
            return hk_hash(spec->pData, spec->dataSize, modules[i].hash + (info->stage.pNext != NULL));
    return 0;
}

static VkResult create_pipelines(VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *info, allocator a,
                                 VkPipeline *pipeline) {
    if (!keeping) return real.vkCreateComputePipelines(d, c, n, info, a, pipeline);
    pthread_mutex_lock(&kept_mutex);
    VkResult result = VK_SUCCESS;
    const uint64_t key = key_of(info);
    int i = 0;
    while (i < n_kept && kept[i].key != key) i++;
    if (i < n_kept) {
        *pipeline = kept[i].pipeline;
    } else {
        result = n_kept < MOST_KEPT ? real.vkCreateComputePipelines(d, c, n, info, a, pipeline) : VK_ERROR_UNKNOWN;
        if (result == VK_SUCCESS) kept[n_kept].key = key, kept[n_kept++].pipeline = *pipeline;
    }
    pthread_mutex_unlock(&kept_mutex);
    return result;
}

/* ---- The calls ---- */

/* name(first parameters, out) calls the driver unless it is to fail. */
#define WRAP(pointer, name, mask, out, bytes, counted, params, ...) \
    static VKAPI_ATTR VkResult VKAPI_CALL wrap_##name params { \
        VkResult result = fails(#name, mask, out, bytes); \
        if (result == VK_SUCCESS) result = pointer(__VA_ARGS__); \
        else return result; \
        return (counted) ? count_new(result) : result; \
    }
#define CREATE(name, info, type, mask) \
    WRAP(real.name, name, mask, o, sizeof *o, true, (VkDevice d, const info *i, allocator a, type *o), d, i, a, o)
#define DESTROY(name, type) \
    static VKAPI_ATTR void VKAPI_CALL wrap_##name(VkDevice d, type object, allocator a) { \
        if (object) atomic_fetch_sub(&live, 1); \
        real.name(d, object, a); \
    }

CREATE(vkAllocateMemory, VkMemoryAllocateInfo, VkDeviceMemory, HOST | DEVICE | MANY)
CREATE(vkCreateBuffer, VkBufferCreateInfo, VkBuffer, HOST | DEVICE)
CREATE(vkCreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool, HOST | DEVICE)
CREATE(vkCreateDescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool, HOST | DEVICE)
CREATE(vkCreateDescriptorSetLayout, VkDescriptorSetLayoutCreateInfo, VkDescriptorSetLayout, HOST | DEVICE)
CREATE(vkCreatePipelineCache, VkPipelineCacheCreateInfo, VkPipelineCache, HOST | DEVICE)
CREATE(vkCreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout, HOST | DEVICE)
CREATE(vkCreateQueryPool, VkQueryPoolCreateInfo, VkQueryPool, HOST | DEVICE)
CREATE(vkCreateSemaphore, VkSemaphoreCreateInfo, VkSemaphore, HOST | DEVICE)
WRAP(create_module, vkCreateShaderModule, HOST | DEVICE | SHADER, o, sizeof *o, true,
     (VkDevice d, const VkShaderModuleCreateInfo *i, allocator a, VkShaderModule *o), d, i, a, o)
WRAP(create_pipelines, vkCreateComputePipelines, HOST | DEVICE | SHADER, o, sizeof *o, true,
     (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i, allocator a, VkPipeline *o), d, c, n, i, a,
     o)
WRAP(real.vkAllocateCommandBuffers, vkAllocateCommandBuffers, HOST | DEVICE, o, i->commandBufferCount * sizeof *o, false,
     (VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *o), d, i, o)
WRAP(real.vkAllocateDescriptorSets, vkAllocateDescriptorSets, HOST | DEVICE, o, i->descriptorSetCount * sizeof *o, false,
     (VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *o), d, i, o)
WRAP(real.vkBeginCommandBuffer, vkBeginCommandBuffer, HOST | DEVICE, NULL, 0, false,
     (VkCommandBuffer c, const VkCommandBufferBeginInfo *i), c, i)
WRAP(real.vkEndCommandBuffer, vkEndCommandBuffer, HOST | DEVICE, NULL, 0, false, (VkCommandBuffer c), c)
WRAP(real.vkBindBufferMemory, vkBindBufferMemory, HOST | DEVICE, NULL, 0, false,
     (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize s), d, b, m, s)
WRAP(real.vkMapMemory, vkMapMemory, HOST | DEVICE | MAP, o, sizeof *o, false,
     (VkDevice d, VkDeviceMemory m, VkDeviceSize a, VkDeviceSize b, VkMemoryMapFlags f, void **o), d, m, a, b, f, o)
WRAP(real.vkGetPipelineCacheData, vkGetPipelineCacheData, HOST | DEVICE, n, sizeof *n, false,
     (VkDevice d, VkPipelineCache c, size_t *n, void *o), d, c, n, o)
WRAP(real.vkGetQueryPoolResults, vkGetQueryPoolResults, HOST | DEVICE | LOST, o, s, false,
     (VkDevice d, VkQueryPool p, uint32_t f, uint32_t n, size_t s, void *o, VkDeviceSize t, VkQueryResultFlags g), d, p, f, n, s,
     o, t, g)
WRAP(real.vkGetSemaphoreCounterValue, vkGetSemaphoreCounterValue, HOST | DEVICE | LOST, o, sizeof *o, false,
     (VkDevice d, VkSemaphore s, uint64_t *o), d, s, o)
WRAP(real.vkWaitSemaphores, vkWaitSemaphores, HOST | DEVICE | LOST, NULL, 0, false,
     (VkDevice d, const VkSemaphoreWaitInfo *i, uint64_t t), d, i, t)
WRAP(real.vkQueueSubmit2, vkQueueSubmit2, HOST | DEVICE | LOST, NULL, 0, false,
     (VkQueue q, uint32_t n, const VkSubmitInfo2 *i, VkFence f), q, n, i, f)
WRAP(real.vkDeviceWaitIdle, vkDeviceWaitIdle, HOST | DEVICE | LOST, NULL, 0, false, (VkDevice d), d)
WRAP(create_instance, vkCreateInstance, HOST | DEVICE | INITIALIZATION | DRIVER, o, sizeof *o, true,
     (const VkInstanceCreateInfo *i, allocator a, VkInstance *o), i, a, o)
WRAP(real_vkEnumerateInstanceExtensionProperties, vkEnumerateInstanceExtensionProperties, HOST | DEVICE, n, sizeof *n, false,
     (const char *l, uint32_t *n, VkExtensionProperties *o), l, n, o)
WRAP(real_vkEnumerateInstanceLayerProperties, vkEnumerateInstanceLayerProperties, HOST | DEVICE, n, sizeof *n, false,
     (uint32_t *n, VkLayerProperties *o), n, o)
WRAP(real_vkEnumeratePhysicalDevices, vkEnumeratePhysicalDevices, HOST | DEVICE | INITIALIZATION, n, sizeof *n, false,
     (VkInstance i, uint32_t *n, VkPhysicalDevice *o), i, n, o)
WRAP(real_vkEnumerateDeviceExtensionProperties, vkEnumerateDeviceExtensionProperties, HOST | DEVICE, n, sizeof *n, false,
     (VkPhysicalDevice p, const char *l, uint32_t *n, VkExtensionProperties *o), p, l, n, o)
WRAP(create_device, vkCreateDevice, HOST | DEVICE | INITIALIZATION | FEATURE | MANY | LOST, o, sizeof *o, true,
     (VkPhysicalDevice p, const VkDeviceCreateInfo *i, allocator a, VkDevice *o), p, i, a, o)

DESTROY(vkFreeMemory, VkDeviceMemory)
DESTROY(vkDestroyBuffer, VkBuffer)
DESTROY(vkDestroyCommandPool, VkCommandPool)
DESTROY(vkDestroyDescriptorPool, VkDescriptorPool)
DESTROY(vkDestroyDescriptorSetLayout, VkDescriptorSetLayout)
DESTROY(vkDestroyPipelineCache, VkPipelineCache)
DESTROY(vkDestroyPipelineLayout, VkPipelineLayout)
DESTROY(vkDestroyQueryPool, VkQueryPool)
DESTROY(vkDestroySemaphore, VkSemaphore)

static VKAPI_ATTR void VKAPI_CALL wrap_vkDestroyShaderModule(VkDevice device, VkShaderModule module, allocator a) {
    if (module) atomic_fetch_sub(&live, 1);
    forget_module(module);
    real.vkDestroyShaderModule(device, module, a);
}

static VKAPI_ATTR void VKAPI_CALL wrap_vkDestroyPipeline(VkDevice device, VkPipeline pipeline, allocator a) {
    if (pipeline) atomic_fetch_sub(&live, 1);
    if (!keeping) real.vkDestroyPipeline(device, pipeline, a);
}

static VKAPI_ATTR void VKAPI_CALL wrap_vkDestroyDevice(VkDevice device, allocator a) {
    if (device) atomic_fetch_sub(&live, 1);
    if (!keeping) real.vkDestroyDevice(device, a);
}

static VKAPI_ATTR void VKAPI_CALL wrap_vkDestroyInstance(VkInstance instance, allocator a) {
    if (instance) atomic_fetch_sub(&live, 1);
    if (!keeping) real_vkDestroyInstance(instance, a);
}

/* ---- Putting them in ---- */

#define DEVICE_FUNCTIONS(X) \
    X(vkAllocateMemory) X(vkCreateBuffer) X(vkCreateCommandPool) X(vkCreateDescriptorPool) X(vkCreateDescriptorSetLayout) \
    X(vkCreatePipelineCache) X(vkCreatePipelineLayout) X(vkCreateQueryPool) X(vkCreateSemaphore) X(vkCreateShaderModule) \
    X(vkCreateComputePipelines) X(vkAllocateCommandBuffers) X(vkAllocateDescriptorSets) X(vkBeginCommandBuffer) \
    X(vkEndCommandBuffer) X(vkBindBufferMemory) X(vkMapMemory) X(vkGetPipelineCacheData) X(vkGetQueryPoolResults) \
    X(vkGetSemaphoreCounterValue) X(vkWaitSemaphores) X(vkQueueSubmit2) X(vkDeviceWaitIdle) X(vkFreeMemory) \
    X(vkDestroyBuffer) X(vkDestroyCommandPool) X(vkDestroyDescriptorPool) X(vkDestroyDescriptorSetLayout) \
    X(vkDestroyPipeline) X(vkDestroyPipelineCache) X(vkDestroyPipelineLayout) X(vkDestroyQueryPool) X(vkDestroySemaphore) \
    X(vkDestroyShaderModule) X(vkDestroyDevice)
#define INSTANCE_FUNCTIONS(X) \
    X(vkEnumeratePhysicalDevices) X(vkEnumerateDeviceExtensionProperties) X(vkCreateDevice) X(vkDestroyInstance)

void __real_vk_instance_load_device(const struct vk_instance *instance, VkDevice device, struct VolkDeviceTable *table);
void __wrap_vk_instance_load_device(const struct vk_instance *instance, VkDevice device, struct VolkDeviceTable *table);

void __wrap_vk_instance_load_device(const struct vk_instance *instance, VkDevice device, struct VolkDeviceTable *table) {
    __real_vk_instance_load_device(instance, device, table);
    real = *table;
    *table = (struct VolkDeviceTable){0};
#define X(name) table->name = wrap_##name;
    DEVICE_FUNCTIONS(X)
#undef X
    /* these cannot fail; any other function is NULL, so that nothing is called past this file */
#define X(name) table->name = real.name;
    X(vkGetDeviceQueue) X(vkGetBufferMemoryRequirements) X(vkUpdateDescriptorSets) X(vkCmdBindDescriptorSets)
    X(vkCmdBindPipeline) X(vkCmdCopyBuffer) X(vkCmdDispatch) X(vkCmdFillBuffer) X(vkCmdPipelineBarrier2) X(vkCmdPushConstants)
    X(vkCmdResetQueryPool) X(vkCmdWriteTimestamp2)
#undef X
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_function(VkInstance instance, const char *name) {
    const PFN_vkVoidFunction function = real_get(instance, name);
#define X(known) \
    if (!strcmp(name, #known)) { \
        real_##known = (PFN_##known)function; \
        return (PFN_vkVoidFunction)wrap_##known; \
    }
    INSTANCE_FUNCTIONS(X)
#undef X
    return function;
}

VkResult __real_volkInitialize(void);
VkResult __wrap_volkInitialize(void);

VkResult __wrap_volkInitialize(void) {
    VkResult result = fails("volkInitialize", INITIALIZATION, NULL, 0);
    if (result == VK_SUCCESS) result = __real_volkInitialize();
    if (result != VK_SUCCESS) return result;
    real_get = vkGetInstanceProcAddr, vkGetInstanceProcAddr = get_function;
#define X(name) real_##name = name, name = wrap_##name;
    X(vkCreateInstance)
    X(vkEnumerateInstanceExtensionProperties)
    X(vkEnumerateInstanceLayerProperties)
#undef X
    return VK_SUCCESS;
}

#else

long fault_live_vulkan(void) { return 0; }
void fault_vulkan_keep(bool keep) { (void)keep; }

#endif
