/* hekla devices */
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct measured {
    bool ok;
    double gflops, gbps;
    char message[512];
};

static void device_name(const struct hk_device_info *info, char *name, size_t size) {
    if (info->kind == HK_DEVICE_CPU) snprintf(name, size, "cpu");
    else snprintf(name, size, "vulkan:%d", info->index);
}

static struct measured measure(const struct hk_device_info *info) {
    struct measured m = {0};
    char name[32];
    device_name(info, name, sizeof name);
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = name});
    m.ok = device && hk_device_measure(device, &m.gflops, &m.gbps) == HK_OK;
    if (!m.ok) snprintf(m.message, sizeof m.message, "%s", hk_error_message());
    hk_device_destroy(&device);
    return m;
}

struct feature {
    const char *name;
    bool present;
};
#define FEATURES(info)                                                                                                 \
    {                                                                                                                  \
        {"float16", (info)->float16}, {"bfloat16", (info)->bfloat16}, {"storage16", (info)->storage16},                \
            {"int8_dot", (info)->int8_dot}, {"cooperative_matrix", (info)->cooperative_matrix},                        \
            {"cooperative_matrix2", (info)->cooperative_matrix2}, {"unified_memory", (info)->unified_memory}, {        \
            "software", (info)->software                                                                               \
        }                                                                                                              \
    }

static void print_text(const struct hk_device_info *info) {
    const struct feature features[] = FEATURES(info);
    char name[32], total[32], available[32], binding[32], shared[32];
    device_name(info, name, sizeof name);
    printf("%-10s %s\n", name, info->name);
    printf("           driver    %s", info->driver);
    if (info->kind == HK_DEVICE_CPU) printf(", %d threads\n", info->threads);
    else
        printf(", Vulkan %u.%u.%u\n", info->api_version >> 22 & 0x7f, info->api_version >> 12 & 0x3ff,
               info->api_version & 0xfff);
    printf("           memory    %s, %s free\n", bytes_text(info->memory_total, total, sizeof total),
           bytes_text(info->memory_free, available, sizeof available));
    if (info->kind == HK_DEVICE_VULKAN)
        printf("           limits    %s a binding, subgroups of %u, workgroups of %u, %s shared\n",
               bytes_text(info->max_binding, binding, sizeof binding), info->subgroup_size, info->max_workgroup,
               bytes_text(info->shared_memory, shared, sizeof shared));
    printf("           features ");
    for (int i = 0; i < COUNT_OF(features); i++)
        if (features[i].present) printf(" %s", features[i].name);
    printf("\n");
    fflush(stdout);
    const struct measured m = measure(info);
    if (m.ok) printf("           measured  %.1f GFLOP/s, %.1f GB/s\n", m.gflops, m.gbps);
    else printf("           measured  nothing: %s\n", m.message);
}

static cJSON *to_json(const struct hk_device_info *info) {
    const struct feature features[] = FEATURES(info);
    const struct measured m = measure(info);
    char name[32];
    device_name(info, name, sizeof name);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "device", name);
    cJSON_AddStringToObject(object, "name", info->name);
    cJSON_AddStringToObject(object, "driver", info->driver);
    cJSON_AddNumberToObject(object, "memory_total", (double)info->memory_total);
    cJSON_AddNumberToObject(object, "memory_free", (double)info->memory_free);
    cJSON_AddNumberToObject(object, "max_binding", (double)info->max_binding);
    cJSON_AddNumberToObject(object, "max_buffer", (double)info->max_buffer);
    cJSON_AddNumberToObject(object, "subgroup_size", info->subgroup_size);
    cJSON_AddNumberToObject(object, "max_workgroup", info->max_workgroup);
    cJSON_AddNumberToObject(object, "shared_memory", info->shared_memory);
    cJSON_AddNumberToObject(object, "threads", info->threads);
    for (int i = 0; i < COUNT_OF(features); i++) cJSON_AddBoolToObject(object, features[i].name, features[i].present);
    if (m.ok) {
        cJSON_AddNumberToObject(object, "gflops", rounded(m.gflops, 1));
        cJSON_AddNumberToObject(object, "gbps", rounded(m.gbps, 1));
    } else {
        cJSON_AddStringToObject(object, "error", m.message);
    }
    return object;
}

int command_devices(int argc, char **argv) {
    bool json = false;
    struct option_row rows[] = {OPTION_JSON(&json)};
    const struct command_line line = {
        .command = "devices",
        .usage = "[--json]",
        .about = "Lists every Vulkan device and the CPU: features, memory, and a quick measurement of each.",
        .rows = rows,
        .n_rows = COUNT_OF(rows)};
    int status, count = 0;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (hk_device_list(NULL, 0, &count) != HK_OK) return fail_library();
    struct hk_device_info *infos = calloc((size_t)count + 1, sizeof *infos);
    const int capacity = count;
    if (!infos) return fail_with("no memory for a list of %d devices", count);
    if (hk_device_list(infos, capacity, &count) != HK_OK) {
        free(infos);
        return fail_library();
    }
    cJSON *array = json ? cJSON_CreateArray() : NULL;
    for (int i = 0; i < count && i < capacity; i++) {
        if (json) cJSON_AddItemToArray(array, to_json(&infos[i]));
        else print_text(&infos[i]);
    }
    if (json) json_print_line(array);
    free(infos);
    return output_ok() ? EXIT_OK : EXIT_FAILED;
}
