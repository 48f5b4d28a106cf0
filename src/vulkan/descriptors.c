/* Descriptor sets of a program: made once, never written again. */
#include "vulkan/record.h"
#include <stdlib.h>

/* Which launches are the first to bind what they bind, by a hash table of their indices + 1. */
struct set_table {
    int *slots;
    uint32_t mask;
    int *first;    /* of each distinct set: the launch */
    int *set_of;   /* of each launch: its set; -1: binds nothing */
    int n_sets;
    uint32_t n_descriptors;
};

static bool same_bindings(const struct hk_dispatch *a, const struct hk_dispatch *b) {
    if (a->n_bindings != b->n_bindings) return false;
    for (int i = 0; i < a->n_bindings; i++) {
        const struct hk_binding *x = &a->bindings[i], *y = &b->bindings[i];
        if (x->buffer != y->buffer || x->offset != y->offset || x->bytes != y->bytes) return false;
    }
    return true;
}

static uint64_t hash_bindings(const struct hk_dispatch *d) {
    uint64_t hash = (uint64_t)d->n_bindings;
    for (int i = 0; i < d->n_bindings; i++) {
        const uint64_t key[3] = {(uintptr_t)d->bindings[i].buffer, d->bindings[i].offset, d->bindings[i].bytes};
        hash = hk_hash(key, sizeof key, hash);
    }
    return hash;
}

static void find_sets(struct set_table *t, const struct vk_launches *launches) {
    for (int i = 0; i < launches->count; i++) {
        const struct hk_dispatch *d = &launches->items[i].dispatch;
        t->set_of[i] = -1;
        if (!d->n_bindings) continue;
        uint32_t slot = (uint32_t)hash_bindings(d) & t->mask;
        for (; t->slots[slot]; slot = (slot + 1) & t->mask) {
            const int set = t->slots[slot] - 1;
            if (!same_bindings(d, &launches->items[t->first[set]].dispatch)) continue;
            t->set_of[i] = set;
            break;
        }
        if (t->set_of[i] >= 0) continue;
        t->set_of[i] = t->n_sets;
        t->first[t->n_sets++] = i;
        t->slots[slot] = t->n_sets;
        t->n_descriptors += (uint32_t)d->n_bindings;
    }
}

static hk_status allocate_sets(struct vk_device *device, const struct set_table *t, const struct vk_launches *launches,
                               VkDescriptorPool pool, VkDescriptorSet *sets) {
    VkDescriptorSetLayout *layouts = calloc((size_t)t->n_sets, sizeof *layouts);
    if (!layouts) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    for (int i = 0; i < t->n_sets; i++)
        layouts[i] = device->pipelines.sets[launches->items[t->first[i]].dispatch.n_bindings];
    const VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                              .descriptorPool = pool,
                                              .descriptorSetCount = (uint32_t)t->n_sets,
                                              .pSetLayouts = layouts};
    const VkResult result = device->vk.vkAllocateDescriptorSets(device->handle, &info, sets);
    free(layouts);
    return result == VK_SUCCESS ? HK_OK : vk_fail(device, result, "allocating descriptor sets");
}

/* HEKLA_WIDE_BINDINGS=1 lets kernels see what lies behind a binding, in its buffer: where drivers check bounds, what a
   kernel reads or writes there would have no effect, and tests would not notice. */
static uint64_t seen_bytes(const struct vk_device *device, const struct hk_binding *b, bool wide) {
    return wide ? HK_MIN(b->buffer->bytes - b->offset, device->base.info.max_binding) : b->bytes;
}

static hk_status write_sets(struct vk_device *device, const struct set_table *t, const struct vk_launches *launches,
                            const VkDescriptorSet *sets) {
    VkWriteDescriptorSet *writes = calloc((size_t)t->n_sets, sizeof *writes);
    VkDescriptorBufferInfo *buffers = calloc(t->n_descriptors, sizeof *buffers), *next = buffers;
    const bool wide = hk_environment_flag("HEKLA_WIDE_BINDINGS");
    if (writes && buffers) {
        for (int i = 0; i < t->n_sets; i++) {
            const struct hk_dispatch *d = &launches->items[t->first[i]].dispatch;
            writes[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                               .dstSet = sets[i],
                                               .descriptorCount = (uint32_t)d->n_bindings,
                                               .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                               .pBufferInfo = next};
            for (int b = 0; b < d->n_bindings; b++)
                *next++ = (VkDescriptorBufferInfo){.buffer = ((struct vk_buffer *)d->bindings[b].buffer)->handle,
                                                   .offset = d->bindings[b].offset,
                                                   .range = seen_bytes(device, &d->bindings[b], wide)};
        }
        device->vk.vkUpdateDescriptorSets(device->handle, (uint32_t)t->n_sets, writes, 0, NULL);
    }
    const bool done = writes && buffers;
    free(writes);
    free(buffers);
    return done ? HK_OK : hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
}

static hk_status make_sets(struct vk_device *device, const struct set_table *t, struct vk_launches *launches,
                           VkDescriptorPool *pool) {
    const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, t->n_descriptors};
    const VkDescriptorPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                             .maxSets = (uint32_t)t->n_sets,
                                             .poolSizeCount = 1,
                                             .pPoolSizes = &size};
    const VkResult result = device->vk.vkCreateDescriptorPool(device->handle, &info, NULL, pool);
    if (result != VK_SUCCESS) {
        *pool = VK_NULL_HANDLE;
        return vk_fail(device, result, "creating a descriptor pool");
    }
    VkDescriptorSet *sets = calloc((size_t)t->n_sets, sizeof *sets);
    if (!sets) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    hk_status status = allocate_sets(device, t, launches, *pool, sets);
    if (!status) status = write_sets(device, t, launches, sets);
    for (int i = 0; i < launches->count && !status; i++)
        if (t->set_of[i] >= 0) launches->items[i].set = sets[t->set_of[i]];
    free(sets);
    return status;
}

hk_status vk_descriptors_make(struct vk_device *device, struct vk_launches *launches, VkDescriptorPool *pool, uint64_t *writes) {
    const size_t count = (size_t)launches->count + 1;
    struct set_table t = {.mask = 15};
    while (t.mask < 2 * count) t.mask = 2 * t.mask + 1;
    t.slots = calloc((size_t)t.mask + 1, sizeof *t.slots);
    t.first = calloc(count, sizeof *t.first);
    t.set_of = calloc(count, sizeof *t.set_of);
    hk_status status = HK_OK;
    if (t.slots && t.first && t.set_of) {
        find_sets(&t, launches);
        if (t.n_sets) status = make_sets(device, &t, launches, pool);
    } else {
        status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    }
    *writes = t.n_descriptors;
    free(t.slots);
    free(t.first);
    free(t.set_of);
    return status;
}
