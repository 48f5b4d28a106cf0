/* What a physical device is and can do. */
#include "vulkan/instance.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void query_properties(const struct vk_instance *instance, struct vk_physical *p) {
    p->properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    p->properties11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES;
    p->properties12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
    p->properties13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES;
    p->properties.pNext = &p->properties11;
    p->properties11.pNext = &p->properties12;
    p->properties12.pNext = &p->properties13;
    instance->vkGetPhysicalDeviceProperties2(p->handle, &p->properties);
    p->features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    p->features11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    p->features12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    p->features13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    p->features.pNext = &p->features11;
    p->features11.pNext = &p->features12;
    p->features12.pNext = &p->features13;
    instance->vkGetPhysicalDeviceFeatures2(p->handle, &p->features);
    /* the struct may be copied, and the chains must not lead back here */
    p->properties.pNext = p->properties11.pNext = p->properties12.pNext = NULL;
    p->features.pNext = p->features11.pNext = p->features12.pNext = NULL;
}

/* Newer extensions count by their names: older headers have no structures to ask with. */
static hk_status query_extensions(const struct vk_instance *instance, struct vk_physical *p) {
    const struct {
        const char *name;
        bool *flag;
    } known[] = {{"VK_EXT_memory_budget", &p->has_budget},
                 {"VK_KHR_portability_subset", &p->portability},
                 {"VK_KHR_pipeline_executable_properties", &p->executable_properties},
                 {"VK_KHR_cooperative_matrix", &p->cooperative_matrix},
                 {"VK_NV_cooperative_matrix2", &p->cooperative_matrix2},
                 {"VK_KHR_shader_bfloat16", &p->bfloat16},
                 {"VK_NV_shader_sm_builtins", &p->nv_processors},
                 {"VK_AMD_shader_core_properties", &p->amd_processors},
                 {"VK_ARM_shader_core_builtins", &p->arm_processors}};
    uint32_t count = 0;
    VkResult result = instance->vkEnumerateDeviceExtensionProperties(p->handle, NULL, &count, NULL);
    VkExtensionProperties *list = result == VK_SUCCESS ? calloc(count + 1, sizeof *list) : NULL;
    if (list) result = instance->vkEnumerateDeviceExtensionProperties(p->handle, NULL, &count, list);
    if (!list || result != VK_SUCCESS) {
        free(list);
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of memory while asking for the extensions of %s (VkResult %d)",
                       p->properties.properties.deviceName, result);
    }
    for (uint32_t i = 0; i < count; i++)
        for (size_t k = 0; k < HK_LENGTH(known); k++)
            if (!strcmp(list[i].extensionName, known[k].name)) *known[k].flag = true;
    free(list);
    return HK_OK;
}

/* Memory that the host can map counts as the kernels' own if all of the device's memory can be had that way (resizable BAR,
   unified memory, software devices). */
static void choose_memory(const struct vk_instance *instance, struct vk_physical *p) {
    const VkMemoryPropertyFlags direct = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                         VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    instance->vkGetPhysicalDeviceMemoryProperties2(p->handle, &memory);
    p->memory = memory.memoryProperties;
    VkDeviceSize largest = 0;
    for (uint32_t i = 0; i < p->memory.memoryHeapCount; i++) {
        const VkMemoryHeap *heap = &p->memory.memoryHeaps[i];
        if (heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT && heap->size > largest) largest = heap->size, p->heap = i;
    }
    p->direct_type = -1;
    for (uint32_t i = 0; i < p->memory.memoryTypeCount && p->direct_type < 0; i++) {
        const VkMemoryType *type = &p->memory.memoryTypes[i];
        if ((type->propertyFlags & direct) == direct && p->memory.memoryHeaps[type->heapIndex].size >= largest)
            p->direct_type = (int)i;
    }
}

static void query_executable_properties(const struct vk_instance *instance, struct vk_physical *p) {
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &executable};
    if (p->executable_properties) instance->vkGetPhysicalDeviceFeatures2(p->handle, &features);
    p->executable_properties = executable.pipelineExecutableInfo;
}

/* Vulkan itself has no word for them. */
static void query_processors(const struct vk_instance *instance, struct vk_physical *p) {
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nv = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceShaderCorePropertiesAMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    if (p->nv_processors) nv.pNext = properties.pNext, properties.pNext = &nv;
    if (p->amd_processors) amd.pNext = properties.pNext, properties.pNext = &amd;
#if defined(VK_ARM_shader_core_builtins)
    VkPhysicalDeviceShaderCoreBuiltinsPropertiesARM arm = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_BUILTINS_PROPERTIES_ARM};
    if (p->arm_processors) arm.pNext = properties.pNext, properties.pNext = &arm;
#endif
    if (properties.pNext) instance->vkGetPhysicalDeviceProperties2(p->handle, &properties);
    p->processors = nv.shaderSMCount;
    if (!p->processors) p->processors = amd.shaderEngineCount * amd.shaderArraysPerEngineCount * amd.computeUnitsPerShaderArray;
