/* Devices: finding, choosing, opening and measuring them. */
#include "backend.h"
#include "graph/tuning.h"
#include <cjson/cJSON.h>
#include <ctype.h>
#include <hekla/graph.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hk_device_base *base_of(struct hk_device *device) { return (struct hk_device_base *)device; }

hk_status hk_device_list(struct hk_device_info *infos, int capacity, int *count) {
    if (!count || capacity < 0 || (capacity && !infos))
        return hk_fail(HK_ERROR_INVALID, "hk_device_list: an argument is NULL");
    const hk_status status = hk_vulkan_list(infos, capacity, count);
    if (status) return status;
    if (*count < capacity) hk_cpu_describe(&infos[*count]);
    ++*count;
    return HK_OK;
}

void hk_device_destroy(struct hk_device **device) {
    if (!device || !*device) return;
    base_of(*device)->backend->close(*device);
    *device = NULL;
}

const struct hk_device_info *hk_device_get_info(const struct hk_device *device) {
    return device ? &((const struct hk_device_base *)device)->info : NULL;
}

hk_status hk_device_wait(struct hk_device *device) {
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_device_wait: the device is NULL");
    return base_of(device)->backend->wait(device);
}

void hk_device_get_stats(struct hk_device *device, struct hk_stats *stats) {
    if (device && stats) base_of(device)->backend->stats(device, stats);
    else if (stats) *stats = (struct hk_stats){0};
}

hk_status hk_device_write_trace(struct hk_device *device, const char *path) {
    if (!device || !path) return hk_fail(HK_ERROR_INVALID, "hk_device_write_trace: the device or the path is NULL");
    return base_of(device)->backend->write_trace(device, path);
}

hk_status hk_device_tunings(struct hk_device *device, struct hk_tuning *tunings, int capacity, int *count) {
    if (!device || !count || capacity < 0 || (capacity && !tunings))
        return hk_fail(HK_ERROR_INVALID, "hk_device_tunings: an argument is NULL");
    struct hk_tunings *all = base_of(device)->tunings;
    *count = all ? hk_tunings_copy(all, tunings, capacity) : 0;
    return HK_OK;
}

hk_status hk_device_save_tunings(struct hk_device *device) {
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_device_save_tunings: no device");
    struct hk_tunings *tunings = base_of(device)->tunings;
    return tunings ? hk_tunings_save(tunings, true) : HK_OK;
}

/* ---- Measuring ---- */

/* Seconds of the fastest of a few runs; negative on failure. */
static double time_program(struct hk_device *device, struct hk_program *program) {
    double best = 1e30, spent = 0;
    for (int i = 0; i < 8 && (i < 2 || spent < 0.2); i++) {
        const double begin = hk_seconds();
        if (hk_program_run(program) || hk_device_wait(device)) return -1;
        const double seconds = hk_seconds() - begin;
        spent += seconds;
        best = HK_MIN(best, seconds);
    }
    return best;
}

