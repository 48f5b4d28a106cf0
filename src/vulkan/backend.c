/* Opening, listing and closing Vulkan devices, and the backend's table. */
#include "vulkan/device.h"
#include "graph/tuning.h"
#include "vulkan/tune.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Choices ---- */

/* A queue for compute alone, which leaves the desktop its own, or else any that computes. */
static bool choose_family(const struct vk_device *device, uint32_t *family) {
    VkQueueFamilyProperties families[16];
    uint32_t count = HK_LENGTH(families);
    bool found = false;
    device->instance.vkGetPhysicalDeviceQueueFamilyProperties(device->physical.handle, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)) continue;
        const bool alone = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (!found || alone) *family = i;
        found = true;
        if (alone) break;
    }
    return found;
}

/* HEKLA_MAX_BINDING=bytes makes small tensors be bound in windows, for tests. */
static uint64_t max_range(const struct vk_device *device) {
    const char *text = getenv("HEKLA_MAX_BINDING");
    const uint64_t device_range = HK_MIN(device->base.info.max_binding, UINT32_MAX - 3) - VK_MEMORY_ALIGN;
    const uint64_t asked = text ? strtoull(text, NULL, 10) / 4 * 4 : 0;
    return asked ? HK_MIN(HK_MAX(asked, 8192), device_range) : device_range / 4 * 4;
}

/* HEKLA_GPU_PROCESSORS=number instead, for tests. */
static uint32_t count_processors(const struct vk_device *device) {
    const char *text = getenv("HEKLA_GPU_PROCESSORS");
    if (text) return HK_MAX(1, (uint32_t)strtoul(text, NULL, 10));
    const VkPhysicalDeviceType type = device->physical.properties.properties.deviceType;
    if (type == VK_PHYSICAL_DEVICE_TYPE_CPU) return (uint32_t)HK_MAX(1, sysconf(_SC_NPROCESSORS_ONLN));
    if (device->physical.processors) return device->physical.processors;
    return type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU ? 48 : 8;
}

/* By driver: GPUs for phones have few; those of Intel and Apple, and of AMD before RDNA (which has subgroups of 32), have few for
   as many invocations as they need. HEKLA_GPU_REGISTERS=number instead, for tests. */
static uint32_t count_registers(const struct vk_device *device) {
    const char *text = getenv("HEKLA_GPU_REGISTERS");
    static const struct {
        int driver; /* VkDriverId */
        uint32_t registers, least_subgroup, least_device;
    } drivers[] = {
        {VK_DRIVER_ID_QUALCOMM_PROPRIETARY, 64, 0, 0},
        {VK_DRIVER_ID_MESA_TURNIP, 96, 0, 0x7010000}, /* Adreno 700: half as many again; but the 702 is of the 600s */
        {VK_DRIVER_ID_MESA_TURNIP, 64, 0, 0},
        {VK_DRIVER_ID_ARM_PROPRIETARY, 64, 0, 0},
        {VK_DRIVER_ID_MESA_PANVK, 64, 0, 0},
        {VK_DRIVER_ID_IMAGINATION_PROPRIETARY, 64, 0, 0},
        {VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, 128, 0, 0},
        {VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, 128, 0, 0},
        {VK_DRIVER_ID_MOLTENVK, 128, 0, 0},
        {26 /* VK_DRIVER_ID_MESA_HONEYKRISP, which older headers lack */, 128, 0, 0},
        {VK_DRIVER_ID_MESA_RADV, 128, 64, 0},
        {VK_DRIVER_ID_AMD_PROPRIETARY, 128, 64, 0},
        {VK_DRIVER_ID_AMD_OPEN_SOURCE, 128, 64, 0},
    };
    if (text) return (uint32_t)strtoul(text, NULL, 10);
    for (size_t i = 0; i < HK_LENGTH(drivers); i++)
        if ((int)device->physical.properties12.driverID == drivers[i].driver &&
            device->physical.properties13.minSubgroupSize >= drivers[i].least_subgroup &&
            device->base.info.device_id >= drivers[i].least_device)
            return drivers[i].registers;
    return 256;
}

/* HEKLA_GPU_KERNELS=1 makes a software device run the kernels that are made for hardware, for tests. */
static bool runs_on_processor(const struct vk_device *device) {
    const char *text = getenv("HEKLA_GPU_KERNELS");
    return device->base.info.software && !(text && !strcmp(text, "1"));
}

