/* Graphs and the tensors that they read and change: what their headers promise, on every device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graphs.h"
#include <stdlib.h>
#include <string.h>

/* ---- Errors ---- */

static void test_the_first_error_stays(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(2, 3), NULL), *y = graph_tensor(HK_SHAPE(4, 5), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrong = hk_matmul(hk_leaf(graph, x), hk_leaf(graph, y));
        assert_null(wrong);
        assert_int_equal(hk_graph_status(graph), HK_ERROR_INVALID);
        assert_null(hk_relu(wrong));
        assert_null(hk_add(wrong, hk_leaf(graph, x)));
        assert_null(hk_softmax(hk_leaf(graph, x), 7)); /* also wrong, later */
        hk_store(x, wrong);
        struct hk_value *grad;
        assert_int_not_equal(hk_gradients(wrong, (struct hk_value *[]){hk_leaf(graph, x)}, 1, &grad), HK_OK);
        graph_refused(graph, HK_ERROR_INVALID, "matmul: inner sizes differ: ");
        hk_graph_destroy(&graph);
        assert_null(graph);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
    }
}

/* Numbers of elements that would wrap around are refused where they arise, before anything is counted with them. */
static void test_sizes_that_overflow_are_refused(void **state) {
    (void)state;
    enum { CASES = 8 };
    const int64_t huge = (int64_t)1 << 40, before[2] = {INT64_MAX, 0}, after[2] = {0, 0};
    graph_device = graph_devices[0];
    struct hk_tensor *x = graph_tensor(HK_SHAPE(1, 1), NULL);
    for (int i = 0; i < CASES; i++) {
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *long_row = hk_broadcast_to(v, HK_SHAPE(INT64_MAX / 8, 1)), *wide[9];
        for (int k = 0; k < COUNT(wide); k++) wide[k] = long_row;
        struct hk_value *refused[CASES] = {
            [0] = i == 0 ? hk_broadcast_to(v, HK_SHAPE(huge, huge)) : NULL,
            [1] = i == 1 ? hk_add(hk_broadcast_to(v, HK_SHAPE(huge, 1)), hk_broadcast_to(v, HK_SHAPE(1, huge))) : NULL,
            [2] = i == 2 ? hk_fill(graph, HK_F32, HK_SHAPE(huge, huge, 0), 0) : NULL,
            [3] = i == 3 ? hk_concat(wide, COUNT(wide), 0) : NULL,
            [4] = i == 4 ? hk_pad(v, before, after, 0) : NULL,
            [5] =
                i == 5 ? hk_matmul(hk_broadcast_to(v, HK_SHAPE(huge, 1)), hk_broadcast_to(v, HK_SHAPE(1, huge))) : NULL,
            [6] = i == 6 ? hk_sum(hk_broadcast_to(v, HK_SHAPE(huge, huge)), HK_ALL_AXES, false) : NULL,
            [7] = i == 7 ? hk_reshape(hk_broadcast_to(v, HK_SHAPE(huge, huge)), HK_SHAPE(-1)) : NULL,
        };
        assert_null(refused[i]);
        assert_int_not_equal(hk_graph_status(graph), HK_OK);
        hk_graph_destroy(&graph);
    }
    struct hk_graph *graph = hk_graph_create();
    assert_int_equal(hk_value_shape(hk_slice(hk_fill(graph, HK_F32, HK_SHAPE(4, 4), 0), 0, 0, 4, INT64_MAX)).size[0],
                     1);
    assert_int_equal(hk_graph_status(graph), HK_OK);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    assert_null(hk_tensor_create(graph_device, HK_F32, HK_SHAPE((int64_t)1 << 62))); /* bytes that wrap to 0 */
    assert_int_equal(hk_error_status(), HK_ERROR_INVALID);
}

