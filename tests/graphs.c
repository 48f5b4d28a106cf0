#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graphs.h"
#include <math.h>
#include <string.h>

struct hk_device *graph_devices[TEST_MAX_DEVICES], *graph_device;
int n_graph_devices;

struct hk_tensor *graph_tensor(struct hk_shape shape, const float *data) {
    struct hk_tensor *t = hk_tensor_create(graph_device, HK_F32, shape);
    assert_non_null(t);
    if (data) assert_int_equal(hk_tensor_write(t, data, hk_tensor_bytes(t)), HK_OK);
    return t;
}

void graph_run(struct hk_graph *graph) {
    struct hk_program *program = hk_compile(graph_device, graph, NULL);
    if (!program) print_error("%s\n", hk_error_message());
    assert_non_null(program);
    assert_int_equal(hk_program_run(program), HK_OK);
    hk_program_destroy(&program);
    assert_null(program);
}

void graph_expect(struct hk_tensor *t, const float *wanted, int count) {
    float x[64];
    assert_int_equal(hk_tensor_read(t, x, (size_t)count * sizeof *x), HK_OK);
    for (int i = 0; i < count; i++)
        if (!(fabsf(x[i] - wanted[i]) <= 1e-5f * (1 + fabsf(wanted[i]))))
            fail_msg("element %d is %g, not %g, on %s", i, (double)x[i], (double)wanted[i],
                     test_device_name(graph_device));
}

void graph_refused(struct hk_graph *graph, hk_status status, const char *message) {
    assert_null(hk_compile(graph_device, graph, NULL));
    assert_int_equal(hk_error_status(), status);
    if (!strstr(hk_error_message(), message)) fail_msg("\"%s\" lacks \"%s\"", hk_error_message(), message);
}

struct hk_value *graph_store_gradient(struct hk_value *loss, struct hk_tensor *x, struct hk_tensor *grad) {
    struct hk_value *g = NULL;
    assert_int_equal(hk_gradients(loss, (struct hk_value *[]){hk_leaf(hk_value_graph(loss), x)}, 1, &g), HK_OK);
    assert_non_null(g);
    hk_store(grad, g);
    return g;
}
