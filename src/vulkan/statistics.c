/* What a driver's compiler says of a pipeline (VK_KHR_pipeline_executable_properties), under names of our own. */
#include "vulkan/device.h"
#include <stdlib.h>
#include <string.h>

const char *const vk_statistic_names[VK_STATISTICS] = {
    [VK_STATISTIC_REGISTERS] = "registers",       [VK_STATISTIC_SCALARS] = "scalar_registers",
    [VK_STATISTIC_SPILLS] = "spills",             [VK_STATISTIC_SCRATCH] = "scratch",
    [VK_STATISTIC_SHARED] = "shared",             [VK_STATISTIC_INSTRUCTIONS] = "instructions",
    [VK_STATISTIC_OCCUPANCY] = "occupancy",       [VK_STATISTIC_LATENCY] = "latency",
    [VK_STATISTIC_THROUGHPUT] = "inverse_throughput",
};

enum { HONEYKRISP = 26 }; /* VK_DRIVER_ID_MESA_HONEYKRISP, which older headers lack */

/* Drivers' names. What several rows of a driver call the same is added up.
   Registers are 32 bits an invocation, but on Turnip four times that, on Honeykrisp half of that. Occupancy is in
   subgroups, but on Honeykrisp in invocations. */
static const struct {
    int driver; /* VkDriverId */
    const char *name;
    enum vk_statistic ours;
} names[] = {
    {VK_DRIVER_ID_MESA_RADV, "VGPRs", VK_STATISTIC_REGISTERS},
    {VK_DRIVER_ID_MESA_RADV, "SGPRs", VK_STATISTIC_SCALARS},
    {VK_DRIVER_ID_MESA_RADV, "Spilled VGPRs", VK_STATISTIC_SPILLS},
    {VK_DRIVER_ID_MESA_RADV, "Spilled SGPRs", VK_STATISTIC_SPILLS},
    {VK_DRIVER_ID_MESA_RADV, "Scratch size", VK_STATISTIC_SCRATCH},
    {VK_DRIVER_ID_MESA_RADV, "LDS size", VK_STATISTIC_SHARED},
    {VK_DRIVER_ID_MESA_RADV, "Instructions", VK_STATISTIC_INSTRUCTIONS},
    {VK_DRIVER_ID_MESA_RADV, "Subgroups per SIMD", VK_STATISTIC_OCCUPANCY},
    {VK_DRIVER_ID_MESA_RADV, "Latency", VK_STATISTIC_LATENCY},
    {VK_DRIVER_ID_MESA_RADV, "Inverse Throughput", VK_STATISTIC_THROUGHPUT},
    {VK_DRIVER_ID_MESA_NVK, "Number of GPRs", VK_STATISTIC_REGISTERS},
    {VK_DRIVER_ID_MESA_NVK, "Spills to memory", VK_STATISTIC_SPILLS},
    {VK_DRIVER_ID_MESA_NVK, "SLM size", VK_STATISTIC_SCRATCH},
    {VK_DRIVER_ID_MESA_NVK, "Instruction count", VK_STATISTIC_INSTRUCTIONS},
    {VK_DRIVER_ID_MESA_NVK, "Max warps/SM", VK_STATISTIC_OCCUPANCY},
    {VK_DRIVER_ID_MESA_NVK, "Static cycle count", VK_STATISTIC_THROUGHPUT},
    {VK_DRIVER_ID_MESA_TURNIP, "Registers used", VK_STATISTIC_REGISTERS},
    {VK_DRIVER_ID_MESA_TURNIP, "STP Count", VK_STATISTIC_SPILLS},
    {VK_DRIVER_ID_MESA_TURNIP, "Instruction Count", VK_STATISTIC_INSTRUCTIONS},
    {VK_DRIVER_ID_MESA_TURNIP, "Max Waves Per Core", VK_STATISTIC_OCCUPANCY},
    {VK_DRIVER_ID_MESA_TURNIP, "Estimated cycles stalled on SS", VK_STATISTIC_LATENCY},
    {VK_DRIVER_ID_MESA_TURNIP, "Estimated cycles stalled on SY", VK_STATISTIC_LATENCY},
    {HONEYKRISP, "GPRs", VK_STATISTIC_REGISTERS},
    {HONEYKRISP, "Spills", VK_STATISTIC_SPILLS},
    {HONEYKRISP, "Scratch", VK_STATISTIC_SCRATCH},
    {HONEYKRISP, "Instructions", VK_STATISTIC_INSTRUCTIONS},
    {HONEYKRISP, "Threads", VK_STATISTIC_OCCUPANCY},
    {HONEYKRISP, "ALU", VK_STATISTIC_THROUGHPUT},
};

static int find_name(int driver, const char *name) {
    for (size_t i = 0; i < HK_LENGTH(names); i++)
        if (names[i].driver == driver && !strcmp(names[i].name, name)) return (int)i;
    return -1;
}

static double value_of(const VkPipelineExecutableStatisticKHR *s) {
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: return s->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: return (double)s->value.u64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR: return s->value.f64;
    default: return -1;
    }
}

static void read_executable(struct vk_device *device, VkPipeline pipeline, uint32_t executable,
                            struct vk_statistics *statistics) {
    const int driver = (int)device->physical.properties12.driverID;
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = pipeline,
                                               .executableIndex = executable};
    uint32_t count = 0;
    if (device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &count, NULL) != VK_SUCCESS) return;
    VkPipelineExecutableStatisticKHR *list = calloc(count + 1, sizeof *list);
    if (!list) return;
    for (uint32_t i = 0; i < count; i++) list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    if (device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &count, list) != VK_SUCCESS) count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int row = find_name(driver, list[i].name);
        if (row < 0) continue;
        double *value = &statistics->value[names[row].ours];
        *value = value_of(&list[i]) + HK_MAX(*value, 0);
    }
    free(list);
}

void vk_statistics_read(struct vk_device *device, VkPipeline pipeline, struct vk_statistics *statistics) {
    for (int i = 0; i < VK_STATISTICS; i++) statistics->value[i] = -1;
    if (!device->captures_statistics) return;
    const VkPipelineInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = pipeline};
    uint32_t count = 0;
    if (device->vk.vkGetPipelineExecutablePropertiesKHR(device->handle, &which, &count, NULL) != VK_SUCCESS) return;
    for (uint32_t i = 0; i < count; i++) read_executable(device, pipeline, i, statistics);
}
