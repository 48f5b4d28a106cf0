/* Sums of ten million terms, rows longer than 16 bits of steps, and optimizer steps at the ends of the range, against
   double. No kernel adds more than a few hundred terms in a row: that is what the bound says, and what a plain loop
   fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "range.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 0x1p-24

enum { MANY = 10000019, IN_A_ROW = 300 };

/* In [0.5, 1.5), so that the rounding of a plain sum does not cancel. */
static float *terms(int64_t n) {
    uint64_t random = 13;
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)test_uniform(&random, 0.5, 1.5);
    return x;
}

/* ---- Sums along both axes ---- */

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return expression;                                                                                             \
    }
BUILD(sum_rows, hk_sum(in[0], HK_AXES(1), false))
BUILD(sum_columns, hk_sum(in[0], HK_AXES(0), false))
BUILD(mean_all, hk_mean(in[0], HK_ALL_AXES, false))
BUILD(norm, hk_sqrt(hk_sum(hk_square(in[0]), HK_ALL_AXES, false)))

static void check_axis(struct hk_device *device, const float *x, int64_t rows, int64_t columns, int axis) {
    const struct range_input in = {HK_F32, HK_SHAPE(rows, columns), x};
    double *got = range_run(device, axis ? sum_rows : sum_columns, &in, 1);
    for (int64_t r = 0; r < (axis ? rows : columns); r++) {
        double sum = 0;
        for (int64_t k = 0; k < (axis ? columns : rows); k++)
            sum += (double)x[axis ? r * columns + k : k * columns + r];
        range_expect(axis ? "a sum along rows" : "a sum along columns", r, got[r], sum, IN_A_ROW * UNIT * sum);
    }
    free(got);
}

static void check_sums(struct hk_device *device) {
    float *x = terms(MANY);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < MANY; i++) sum += (double)x[i], squares += (double)x[i] * (double)x[i];
    check_axis(device, x, 1, MANY, 1);
    check_axis(device, x, MANY, 1, 0);
    check_axis(device, x, 3, MANY / 3, 1);
    check_axis(device, x, MANY / 3, 3, 0);
    check_axis(device, x, MANY / 70, 70, 0);
    const struct range_input in = {HK_F32, HK_SHAPE(MANY), x};
    double *mean = range_run(device, mean_all, &in, 1), *root = range_run(device, norm, &in, 1);
    range_expect("a mean", 0, mean[0], sum / MANY, IN_A_ROW * UNIT * sum / MANY);
    range_expect("a norm", 0, root[0], sqrt(squares), IN_A_ROW * UNIT * sqrt(squares));
    free(mean), free(root), free(x);
}
static void sums_of_ten_million_terms(void **unused) {
    (void)unused;
    range_each_device(check_sums);
}

static struct hk_tensor *tensor(struct hk_device *device, int64_t n, const float *data) {
    struct hk_tensor *t = hk_tensor_from(device, HK_F32, HK_SHAPE(n), data);
    if (!t) fail_msg("%s", hk_error_message());
    return t;
}

static void run(struct hk_device *device, struct hk_graph **graph) {
    struct hk_program *program = hk_compile(device, *graph, NULL);
    if (!program || hk_program_run(program)) fail_msg("%s", hk_error_message());
    hk_program_destroy(&program);
    hk_graph_destroy(graph);
}

static double read_first(struct hk_tensor *t) {
    float x;
    assert_int_equal(hk_tensor_read(t, &x, sizeof x), HK_OK);
    return (double)x;
}

static void check_global_norm(struct hk_device *device) {
    enum { PARTS = 3 };
    float *x = terms(MANY), *zero = calloc(1, sizeof *zero);
    struct hk_tensor *parts[PARTS], *result = tensor(device, 1, zero);
    double squares = 0;
    for (int k = 0; k < PARTS; k++) parts[k] = tensor(device, MANY / PARTS, x + k * (MANY / PARTS));
    for (int64_t i = 0; i < MANY / PARTS * PARTS; i++) squares += (double)x[i] * (double)x[i];
    struct hk_graph *graph = hk_graph_create();
    hk_store(result, hk_global_norm(graph, parts, PARTS));
    run(device, &graph);
    range_expect("the global norm", 0, read_first(result), sqrt(squares), IN_A_ROW * UNIT * sqrt(squares));
    for (int k = 0; k < PARTS; k++) hk_tensor_destroy(&parts[k]);
    hk_tensor_destroy(&result);
    free(x), free(zero);
}
static void the_global_norm_of_ten_million_terms(void **unused) {
    (void)unused;
    range_each_device(check_global_norm);
}

/* ---- Long rows. llvmpipe ends loops without a word when an invocation has gone round 65,535 times in all ---- */

BUILD(softmax, hk_softmax(in[0], -1))
BUILD(log_softmax, hk_log_softmax(in[0], -1))
BUILD(cross_entropy, hk_cross_entropy(in[0], in[1], NULL))
BUILD(layer_norm, hk_layer_norm(in[0], in[1], NULL, 1e-5f))
BUILD(largest, hk_max(in[0], HK_AXES(1), false))
BUILD(where_largest, hk_cast(hk_argmax(in[0], HK_AXES(1), false), HK_F32))

static void check_long_softmax(struct hk_device *device, const float *x, int64_t n) {
    const int32_t target = (int32_t)(n - 3);
    const struct range_input in[2] = {{HK_F32, HK_SHAPE(1, n), x}, {HK_I32, HK_SHAPE(1), &target}};
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i]);
    double *p = range_run(device, softmax, in, 1), *l = range_run(device, log_softmax, in, 1),
           *loss = range_run(device, cross_entropy, in, 2);
    for (int64_t i = 0; i < n; i += 997) {
        range_expect("softmax", i, p[i], exp((double)x[i]) / sum, IN_A_ROW * UNIT * exp((double)x[i]) / sum);
        range_expect("log_softmax", i, l[i], (double)x[i] - log(sum), IN_A_ROW * UNIT);
    }
    range_expect("cross entropy", 0, loss[0], log(sum) - (double)x[target], IN_A_ROW * UNIT);
    free(p), free(l), free(loss);
}

