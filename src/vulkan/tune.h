/* Measuring which kernels are the fastest, and taking them. */
#ifndef HK_VULKAN_TUNE_H
#define HK_VULKAN_TUNE_H

#include "vulkan/record.h"

/* Takes what was measured. */
struct vk_tuned {
    struct vk_chooser base; /* first */
    struct hk_tunings *tunings;
};
struct vk_tuned vk_tuned(struct vk_device *device);

hk_status vk_tuning_open(struct vk_device *device, const struct hk_device_params *params);

/* Measures the plan's work that nobody has measured, while there is time. Fails only where the device is lost. */
hk_status vk_tune(struct vk_device *device, const struct hk_plan *plan);

#endif
