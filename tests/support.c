#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Devices ---- */

static void print_remark(void *user, enum hk_log_level level, const char *message) {
    (void)user;
    if (level >= HK_LOG_WARNING) fprintf(stderr, "hekla: %s\n", message);
}

struct hk_device *test_device_open(const char *name) {
    hk_set_log(print_remark, NULL);
    return hk_device_open(&(struct hk_device_params){.name = name});
}

static struct hk_device *open_or_exit(const char *name) {
    struct hk_device *device = test_device_open(name);
    if (device) return device;
    fprintf(stderr, "cannot open %s: %s\n", name, hk_error_message());
    exit(1);
}

static int open_all_vulkan(struct hk_device **devices, int capacity) {
    int count = 0;
    if (hk_device_list(NULL, 0, &count)) return 0;
    const int n = count - 1 < capacity ? count - 1 : capacity; /* the CPU is the last */
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "vulkan:%d", i);
        devices[i] = open_or_exit(name);
    }
    return n;
}

int test_devices_open(struct hk_device *devices[TEST_MAX_DEVICES]) {
    const char *list = getenv("HEKLA_TEST_DEVICES");
    char names[512], *rest = names;
    int n = 0;
    snprintf(names, sizeof names, "%s", list && *list ? list : "cpu,vulkan");
    for (char *name; (name = strsep(&rest, ",")) && n < TEST_MAX_DEVICES;) {
        if (!strcmp(name, "vulkan")) n += open_all_vulkan(devices + n, TEST_MAX_DEVICES - n);
        else devices[n++] = open_or_exit(name);
    }
    return n;
}

bool test_devices_close(struct hk_device **devices, int count) {
    bool silent = true;
    for (int i = 0; i < count; i++) {
        struct hk_stats stats;
        hk_device_get_stats(devices[i], &stats);
        if (stats.validation_messages)
            fprintf(stderr, "FAILED: %llu messages of the validation layer on %s\n",
                    (unsigned long long)stats.validation_messages, test_device_name(devices[i]));
        silent = silent && !stats.validation_messages;
        hk_device_destroy(&devices[i]);
    }
    return silent;
}

int test_devices_end(struct hk_device **devices, int count, int failed) {
    const bool silent = test_devices_close(devices, count);
    return failed || !silent;
}

bool test_on_each_device(void (*test)(struct hk_device *device)) {
    struct hk_device *devices[TEST_MAX_DEVICES];
    const int count = test_devices_open(devices);
    for (int i = 0; i < count; i++) {
        printf("on %s\n", test_device_name(devices[i]));
        test(devices[i]);
    }
    return test_devices_close(devices, count);
}

bool test_is_cpu(const struct hk_device *device) { return hk_device_get_info(device)->kind == HK_DEVICE_CPU; }

const char *test_device_name(const struct hk_device *device) {
    return test_is_cpu(device) ? "cpu" : hk_device_get_info(device)->name;
}

/* ---- Random numbers ---- */

uint64_t test_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double test_uniform(uint64_t *state, double low, double high) {
    return low + (high - low) * ((double)(test_random(state) >> 11) * 0x1p-53);
}

uint64_t test_hash(const char *text, uint64_t seed) {
    for (; *text; text++) seed = (seed ^ (unsigned char)*text) * 0x100000001b3u;
    return seed;
}

/* ---- Numbers ---- */

int64_t test_elements(struct hk_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++) n *= shape.size[i];
    return n;
}

void test_to_doubles(double *out, enum hk_dtype dtype, const void *data, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        switch (dtype) {
        case HK_F32: out[i] = (double)((const float *)data)[i]; break;
        case HK_F16: out[i] = (double)hk_f32_from_f16(((const uint16_t *)data)[i]); break;
        case HK_BF16: out[i] = (double)hk_f32_from_bf16(((const uint16_t *)data)[i]); break;
        case HK_I32: out[i] = ((const int32_t *)data)[i]; break;
        case HK_I8: out[i] = ((const int8_t *)data)[i]; break;
        default: out[i] = ((const uint8_t *)data)[i];
        }
    }
}

double test_error(const double *x, const double *ref, int64_t count, int64_t *worst) {
    double largest = 0, error = 0;
    if (worst) *worst = 0;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(ref[i])) largest = fmax(largest, fabs(ref[i]));
    for (int64_t i = 0; i < count; i++) {
        double e = 0;
        if (isfinite(x[i]) && isfinite(ref[i])) {
            const double difference = fabs(x[i] - ref[i]);
            e = difference > 0 ? difference / (1e-5 * largest + 1e-4 * fabs(ref[i]) + 0x1p-126) : 0;
        } else if (isnan(x[i]) != isnan(ref[i]) || (!isnan(x[i]) && x[i] != ref[i])) {
            e = INFINITY;
        }
        if (e <= error) continue;
        error = e;
        if (worst) *worst = i;
    }
    return error;
}
