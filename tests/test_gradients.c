/* Gradients: sums where a value is used more than once, what ops say where mathematics does not, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graphs.h"
#include <math.h>

static void test_gradients_of_shared_parts_add_up(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = graph_tensor(HK_SHAPE(3), NULL),
                         *second = graph_tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *square = hk_mul(v, v), *cube = hk_mul(square, v);
        struct hk_value *loss =
            hk_sum(hk_add(hk_add(cube, square), hk_add(cube, v)), HK_ALL_AXES, false); /* 2x^3 + x^2 + x */
        struct hk_value *g = graph_store_gradient(loss, x, grad);
        graph_store_gradient(hk_sum(g, HK_ALL_AXES, false), x, second); /* the gradient of a gradient */
        graph_run(graph);
        EXPECT(grad, 9, 29, 61);    /* 6x^2 + 2x + 1 */
        EXPECT(second, 14, 26, 38); /* 12x + 2 */
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&grad), hk_tensor_destroy(&second);
    }
}

/* The embedding's gradient is added on top of the sum's, which is the very value that it spreads. */
static void test_gradients_of_16_bits_add_up(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        for (enum hk_dtype dtype = HK_F16; dtype <= HK_BF16; dtype++) {
            struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = graph_tensor(HK_SHAPE(3), NULL);
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_cast(hk_leaf(graph, x), dtype), *wide = hk_cast(v, HK_F32);
            struct hk_value *rows = hk_cast(hk_broadcast_to(v, HK_SHAPE(4, 3)), HK_F32);
            graph_store_gradient(hk_sum(hk_mul(wide, rows), HK_ALL_AXES, false), x, grad); /* 4 x^2 */
            graph_run(graph);
            EXPECT(grad, 8, 16, 24);
            hk_graph_destroy(&graph);
            hk_tensor_destroy(&x), hk_tensor_destroy(&grad);
        }
    }
}

static void test_gradients_of_a_table_that_is_also_added_add_up(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3, 1), 1, 2, 3), *dx = graph_tensor(HK_SHAPE(3, 1), NULL);
        struct hk_tensor *index = hk_tensor_from(graph_device, HK_I32, HK_SHAPE(3), (const int32_t[]){1, 2, 0});
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *table = hk_leaf(graph, x), *grad;
        struct hk_value *y = hk_add(table, hk_embedding(table, hk_leaf(graph, index))); /* 3 5 4 */
        assert_int_equal(hk_gradients(hk_sum(hk_square(y), HK_ALL_AXES, false), &table, 1, &grad), HK_OK);
        hk_store(dx, grad);
        graph_run(graph);
        EXPECT(dx, 6 + 8, 10 + 6, 8 + 10);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&dx);
        hk_tensor_destroy(&index);
    }
}

static void test_gradients_of_what_was_broadcast_are_sums(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *row = TENSOR(HK_SHAPE(3), 1, 2, 3), *column = TENSOR(HK_SHAPE(2, 1), 4, 5),
                         *one = TENSOR(HK_SCALAR, 2);
        struct hk_tensor *grads[3] = {graph_tensor(HK_SHAPE(3), NULL), graph_tensor(HK_SHAPE(2, 1), NULL),
                                      graph_tensor(HK_SCALAR, NULL)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrt[3] = {hk_leaf(graph, row), hk_leaf(graph, column), hk_leaf(graph, one)}, *g[3];
        struct hk_value *loss = hk_sum(hk_mul(hk_mul(wrt[0], wrt[1]), wrt[2]), HK_ALL_AXES, false);
        assert_int_equal(hk_gradients(loss, wrt, 3, g), HK_OK);
        for (int i = 0; i < 3; i++) hk_store(grads[i], g[i]);
        graph_run(graph);
        EXPECT(grads[0], 18, 18, 18);
        EXPECT(grads[1], 12, 12);
        EXPECT(grads[2], 54);
        hk_graph_destroy(&graph);
        for (int i = 0; i < 3; i++) hk_tensor_destroy(&grads[i]);
        hk_tensor_destroy(&row), hk_tensor_destroy(&column), hk_tensor_destroy(&one);
    }
}

