/* Timestamps around dispatches, and the trace made of them. */
#include "vulkan/device.h"
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EVENTS = 1 << 17 };

hk_status vk_profile_open(struct vk_device *device, bool enabled) {
    VkQueueFamilyProperties families[16];
    uint32_t count = HK_LENGTH(families);
    device->instance.vkGetPhysicalDeviceQueueFamilyProperties(device->physical.handle, &count, families);
    const uint32_t bits = device->family < count ? families[device->family].timestampValidBits : 0;
    const double period = (double)device->physical.properties.properties.limits.timestampPeriod;
    const bool timestamps = bits && period > 0;
    if (enabled && !timestamps) return hk_fail(HK_ERROR_UNSUPPORTED, "profile: %s has no timestamps", device->base.info.name);
    device->profile = (struct vk_profile){.enabled = enabled,
                                          .period = timestamps ? period * 1e-9 : 0,
                                          .mask = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX};
    return HK_OK;
}

void vk_profile_close(struct vk_device *device) { free(device->profile.events); }

static void add_event(struct vk_profile *p, const struct vk_event *event) {
    if (p->count < MAX_EVENTS && hk_grow(&p->events, &p->capacity, p->count + 1, sizeof *p->events))
        p->events[p->count++] = *event;
    else
        p->dropped++;
}

hk_status vk_profile_read(struct vk_device *device, VkQueryPool pool, uint32_t queries, uint64_t *ticks) {
    const VkResult result =
        device->vk.vkGetQueryPoolResults(device->handle, pool, 0, queries, queries * sizeof *ticks, ticks, sizeof *ticks,
                                         VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    return result == VK_SUCCESS ? HK_OK : vk_fail(device, result, "reading timestamps");
}

hk_status vk_profile_resolve(struct vk_device *device, VkQueryPool pool, uint32_t queries, uint64_t *ticks,
                             const struct vk_timed *timed, int count) {
    struct vk_profile *p = &device->profile;
    const hk_status status = vk_profile_read(device, pool, queries, ticks);
    if (status) return status;
    /* the device's clock is set against ours by the last tick, which was just now */
    const double now = hk_seconds();
    const uint64_t end = ticks[queries - 1];
    for (int i = 0; i < count; i++) {
        const uint64_t a = ticks[timed[i].query], b = ticks[timed[i].query + 1];
        add_event(p, &(struct vk_event){.op = timed[i].op,
                                        .pipeline = timed[i].pipeline,
                                        .begin = now - (double)((end - a) & p->mask) * p->period,
                                        .duration = (double)((b - a) & p->mask) * p->period,
                                        .flops = timed[i].flops,
                                        .bytes = timed[i].bytes});
    }
    return HK_OK;
}

static bool add_statistics(cJSON *args, const struct vk_statistics *statistics) {
    bool done = true;
    for (int i = 0; i < VK_STATISTICS; i++)
        if (statistics->value[i] >= 0)
            done = cJSON_AddNumberToObject(args, vk_statistic_names[i], statistics->value[i]) && done;
    return done;
}

static bool add_trace_event(cJSON *events, const struct vk_event *e, double start) {
    cJSON *item = cJSON_CreateObject(), *args;
    return cJSON_AddItemToArray(events, item) && cJSON_AddStringToObject(item, "name", e->op) &&
           cJSON_AddStringToObject(item, "cat", "kernel") && cJSON_AddStringToObject(item, "ph", "X") &&
           cJSON_AddNumberToObject(item, "ts", (e->begin - start) * 1e6) &&
           cJSON_AddNumberToObject(item, "dur", e->duration * 1e6) && cJSON_AddNumberToObject(item, "pid", 1) &&
           cJSON_AddNumberToObject(item, "tid", 1) && (args = cJSON_AddObjectToObject(item, "args")) &&
           cJSON_AddStringToObject(args, "shader", e->pipeline->shader->name) &&
           add_statistics(args, &e->pipeline->statistics) && cJSON_AddNumberToObject(args, "flops", e->flops) &&
           cJSON_AddNumberToObject(args, "bytes", e->bytes);
}

/* Locked. */
static char *trace_text(const struct vk_device *device) {
    const struct vk_profile *p = &device->profile;
    cJSON *trace = cJSON_CreateObject(), *events = cJSON_AddArrayToObject(trace, "traceEvents");
    cJSON *other = cJSON_AddObjectToObject(trace, "otherData");
    bool done = events && cJSON_AddStringToObject(other, "device", device->base.info.name) &&
                cJSON_AddStringToObject(other, "driver", device->base.info.driver) &&
                cJSON_AddNumberToObject(other, "events_dropped", (double)p->dropped);
    for (int i = 0; i < p->count && done; i++) done = add_trace_event(events, &p->events[i], p->events[0].begin);
    char *text = done ? cJSON_PrintUnformatted(trace) : NULL;
    cJSON_Delete(trace);
    return text;
}

hk_status vk_write_trace(struct hk_device *d, const char *path) {
    struct vk_device *device = vk_device_of(d);
    if (!device->profile.enabled) return hk_fail(HK_ERROR_INVALID, "no trace: the device was opened without profile");
    pthread_mutex_lock(&device->mutex); /* of a lost device too */
    char *text = trace_text(device);
    pthread_mutex_unlock(&device->mutex);
    if (!text) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory for the trace");
    const hk_status status = hk_file_write(path, text, strlen(text));
    cJSON_free(text);
    return status;
}
