/* NaN is never lost: what computes with one gives NaN, wherever it stands in a vector, a row or a piece, on every
   device. (Training that has gone wrong must be seen.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"
#include <math.h>

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

enum { MOST = 20000 };

/* y is numbers; x the same, with NaN among them. */
struct op {
    const char *name;
    struct hk_value *(*f)(struct hk_value *x, struct hk_value *y);
};

#define OP(name, expression)                                                                                           \
    static struct hk_value *name(struct hk_value *x, struct hk_value *y) {                                             \
        (void)y;                                                                                                       \
        return expression;                                                                                             \
    }
OP(of_relu, hk_relu(x))
OP(of_leaky, hk_leaky_relu(x, 0.1f))
OP(of_elu, hk_elu(x, 1))
OP(of_exp, hk_exp(x))
OP(of_log, hk_log(hk_abs(x)))
OP(of_sqrt, hk_sqrt(hk_abs(x)))
OP(of_sin, hk_sin(x))
OP(of_tanh, hk_tanh(x))
OP(of_sigmoid, hk_sigmoid(x))
OP(of_silu, hk_silu(x))
OP(of_gelu, hk_gelu(x))
OP(of_gelu_tanh, hk_gelu_tanh(x))
OP(of_softplus, hk_softplus(x))
OP(of_maximum, hk_maximum(x, y))
OP(of_maximum_second, hk_maximum(y, x))
OP(of_minimum, hk_minimum(x, y))
OP(of_minimum_second, hk_minimum(y, x))
OP(of_f16, hk_cast(hk_cast(x, HK_F16), HK_F32))
OP(of_bf16, hk_cast(hk_cast(x, HK_BF16), HK_F32))

static struct hk_value *slope(struct hk_value *y, struct hk_value *x) {
    struct hk_value *grad = NULL;
    hk_gradients(hk_sum(y, HK_ALL_AXES, false), &x, 1, &grad);
    return grad;
}
OP(slope_of_exp, slope(hk_exp(x), x))
OP(slope_of_tanh, slope(hk_tanh(x), x))
OP(slope_of_sigmoid, slope(hk_sigmoid(x), x))
OP(slope_of_silu, slope(hk_silu(x), x))
OP(slope_of_gelu, slope(hk_gelu(x), x))
OP(slope_of_gelu_tanh, slope(hk_gelu_tanh(x), x))
OP(slope_of_softplus, slope(hk_softplus(x), x))
OP(slope_of_elu, slope(hk_elu(x, 1), x))
static const struct op elementwise[] = {{"relu", of_relu},
                                        {"leaky_relu", of_leaky},
                                        {"elu", of_elu},
                                        {"exp", of_exp},
                                        {"log", of_log},
                                        {"sqrt", of_sqrt},
                                        {"sin", of_sin},
                                        {"tanh", of_tanh},
                                        {"sigmoid", of_sigmoid},
                                        {"silu", of_silu},
                                        {"gelu", of_gelu},
                                        {"gelu_tanh", of_gelu_tanh},
                                        {"softplus", of_softplus},
                                        {"maximum", of_maximum},
                                        {"maximum's second", of_maximum_second},
                                        {"minimum", of_minimum},
                                        {"minimum's second", of_minimum_second},
                                        {"f16", of_f16},
                                        {"bf16", of_bf16},
                                        {"exp's slope", slope_of_exp},
                                        {"tanh's slope", slope_of_tanh},
                                        {"sigmoid's slope", slope_of_sigmoid},
                                        {"silu's slope", slope_of_silu},
                                        {"gelu's slope", slope_of_gelu},
                                        {"gelu_tanh's slope", slope_of_gelu_tanh},
                                        {"softplus's slope", slope_of_softplus},
                                        {"elu's slope", slope_of_elu}};

OP(of_sum, hk_sum(x, HK_ALL_AXES, false))
OP(of_mean, hk_mean(x, HK_ALL_AXES, false))
OP(of_max, hk_max(x, HK_ALL_AXES, false))
OP(of_columns, hk_max(hk_reshape(x, HK_SHAPE(-1, 1)), HK_AXES(0), false))
OP(of_pairs, hk_sum(hk_max(hk_reshape(x, HK_SHAPE(-1, 4)), HK_AXES(0), false), HK_ALL_AXES, false))
static const struct op reductions[] = {{"sum", of_sum},
                                       {"mean", of_mean},
                                       {"max", of_max},
                                       {"max of one column", of_columns},
                                       {"max of columns", of_pairs}};

OP(of_i32, hk_cast(x, HK_I32))
OP(of_u8, hk_cast(x, HK_U8))
OP(of_i8, hk_cast(x, HK_I8))
OP(of_argmax, hk_argmax(x, HK_ALL_AXES, false))

