/* Copies between the host and buffers.

   Direct memory is copied by the host when the device is idle. Everything else goes through a ring of slots, each a part of a
   staging buffer and a command buffer: writes gather in the current slot, which is submitted together with the next program,
   or alone when it is full or somebody waits. So a training loop that writes its batch never waits for the step before. */
#include "vulkan/device.h"
#include <stdlib.h>
#include <string.h>

/* Above this the host reads memory that it does not cache by way of memory that it does. */
enum { UNCACHED_READ_BYTES = 4096 };

static hk_status open_slots(struct vk_device *device) {
    struct vk_transfers *t = &device->transfers;
    VkCommandBuffer commands[VK_SLOTS];
    const VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                              .commandPool = t->pool,
                                              .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                              .commandBufferCount = VK_SLOTS};
    const VkResult result = device->vk.vkAllocateCommandBuffers(device->handle, &info, commands);
    if (result != VK_SUCCESS) return vk_fail(device, result, "allocating command buffers");
    for (int i = 0; i < VK_SLOTS; i++) {
        const uint64_t offset = (uint64_t)i * t->slot_bytes;
        t->slots[i] = (struct vk_slot){
            .commands = commands[i], .host = (char *)t->staging->base.host + offset, .offset = offset};
    }
    return HK_OK;
}

hk_status vk_transfers_open(struct vk_device *device) {
    struct vk_transfers *t = &device->transfers;
    t->slot_bytes = device->physical.direct_type >= 0 ? 1 << 20 : 8 << 20;
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT |
                                                   VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                          .queueFamilyIndex = device->family};
    const VkResult result = device->vk.vkCreateCommandPool(device->handle, &pool, NULL, &t->pool);
    if (result != VK_SUCCESS) {
        t->pool = VK_NULL_HANDLE;
        return vk_fail(device, result, "creating a command pool");
    }
    const hk_status status = vk_staging_create(device, VK_SLOTS * t->slot_bytes, &t->staging);
    return status ? status : open_slots(device);
}

void vk_transfers_close(struct vk_device *device) {
    struct vk_transfers *t = &device->transfers;
    if (t->pool) device->vk.vkDestroyCommandPool(device->handle, t->pool, NULL);
    vk_buffer_free(device, t->staging);
}

/* The slot that gathers commands; where none does, the next one, once the device has done with it. */
static hk_status open_slot(struct vk_device *device, struct vk_slot **out) {
    struct vk_transfers *t = &device->transfers;
    struct vk_slot *slot = &t->slots[t->current];
    *out = slot;
    if (t->open && !t->ended) return HK_OK;
    hk_status status = t->ended ? vk_submit(device, VK_NULL_HANDLE) : HK_OK; /* whose submission failed before */
    *out = slot = &t->slots[t->current];
    if (!status) status = vk_wait_value(device, slot->value);
    if (status) return status;
    const VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                           .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    const VkResult result = device->vk.vkBeginCommandBuffer(slot->commands, &info);
    if (result != VK_SUCCESS) return vk_fail(device, result, "beginning a command buffer");
    slot->used = 0;
    t->open = true;
    return HK_OK;
}

hk_status vk_transfers_take(struct vk_device *device, VkCommandBuffer *commands) {
    struct vk_transfers *t = &device->transfers;
    struct vk_slot *slot = &t->slots[t->current];
    *commands = VK_NULL_HANDLE;
    if (!t->open) return HK_OK;
    if (!t->ended) {
        vk_full_barrier(device, slot->commands);
        const VkResult result = device->vk.vkEndCommandBuffer(slot->commands);
        if (result != VK_SUCCESS) {
            vk_transfers_drop(device);
            return vk_fail(device, result, "ending a command buffer of writes that are now missing: the device counts as lost");
        }
        t->ended = true;
    }
    *commands = slot->commands;
    return HK_OK;
}

void vk_transfers_submitted(struct vk_device *device, uint64_t value) {
    struct vk_transfers *t = &device->transfers;
    if (!t->open) return;
    t->slots[t->current].value = value;
    t->current = (t->current + 1) % VK_SLOTS;
    t->open = t->ended = false;
}

void vk_transfers_drop(struct vk_device *device) {
    struct vk_transfers *t = &device->transfers;
    if (!t->open) return;
    t->open = t->ended = false;
    atomic_store(&device->lost, true);
}

hk_status vk_transfers_fill(struct vk_device *device, struct vk_buffer *buffer, uint32_t word) {
    struct vk_slot *slot;
    const hk_status status = open_slot(device, &slot);
    if (status) return status;
    vk_full_barrier(device, slot->commands);
    device->vk.vkCmdFillBuffer(slot->commands, buffer->handle, 0, VK_WHOLE_SIZE, word);
    return HK_OK;
}

hk_status vk_poison(struct hk_device *d, struct hk_buffer *buffer) {
    struct vk_device *device = vk_device_of(d);
    hk_status status = vk_lock(device);
    if (status) return status;
    status = vk_transfers_fill(device, (struct vk_buffer *)buffer, UINT32_MAX);
    vk_unlock(device);
    return status;
}