static void test_null_is_refused(void **state) {
    (void)state;
    graph_device = graph_devices[0];
    struct hk_tensor *t = graph_tensor(HK_SHAPE(2, 2), NULL);
    struct hk_stats stats = {.runs = 1};
    struct hk_value *grad;
    double number;
    assert_null(hk_device_get_info(NULL));
    assert_int_equal(hk_device_wait(NULL), HK_ERROR_INVALID);
    assert_int_equal(hk_device_measure(NULL, &number, &number), HK_ERROR_INVALID);
    assert_int_equal(hk_device_measure(graph_device, NULL, NULL), HK_ERROR_INVALID);
    assert_int_equal(hk_device_write_trace(NULL, "trace"), HK_ERROR_INVALID);
    hk_device_get_stats(graph_device, NULL);
    hk_device_get_stats(NULL, &stats);
    assert_int_equal(stats.runs, 0);
    assert_null(hk_tensor_device(NULL));
    assert_int_equal(hk_tensor_shape(NULL).rank, 0);
    assert_int_equal(hk_tensor_bytes(NULL), 0);
    assert_null(hk_program_get_info(NULL));
    for (int i = 0; i < 6; i++) {
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *x = hk_leaf(graph, t);
        switch (i) {
        case 0: assert_null(hk_pad(x, NULL, NULL, 0)); break;
        case 1: assert_null(hk_global_norm(graph, NULL, 1)); break;
        case 2: assert_int_equal(hk_gradients(hk_sum(x, HK_ALL_AXES, false), NULL, 1, &grad), HK_ERROR_INVALID); break;
        case 3: assert_int_equal(hk_gradients(hk_sum(x, HK_ALL_AXES, false), &x, 1, NULL), HK_ERROR_INVALID); break;
        case 4: assert_int_equal(hk_gradients(hk_sum(x, HK_ALL_AXES, false), &x, -1, &grad), HK_ERROR_INVALID); break;
        default:
            hk_optimizer_update(HK_SGD, &(struct hk_optimizer_slab){.parameters = t, .gradients = t}, NULL,
                                x); /* would train nothing */
        }
        assert_int_equal(hk_graph_status(graph), HK_ERROR_INVALID);
        hk_graph_destroy(&graph);
    }
    assert_null(hk_concat(NULL, 2, 0));
    hk_tensor_destroy(&t);
}

static void test_values_of_two_graphs_do_not_mix(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(3), NULL);
        struct hk_graph *one = hk_graph_create(), *two = hk_graph_create();
        assert_null(hk_add(hk_leaf(one, x), hk_leaf(two, x)));
        graph_refused(one, HK_ERROR_INVALID, "two graphs");
        graph_refused(two, HK_ERROR_INVALID, "two graphs");
        hk_graph_destroy(&one);
        hk_graph_destroy(&two);
        hk_tensor_destroy(&x);
    }
}

static void test_what_cannot_be_compiled_is_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(3), NULL), *y = graph_tensor(HK_SHAPE(4), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_relu(hk_leaf(graph, x));
        graph_refused(graph, HK_ERROR_INVALID, "stores nothing");
        hk_store(y, hk_relu(hk_leaf(graph, x)));
        graph_refused(graph, HK_ERROR_INVALID, "[4]");
        assert_null(hk_compile(NULL, graph, NULL));
        assert_null(hk_compile(graph_device, NULL, NULL));
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
        hk_tensor_destroy(&y);
    }
}

static void test_a_tensor_of_another_device_is_refused(void **state) {
    (void)state;
    struct hk_device *other = test_device_open("cpu");
    assert_non_null(other);
    ON_EACH_DEVICE {
        struct hk_tensor *foreign = hk_tensor_create(other, HK_F32, HK_SHAPE(3)),
                         *own = graph_tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(own, hk_relu(hk_leaf(graph, foreign)));
        graph_refused(graph, HK_ERROR_INVALID, "another device");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&foreign);
        hk_tensor_destroy(&own);
    }
    hk_device_destroy(&other);
}

static void test_a_device_that_is_not_there_is_refused_with_those_that_are(void **state) {
    (void)state;
    static const char *const names[] = {"vulkan:99", "vulkan:-1", "vulkan:0x", "vulkan:no such GPU",
                                        "vulkan:",   "gpu",       ""};
    for (int i = 0; i < COUNT(names); i++) {
        assert_null(hk_device_open(&(struct hk_device_params){.name = names[i]}));
        assert_int_equal(hk_error_status(), HK_ERROR_NO_DEVICE);
        assert_non_null(strstr(hk_error_message(), "cpu ("));
    }
}

