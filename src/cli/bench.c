/* hekla bench: what there is to time, and what all of it needs. */
#include "bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double median(double *times, int64_t count) {
    qsort(times, (size_t)count, sizeof *times, compare_times);
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

void add_device(cJSON *object, struct hk_device *device) {
    const struct hk_device_info *info = hk_device_get_info(device);
    char name[300];
    if (info->kind == HK_DEVICE_CPU) snprintf(name, sizeof name, "cpu");
    else snprintf(name, sizeof name, "vulkan:%d %s", info->index, info->name);
    cJSON_AddStringToObject(object, "device", name);
}

void random_tokens(int32_t *tokens, int64_t count, int64_t vocab, uint64_t seed) {
    uint64_t x = 88172645463325252u + seed;
    for (int64_t i = 0; i < count; i++) { /* xorshift64 (Marsaglia, 2003) */
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        tokens[i] = (int32_t)((x >> 33) % (uint64_t)vocab);
    }
}

static const struct {
    const char *name, *usage;
    int (*run)(int argc, char **argv);
} benches[] = {
    {"step", "--model NAME [options]", bench_step},
    {"op", "--op NAME --shape SIZES [options]", bench_op},
    {"generate", "--model NAME [options]", bench_generate},
    {"start", "--model NAME [options]", bench_start},
};

int command_bench(int argc, char **argv) {
    for (int i = 0; argc > 1 && i < COUNT_OF(benches); i++)
        if (!strcmp(argv[1], benches[i].name)) return benches[i].run(argc - 1, argv + 1);
    const bool help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    if (!help) return fail_usage("bench", "what to time is missing: step or op, generate or start");
    for (int i = 0; i < COUNT_OF(benches); i++)
        printf("%s hekla bench %s %s\n", i ? "      " : "Usage:", benches[i].name, benches[i].usage);
    printf("\nTimes training steps, single ops, writing text, and the start of a process, and prints one JSON line.\n"
           "--help after what to time lists the options.\n");
    return EXIT_OK;
}