/* A range that a binding may cover leaves room for rounding its start down. */
static void set_limits(struct vk_device *device) {
    const struct hk_device_info *info = &device->base.info;
    const VkPhysicalDeviceLimits *limits = &device->physical.properties.properties.limits;
    const uint32_t *groups = limits->maxComputeWorkGroupCount;
    device->binding_align = (uint32_t)HK_MAX(limits->minStorageBufferOffsetAlignment, 4);
    device->limits = (struct hk_limits){.max_range = max_range(device),
                                        .offset_align = device->binding_align,
                                        .max_invocations = info->max_workgroup,
                                        .shared_memory = info->shared_memory,
                                        .subgroup_size = info->subgroup_size,
                                        .max_groups = HK_MIN(groups[0], HK_MIN(groups[1], groups[2])),
                                        .processors = count_processors(device),
                                        .registers = count_registers(device),
                                        .amd = info->vendor_id == 0x1002,
                                        .float16 = info->float16,
                                        .storage16 = info->storage16,
                                        .n_cooperative = device->physical.n_cooperative,
                                        .cooperative_subgroup = device->physical.properties13.minSubgroupSize,
                                        .cooperative_largest = device->physical.cooperative_largest,
                                        .software = runs_on_processor(device)};
    memcpy(device->limits.cooperative, device->physical.cooperative, sizeof device->limits.cooperative);
    if (device->base.fusing && !device->limits.software) device->limits.writes_matrices = vk_writes_matrices;
    device->base.limits = &device->limits;
}

/* Rates that all but the slowest devices of a kind exceed, so that a submission ends well before a watchdog (two seconds on
   Windows, ten on Linux) looks at it. Software devices have none. */
static void set_rates(struct vk_device *device) {
    const VkPhysicalDeviceType type = device->physical.properties.properties.deviceType;
    const bool discrete = type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    device->flops_rate = discrete ? 1e12 : 1e11;
    device->bytes_rate = discrete ? 5e10 : 1e10;
    device->submission_seconds = 0.1;
    if (type != VK_PHYSICAL_DEVICE_TYPE_CPU) return;
    device->flops_rate = 5e9;
    device->bytes_rate = 2e9;
    device->submission_seconds = 20;
}

/* ---- Opening ---- */

/* What kernels may use, as far as the device has it. */
static hk_status create_device(struct vk_device *device) {
    const struct vk_physical *p = &device->physical;
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = device->family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE};
    const char *extensions[5];
    uint32_t n_extensions = 0;
    struct vk_cooperative_features cooperative;
    void *const more = device->captures_statistics ? &executable : NULL;
    VkPhysicalDeviceVulkan13Features features13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
                                                   .pNext = vk_cooperative_enable(p, &cooperative, more, extensions,
                                                                                  &n_extensions),
                                                   .synchronization2 = VK_TRUE,
                                                   .maintenance4 = VK_TRUE,
                                                   .subgroupSizeControl = p->features13.subgroupSizeControl,
                                                   .computeFullSubgroups = p->features13.computeFullSubgroups,
                                                   .shaderIntegerDotProduct = p->features13.shaderIntegerDotProduct};
    VkPhysicalDeviceVulkan12Features features12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                                   .pNext = &features13,
                                                   .timelineSemaphore = VK_TRUE,
                                                   .bufferDeviceAddress = p->features12.bufferDeviceAddress,
                                                   .storageBuffer8BitAccess = p->features12.storageBuffer8BitAccess,
                                                   .shaderFloat16 = p->features12.shaderFloat16,
                                                   .shaderInt8 = p->features12.shaderInt8,
                                                   .vulkanMemoryModel = p->features12.vulkanMemoryModel};
    VkPhysicalDeviceVulkan11Features features11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
                                                   .pNext = &features12,
                                                   .storageBuffer16BitAccess = p->features11.storageBuffer16BitAccess};
    const VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                                .pNext = &features11,
                                                .features = {.shaderInt16 = p->features.features.shaderInt16,
                                                             .shaderInt64 = p->features.features.shaderInt64}};
    if (p->portability) extensions[n_extensions++] = "VK_KHR_portability_subset";
    if (device->captures_statistics) extensions[n_extensions++] = "VK_KHR_pipeline_executable_properties";
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = n_extensions,
                                     .ppEnabledExtensionNames = extensions};
    const VkResult result = device->instance.vkCreateDevice(p->handle, &info, NULL, &device->handle);
    if (result == VK_SUCCESS) return HK_OK;
    device->handle = VK_NULL_HANDLE;
    return vk_fail(device, result, "opening the device");
}

static hk_status find_physical(struct vk_device *device, int index) {
    VkPhysicalDevice *devices;
    int count;
    hk_status status = vk_instance_devices(&device->instance, &devices, &count);
    if (!status && (index < 0 || index >= count))
        status = hk_fail(HK_ERROR_NO_DEVICE, "no Vulkan device %d: this machine has %d with Vulkan 1.3", index, count);
    if (!status) status = vk_physical_query(&device->instance, devices[index], &device->physical);
    if (!status) vk_physical_describe(&device->instance, &device->physical, index, &device->base.info);
    free(devices);
    return status;
}

