/* The queue: submissions on one timeline, waiting for it, and what happens when the device is lost. */
#include "vulkan/device.h"

static const char *result_name(VkResult result) {
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY: return "out of host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY: return "out of device memory";
    case VK_ERROR_TOO_MANY_OBJECTS: return "too many objects";
    case VK_ERROR_INITIALIZATION_FAILED: return "initialization failed";
    case VK_ERROR_FEATURE_NOT_PRESENT: return "a feature is not present";
    case VK_ERROR_EXTENSION_NOT_PRESENT: return "an extension is not present";
    default: return "unexpected result";
    }
}

static hk_status lost(const char *what) {
    return hk_fail(HK_ERROR_DEVICE_LOST, "%s: the driver lost the device; destroy its programs, tensors and the device, open one "
                   "again and resume from the last checkpoint", what);
}

hk_status vk_fail(struct vk_device *device, VkResult result, const char *what) {
    if (result == VK_ERROR_DEVICE_LOST) {
        atomic_store(&device->lost, true);
        hk_remark(HK_LOG_ERROR, "vulkan: %s was lost in %s", device->base.info.name, what);
        return lost(what);
    }
    const bool memory = result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
                        result == VK_ERROR_TOO_MANY_OBJECTS;
    return hk_fail(memory ? HK_ERROR_OUT_OF_MEMORY : HK_ERROR_INTERNAL, "%s on %s: %s (VkResult %d)", what,
                   device->base.info.name, result_name(result), result);
}

hk_status vk_lock(struct vk_device *device) {
    if (atomic_load(&device->lost)) return lost(device->base.info.name);
    pthread_mutex_lock(&device->mutex);
    return HK_OK;
}

void vk_unlock(struct vk_device *device) { pthread_mutex_unlock(&device->mutex); }

hk_status vk_queue_open(struct vk_device *device) {
    device->vk.vkGetDeviceQueue(device->handle, device->family, 0, &device->queue);
    const VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                            .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    const VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    const VkResult result = device->vk.vkCreateSemaphore(device->handle, &info, NULL, &device->timeline);
    if (result == VK_SUCCESS) return HK_OK;
    device->timeline = VK_NULL_HANDLE; /* what a call that failed leaves is undefined: here and elsewhere */
    return vk_fail(device, result, "creating a semaphore");
}

void vk_queue_close(struct vk_device *device) {
    if (device->timeline) device->vk.vkDestroySemaphore(device->handle, device->timeline, NULL);
}

hk_status vk_submit(struct vk_device *device, VkCommandBuffer commands) {
    VkCommandBuffer transfers;
    const uint64_t value = device->submitted + 1;
    const hk_status status = vk_transfers_take(device, &transfers);
    if (status) return status;
    VkCommandBufferSubmitInfo buffers[2];
    uint32_t count = 0;
    if (transfers)
        buffers[count++] = (VkCommandBufferSubmitInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                                       .commandBuffer = transfers};
    if (commands)
        buffers[count++] = (VkCommandBufferSubmitInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                                       .commandBuffer = commands};
    if (!count) return HK_OK;
    const VkSemaphoreSubmitInfo signal = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                          .semaphore = device->timeline,
                                          .value = value,
                                          .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    const VkSubmitInfo2 submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                  .commandBufferInfoCount = count,
                                  .pCommandBufferInfos = buffers,
                                  .signalSemaphoreInfoCount = 1,
                                  .pSignalSemaphoreInfos = &signal};
    const VkResult result = device->vk.vkQueueSubmit2(device->queue, 1, &submit, VK_NULL_HANDLE);
    if (result != VK_SUCCESS) return vk_fail(device, result, "submitting work");
    vk_transfers_submitted(device, value);
    device->submitted = value;
    device->stats.submits++;
    return HK_OK;
}

hk_status vk_wait_value(struct vk_device *device, uint64_t value) {
    if (!value) return HK_OK;
    const VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                      .semaphoreCount = 1,
                                      .pSemaphores = &device->timeline,
                                      .pValues = &value};
    const VkResult result = device->vk.vkWaitSemaphores(device->handle, &info, UINT64_MAX);
    return result == VK_SUCCESS ? HK_OK : vk_fail(device, result, "waiting for the device");
}

void vk_settle(struct vk_device *device, uint64_t value) {
    if (atomic_load(&device->lost) || vk_wait_value(device, value)) device->vk.vkDeviceWaitIdle(device->handle);
}

bool vk_idle(struct vk_device *device) {
    uint64_t value = 0;
    return device->vk.vkGetSemaphoreCounterValue(device->handle, device->timeline, &value) == VK_SUCCESS &&
           value >= device->submitted;
}

hk_status vk_run_begin(struct vk_device *device) { return vk_wait_value(device, device->runs[device->next_run]); }

void vk_run_end(struct vk_device *device) {
    device->runs[device->next_run] = device->submitted;
    device->next_run = (device->next_run + 1) % VK_RUNS_IN_FLIGHT;
}

void vk_full_barrier(struct vk_device *device, VkCommandBuffer commands) {
    const VkMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_2_HOST_BIT,
        .srcAccessMask = VK_ACCESS_2_MEMORY_WRITE_BIT | VK_ACCESS_2_HOST_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_2_HOST_BIT,
        .dstAccessMask = VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT | VK_ACCESS_2_HOST_READ_BIT};
    const VkDependencyInfo dependency = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &barrier};
    device->vk.vkCmdPipelineBarrier2(commands, &dependency);
}