/* Runs y = f(x) on tensors of the given shape; the seconds it takes, or negative. */
static double time_op(struct hk_device *device, struct hk_shape shape, struct hk_value *(*f)(struct hk_value *x)) {
    double seconds = -1;
    struct hk_tensor *x = hk_tensor_create(device, HK_F32, shape), *y = hk_tensor_create(device, HK_F32, shape);
    struct hk_graph *graph = hk_graph_create();
    struct hk_program *program = NULL;
    if (x && y && graph) {
        hk_store(y, f(hk_leaf(graph, x)));
        program = hk_compile(device, graph, &(struct hk_compile_params){.name = "a measurement"});
        if (program) seconds = time_program(device, program);
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_tensor_destroy(&y);
    return seconds;
}

static struct hk_value *product(struct hk_value *x) { return hk_matmul(x, x); }
static struct hk_value *sweep(struct hk_value *x) { return hk_affine(x, 0.5f, 1); }

hk_status hk_device_measure(struct hk_device *device, double *gflops, double *gbps) {
    if (!device || !gflops || !gbps) return hk_fail(HK_ERROR_INVALID, "hk_device_measure: an argument is NULL");
    const struct hk_device_info *info = hk_device_get_info(device);
    const int64_t n = info->kind == HK_DEVICE_CPU || info->software ? 512 : 1024, sweep_elements = (int64_t)16 << 20;
    const double multiply = time_op(device, HK_SHAPE(n, n), product);
    const double move = multiply < 0 ? -1 : time_op(device, HK_SHAPE(sweep_elements), sweep);
    if (move < 0) return hk_error_status();
    *gflops = 2e-9 * (double)n * (double)n * (double)n / multiply;
    *gbps = 8e-9 * (double)sweep_elements / move;
    return HK_OK;
}

/* ---- Choosing ---- */

static void uuid_text(const struct hk_device_info *info, char text[33]) {
    for (int i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", info->uuid[i]);
}

/* gflops from the cache of measurements; negative where it is not there. */
static double cached_gflops(const cJSON *cache, const struct hk_device_info *info) {
    char uuid[33];
    uuid_text(info, uuid);
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(cache, uuid);
    return cJSON_IsNumber(number) ? number->valuedouble : -1;
}

static cJSON *read_cache(const char *path) {
    char *text;
    size_t bytes;
    if (!path || hk_file_read(path, &text, &bytes)) return NULL;
    cJSON *cache = cJSON_ParseWithLength(text, bytes);
    free(text);
    return cache;
}

static void write_cache(const char *path, const cJSON *cache) {
    char *text = cJSON_Print(cache);
    if (text && path) hk_file_write(path, text, strlen(text));
    cJSON_free(text);
}

static hk_status open_one(const struct hk_device_params *params, const struct hk_device_info *info,
                          struct hk_device **device) {
    if (info->kind == HK_DEVICE_VULKAN) return hk_vulkan_open(params, info->index, device);
    return hk_cpu_open(params, device);
}

/* Measures a device that the cache does not know, and adds it. Negative where it cannot be opened. */
static double gflops_of(const struct hk_device_params *params, const struct hk_device_info *info, cJSON *cache,
                        bool *changed) {
    double gflops = cached_gflops(cache, info), gbps;
    struct hk_device_params plain = *params; /* what is tuned is what the program runs, on the device that is taken */
    struct hk_device *device;
    plain.tune = 0, plain.tuning = "";
    if (gflops >= 0) return gflops;
    if (open_one(&plain, info, &device)) return -1;
    if (hk_device_measure(device, &gflops, &gbps)) gflops = -1;
    hk_device_destroy(&device);
    char uuid[33];
    uuid_text(info, uuid);
    if (gflops >= 0) *changed |= cJSON_AddNumberToObject(cache, uuid, gflops) != NULL;
    return gflops;
}

/* The fastest by the measurement. A software Vulkan driver runs on the very processor that the CPU device uses, through
   one more layer, and is never taken. */
static int choose(const struct hk_device_params *params, const struct hk_device_info *infos, int count) {
    char folder[4096], path[4200], *cache_path = NULL;
    if (hk_cache_folder(params->cache_dir, folder, sizeof folder)) {
        snprintf(path, sizeof path, "%s/measurements.json", folder);
        cache_path = path;
    }
    int best = count - 1, candidates = 0;
    for (int i = 0; i < count; i++) candidates += infos[i].kind == HK_DEVICE_VULKAN && !infos[i].software;
    if (!candidates) return best;
    cJSON *cache = read_cache(cache_path);
    if (!cJSON_IsObject(cache)) {
        cJSON_Delete(cache);
        cache = cJSON_CreateObject();
    }
    bool changed = false;
    double best_gflops = -1;
    for (int i = count - 1; i >= 0; i--) {
        if (infos[i].software) continue;
        const double gflops = gflops_of(params, &infos[i], cache, &changed);
        hk_remark(HK_LOG_INFO, "%s: %.0f GFLOP/s in f32", infos[i].name, gflops);
        if (gflops > best_gflops) best = i, best_gflops = gflops;
    }
    if (changed) write_cache(cache_path, cache);
    cJSON_Delete(cache);
    return best;
}

/* ---- Opening by name ---- */

static bool contains(const char *text, const char *part) {
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (!part[i]) return true;
    }
    return !*part;
}

static hk_status no_such_device(const char *name, const struct hk_device_info *infos, int count) {
    char list[768] = "";
    size_t n = 0;
    for (int i = 0; i < count && n < sizeof list - 1; i++) {
        const bool cpu = infos[i].kind == HK_DEVICE_CPU;
        char id[32] = "cpu";
        if (!cpu) snprintf(id, sizeof id, "vulkan:%d", infos[i].index);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s (%s)", i ? ", " : "", id, infos[i].name);
    }
    return hk_fail(HK_ERROR_NO_DEVICE, "no device \"%s\"; there are: %s", name, list);
}

/* N of "vulkan:N", 0 of "vulkan"; -1 of other names. */
static int index_in(const char *name) {
    if (!strcmp(name, "vulkan")) return 0;
    if (strncmp(name, "vulkan:", 7) || !name[7]) return -1;
    char *end;
    const long index = strtol(name + 7, &end, 10);
    return *end || index < 0 || index > INT16_MAX ? -1 : (int)index;
}

/* The entry that the name means; -1 where none. */
static int find_device(const struct hk_device_params *params, const char *name, const struct hk_device_info *infos,
                       int count) {
    if (!strcmp(name, "auto")) return choose(params, infos, count);
    for (int i = 0; !strncmp(name, "vulkan:", 7) && name[7] && i + 1 < count; i++)
        if (contains(infos[i].name, name + 7)) return i;
    return -1;
}

/* All devices, to be freed. Listing starts every driver of the machine, so it is done once unless there are very many.
 */
static struct hk_device_info *list_all(int *count) {
    for (int capacity = 16;; capacity = *count) {
        struct hk_device_info *infos = calloc((size_t)capacity, sizeof *infos);
        if (!infos) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
        if (!hk_device_list(infos, capacity, count) && *count <= capacity) return infos;
        free(infos);
        if (*count <= capacity) return NULL;
    }
}

/* That of a number, for which no list is made unless to say what there is instead. */
static struct hk_device *open_index(const struct hk_device_params *params, const char *name, int index) {
    struct hk_device *device = NULL;
    int count = 0;
    const hk_status status = hk_vulkan_open(params, index, &device);
    if (status != HK_ERROR_NO_DEVICE) return status ? NULL : device;
    struct hk_device_info *infos = list_all(&count);
    if (infos && index < count - 1)
        hk_fail(status, "no device \"%s\" when it was opened, but there is now: try again", name);
    else if (infos) no_such_device(name, infos, count);
    free(infos);
    return NULL;
}

struct hk_device *hk_device_open(const struct hk_device_params *params) {
    static const struct hk_device_params defaults = {0};
    if (!params) params = &defaults;
    const char *name = params->name ? params->name : "auto";
    struct hk_device *device = NULL;
    int count = 0;
    if (!strcmp(name, "cpu")) return hk_cpu_open(params, &device) ? NULL : device;
    if (index_in(name) >= 0) return open_index(params, name, index_in(name));
    struct hk_device_info *infos = list_all(&count);
    if (!infos) return NULL;
    const int i = find_device(params, name, infos, count);
    if (i < 0) no_such_device(name, infos, count);
    else if (open_one(params, &infos[i], &device)) device = NULL;
    free(infos);
    return device;
}
