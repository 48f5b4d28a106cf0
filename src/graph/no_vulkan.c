/* What a build without the Vulkan backend answers. */
#include "backend.h"

hk_status hk_vulkan_open(const struct hk_device_params *params, int index, struct hk_device **device) {
    (void)params, (void)index;
    *device = NULL;
    return hk_fail(HK_ERROR_NO_DEVICE, "no Vulkan device: this build of Hekla has no Vulkan backend (HEKLA_VULKAN=OFF)");
}

hk_status hk_vulkan_list(struct hk_device_info *infos, int capacity, int *count) {
    (void)infos, (void)capacity;
    *count = 0;
    return HK_OK;
}
