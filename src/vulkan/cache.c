/* The pipeline cache on disk: one file per device and driver. A file that is not exactly what we wrote for this driver is
   ignored and replaced: drivers have crashed on damaged ones. */
#include "vulkan/device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CACHE_VERSION = 1 };

struct header {
    char magic[8];
    uint32_t version, driver;
    uint8_t uuid[16];
    uint64_t bytes, hash; /* of what follows */
};

static struct header make_header(const struct vk_device *device, const void *data, size_t bytes) {
    struct header header = {.magic = "hkcache", .version = CACHE_VERSION, .bytes = bytes, .hash = hk_hash(data, bytes, 0)};
    header.driver = device->physical.properties.properties.driverVersion;
    memcpy(header.uuid, device->base.info.uuid, sizeof header.uuid);
    return header;
}

/* False where the user has no cache folder. */
static bool set_path(struct vk_device *device, const char *cache_dir) {
    char name[33];
    struct vk_pipelines *p = &device->pipelines;
    if (!hk_cache_folder(cache_dir, p->folder, sizeof p->folder)) {
        p->folder[0] = 0;
        return false;
    }
    for (int i = 0; i < 16; i++) snprintf(name + 2 * i, 3, "%02x", device->base.info.uuid[i]);
    snprintf(p->path, sizeof p->path, "%s/pipelines-%s.bin", p->folder, name);
    return true;
}

/* The driver's part of the file, or NULL; *file is to be freed. */
static const void *load(const struct vk_device *device, char **file, size_t *bytes) {
    size_t size;
    struct header header;
    if (access(device->pipelines.path, R_OK) || hk_file_read(device->pipelines.path, file, &size)) return NULL;
    if (size < sizeof header) return NULL;
    const char *data = *file + sizeof header;
    *bytes = size - sizeof header;
    header = make_header(device, data, *bytes);
    if (!memcmp(*file, &header, sizeof header)) return data;
    hk_remark(HK_LOG_INFO, "vulkan: %s is damaged or of another driver and is ignored", device->pipelines.path);
    return NULL;
}

void vk_cache_open(struct vk_device *device, const char *cache_dir) {
    struct vk_pipelines *p = &device->pipelines;
    char *file = NULL;
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    p->saved = hk_seconds();
    if (set_path(device, cache_dir)) {
        info.pInitialData = load(device, &file, &info.initialDataSize);
        if (!info.pInitialData) info.initialDataSize = 0;
    }
    if (device->vk.vkCreatePipelineCache(device->handle, &info, NULL, &p->cache) != VK_SUCCESS) p->cache = VK_NULL_HANDLE;
    free(file);
}

void vk_cache_save(struct vk_device *device) {
    struct vk_pipelines *p = &device->pipelines;
    size_t bytes = 0;
    if (!p->path[0] || !p->cache || !p->changed || atomic_load(&device->lost)) return;
    p->changed = false;
    p->saved = hk_seconds();
    if (device->vk.vkGetPipelineCacheData(device->handle, p->cache, &bytes, NULL) != VK_SUCCESS || !bytes) return;
    char *file = malloc(sizeof(struct header) + bytes);
    if (!file) return;
    char *data = file + sizeof(struct header);
    if (device->vk.vkGetPipelineCacheData(device->handle, p->cache, &bytes, data) == VK_SUCCESS) {
        const struct header header = make_header(device, data, bytes);
        memcpy(file, &header, sizeof header);
        if (hk_file_write(p->path, file, sizeof header + bytes))
            hk_remark(HK_LOG_WARNING, "vulkan: pipelines are not cached: %s", hk_error_message());
    }
    free(file);
}