struct places {
    struct hk_tensor *x, *y;
    int64_t count;
};

static void run(struct hk_device *device, const struct op *op, struct places *p, void *got) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *value = op->f(hk_leaf(graph, p->x), hk_leaf(graph, p->y));
    struct hk_tensor *out = hk_tensor_create(device, hk_value_dtype(value), hk_value_shape(value));
    hk_store(out, value);
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s: %s", op->name, hk_error_message());
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(out, got, hk_tensor_bytes(out)), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&out);
}

/* Numbers, with NaN at two places. */
static struct places make_places(struct hk_device *device, int64_t count, int64_t at, int64_t also) {
    static float x[MOST];
    struct places p = {.count = count};
    uint64_t random = 1;
    for (int64_t i = 0; i < count; i++) x[i] = (float)test_uniform(&random, -3, 3);
    p.y = hk_tensor_from(device, HK_F32, HK_SHAPE(count), x);
    x[at] = x[also] = NAN;
    p.x = hk_tensor_from(device, HK_F32, HK_SHAPE(count), x);
    assert_true(p.x && p.y);
    return p;
}

static void free_places(struct places *p) {
    hk_tensor_destroy(&p->x);
    hk_tensor_destroy(&p->y);
}

static void nan_stays_in_its_place(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct places p = make_places(devices[d], 77, 5, 76); /* within a vector, and behind the last whole one */
        for (int i = 0; i < COUNT(elementwise); i++) {
            float got[77];
            run(devices[d], &elementwise[i], &p, got);
            for (int k = 0; k < 77; k++)
                if (!isnan(got[k]) != (k != 5 && k != 76))
                    fail_msg("%s on %s: element %d is %g", elementwise[i].name, test_device_name(devices[d]), k,
                             (double)got[k]);
        }
        free_places(&p);
    }
}

static void one_nan_makes_a_reduction_nan(void **state) {
    (void)state;
    static const int64_t places[][3] = {{36, 0, 0}, {36, 35, 35}, {36, 9, 9}, {MOST, 16390, 16390}, {MOST, 70, 70}};
    for (int d = 0; d < n_devices; d++)
        for (int k = 0; k < COUNT(places); k++) {
            struct places p = make_places(devices[d], places[k][0], places[k][1], places[k][2]);
            for (int i = 0; i < COUNT(reductions); i++) {
                float got = 0;
                run(devices[d], &reductions[i], &p, &got);
                if (!isnan(got))
                    fail_msg("%s of %d numbers on %s is %g", reductions[i].name, (int)places[k][0],
                             test_device_name(devices[d]), (double)got);
            }
            free_places(&p);
        }
}

static void argmax_gives_the_first_nan(void **state) {
    (void)state;
    static const int64_t places[][3] = {
        {36, 9, 20}, {36, 35, 3}, {77, 64, 65}, {MOST, 70, 16390}, {MOST, 19999, 17000}};
    const struct op argmax = {"argmax", of_argmax};
    for (int d = 0; d < n_devices; d++)
        for (int k = 0; k < COUNT(places); k++) {
            const int64_t first = places[k][1] < places[k][2] ? places[k][1] : places[k][2];
            struct places p = make_places(devices[d], places[k][0], places[k][1], places[k][2]);
            int32_t got = -1;
            run(devices[d], &argmax, &p, &got);
            if (got != first)
                fail_msg("argmax of %d numbers on %s is %d, not %d", (int)p.count, test_device_name(devices[d]), got,
                         (int)first);
            free_places(&p);
        }
}

/* There is none among the integers. */
static void nan_becomes_the_integer_0(void **state) {
    (void)state;
    const struct op to_i32 = {"i32", of_i32}, to_u8 = {"u8", of_u8}, to_i8 = {"i8", of_i8};
    for (int d = 0; d < n_devices; d++) {
        struct places p = make_places(devices[d], 77, 5, 76);
        int32_t whole[77];
        uint8_t bytes[77];
        int8_t signs[77];
        run(devices[d], &to_i32, &p, whole);
        run(devices[d], &to_u8, &p, bytes);
        run(devices[d], &to_i8, &p, signs);
        assert_true(whole[5] == 0 && whole[76] == 0 && bytes[5] == 0 && bytes[76] == 0);
        assert_true(signs[5] == 0 && signs[76] == 0);
        free_places(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nan_stays_in_its_place),
        cmocka_unit_test(one_nan_makes_a_reduction_nan),
        cmocka_unit_test(argmax_gives_the_first_nan),
        cmocka_unit_test(nan_becomes_the_integer_0),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