static void check_long_norm(struct hk_device *device, const float *x, int64_t n) {
    const struct range_input in[2] = {{HK_F32, HK_SHAPE(1, n), x}, {HK_F32, HK_SHAPE(n), x}};
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    double *y = range_run(device, layer_norm, in, 2);
    for (int64_t i = 0; i < n; i += 997)
        range_expect("layer_norm", i, y[i], ((double)x[i] - mean) / sqrt(variance + 1e-5) * (double)x[i],
                     IN_A_ROW * UNIT / 4);
    free(y);
}

static void check_rows_of(struct hk_device *device, int64_t n) {
    float *x = terms(n);
    const struct range_input in = {HK_F32, HK_SHAPE(1, n), x};
    x[n - 5] = 2;
    double *most = range_run(device, largest, &in, 1), *at = range_run(device, where_largest, &in, 1);
    range_expect("the maximum", 0, most[0], 2, 0);
    range_expect("argmax", 0, at[0], (double)(float)(n - 5), 0);
    free(most), free(at);
    check_long_softmax(device, x, n);
    check_long_norm(device, x, n);
    free(x);
}

/* On a software device: longer ones are refused. */
static void check_refused(struct hk_device *device, int64_t n) {
    struct hk_tensor *x = hk_tensor_create(device, HK_F32, HK_SHAPE(1, n));
    struct hk_graph *graph = hk_graph_create();
    hk_store(x, hk_softmax(hk_leaf(graph, x), -1));
    assert_null(hk_compile(device, graph, NULL));
    assert_int_equal(hk_error_status(), HK_ERROR_UNSUPPORTED);
    assert_non_null(strstr(hk_error_message(), "too long for this device"));
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
}

static void check_long_rows(struct hk_device *device) {
    enum { MOST = 1 << 22 };
    const char *kernels = getenv("HEKLA_GPU_KERNELS");
    check_rows_of(device, MOST);
    if (test_is_cpu(device) && range_is_long()) check_rows_of(device, (65536 + 300) * 256 + 77);
    if (hk_device_get_info(device)->software && !(kernels && !strcmp(kernels, "1"))) check_refused(device, MOST + 1);
}
static void rows_of_four_million(void **unused) {
    (void)unused;
    range_each_device(check_long_rows);
}

/* ---- Optimizer steps ---- */

/* One step from parameter 1, moments 0. */
static double step(struct hk_device *device, enum hk_optimizer_kind kind, float g, float clip) {
    const float one = 1, zero = 0, hyper[HK_HYPER_COUNT] = {0.1f, 0.9f, 0.999f, 1e-8f, 0, 0.1f, 0.001f, clip};
    struct hk_tensor *p = tensor(device, 1, &one), *gradient = tensor(device, 1, &g), *m = tensor(device, 1, &zero),
                     *v = tensor(device, 1, &zero), *h = tensor(device, HK_HYPER_COUNT, hyper);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *size = clip > 0 ? hk_global_norm(graph, &gradient, 1) : NULL;
    hk_optimizer_update(kind,
                        &(struct hk_optimizer_slab){.parameters = p, .gradients = gradient, .moment1 = m, .moment2 = v},
                        hk_leaf(graph, h), size);
    run(device, &graph);
    const double result = read_first(p);
    hk_tensor_destroy(&p), hk_tensor_destroy(&gradient), hk_tensor_destroy(&m), hk_tensor_destroy(&v),
        hk_tensor_destroy(&h);
    return result;
}

static void check_steps(struct hk_device *device) {
    range_expect("adam, gradient 0", 0, step(device, HK_ADAMW, 0, 0), 1, 0);
    range_expect("adam, gradient 1", 0, step(device, HK_ADAMW, 1, 0), 0.9, 1e-6);
    range_expect("adam, gradient -1e15", 0, step(device, HK_ADAMW, -1e15f, 0), 1.1, 1e-6);
    range_expect("adam, gradient 1e-6", 0, step(device, HK_ADAMW, 1e-6f, 0), 1 - 0.1 / 1.01, 1e-6);
    range_expect("adam, gradient NaN", 0, step(device, HK_ADAMW, NAN, 0), NAN, 0);
    range_expect("adam, clipped from 1e15", 0, step(device, HK_ADAMW, 1e15f, 1), 0.9, 1e-6);
    range_expect("adam, clipped, gradient 0", 0, step(device, HK_ADAMW, 0, 1), 1, 0);
    range_expect("adam, clipped, gradient NaN", 0, step(device, HK_ADAMW, NAN, 1), NAN, 0);
    range_expect("sgd, gradient 0", 0, step(device, HK_SGD, 0, 0), 1, 0);
    range_expect("sgd, gradient 1e30", 0, step(device, HK_SGD, 1e30f, 0), -1e29, 1e23);
    range_expect("sgd, clipped from 1e15", 0, step(device, HK_SGD, 1e15f, 1), 0.9, 1e-6);
    range_expect("sgd, gradient inf", 0, step(device, HK_SGD, INFINITY, 0), -INFINITY, 0);
}
static void optimizer_steps_at_the_ends(void **unused) {
    (void)unused;
    range_each_device(check_steps);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_ten_million_terms),
        cmocka_unit_test(the_global_norm_of_ten_million_terms),
        cmocka_unit_test(rows_of_four_million),
        cmocka_unit_test(optimizer_steps_at_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