static void test_an_update_of_overlapping_memory_is_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *all = graph_tensor(HK_SHAPE(102), NULL),
                         *hyper = graph_tensor(HK_SHAPE(HK_HYPER_COUNT), NULL);
        struct hk_tensor *a = hk_tensor_view(all, 0, HK_SHAPE(40)), *b = hk_tensor_view(all, 40, HK_SHAPE(40)),
                         *c = hk_tensor_view(all, 79, HK_SHAPE(20)), *d = hk_tensor_view(all, 39, HK_SHAPE(40)),
                         *e = hk_tensor_view(all, 92, HK_SHAPE(HK_HYPER_COUNT)),
                         *f = hk_tensor_view(all, 0, HK_SHAPE(20));
        struct hk_graph *graph = hk_graph_create();
        hk_optimizer_update(HK_SGD, &(struct hk_optimizer_slab){.parameters = a, .gradients = b}, hk_leaf(graph, hyper),
                            NULL); /* neighbours */
        hk_optimizer_update(HK_SGD, &(struct hk_optimizer_slab){.parameters = a, .gradients = b}, hk_leaf(graph, e),
                            NULL);
        assert_int_equal(hk_graph_status(graph), HK_OK);
        hk_graph_destroy(&graph);
        struct hk_tensor *const bad[][3] = {{a, d, NULL}, {d, a, NULL}, {a, b, d}, {a, b, b}, {c, NULL, NULL}};
        for (int i = 0; i < COUNT(bad); i++) {
            graph = hk_graph_create();
            if (bad[i][1])
                hk_optimizer_update(
                    HK_SGD,
                    &(struct hk_optimizer_slab){.parameters = bad[i][0], .gradients = bad[i][1], .moment1 = bad[i][2]},
                    hk_leaf(graph, hyper), NULL);
            else
                hk_optimizer_update(HK_SGD, &(struct hk_optimizer_slab){.parameters = c, .gradients = f},
                                    hk_leaf(graph, e), NULL);
            graph_refused(graph, HK_ERROR_INVALID, "share memory");
            hk_graph_destroy(&graph);
        }
        hk_tensor_destroy(&a), hk_tensor_destroy(&b), hk_tensor_destroy(&c), hk_tensor_destroy(&d),
            hk_tensor_destroy(&e), hk_tensor_destroy(&f);
        hk_tensor_destroy(&all), hk_tensor_destroy(&hyper);
    }
}

/* ---- Tensors ---- */

static void test_tensors_change_at_their_place_in_the_program(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *a = TENSOR(HK_SHAPE(2), 1, 2), *b = TENSOR(HK_SHAPE(2), 10, 20),
                         *c = graph_tensor(HK_SHAPE(2), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *early = hk_affine(hk_leaf(graph, a), 1, 0.5f); /* a as it was */
        hk_store(a, hk_leaf(graph, b));                                 /* a = b */
        hk_store(b, hk_add(hk_leaf(graph, a), hk_leaf(graph, b)));      /* b = 2 b: a is b by now */
        hk_store(c, hk_add(early, hk_leaf(graph, a)));
        hk_store(a, hk_affine(hk_leaf(graph, a), 1, 1)); /* a++, twice */
        hk_store(a, hk_affine(hk_leaf(graph, a), 1, 1));
        graph_run(graph);
        EXPECT(a, 12, 22);
        EXPECT(b, 20, 40);
        EXPECT(c, 11.5f, 22.5f);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&a);
        hk_tensor_destroy(&b);
        hk_tensor_destroy(&c);
    }
}

static void test_views_of_a_tensor_share_its_memory(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *all = TENSOR(HK_SHAPE(6), 1, 2, 3, 4, 5, 6), *middle = hk_tensor_view(all, 2, HK_SHAPE(3, 1));
        assert_non_null(middle);
        assert_null(hk_tensor_view(all, 4, HK_SHAPE(3)));
        assert_int_equal(hk_error_status(), HK_ERROR_INVALID);
        struct hk_tensor *after = hk_tensor_view(all, 3, HK_SHAPE(3, 1));
        struct hk_graph *graph = hk_graph_create();
        hk_store(middle, hk_neg(hk_leaf(graph, middle)));
        hk_store(all, hk_affine(hk_leaf(graph, all), 2, 0)); /* sees what middle became: 2 4 -6 -8 -10 12 */
        hk_store(after, hk_leaf(graph, middle));             /* one place on, where the two overlap */
        graph_run(graph);
        EXPECT(all, 2, 4, -6, -6, -8, -10);
        hk_tensor_destroy(&after);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&all); /* middle keeps the memory */
        EXPECT(middle, -6, -6, -8);
        hk_tensor_destroy(&middle);
    }
}