#if defined(VK_ARM_shader_core_builtins)
    if (!p->processors) p->processors = arm.shaderCoreCount;
#endif
}

hk_status vk_physical_query(const struct vk_instance *instance, VkPhysicalDevice handle, struct vk_physical *physical) {
    *physical = (struct vk_physical){.handle = handle};
    query_properties(instance, physical);
    choose_memory(instance, physical);
    const hk_status status = query_extensions(instance, physical);
    if (status) return status;
    query_executable_properties(instance, physical);
    query_processors(instance, physical);
    return vk_cooperative_query(instance, physical);
}

static bool is_software(const struct vk_physical *p) {
    return p->properties.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

/* A field of /proc/meminfo, which counts in KiB; 0 where there is none. */
static uint64_t system_memory(const char *field) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return 0;
    char line[256];
    unsigned long long kib = 0;
    const size_t length = strlen(field);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, field, length) && sscanf(line + length, " %llu", &kib) == 1) break;
    fclose(file);
    return (uint64_t)kib * 1024;
}

/* Software devices report a constant (lavapipe: 2 GiB), but what they have is the system's memory. */
static uint64_t memory_total(const struct vk_physical *p) {
    const uint64_t system = is_software(p) ? system_memory("MemTotal:") : 0;
    return system ? system : p->memory.memoryHeaps[p->heap].size;
}

uint64_t vk_physical_memory_free(const struct vk_instance *instance, const struct vk_physical *p, uint64_t held) {
    const uint64_t system = is_software(p) ? system_memory("MemAvailable:") : 0;
    if (system) return system;
    if (p->has_budget) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
        VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                                    .pNext = &budget};
        instance->vkGetPhysicalDeviceMemoryProperties2(p->handle, &memory);
        const uint64_t have = budget.heapBudget[p->heap], used = budget.heapUsage[p->heap];
        if (have) return have > used ? have - used : 0;
    }
    const uint64_t size = p->memory.memoryHeaps[p->heap].size;
    return size > held ? size - held : 0;
}

static void describe_identity(const struct vk_physical *p, struct hk_device_info *info) {
    const VkPhysicalDeviceProperties *core = &p->properties.properties;
    const uint32_t numbers[] = {core->vendorID, core->deviceID, core->driverVersion, core->apiVersion};
    uint64_t hash[2];
    for (uint64_t i = 0; i < 2; i++) {
        hash[i] = hk_hash(p->properties11.deviceUUID, VK_UUID_SIZE, i * 0x9e3779b97f4a7c15u);
        hash[i] = hk_hash(p->properties11.driverUUID, VK_UUID_SIZE, hash[i]);
        hash[i] = hk_hash(core->pipelineCacheUUID, VK_UUID_SIZE, hash[i]);
        hash[i] = hk_hash(numbers, sizeof numbers, hash[i]);
        hash[i] = hk_hash(core->deviceName, strlen(core->deviceName), hash[i]);
    }
    memcpy(info->uuid, hash, sizeof info->uuid);
    snprintf(info->name, sizeof info->name, "%s", core->deviceName);
    const int half = (int)sizeof info->driver / 2 - 2;
    const char *name = p->properties12.driverName, *more = p->properties12.driverInfo;
    snprintf(info->driver, sizeof info->driver, "%.*s%s%.*s", half, name, *more ? " " : "", half, more);
    info->api_version = core->apiVersion;
    info->vendor_id = core->vendorID;
    info->device_id = core->deviceID;
}

void vk_physical_describe(const struct vk_instance *instance, const struct vk_physical *p, int index,
                          struct hk_device_info *info) {
    const VkPhysicalDeviceLimits *limits = &p->properties.properties.limits;
    *info = (struct hk_device_info){
        .kind = HK_DEVICE_VULKAN,
        .index = index,
        .software = is_software(p),
        .unified_memory = p->direct_type >= 0,
        .memory_total = memory_total(p),
        .memory_free = vk_physical_memory_free(instance, p, 0),
        .max_binding = limits->maxStorageBufferRange,
        .max_buffer = HK_MIN(p->properties11.maxMemoryAllocationSize, p->properties13.maxBufferSize) / 256 * 256,
        .subgroup_size = p->properties11.subgroupSize,
        .max_workgroup = HK_MIN(limits->maxComputeWorkGroupInvocations, limits->maxComputeWorkGroupSize[0]),
        .shared_memory = limits->maxComputeSharedMemorySize,
        .float16 = p->features12.shaderFloat16,
        .bfloat16 = p->bfloat16,
        .storage16 = p->features11.storageBuffer16BitAccess,
        .int8_dot = p->properties13.integerDotProduct4x8BitPackedSignedAccelerated,
        .cooperative_matrix = p->cooperative_matrix,
        .cooperative_matrix2 = p->cooperative_matrix2,
    };
    describe_identity(p, info);
}
