/* A connection to the Vulkan loader. Each open device has its own, so that nothing is shared between devices. */
#ifndef HK_VULKAN_INSTANCE_H
#define HK_VULKAN_INSTANCE_H

#include "backend.h"
#include <volk.h>

#define VK_INSTANCE_FUNCTIONS(X) \
    X(vkDestroyInstance) \
    X(vkEnumeratePhysicalDevices) \
    X(vkGetPhysicalDeviceProperties2) \
    X(vkGetPhysicalDeviceFeatures2) \
    X(vkGetPhysicalDeviceMemoryProperties2) \
    X(vkGetPhysicalDeviceQueueFamilyProperties) \
    X(vkEnumerateDeviceExtensionProperties) \
    X(vkCreateDevice) \
    X(vkGetDeviceProcAddr)

struct vk_instance {
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger;
    _Atomic uint64_t messages; /* warnings and errors of the validation layer */
#define X(name) PFN_##name name;
    VK_INSTANCE_FUNCTIONS(X)
#undef X
};

/* HK_ERROR_NO_DEVICE where there is no loader or no driver; HK_ERROR_UNSUPPORTED where validation is asked for and its layer
   is not installed. The struct must stay where it is while the instance is open. */
hk_status vk_instance_open(struct vk_instance *instance, bool validate);
void vk_instance_close(struct vk_instance *instance);

/* Sets *devices (to be freed) to those that offer Vulkan 1.3, in the loader's order. */
hk_status vk_instance_devices(const struct vk_instance *instance, VkPhysicalDevice **devices, int *count);

/* Fills the table of device functions. */
void vk_instance_load_device(const struct vk_instance *instance, VkDevice device, struct VolkDeviceTable *table);

/* What a physical device says of itself. */
struct vk_physical {
    VkPhysicalDevice handle;
    VkPhysicalDeviceProperties2 properties;
    VkPhysicalDeviceVulkan11Properties properties11;
    VkPhysicalDeviceVulkan12Properties properties12;
    VkPhysicalDeviceVulkan13Properties properties13;
    VkPhysicalDeviceFeatures2 features;
    VkPhysicalDeviceVulkan11Features features11;
    VkPhysicalDeviceVulkan12Features features12;
    VkPhysicalDeviceVulkan13Features features13;
    VkPhysicalDeviceMemoryProperties memory;
    int direct_type;   /* memory type that kernels use at full speed and the host can map; -1: none */
    uint32_t heap;     /* the largest device-local one */
    bool has_budget;   /* VK_EXT_memory_budget */
    bool portability;  /* VK_KHR_portability_subset: must be enabled */
    bool executable_properties; /* VK_KHR_pipeline_executable_properties, with its feature */
    bool cooperative_matrix, cooperative_matrix2, bfloat16; /* by the extensions' names */
    bool nv_processors, amd_processors, arm_processors;     /* the same, of those that count them */
    uint32_t processors;                                    /* compute units; 0: nobody says */
    struct hk_cooperative cooperative[HK_MAX_COOPERATIVE];  /* those that kernels may use */
    int n_cooperative;
    uint32_t cooperative_largest; /* m, n and k of a workgroup's */
    bool uses_bfloat16, uses_workgroups; /* whether some are of bf16, and a workgroup's */
};
hk_status vk_physical_query(const struct vk_instance *instance, VkPhysicalDevice handle, struct vk_physical *physical);
void vk_physical_describe(const struct vk_instance *instance, const struct vk_physical *physical, int index,
                          struct hk_device_info *info);

/* cooperative.c: fills physical->cooperative; features that use it are linked in front of next, in the room given, and the
   names of extensions added (three at most). Returns the new front. */
struct vk_cooperative_features {
    bool none; /* headers may lack all of what follows */
#if defined(VK_KHR_cooperative_matrix)
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
#endif
#if defined(VK_KHR_shader_bfloat16)
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bfloat16;
#endif
#if defined(VK_NV_cooperative_matrix2)
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV workgroup;
#endif
};
hk_status vk_cooperative_query(const struct vk_instance *instance, struct vk_physical *physical);
void *vk_cooperative_enable(const struct vk_physical *physical, struct vk_cooperative_features *room, void *next,
                            const char **extensions, uint32_t *n_extensions);

/* Bytes that can still be allocated, as far as the driver or (for a software device) the system says; held: by us. */
uint64_t vk_physical_memory_free(const struct vk_instance *instance, const struct vk_physical *physical, uint64_t held);

#endif
