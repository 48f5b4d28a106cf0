/* Buffers, each with its own memory. */
#include "vulkan/device.h"
#include <stdlib.h>
#include <string.h>

/* The first memory type of the mask that has all flags; -1: none. */
static int find_type(const struct vk_device *device, uint32_t mask, VkMemoryPropertyFlags flags) {
    const VkPhysicalDeviceMemoryProperties *memory = &device->physical.memory;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++)
        if (mask >> i & 1 && (memory->memoryTypes[i].propertyFlags & flags) == flags) return (int)i;
    return -1;
}

static int kernel_type(const struct vk_device *device, uint32_t mask) {
    const int direct = device->physical.direct_type;
    if (direct >= 0 && mask >> direct & 1) return direct;
    const int local = find_type(device, mask, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    return local >= 0 ? local : find_type(device, mask, 0);
}

static int staging_type(const struct vk_device *device, uint32_t mask) {
    const VkMemoryPropertyFlags mapped = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const int cached = find_type(device, mask, mapped | VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    return cached >= 0 ? cached : find_type(device, mask, mapped);
}

/* Maps what the host can map coherently. */
static VkResult bind(struct vk_device *device, struct vk_buffer *buffer, int type, VkDeviceSize size) {
    const VkMemoryPropertyFlags mapped = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags flags = device->physical.memory.memoryTypes[type].propertyFlags;
    const VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                       .allocationSize = size,
                                       .memoryTypeIndex = (uint32_t)type};
    VkResult result = device->vk.vkAllocateMemory(device->handle, &info, NULL, &buffer->memory);
    if (result != VK_SUCCESS) {
        buffer->memory = VK_NULL_HANDLE;
        return result;
    }
    result = device->vk.vkBindBufferMemory(device->handle, buffer->handle, buffer->memory, 0);
    if (result != VK_SUCCESS || (flags & mapped) != mapped) return result;
    buffer->cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT || device->base.info.software;
    return device->vk.vkMapMemory(device->handle, buffer->memory, 0, VK_WHOLE_SIZE, 0, &buffer->base.host);
}

static hk_status allocation_failed(struct vk_device *device, VkResult result, uint64_t bytes) {
    if (result != VK_ERROR_OUT_OF_DEVICE_MEMORY && result != VK_ERROR_OUT_OF_HOST_MEMORY)
        return vk_fail(device, result, "allocating memory");
    const uint64_t held = device->stats.bytes;
    const uint64_t have = vk_physical_memory_free(&device->instance, &device->physical, held);
    return hk_fail(HK_ERROR_OUT_OF_MEMORY, "need %llu MiB more on %s, but its driver refuses (have about %llu MiB, in use by "
                   "Hekla: %llu MiB)", (unsigned long long)(bytes >> 20) + 1, device->base.info.name,
                   (unsigned long long)(have >> 20), (unsigned long long)(held >> 20));
}

static hk_status allocate(struct vk_device *device, uint64_t bytes, bool staging, struct vk_buffer **out) {
    struct vk_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    buffer->base.bytes = (HK_MAX(bytes, 1) + VK_MEMORY_ALIGN - 1) / VK_MEMORY_ALIGN * VK_MEMORY_ALIGN;
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = buffer->base.bytes,
                                     .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                              VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkResult result = device->vk.vkCreateBuffer(device->handle, &info, NULL, &buffer->handle);
    if (result != VK_SUCCESS) {
        free(buffer);
        return vk_fail(device, result, "creating a buffer");
    }
    VkMemoryRequirements need;
    device->vk.vkGetBufferMemoryRequirements(device->handle, buffer->handle, &need);
    const int type = staging ? staging_type(device, need.memoryTypeBits) : kernel_type(device, need.memoryTypeBits);
    result = type < 0 ? VK_ERROR_FEATURE_NOT_PRESENT : bind(device, buffer, type, need.size);
    if (result != VK_SUCCESS) {
        vk_buffer_free(device, buffer);
        return allocation_failed(device, result, bytes);
    }
    *out = buffer;
    return HK_OK;
}

hk_status vk_staging_create(struct vk_device *device, uint64_t bytes, struct vk_buffer **buffer) {
    return allocate(device, bytes, true, buffer);
}

void vk_buffer_free(struct vk_device *device, struct vk_buffer *buffer) {
    if (!buffer) return;
    device->vk.vkDestroyBuffer(device->handle, buffer->handle, NULL);
    if (buffer->memory) device->vk.vkFreeMemory(device->handle, buffer->memory, NULL); /* unmaps it */
    free(buffer);
}

/* Locked. Refuses what cannot fit before the driver is asked: drivers swap, and software devices get killed. */
static hk_status check_fits(struct vk_device *device, uint64_t bytes) {
    const struct hk_device_info *info = &device->base.info;
    const uint64_t held = device->stats.bytes, limit = device->base.memory_limit;
    const unsigned long long need = bytes, mib = 1 << 20;
    if (bytes > info->max_buffer)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "a buffer of %llu bytes is needed, but the largest that %s makes has %llu bytes",
                       need, info->name, (unsigned long long)info->max_buffer);
    if (limit && (held > limit || bytes > limit - held))
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "need %llu MiB more on %s, have %llu MiB (limit %llu MiB, in use %llu MiB)",
                       need / mib + 1, info->name, (held > limit ? 0 : limit - held) / mib, limit / mib, held / mib);
    const uint64_t free_bytes = vk_physical_memory_free(&device->instance, &device->physical, held);
    if (bytes > free_bytes)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "need %llu MiB more on %s, have %llu MiB (in use by Hekla: %llu MiB)",
                       need / mib + 1, info->name, free_bytes / mib, held / mib);
    return HK_OK;
}