static void close_device(struct hk_device *d) {
    struct vk_device *device = vk_device_of(d);
    if (device->handle) {
        device->vk.vkDeviceWaitIdle(device->handle);
        vk_cache_save(device);
        vk_profile_close(device);
        vk_pipelines_close(device);
        vk_written_free(device);
        vk_transfers_close(device);
        vk_queue_close(device);
        device->vk.vkDestroyDevice(device->handle, NULL);
    }
    hk_tunings_close(device->base.tunings);
    vk_instance_close(&device->instance);
    pthread_mutex_destroy(&device->mutex);
    free(device);
}

static hk_status open_parts(struct vk_device *device, const struct hk_device_params *params, int index) {
    hk_status status = vk_instance_open(&device->instance, params->validate || hk_environment_flag("HEKLA_VALIDATE"));
    if (!status) status = find_physical(device, index);
    if (status) return status;
    if (!choose_family(device, &device->family))
        return hk_fail(HK_ERROR_UNSUPPORTED, "%s has no queue that computes", device->base.info.name);
    set_limits(device);
    set_rates(device);
    device->captures_statistics = params->profile && device->physical.executable_properties;
    status = create_device(device);
    if (status) return status;
    vk_instance_load_device(&device->instance, device->handle, &device->vk);
    status = vk_queue_open(device);
    if (!status) status = vk_transfers_open(device);
    if (!status) status = vk_pipelines_open(device);
    if (!status) status = vk_profile_open(device, params->profile);
    if (!status) vk_cache_open(device, params->cache_dir);
    if (!status) status = vk_tuning_open(device, params);
    return status;
}

hk_status hk_vulkan_open(const struct hk_device_params *params, int index, struct hk_device **out) {
    static const struct hk_device_params defaults;
    struct vk_device *device = calloc(1, sizeof *device);
    *out = NULL;
    if (!device) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    if (!params) params = &defaults;
    pthread_mutex_init(&device->mutex, NULL);
    device->base.backend = &vk_backend;
    device->base.memory_limit = params->memory_limit;
    device->base.poison = hk_environment_flag("HEKLA_POISON");
    if (!hk_environment_flag("HEKLA_UNFUSED") && vk_shaderc_available()) device->base.fusing = HK_FUSE_GLSL;
    const hk_status status = open_parts(device, params, index);
    if (status) close_device((struct hk_device *)device);
    else *out = (struct hk_device *)device;
    return status;
}

hk_status hk_vulkan_list(struct hk_device_info *infos, int capacity, int *count) {
    struct vk_instance instance;
    VkPhysicalDevice *devices = NULL;
    *count = 0;
    hk_status status = vk_instance_open(&instance, false);
    if (status) return status == HK_ERROR_OUT_OF_MEMORY ? status : HK_OK;
    status = vk_instance_devices(&instance, &devices, count);
    for (int i = 0; i < *count && i < capacity && !status; i++) {
        struct vk_physical physical;
        status = vk_physical_query(&instance, devices[i], &physical);
        if (!status) vk_physical_describe(&instance, &physical, i, &infos[i]);
    }
    free(devices);
    vk_instance_close(&instance);
    return status;
}

/* ---- The table ---- */

static hk_status wait_all(struct hk_device *d) {
    struct vk_device *device = vk_device_of(d);
    hk_status status = vk_lock(device);
    if (status) return status;
    status = vk_submit(device, VK_NULL_HANDLE);
    const uint64_t value = device->submitted;
    vk_unlock(device);
    return status ? status : vk_wait_value(device, value);
}

static void get_stats(struct hk_device *d, struct hk_stats *stats) {
    struct vk_device *device = vk_device_of(d);
    pthread_mutex_lock(&device->mutex);
    *stats = device->stats;
    pthread_mutex_unlock(&device->mutex);
    stats->validation_messages = device->instance.messages;
}

const struct hk_backend vk_backend = {
    .name = "vulkan",
    .close = close_device,
    .wait = wait_all,
    .buffer_create = vk_buffer_create,
    .arena_create = vk_arena_create,
    .buffer_destroy = vk_buffer_destroy,
    .write = vk_write,
    .read = vk_read,
    .poison = vk_poison,
    .program_create = vk_program_create,
    .program_run = vk_program_run,
    .program_destroy = vk_program_destroy,
    .stats = get_stats,
    .write_trace = vk_write_trace,
};