/* Locked. Copies between the buffer and the slot's next bytes, after all that is before; *host is where they are. */
static hk_status add_copy(struct vk_device *device, struct vk_buffer *buffer, uint64_t offset, uint64_t bytes, bool to_buffer,
                          char **host) {
    struct vk_slot *slot;
    const hk_status status = open_slot(device, &slot);
    if (status) return status;
    const VkBuffer staging = device->transfers.staging->handle;
    const VkDeviceSize at = slot->offset + slot->used;
    const VkBufferCopy region = {.srcOffset = to_buffer ? at : offset, .dstOffset = to_buffer ? offset : at, .size = bytes};
    vk_full_barrier(device, slot->commands);
    device->vk.vkCmdCopyBuffer(slot->commands, to_buffer ? staging : buffer->handle, to_buffer ? buffer->handle : staging, 1,
                               &region);
    *host = slot->host + slot->used;
    slot->used += (bytes + 15) / 16 * 16;
    return HK_OK;
}

/* Locked. Bytes that the current slot can still take; submits it where it is full. */
static hk_status slot_room(struct vk_device *device, uint64_t *room) {
    const struct vk_transfers *t = &device->transfers;
    const uint64_t used = t->open && !t->ended ? t->slots[t->current].used : 0;
    *room = t->slot_bytes - used;
    if (*room) return HK_OK;
    *room = t->slot_bytes;
    return vk_submit(device, VK_NULL_HANDLE);
}

static hk_status write_staged(struct vk_device *device, struct vk_buffer *buffer, uint64_t offset, const char *data,
                              uint64_t bytes) {
    while (bytes) {
        uint64_t room;
        char *host;
        hk_status status = slot_room(device, &room);
        if (status) return status;
        const uint64_t part = HK_MIN(bytes, room);
        status = add_copy(device, buffer, offset, part, true, &host);
        if (status) return status;
        memcpy(host, data, (size_t)part);
        offset += part, data += part, bytes -= part;
    }
    return HK_OK;
}

static hk_status read_staged(struct vk_device *device, struct vk_buffer *buffer, uint64_t offset, char *data, uint64_t bytes) {
    while (bytes) {
        const uint64_t part = HK_MIN(bytes, device->transfers.slot_bytes);
        char *host;
        hk_status status = vk_submit(device, VK_NULL_HANDLE); /* begin with an empty slot */
        if (!status) status = add_copy(device, buffer, offset, part, false, &host);
        if (!status) status = vk_submit(device, VK_NULL_HANDLE);
        if (!status) status = vk_wait_value(device, device->submitted);
        if (status) return status;
        memcpy(data, host, (size_t)part);
        offset += part, data += part, bytes -= part;
    }
    return HK_OK;
}

static hk_status check_range(const struct hk_buffer *buffer, uint64_t offset, uint64_t bytes) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return HK_OK;
    return hk_fail(HK_ERROR_INTERNAL, "a copy of %llu bytes at %llu leaves a buffer of %llu bytes", (unsigned long long)bytes,
                   (unsigned long long)offset, (unsigned long long)buffer->bytes);
}

hk_status vk_write(struct hk_device *d, struct hk_buffer *b, uint64_t offset, const void *data, uint64_t bytes) {
    struct vk_device *device = vk_device_of(d);
    struct vk_buffer *buffer = (struct vk_buffer *)b;
    hk_status status = check_range(b, offset, bytes);
    if (!bytes || status) return status;
    status = vk_lock(device);
    if (status) return status;
    bool direct = b->host && !device->transfers.open && vk_idle(device);
    if (!direct && b->host && bytes > device->transfers.slot_bytes) { /* waiting is cheaper than many slots */
        status = vk_submit(device, VK_NULL_HANDLE);
        if (!status) status = vk_wait_value(device, device->submitted);
        direct = true;
    }
    if (!status && direct) memcpy((char *)b->host + offset, data, (size_t)bytes);
    else if (!status) status = write_staged(device, buffer, offset, data, bytes);
    vk_unlock(device);
    return status;
}

hk_status vk_read(struct hk_device *d, struct hk_buffer *b, uint64_t offset, void *data, uint64_t bytes) {
    struct vk_device *device = vk_device_of(d);
    struct vk_buffer *buffer = (struct vk_buffer *)b;
    hk_status status = check_range(b, offset, bytes);
    if (!bytes || status) return status;
    status = vk_lock(device);
    if (status) return status;
    if (!b->host || (!buffer->cached && bytes > UNCACHED_READ_BYTES)) {
        status = read_staged(device, buffer, offset, data, bytes);
        vk_unlock(device);
        return status;
    }
    status = vk_submit(device, VK_NULL_HANDLE);
    const uint64_t value = device->submitted;
    vk_unlock(device); /* others may go on while we wait */
    if (!status) status = vk_wait_value(device, value);
    if (!status) memcpy(data, (const char *)b->host + offset, (size_t)bytes);
    return status;
}
