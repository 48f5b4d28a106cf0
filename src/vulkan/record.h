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

/* Which of several kernels an op takes. Others extend it. */
struct vk_chooser {
    int (*choose)(struct vk_chooser *chooser, const struct hk_step *step, const struct hk_choice *choice);
};

/* Calls the gpu function of each step. chooser may be NULL: the standard kernels. Free the list in any case. */
hk_status vk_record(struct vk_device *device, const struct hk_plan *plan, struct vk_chooser *chooser,
                    struct vk_launches *launches);
void vk_launches_free(struct vk_launches *launches);

/* descriptors.c: a set for each launch that binds something, one for all that bind the same, from a new pool of exactly that
   size; *writes: descriptors written. */
hk_status vk_descriptors_make(struct vk_device *device, struct vk_launches *launches, VkDescriptorPool *pool, uint64_t *writes);

/* program.c: a program of the plan with those kernels. timed: it has timestamps, for the profile or vk_program_time. info may
   be NULL. */
hk_status vk_program_make(struct vk_device *device, const struct hk_plan *plan, struct vk_chooser *chooser, bool timed,
                          struct hk_program_info *info, struct hk_backend_program **program);
/* Runs the program while nothing else runs on the device; the seconds from its first launch to the end of its last. */
hk_status vk_program_time(struct vk_device *device, struct hk_backend_program *program, double *seconds);

#endif