/* Of equal values each has half of it; of others the one that was taken, all. */
static void test_gradients_of_extrema_share_ties(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *y = TENSOR(HK_SHAPE(3), 1, 5, 1);
        struct hk_tensor *grads[2] = {graph_tensor(HK_SHAPE(3), NULL), graph_tensor(HK_SHAPE(3), NULL)};
        for (int least = 0; least < 2; least++) {
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *wrt[2] = {hk_leaf(graph, x), hk_leaf(graph, y)}, *g[2];
            struct hk_value *z = least ? hk_minimum(wrt[0], wrt[1]) : hk_maximum(wrt[0], wrt[1]);
            assert_int_equal(hk_gradients(hk_sum(hk_affine(z, 4, 0), HK_ALL_AXES, false), wrt, 2, g), HK_OK);
            for (int i = 0; i < 2; i++) hk_store(grads[i], g[i]);
            graph_run(graph);
            EXPECT(grads[least], 2, 0, 4);
            EXPECT(grads[!least], 2, 4, 0);
            hk_graph_destroy(&graph);
        }
        for (int i = 0; i < 2; i++) hk_tensor_destroy(&grads[i]);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
    }
}

/* x^e at 0, as PyTorch has it: no NaN of 0 log 0. */
static void test_gradients_of_powers_of_zero_are_zero(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 0, 0, 2), *e = TENSOR(HK_SHAPE(3), 2, 0, 3);
        struct hk_tensor *grads[2] = {graph_tensor(HK_SHAPE(3), NULL), graph_tensor(HK_SHAPE(3), NULL)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrt[2] = {hk_leaf(graph, x), hk_leaf(graph, e)}, *g[2];
        assert_int_equal(hk_gradients(hk_sum(hk_pow(wrt[0], wrt[1]), HK_ALL_AXES, false), wrt, 2, g), HK_OK);
        for (int i = 0; i < 2; i++) hk_store(grads[i], g[i]);
        graph_run(graph);
        EXPECT(grads[0], 0, 0, 12);
        EXPECT(grads[1], 0, 0, 8 * logf(2));
        hk_graph_destroy(&graph);
        for (int i = 0; i < 2; i++) hk_tensor_destroy(&grads[i]);
        hk_tensor_destroy(&x), hk_tensor_destroy(&e);
    }
}

static void test_gradients_stop_and_are_zero_where_nothing_depends(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(2), 3, 4), *y = TENSOR(HK_SHAPE(2), 5, 6);
        struct hk_tensor *grads[2] = {TENSOR(HK_SHAPE(2), 9, 9), TENSOR(HK_SHAPE(2), 9, 9)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrt[2] = {hk_leaf(graph, x), hk_leaf(graph, y)}, *g[2];
        struct hk_value *loss = hk_sum(hk_mul(hk_stop_gradient(wrt[0]), hk_square(wrt[0])), HK_ALL_AXES, false);
        assert_int_equal(hk_gradients(loss, wrt, 2, g), HK_OK);
        for (int i = 0; i < 2; i++) hk_store(grads[i], g[i]);
        graph_run(graph);
        EXPECT(grads[0], 18, 32); /* x * 2x */
        EXPECT(grads[1], 0, 0);
        hk_graph_destroy(&graph);
        for (int i = 0; i < 2; i++) hk_tensor_destroy(&grads[i]);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
    }
}

/* What the backward ops read must be what the forward ops read. */
static void test_gradients_of_what_has_changed_are_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        for (int keep = 0; keep < 2; keep++) {
            struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = graph_tensor(HK_SHAPE(3), NULL);
            struct hk_tensor *part = hk_tensor_view(x, 1, HK_SHAPE(1));
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_leaf(graph, x), *y = keep ? hk_add(v, v) : hk_square(v), *g;
            hk_store(part, hk_fill(graph, HK_F32, HK_SHAPE(1), 100));
            const hk_status status = hk_gradients(hk_sum(y, HK_ALL_AXES, false), &v, 1, &g);
            assert_int_equal(status, keep ? HK_OK : HK_ERROR_INVALID);
            if (keep) { /* a sum's gradient asks for nothing that it added */
                hk_store(grad, g);
                graph_run(graph);
                EXPECT(grad, 2, 2, 2);
            } else {
                graph_refused(graph, HK_ERROR_INVALID, "the gradient of square needs a tensor [3] as it was");
            }
            hk_graph_destroy(&graph);
            hk_tensor_destroy(&x), hk_tensor_destroy(&grad), hk_tensor_destroy(&part);
        }
    }
}