static void test_views_begin_at_words(void **state) {
    (void)state;
    graph_device = graph_devices[0];
    struct hk_tensor *halves = hk_tensor_create(graph_device, HK_F16, HK_SHAPE(8));
    struct hk_tensor *bytes = hk_tensor_create(graph_device, HK_U8, HK_SHAPE(8));
    assert_null(hk_tensor_view(halves, 3, HK_SHAPE(2)));
    assert_non_null(strstr(hk_error_message(), "byte 6 is no multiple of 4"));
    assert_null(hk_tensor_view(bytes, 2, HK_SHAPE(2)));
    struct hk_tensor *view = hk_tensor_view(bytes, 4, HK_SHAPE(3));
    assert_non_null(view);
    hk_tensor_destroy(&view), hk_tensor_destroy(&halves), hk_tensor_destroy(&bytes);
}

/* Bytes lie four to a word, and a word's others may be another tensor's. */
static void test_a_fill_leaves_its_neighbours_alone(void **state) {
    (void)state;
    const uint8_t before[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
                  after[12] = {1, 2, 3, 4, 7, 7, 7, 8, 9, 10, 11, 12};
    ON_EACH_DEVICE {
        struct hk_tensor *all = hk_tensor_from(graph_device, HK_U8, HK_SHAPE(12), before);
        struct hk_tensor *part = hk_tensor_view(all, 4, HK_SHAPE(3));
        struct hk_graph *graph = hk_graph_create();
        uint8_t got[12];
        hk_store(part, hk_fill(graph, HK_U8, HK_SHAPE(3), 7));
        graph_run(graph);
        assert_int_equal(hk_tensor_read(all, got, sizeof got), HK_OK);
        assert_memory_equal(got, after, sizeof got);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&part), hk_tensor_destroy(&all);
    }
}

/* More than a vector, one place on: what is read must not have been written yet. */
static void test_a_tensor_is_stored_over_itself(void **state) {
    (void)state;
    enum { N = 20000 };
    static float numbers[N], got[N];
    for (int i = 0; i < N; i++) numbers[i] = (float)i;
    ON_EACH_DEVICE {
        struct hk_tensor *all = graph_tensor(HK_SHAPE(N), numbers), *after = hk_tensor_view(all, 1, HK_SHAPE(N - 1));
        struct hk_graph *graph = hk_graph_create();
        hk_store(after, hk_slice(hk_leaf(graph, all), 0, 0, N - 1, 1));
        graph_run(graph);
        assert_int_equal(hk_tensor_read(all, got, sizeof got), HK_OK);
        for (int i = 0; i < N; i++) assert_true(got[i] == (float)(i ? i - 1 : 0));
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&all), hk_tensor_destroy(&after);
    }
}

static void test_a_value_of_another_shape_is_not_stored(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(3, 2), NULL), *y = graph_tensor(HK_SHAPE(2, 3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(y, hk_neg(hk_leaf(graph, x)));
        graph_refused(graph, HK_ERROR_INVALID, "hk_store: the tensor is f32 [2, 3], but the value is f32 [3, 2]");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
    }
}

/* What some tensors held is not what the next ones begin with, though they may get the same memory. */
static void check_memory_begins_as_zero(int64_t n, int count) {
    float *numbers = malloc((size_t)n * sizeof *numbers);
    struct hk_tensor *t[16];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < count; i++) {
            t[i] = graph_tensor(HK_SHAPE(n), NULL);
            assert_int_equal(hk_tensor_read(t[i], numbers, (size_t)n * sizeof *numbers), HK_OK);
            for (int64_t k = 0; k < n; k++) assert_true(numbers[k] == 0);
            for (int64_t k = 0; k < n; k++) numbers[k] = 5;
            assert_int_equal(hk_tensor_write(t[i], numbers, (size_t)n * sizeof *numbers), HK_OK);
        }
        for (int i = 0; i < count; i++) hk_tensor_destroy(&t[i]);
    }
    free(numbers);
}

static void test_memory_that_was_used_begins_as_zero_again(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        check_memory_begins_as_zero(1000, 16);
        check_memory_begins_as_zero(2 << 20, 2); /* large enough to be made of pages of its own */
    }
}

