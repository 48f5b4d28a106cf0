#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "range.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool range_is_long(void) {
    const char *text = getenv("HEKLA_TEST_LONG");
    return text && !strcmp(text, "1");
}

/* The CPU with an instruction set, or the best that the machine has below it. */
static void test_cpu(const char *isa, void (*test)(struct hk_device *device)) {
    setenv("HEKLA_ISA", isa, 1);
    struct hk_device *device = test_device_open("cpu");
    if (!device) fail_msg("%s", hk_error_message());
    printf("on the cpu, %s\n", hk_device_get_info(device)->driver);
    test(device);
    hk_device_destroy(&device);
    unsetenv("HEKLA_ISA");
}

void range_each_device(void (*test)(struct hk_device *device)) {
    struct hk_device *devices[TEST_MAX_DEVICES];
    const int count = test_devices_open(devices);
    if (count == 0) {
        printf("skipped: no Vulkan device on this machine\n");
        skip();
    }
    for (int i = 0; i < count; i++) {
        if (test_is_cpu(devices[i])) {
            test_cpu("base", test);
            test_cpu("avx2", test);
            test_cpu("avx512", test);
            test_cpu("avx512bf16", test);
            test_cpu("amx", test);
        } else {
            printf("on %s\n", test_device_name(devices[i]));
            test(devices[i]);
        }
    }
    assert_true(test_devices_close(devices, count));
}

double *range_run(struct hk_device *device, range_build *build, const struct range_input *inputs, int n_inputs) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_tensor *tensors[8] = {NULL}, *result = NULL;
    struct hk_value *in[8] = {NULL};
    for (int i = 0; i < n_inputs; i++) {
        tensors[i] = hk_tensor_from(device, inputs[i].dtype, inputs[i].shape, inputs[i].data);
        if (!tensors[i]) fail_msg("%s", hk_error_message());
        in[i] = hk_leaf(graph, tensors[i]);
    }
    struct hk_value *value = build(graph, in);
    if (value) result = hk_tensor_create(device, hk_value_dtype(value), hk_value_shape(value));
    if (result) hk_store(result, value);
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program || hk_program_run(program)) fail_msg("%s", hk_error_message());
    const int64_t n = hk_tensor_elements(result);
    void *raw = malloc(hk_tensor_bytes(result) + 1);
    double *out = malloc((size_t)(n + 1) * sizeof *out);
    if (!raw || !out || hk_tensor_read(result, raw, hk_tensor_bytes(result))) fail_msg("%s", hk_error_message());
    test_to_doubles(out, hk_tensor_dtype(result), raw, n);
    free(raw);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    for (int i = 0; i < n_inputs; i++) hk_tensor_destroy(&tensors[i]);
    hk_tensor_destroy(&result);
    return out;
}

void range_expect(const char *what, int64_t at, double x, double ref, double bound) {
    if (isnan(ref) ? isnan(x) : isinf(ref) ? x == ref : fabs(x - ref) <= bound) return;
    fail_msg("%s: element %lld is %.9g, not %.9g (at most %.3g off)", what, (long long)at, x, ref, bound);
}