/* Also where the very next op changes it. */
static void test_gradients_of_what_has_just_changed_are_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *other = TENSOR(HK_SHAPE(3), 4, 5, 6);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *w = hk_leaf(graph, other), *y = hk_square(v), *g;
        hk_store(x, w);
        assert_int_equal(hk_gradients(hk_sum(y, HK_ALL_AXES, false), &v, 1, &g), HK_ERROR_INVALID);
        graph_refused(graph, HK_ERROR_INVALID, "the gradient of square needs a tensor [3] as it was");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&other);
    }
}

static void test_gradients_that_do_not_exist_are_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(2), NULL);
        struct hk_value *g;
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x);
        assert_int_equal(hk_gradients(hk_relu(v), &v, 1, &g), HK_ERROR_INVALID);
        graph_refused(graph, HK_ERROR_INVALID, "one f32 number");
        hk_graph_destroy(&graph);
        graph = hk_graph_create();
        v = hk_leaf(graph, x);
        struct hk_value *loss = hk_global_norm(graph, &x, 1);
        assert_int_equal(hk_gradients(loss, &v, 1, &g), HK_ERROR_INVALID);
        graph_refused(graph, HK_ERROR_INVALID, "has no gradient");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
    }
}

/* x's gradient, after `late` is stored to `changed`: must be possible. */
static void check_gradient(struct hk_value *loss, struct hk_value *x, struct hk_tensor *changed,
                           struct hk_value *late) {
    struct hk_tensor *result = graph_tensor(hk_value_shape(x), NULL);
    struct hk_graph *graph = hk_value_graph(loss);
    struct hk_value *dx;
    hk_store(changed, late);
    assert_int_equal(hk_gradients(loss, &x, 1, &dx), HK_OK);
    hk_store(result, dx);
    struct hk_program *program = hk_compile(graph_device, graph, NULL);
    assert_non_null(program);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&result);
}

/* What no gradient needs may read what a store has changed since: in a segment that is repeated, and where a large
   product's gradient needs one of its inputs alone. */
static void test_gradients_ask_for_no_more_than_they_need(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *w = graph_tensor(HK_SHAPE(4), NULL), *s = graph_tensor(HK_SHAPE(4), NULL);
        struct hk_tensor *large = graph_tensor(HK_SHAPE(2 << 20), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *x = hk_leaf(graph, w), *count = hk_affine(hk_leaf(graph, s), 1, 1);
        struct hk_value *y = hk_checkpoint(hk_tanh(x));
        check_gradient(hk_sum(hk_square(y), HK_ALL_AXES, false), x, s, count);
        graph = hk_graph_create();
        x = hk_leaf(graph, large);
        y = hk_mul(x, hk_slice(hk_leaf(graph, s), 0, 0, 1, 1));
        check_gradient(hk_sum(hk_square(y), HK_ALL_AXES, false), x, large, hk_affine(x, 0.5f, 0));
        hk_tensor_destroy(&w);
        hk_tensor_destroy(&s);
        hk_tensor_destroy(&large);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_shared_parts_add_up),
        cmocka_unit_test(test_gradients_of_16_bits_add_up),
        cmocka_unit_test(test_gradients_of_a_table_that_is_also_added_add_up),
        cmocka_unit_test(test_gradients_of_what_was_broadcast_are_sums),
        cmocka_unit_test(test_gradients_of_extrema_share_ties),
        cmocka_unit_test(test_gradients_of_powers_of_zero_are_zero),
        cmocka_unit_test(test_gradients_stop_and_are_zero_where_nothing_depends),
        cmocka_unit_test(test_gradients_of_what_has_changed_are_refused),
        cmocka_unit_test(test_gradients_of_what_has_just_changed_are_refused),
        cmocka_unit_test(test_gradients_that_do_not_exist_are_refused),
        cmocka_unit_test(test_gradients_ask_for_no_more_than_they_need),
    };
    n_graph_devices = test_devices_open(graph_devices);
    return test_devices_end(graph_devices, n_graph_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