/* Locked. What is added to the bytes asked for is NaN where tests let kernels see it (descriptors.c). */
static hk_status make_zero(struct vk_device *device, struct vk_buffer *buffer, uint64_t bytes) {
    /* across a bus the device fills faster than the host */
    const bool near = device->physical.properties.properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    if (!buffer->base.host || !near) return vk_transfers_fill(device, buffer, 0);
    memset(buffer->base.host, 0, (size_t)buffer->base.bytes);
    const uint64_t words = (bytes + 3) / 4 * 4;
    if (hk_environment_flag("HEKLA_WIDE_BINDINGS"))
        memset((char *)buffer->base.host + words, 0xff, (size_t)(buffer->base.bytes - words));
    return HK_OK;
}

static hk_status create(struct hk_device *d, uint64_t bytes, bool zero, struct hk_buffer **out) {
    struct vk_device *device = vk_device_of(d);
    struct vk_buffer *buffer = NULL;
    hk_status status = vk_lock(device);
    if (status) return status;
    status = check_fits(device, bytes);
    if (!status) status = allocate(device, bytes, false, &buffer);
    if (!status && zero) status = make_zero(device, buffer, bytes);
    if (status) {
        vk_buffer_free(device, buffer);
        vk_unlock(device);
        return status;
    }
    struct hk_stats *stats = &device->stats;
    stats->allocations++;
    stats->bytes += buffer->base.bytes;
    stats->peak_bytes = HK_MAX(stats->peak_bytes, stats->bytes);
    vk_unlock(device);
    *out = &buffer->base;
    return HK_OK;
}

hk_status vk_buffer_create(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer) {
    return create(device, bytes, true, buffer);
}

/* Where tests let kernels see what lies behind the bytes asked for, that is NaN here too. */
hk_status vk_arena_create(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer) {
    return create(device, bytes, hk_environment_flag("HEKLA_WIDE_BINDINGS"), buffer);
}

void vk_buffer_destroy(struct hk_device *d, struct hk_buffer *b) {
    struct vk_device *device = vk_device_of(d);
    if (!b) return;
    pthread_mutex_lock(&device->mutex); /* of a lost device too */
    if (!atomic_load(&device->lost) && vk_submit(device, VK_NULL_HANDLE)) vk_transfers_drop(device); /* they may use it */
    vk_settle(device, device->submitted);
    device->stats.bytes -= b->bytes;
    vk_buffer_free(device, (struct vk_buffer *)b);
    pthread_mutex_unlock(&device->mutex);
}