static void test_empty_tensors_work(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(0, 3), NULL), *y = graph_tensor(HK_SHAPE(0, 5), NULL),
                         *w = graph_tensor(HK_SHAPE(3, 5), NULL);
        struct hk_tensor *sum = TENSOR(HK_SCALAR, 7),
                         *grad = TENSOR(HK_SHAPE(3, 5), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *product = hk_relu(hk_matmul(hk_leaf(graph, x), hk_leaf(graph, w))), *loss, *g;
        hk_store(y, product);
        hk_store(sum, loss = hk_sum(product, HK_ALL_AXES, false));
        assert_int_equal(hk_gradients(loss, (struct hk_value *[]){hk_leaf(graph, w)}, 1, &g), HK_OK);
        hk_store(grad, g);
        graph_run(graph);
        EXPECT(sum, 0);
        EXPECT(grad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y), hk_tensor_destroy(&w), hk_tensor_destroy(&sum),
            hk_tensor_destroy(&grad);
    }
}

/* Dimensions that lie in another order are cast as they lie: nothing is moved. */
static void test_casts_keep_the_order_in_memory(void **state) {
    (void)state;
    const struct hk_axes order = HK_AXES(1, 2, 0), back = HK_AXES(2, 0, 1);
    float data[24], got[24];
    for (int i = 0; i < 24; i++) data[i] = (float)i + 1.001f;
    ON_EACH_DEVICE {
        struct hk_tensor *x = hk_tensor_from(graph_device, HK_F32, HK_SHAPE(2, 3, 4), data);
        struct hk_tensor *narrow = hk_tensor_create(graph_device, HK_BF16, HK_SHAPE(2, 3, 4));
        struct hk_tensor *y = hk_tensor_create(graph_device, HK_F32, HK_SHAPE(3, 4, 2));
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *cast = hk_cast(hk_permute(hk_leaf(graph, x), order), HK_BF16);
        hk_store(narrow, hk_permute(cast, back));
        struct hk_program *program = hk_compile(graph_device, graph, NULL);
        assert_non_null(program);
        assert_int_equal(hk_program_get_info(program)->ops, 1);
        hk_program_destroy(&program);
        hk_store(y, hk_cast(cast, HK_F32));
        graph_run(graph);
        assert_int_equal(hk_tensor_read(y, got, sizeof got), HK_OK);
        for (int i = 0; i < 24; i++) assert_float_equal(got[i], (float)(i / 2 + i % 2 * 12 + 1), 0); /* [3, 4, 2] of [2, 3 x 4] */
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&narrow), hk_tensor_destroy(&y);
    }
}

/* Where C and GLSL say nothing, and processors trap. */
static void test_integers_divide_by_anything(void **state) {
    (void)state;
    const int32_t a[5] = {INT32_MIN, 7, -7, INT32_MIN, 0}, b[5] = {-1, 0, 2, 1, 0},
                  wanted[5] = {INT32_MIN, 0, -3, INT32_MIN, 0};
    ON_EACH_DEVICE {
        struct hk_tensor *x = hk_tensor_from(graph_device, HK_I32, HK_SHAPE(5), a);
        struct hk_tensor *y = hk_tensor_from(graph_device, HK_I32, HK_SHAPE(5), b);
        struct hk_graph *graph = hk_graph_create();
        int32_t got[5];
        hk_store(y, hk_div(hk_leaf(graph, x), hk_leaf(graph, y)));
        graph_run(graph);
        assert_int_equal(hk_tensor_read(y, got, sizeof got), HK_OK);
        assert_memory_equal(got, wanted, sizeof got);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_error_stays),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
        cmocka_unit_test(test_null_is_refused),
        cmocka_unit_test(test_values_of_two_graphs_do_not_mix),
        cmocka_unit_test(test_what_cannot_be_compiled_is_refused),
        cmocka_unit_test(test_a_tensor_of_another_device_is_refused),
        cmocka_unit_test(test_a_device_that_is_not_there_is_refused_with_those_that_are),
        cmocka_unit_test(test_an_update_of_overlapping_memory_is_refused),
        cmocka_unit_test(test_tensors_change_at_their_place_in_the_program),
        cmocka_unit_test(test_views_of_a_tensor_share_its_memory),
        cmocka_unit_test(test_views_begin_at_words),
        cmocka_unit_test(test_a_fill_leaves_its_neighbours_alone),
        cmocka_unit_test(test_a_tensor_is_stored_over_itself),
        cmocka_unit_test(test_a_value_of_another_shape_is_not_stored),
        cmocka_unit_test(test_memory_that_was_used_begins_as_zero_again),
        cmocka_unit_test(test_empty_tensors_work),
        cmocka_unit_test(test_casts_keep_the_order_in_memory),
        cmocka_unit_test(test_integers_divide_by_anything),
    };
    n_graph_devices = test_devices_open(graph_devices);
    return test_devices_end(graph_devices, n_graph_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
