/* Opening devices and trained models. */
#include "cli.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct hk_device *open_device_as(const struct hk_device_params *params) {
    struct hk_device *device = hk_device_open(params);
    if (!device) {
        fail_library();
        return NULL;
    }
    const struct hk_device_info *info = hk_device_get_info(device);
    if (info->kind == HK_DEVICE_CPU) note("device cpu: %s, %s, %d threads", info->name, info->driver, info->threads);
    else note("device vulkan:%d: %s, %s", info->index, info->name, info->driver);
    return device;
}

struct hk_device *open_device(const char *name, bool profile) {
    return open_device_as(&(struct hk_device_params){.name = name, .profile = profile});
}

int write_profile(struct hk_device *device, const char *path) {
    if (!path || hk_device_write_trace(device, path) == HK_OK) return EXIT_OK;
    return fail_library();
}

static int load(struct loaded_model *model, const char *folder, const char *device) {
    if (hk_run_load_config(folder, &model->config) != HK_OK) return fail_library();
    if (model->config.vocab != 256)
        return fail_with("%s has a vocabulary of %" PRId64 " tokens; this version reads and writes bytes (256)", folder,
                         model->config.vocab);
    model->device = open_device(device, false);
    if (!model->device) return EXIT_FAILED;
    model->params = hk_params_create(model->device);
    if (!model->params || hk_model_declare(model->params, &model->config) != HK_OK ||
        hk_params_allocate(model->params, 0) != HK_OK || hk_run_load(folder, model->params, NULL, NULL) != HK_OK)
        return fail_library();
    return EXIT_OK;
}

int model_load(struct loaded_model *model, const char *folder, const char *device) {
    *model = (struct loaded_model){0};
    const int status = load(model, folder, device);
    if (status != EXIT_OK) model_unload(model);
    return status;
}

void model_unload(struct loaded_model *model) {
    hk_params_destroy(&model->params);
    hk_device_destroy(&model->device);
}
