/* The report: what was found on all devices, as JSON for comparing and as a text for reading. */
#include "lab.h"
#include "report.h"
#include "vulkan/shaders.h"
#include <stdlib.h>
#include <string.h>

/* ---- Reading ---- */

static cJSON *read_json(const char *path) {
    char *text;
    size_t bytes;
    if (hk_file_read(path, &text, &bytes)) return NULL;
    cJSON *json = cJSON_ParseWithLength(text, bytes);
    free(text);
    return json;
}

static const char *text_of(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

static cJSON *list_of(const cJSON *object, const char *name) { return cJSON_GetObjectItemCaseSensitive(object, name); }

static cJSON *find_device(const cJSON *devices, const char *label) {
    cJSON *device;
    cJSON_ArrayForEach(device, devices) if (!strcmp(text_of(device, "device"), label)) return device;
    return NULL;
}

static int compare_devices(const void *a, const void *b) {
    return strcmp(text_of(*(cJSON *const *)a, "device"), text_of(*(cJSON *const *)b, "device"));
}

/* Devices that were looked at now, and from the old report those that were not, by name. */
static cJSON *merge(const cJSON *old, cJSON **found, int count) {
    cJSON *list[64], *result = cJSON_CreateArray(), *device;
    int n = 0;
    for (int i = 0; i < count && n < (int)HK_LENGTH(list); i++) list[n++] = cJSON_Duplicate(found[i], true);
    cJSON_ArrayForEach(device, old) {
        bool again = false;
        for (int i = 0; i < count; i++) again = again || !strcmp(text_of(found[i], "device"), text_of(device, "device"));
        if (!again && n < (int)HK_LENGTH(list)) list[n++] = cJSON_Duplicate(device, true);
    }
    qsort(list, (size_t)n, sizeof *list, compare_devices);
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(result, list[i]);
    return result;
}

/* The host's time is measured, and never the same twice: the old one stays where the new one is from half to twice it. */
static void keep_times(const cJSON *old, cJSON *devices) {
    cJSON *device, *drive, *before;
    cJSON_ArrayForEach(device, devices)
        cJSON_ArrayForEach(drive, list_of(device, "drives"))
            cJSON_ArrayForEach(before, list_of(find_device(old, text_of(device, "device")), "drives")) {
        cJSON *now = list_of(drive, "host_us");
        const double then = cJSON_GetNumberValue(list_of(before, "host_us"));
        const bool same = !strcmp(text_of(drive, "model"), text_of(before, "model"));
        if (same && now->valuedouble < 2 * then && now->valuedouble > then / 2) cJSON_SetNumberValue(now, then);
    }
}

/* ---- Writing ---- */

static void write_list(FILE *file, const char *name, const cJSON *list, const char *end) {
    const cJSON *row;
    fprintf(file, "  \"%s\": [", name);
    cJSON_ArrayForEach(row, list) {
        char *text = cJSON_PrintUnformatted(row);
        fprintf(file, "%s\n    %s", row == list->child ? "" : ",", text);
        cJSON_free(text);
    }
    fprintf(file, "\n  ]%s\n", end);
}

/* A row per line, so that a difference of two reports shows what changed. */
static bool write_json(const char *path, const cJSON *devices) {
    FILE *file = fopen(path, "w");
    const cJSON *device;
    if (!file) return false;
    fprintf(file, "[");
    cJSON_ArrayForEach(device, devices) {
        fprintf(file, "%s\n{\n  \"device\": \"%s\",\n  \"name\": \"%s\",\n  \"driver\": \"%s\",\n",
                device == devices->child ? "" : ",", text_of(device, "device"), text_of(device, "name"),
                text_of(device, "driver"));
        write_list(file, "drives", list_of(device, "drives"), ",");
        write_list(file, "pipelines", list_of(device, "pipelines"), "");
        fprintf(file, "}");
    }
    fprintf(file, "\n]\n");
    return !fclose(file);
}

/* ---- All of it ---- */

/* What no driver of the lab has: on NVIDIA's own, tests/gpu.sh runs attention's, and tuning may choose matmul's. */
static bool is_beyond_lab(const char *name) {
    enum { TENSOR_ADDRESSING = 5439 }; /* the capability TensorAddressingNV */
    const struct vk_shader *shader = vk_shader_find(name);
    return shader && lab_declares(shader, TENSOR_ADDRESSING);
}

/* Every other module of the build is used on some device, of this run or an earlier one. */
static int count_unused(const cJSON *modules, const cJSON *devices) {
    const cJSON *module, *device, *row;
    int unused = 0;
    cJSON_ArrayForEach(module, modules) {
        bool used = false;
        cJSON_ArrayForEach(device, devices)
            cJSON_ArrayForEach(row, list_of(device, "pipelines"))
                used = used || !strcmp(cJSON_GetStringValue(row->child), cJSON_GetStringValue(module));
        if (used || is_beyond_lab(cJSON_GetStringValue(module))) continue;
        fprintf(stderr, "FAILED: %s is used on no device\n", cJSON_GetStringValue(module));
        unused++;
    }
    return unused;
}

int lab_report(int argc, char **argv) {
    const int count = argc - 3;
    cJSON **found = calloc((size_t)argc, sizeof(cJSON *)), *old = read_json(argv[0]);
    int worse = 0, unused = 0;
    bool ok = found != NULL;
    if (!old) printf("No report to compare with: %s\n", argv[0]);
    for (int i = 0; i < count && ok; i++) {
        found[i] = read_json(argv[1 + i]);
        ok = found[i] != NULL;
        if (!ok) fprintf(stderr, "FAILED: %s cannot be read\n", argv[1 + i]);
    }
    if (ok) {
        cJSON *devices = merge(old, found, count);
        keep_times(old, devices);
        for (int i = 0; i < count && old; i++)
            worse += report_compare(find_device(old, text_of(found[i], "device")), found[i]);
        unused = count_unused(list_of(found[0], "modules"), devices);
        ok = report_write_text(argv[argc - 2], devices) && write_json(argv[argc - 1], devices);
        if (!ok) fprintf(stderr, "FAILED: the report cannot be written\n");
        cJSON_Delete(devices);
    }
    if (worse) fprintf(stderr, "FAILED: %d numbers got worse by more than 10 %%\n", worse);
    for (int i = 0; i < count && found; i++) cJSON_Delete(found[i]);
    free(found);
    cJSON_Delete(old);
    return !ok || worse || unused;
}
