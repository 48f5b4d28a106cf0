/* The launches of a program: what the ops' gpu functions recorded, checked, with bindings as the device wants them. */
#ifndef HK_VULKAN_RECORD_H
#define HK_VULKAN_RECORD_H

#include "op/op.h"
#include "vulkan/device.h"

struct vk_launch {
    struct hk_dispatch dispatch; /* shader: the table's own name; bindings aligned, push words adjusted */
    const struct hk_op *op;
    const struct vk_shader *shader;
    struct vk_pipeline *pipeline;
    VkDescriptorSet set;
};

struct vk_launches {
    struct vk_launch *items;
    int count, capacity;
};

/* Calls the gpu function of each step. Free the list in any case. */
hk_status vk_record(struct vk_device *device, const struct hk_plan *plan, struct vk_launches *launches);
void vk_launches_free(struct vk_launches *launches);

/* descriptors.c: a set for each launch that binds something, one for all that bind the same, from a new pool of exactly that
   size; *writes: descriptors written. */
hk_status vk_descriptors_make(struct vk_device *device, struct vk_launches *launches, VkDescriptorPool *pool, uint64_t *writes);

#endif
