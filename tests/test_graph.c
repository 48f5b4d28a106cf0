/* Graphs, gradients and programs: what their headers promise, on every device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct hk_device *devices[TEST_MAX_DEVICES], *device; /* the one that a test runs on now */
static int n_devices;

#define ON_EACH_DEVICE                                                                                                 \
    for (int device_number = 0; device_number < n_devices && (device = devices[device_number]); device_number++)

static struct hk_tensor *tensor(struct hk_shape shape, const float *data) {
    struct hk_tensor *t = hk_tensor_create(device, HK_F32, shape);
    assert_non_null(t);
    if (data) assert_int_equal(hk_tensor_write(t, data, hk_tensor_bytes(t)), HK_OK);
    return t;
}

static void compile_and_run(struct hk_graph *graph) {
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) print_error("%s\n", hk_error_message());
    assert_non_null(program);
    assert_int_equal(hk_program_run(program), HK_OK);
    hk_program_destroy(&program);
    assert_null(program);
}

static void expect(struct hk_tensor *t, const float *wanted, int count) {
    float x[64];
    assert_int_equal(hk_tensor_read(t, x, (size_t)count * sizeof *x), HK_OK);
    for (int i = 0; i < count; i++)
        if (!(fabsf(x[i] - wanted[i]) <= 1e-5f * (1 + fabsf(wanted[i]))))
            fail_msg("element %d is %g, not %g, on %s", i, (double)x[i], (double)wanted[i], test_device_name(device));
}
#define EXPECT(t, ...)                                                                                                 \
    do {                                                                                                               \
        const float wanted[] = {__VA_ARGS__};                                                                          \
        expect(t, wanted, COUNT(wanted));                                                                              \
    } while (0)
#define TENSOR(shape, ...) tensor(shape, (const float[]){__VA_ARGS__})

/* The graph's error, kept since it happened. */
static void expect_refusal(struct hk_graph *graph, hk_status status, const char *message) {
    assert_null(hk_compile(device, graph, NULL));
    assert_int_equal(hk_error_status(), status);
    if (!strstr(hk_error_message(), message)) fail_msg("\"%s\" lacks \"%s\"", hk_error_message(), message);
}

/* ---- Errors ---- */

static void test_the_first_error_stays(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(2, 3), NULL), *y = tensor(HK_SHAPE(4, 5), NULL);
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
        expect_refusal(graph, HK_ERROR_INVALID, "matmul: inner sizes differ: ");
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
    device = devices[0];
    struct hk_tensor *x = tensor(HK_SHAPE(1, 1), NULL);
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
    assert_null(hk_tensor_create(device, HK_F32, HK_SHAPE((int64_t)1 << 62))); /* bytes that wrap to 0 */
    assert_int_equal(hk_error_status(), HK_ERROR_INVALID);
}

static void test_null_is_refused(void **state) {
    (void)state;
    device = devices[0];
    struct hk_tensor *t = tensor(HK_SHAPE(2, 2), NULL);
    struct hk_stats stats = {.runs = 1};
    struct hk_value *grad;
    double number;
    assert_null(hk_device_get_info(NULL));
    assert_int_equal(hk_device_wait(NULL), HK_ERROR_INVALID);
    assert_int_equal(hk_device_measure(NULL, &number, &number), HK_ERROR_INVALID);
    assert_int_equal(hk_device_measure(device, NULL, NULL), HK_ERROR_INVALID);
    assert_int_equal(hk_device_write_trace(NULL, "trace"), HK_ERROR_INVALID);
    hk_device_get_stats(device, NULL);
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
        struct hk_tensor *x = tensor(HK_SHAPE(3), NULL);
        struct hk_graph *one = hk_graph_create(), *two = hk_graph_create();
        assert_null(hk_add(hk_leaf(one, x), hk_leaf(two, x)));
        expect_refusal(one, HK_ERROR_INVALID, "two graphs");
        expect_refusal(two, HK_ERROR_INVALID, "two graphs");
        hk_graph_destroy(&one);
        hk_graph_destroy(&two);
        hk_tensor_destroy(&x);
    }
}

static void test_what_cannot_be_compiled_is_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(3), NULL), *y = tensor(HK_SHAPE(4), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_relu(hk_leaf(graph, x));
        expect_refusal(graph, HK_ERROR_INVALID, "stores nothing");
        hk_store(y, hk_relu(hk_leaf(graph, x)));
        expect_refusal(graph, HK_ERROR_INVALID, "[4]");
        assert_null(hk_compile(NULL, graph, NULL));
        assert_null(hk_compile(device, NULL, NULL));
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
        struct hk_tensor *foreign = hk_tensor_create(other, HK_F32, HK_SHAPE(3)), *own = tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(own, hk_relu(hk_leaf(graph, foreign)));
        expect_refusal(graph, HK_ERROR_INVALID, "another device");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&foreign);
        hk_tensor_destroy(&own);
    }
    hk_device_destroy(&other);
}

/* ---- Programs ---- */

static void test_dead_ops_are_removed(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(4), 1, -2, 3, -4), *y = tensor(HK_SHAPE(4), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *unused = hk_exp(v), *used = hk_relu(v);
        for (int i = 0; i < 10; i++) unused = hk_sin(hk_add(unused, used));
        hk_store(y, hk_square(used));
        struct hk_program *program = hk_compile(device, graph, NULL);
        assert_non_null(program);
        assert_in_range(hk_program_get_info(program)->ops, 1, 3); /* relu, square, and the store at most */
        assert_int_equal(hk_program_run(program), HK_OK);
        EXPECT(y, 1, 0, 9, 0);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
    }
}

static void test_a_program_outlives_what_it_was_made_of(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *w = TENSOR(HK_SHAPE(3), 4, 5, 6),
                         *y = tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(y, hk_add(hk_leaf(graph, x), hk_leaf(graph, w)));
        struct hk_program *program = hk_compile(device, graph, &(struct hk_compile_params){.name = "adder"});
        assert_non_null(program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&w);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(hk_tensor_write(x, (const float[]){(float)i, 0, 0}, 12), HK_OK);
            assert_int_equal(hk_program_run(program), HK_OK);
            EXPECT(y, (float)(4 + i), 5, 6);
        }
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
        assert_int_equal(hk_program_run(program), HK_OK);
        hk_program_destroy(&program);
    }
}

static void test_memory_is_known_and_limited(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(1 << 16), NULL), *y = tensor(HK_SHAPE(1), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x);
        for (int i = 0; i < 50; i++)
            v = hk_add(hk_softmax(v, 0), hk_log_softmax(v, 0)); /* no two of which are one kernel */
        hk_store(y, hk_sum(v, HK_AXES(0), true));
        struct hk_stats before, after;
        hk_device_get_stats(device, &before);
        struct hk_program *program = hk_compile(device, graph, NULL);
        assert_non_null(program);
        hk_device_get_stats(device, &after);
        const struct hk_program_info *info = hk_program_get_info(program);
        assert_true(info->peak_bytes == info->arena_bytes + info->tensor_bytes);
        assert_true(info->value_bytes >= (uint64_t)150 << 18);        /* 150 values of 256 KiB ... */
        assert_true(info->arena_bytes <= ((uint64_t)3 << 18) + 4096); /* ... three of which live at once */
        assert_true(info->tensor_bytes >= ((uint64_t)1 << 18) + 4);
        assert_true(after.bytes - before.bytes >= info->arena_bytes);
        assert_true(after.bytes - before.bytes <= info->arena_bytes + 65536);
        const uint64_t need = info->arena_bytes;
        hk_program_destroy(&program);

        char have_text[32], need_text[32];
        snprintf(need_text, sizeof need_text, "%llu", (unsigned long long)need);
        snprintf(have_text, sizeof have_text, "%llu", (unsigned long long)need - 1);
        assert_null(hk_compile(device, graph, &(struct hk_compile_params){.memory_limit = need - 1}));
        assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
        assert_non_null(strstr(hk_error_message(), need_text));
        assert_non_null(strstr(hk_error_message(), have_text));
        program = hk_compile(device, graph, &(struct hk_compile_params){.memory_limit = need});
        assert_non_null(program);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
    }
}

/* Granted by the system and then used, it would end the process. */
static void test_more_memory_than_the_machine_has_is_refused(void **state) {
    (void)state;
    device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    assert_non_null(device);
    const uint64_t much = hk_device_get_info(device)->memory_free / 4 + (1 << 20);
    assert_null(hk_tensor_create(device, HK_F32, HK_SHAPE((int64_t)much)));
    assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "need "));
    assert_non_null(strstr(hk_error_message(), "have "));
    hk_device_destroy(&device);
}

/* y [n, n] = x's column sums times (x + k): through the arena. */
static struct hk_program *compile_sharing(struct hk_tensor *x, int n, int k, struct hk_tensor *y, struct hk_program *share) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *v = hk_affine(hk_leaf(graph, x), 1, (float)k), *sums = hk_sum(hk_leaf(graph, x), HK_AXES(0), true);
    hk_store(y, hk_mul(hk_contiguous(hk_broadcast_to(sums, HK_SHAPE(n, n))), v));
    struct hk_program *program = hk_compile(device, graph, &(struct hk_compile_params){.share = share});
    hk_graph_destroy(&graph);
    assert_non_null(program);
    return program;
}

static void check_sharing(struct hk_program *program, int n, int k, struct hk_tensor *y) {
    static float result[128 * 128];
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(y, result, sizeof(float) * (size_t)(n * n)), HK_OK);
    for (int i = 0; i < n * n; i++) {
        float sum = 0;
        for (int row = 0; row < n; row++) sum += (float)((row * n + i % n) % 5);
        assert_true(result[i] == sum * (float)(i % 5 + k));
    }
}

/* No memory for a second program that is no larger; neither minds what the other left there, nor that the other ends. */
static void test_programs_share_memory(void **state) {
    (void)state;
    enum { N = 64, LARGER = 128 };
    static float data[LARGER * LARGER];
    for (int i = 0; i < LARGER * LARGER; i++) data[i] = (float)(i % 5);
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(N, N), data), *y = tensor(HK_SHAPE(N, N), NULL),
                         *larger = tensor(HK_SHAPE(LARGER, LARGER), data), *z = tensor(HK_SHAPE(LARGER, LARGER), NULL);
        struct hk_program *first = compile_sharing(x, N, 1, y, NULL);
        struct hk_stats before, after;
        const uint64_t arena = hk_program_get_info(first)->arena_bytes;
        assert_true(arena > 0);
        hk_device_get_stats(device, &before);
        struct hk_program *second = compile_sharing(x, N, 2, y, first);
        hk_device_get_stats(device, &after);
        assert_true(after.bytes < before.bytes + arena);
        struct hk_program *third = compile_sharing(larger, LARGER, 3, z, first);
        for (int i = 0; i < 2; i++)
            check_sharing(first, N, 1, y), check_sharing(third, LARGER, 3, z), check_sharing(second, N, 2, y);
        hk_program_destroy(&first);
        check_sharing(second, N, 2, y), check_sharing(third, LARGER, 3, z);
        hk_program_destroy(&second), hk_program_destroy(&third);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y), hk_tensor_destroy(&larger), hk_tensor_destroy(&z);
    }
}

static void test_a_device_keeps_its_memory_limit(void **state) {
    (void)state;
    device = hk_device_open(&(struct hk_device_params){.name = "cpu", .memory_limit = 1 << 20});
    assert_non_null(device);
    struct hk_tensor *x = tensor(HK_SHAPE(1 << 17), NULL); /* half of it */
    assert_null(hk_tensor_create(device, HK_F32, HK_SHAPE(1 << 18)));
    assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "1048576"));
    struct hk_graph *graph = hk_graph_create();
    /* two copies of x besides x do not fit */
    struct hk_value *both[] = {hk_leaf(graph, x), hk_leaf(graph, x)};
    hk_store(x, hk_slice(hk_sin(hk_concat(both, 2, 0)), 0, 0, 1 << 17, 1));
    expect_refusal(graph, HK_ERROR_OUT_OF_MEMORY, "bytes");
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_device_destroy(&device);
}

static void test_tensors_change_at_their_place_in_the_program(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *a = TENSOR(HK_SHAPE(2), 1, 2), *b = TENSOR(HK_SHAPE(2), 10, 20),
                         *c = tensor(HK_SHAPE(2), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *early = hk_affine(hk_leaf(graph, a), 1, 0.5f); /* a as it was */
        hk_store(a, hk_leaf(graph, b));                                 /* a = b */
        hk_store(b, hk_add(hk_leaf(graph, a), hk_leaf(graph, b)));      /* b = 2 b: a is b by now */
        hk_store(c, hk_add(early, hk_leaf(graph, a)));
        hk_store(a, hk_affine(hk_leaf(graph, a), 1, 1)); /* a++, twice */
        hk_store(a, hk_affine(hk_leaf(graph, a), 1, 1));
        compile_and_run(graph);
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
        compile_and_run(graph);
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
    device = devices[0];
    struct hk_tensor *halves = hk_tensor_create(device, HK_F16, HK_SHAPE(8));
    struct hk_tensor *bytes = hk_tensor_create(device, HK_U8, HK_SHAPE(8));
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
        struct hk_tensor *all = hk_tensor_from(device, HK_U8, HK_SHAPE(12), before);
        struct hk_tensor *part = hk_tensor_view(all, 4, HK_SHAPE(3));
        struct hk_graph *graph = hk_graph_create();
        uint8_t got[12];
        hk_store(part, hk_fill(graph, HK_U8, HK_SHAPE(3), 7));
        compile_and_run(graph);
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
        struct hk_tensor *all = tensor(HK_SHAPE(N), numbers), *after = hk_tensor_view(all, 1, HK_SHAPE(N - 1));
        struct hk_graph *graph = hk_graph_create();
        hk_store(after, hk_slice(hk_leaf(graph, all), 0, 0, N - 1, 1));
        compile_and_run(graph);
        assert_int_equal(hk_tensor_read(all, got, sizeof got), HK_OK);
        for (int i = 0; i < N; i++) assert_true(got[i] == (float)(i ? i - 1 : 0));
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&all), hk_tensor_destroy(&after);
    }
}

static void test_a_value_of_another_shape_is_not_stored(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(3, 2), NULL), *y = tensor(HK_SHAPE(2, 3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(y, hk_neg(hk_leaf(graph, x)));
        expect_refusal(graph, HK_ERROR_INVALID, "hk_store: the tensor is f32 [2, 3], but the value is f32 [3, 2]");
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
            t[i] = tensor(HK_SHAPE(n), NULL);
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

static void test_a_device_that_is_not_there_is_refused_with_those_that_are(void **state) {
    (void)state;
    static const char *const names[] = {"vulkan:99", "vulkan:-1", "vulkan:0x", "vulkan:no such GPU", "vulkan:", "gpu", ""};
    for (int i = 0; i < COUNT(names); i++) {
        assert_null(hk_device_open(&(struct hk_device_params){.name = names[i]}));
        assert_int_equal(hk_error_status(), HK_ERROR_NO_DEVICE);
        assert_non_null(strstr(hk_error_message(), "cpu ("));
    }
}

static void test_empty_tensors_work(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(0, 3), NULL), *y = tensor(HK_SHAPE(0, 5), NULL),
                         *w = tensor(HK_SHAPE(3, 5), NULL);
        struct hk_tensor *sum = TENSOR(HK_SCALAR, 7),
                         *grad = TENSOR(HK_SHAPE(3, 5), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *product = hk_relu(hk_matmul(hk_leaf(graph, x), hk_leaf(graph, w))), *loss, *g;
        hk_store(y, product);
        hk_store(sum, loss = hk_sum(product, HK_ALL_AXES, false));
        assert_int_equal(hk_gradients(loss, (struct hk_value *[]){hk_leaf(graph, w)}, 1, &g), HK_OK);
        hk_store(grad, g);
        compile_and_run(graph);
        EXPECT(sum, 0);
        EXPECT(grad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y), hk_tensor_destroy(&w), hk_tensor_destroy(&sum),
            hk_tensor_destroy(&grad);
    }
}

/* ---- Gradients ---- */

/* Stores d loss / d leaf(x). */
static struct hk_value *store_gradient(struct hk_value *loss, struct hk_tensor *x, struct hk_tensor *grad) {
    struct hk_value *g = NULL;
    assert_int_equal(hk_gradients(loss, (struct hk_value *[]){hk_leaf(hk_value_graph(loss), x)}, 1, &g), HK_OK);
    assert_non_null(g);
    hk_store(grad, g);
    return g;
}

static void test_gradients_of_shared_parts_add_up(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = tensor(HK_SHAPE(3), NULL),
                         *second = tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *square = hk_mul(v, v), *cube = hk_mul(square, v);
        struct hk_value *loss =
            hk_sum(hk_add(hk_add(cube, square), hk_add(cube, v)), HK_ALL_AXES, false); /* 2x^3 + x^2 + x */
        struct hk_value *g = store_gradient(loss, x, grad);
        store_gradient(hk_sum(g, HK_ALL_AXES, false), x, second); /* the gradient of a gradient */
        compile_and_run(graph);
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
            struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = tensor(HK_SHAPE(3), NULL);
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_cast(hk_leaf(graph, x), dtype), *wide = hk_cast(v, HK_F32);
            struct hk_value *rows = hk_cast(hk_broadcast_to(v, HK_SHAPE(4, 3)), HK_F32);
            store_gradient(hk_sum(hk_mul(wide, rows), HK_ALL_AXES, false), x, grad); /* 4 x^2 */
            compile_and_run(graph);
            EXPECT(grad, 8, 16, 24);
            hk_graph_destroy(&graph);
            hk_tensor_destroy(&x), hk_tensor_destroy(&grad);
        }
    }
}

static void test_gradients_of_a_table_that_is_also_added_add_up(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3, 1), 1, 2, 3), *dx = tensor(HK_SHAPE(3, 1), NULL);
        struct hk_tensor *index = hk_tensor_from(device, HK_I32, HK_SHAPE(3), (const int32_t[]){1, 2, 0});
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *table = hk_leaf(graph, x), *grad;
        struct hk_value *y = hk_add(table, hk_embedding(table, hk_leaf(graph, index))); /* 3 5 4 */
        assert_int_equal(hk_gradients(hk_sum(hk_square(y), HK_ALL_AXES, false), &table, 1, &grad), HK_OK);
        hk_store(dx, grad);
        compile_and_run(graph);
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
        struct hk_tensor *grads[3] = {tensor(HK_SHAPE(3), NULL), tensor(HK_SHAPE(2, 1), NULL), tensor(HK_SCALAR, NULL)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrt[3] = {hk_leaf(graph, row), hk_leaf(graph, column), hk_leaf(graph, one)}, *g[3];
        struct hk_value *loss = hk_sum(hk_mul(hk_mul(wrt[0], wrt[1]), wrt[2]), HK_ALL_AXES, false);
        assert_int_equal(hk_gradients(loss, wrt, 3, g), HK_OK);
        for (int i = 0; i < 3; i++) hk_store(grads[i], g[i]);
        compile_and_run(graph);
        EXPECT(grads[0], 18, 18, 18);
        EXPECT(grads[1], 12, 12);
        EXPECT(grads[2], 54);
        hk_graph_destroy(&graph);
        for (int i = 0; i < 3; i++) hk_tensor_destroy(&grads[i]);
        hk_tensor_destroy(&row), hk_tensor_destroy(&column), hk_tensor_destroy(&one);
    }
}

/* Where C and GLSL say nothing, and processors trap. */
static void test_integers_divide_by_anything(void **state) {
    (void)state;
    const int32_t a[5] = {INT32_MIN, 7, -7, INT32_MIN, 0}, b[5] = {-1, 0, 2, 1, 0},
                  wanted[5] = {INT32_MIN, 0, -3, INT32_MIN, 0};
    ON_EACH_DEVICE {
        struct hk_tensor *x = hk_tensor_from(device, HK_I32, HK_SHAPE(5), a);
        struct hk_tensor *y = hk_tensor_from(device, HK_I32, HK_SHAPE(5), b);
        struct hk_graph *graph = hk_graph_create();
        int32_t got[5];
        hk_store(y, hk_div(hk_leaf(graph, x), hk_leaf(graph, y)));
        compile_and_run(graph);
        assert_int_equal(hk_tensor_read(y, got, sizeof got), HK_OK);
        assert_memory_equal(got, wanted, sizeof got);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
    }
}

/* Of equal values each has half of it; of others the one that was taken, all. */
static void test_gradients_of_extrema_share_ties(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *y = TENSOR(HK_SHAPE(3), 1, 5, 1);
        struct hk_tensor *grads[2] = {tensor(HK_SHAPE(3), NULL), tensor(HK_SHAPE(3), NULL)};
        for (int least = 0; least < 2; least++) {
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *wrt[2] = {hk_leaf(graph, x), hk_leaf(graph, y)}, *g[2];
            struct hk_value *z = least ? hk_minimum(wrt[0], wrt[1]) : hk_maximum(wrt[0], wrt[1]);
            assert_int_equal(hk_gradients(hk_sum(hk_affine(z, 4, 0), HK_ALL_AXES, false), wrt, 2, g), HK_OK);
            for (int i = 0; i < 2; i++) hk_store(grads[i], g[i]);
            compile_and_run(graph);
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
        struct hk_tensor *grads[2] = {tensor(HK_SHAPE(3), NULL), tensor(HK_SHAPE(3), NULL)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *wrt[2] = {hk_leaf(graph, x), hk_leaf(graph, e)}, *g[2];
        assert_int_equal(hk_gradients(hk_sum(hk_pow(wrt[0], wrt[1]), HK_ALL_AXES, false), wrt, 2, g), HK_OK);
        for (int i = 0; i < 2; i++) hk_store(grads[i], g[i]);
        compile_and_run(graph);
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
        compile_and_run(graph);
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
            struct hk_tensor *x = TENSOR(HK_SHAPE(3), 1, 2, 3), *grad = tensor(HK_SHAPE(3), NULL);
            struct hk_tensor *part = hk_tensor_view(x, 1, HK_SHAPE(1));
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_leaf(graph, x), *y = keep ? hk_add(v, v) : hk_square(v), *g;
            hk_store(part, hk_fill(graph, HK_F32, HK_SHAPE(1), 100));
            const hk_status status = hk_gradients(hk_sum(y, HK_ALL_AXES, false), &v, 1, &g);
            assert_int_equal(status, keep ? HK_OK : HK_ERROR_INVALID);
            if (keep) { /* a sum's gradient asks for nothing that it added */
                hk_store(grad, g);
                compile_and_run(graph);
                EXPECT(grad, 2, 2, 2);
            } else {
                expect_refusal(graph, HK_ERROR_INVALID, "the gradient of square needs a tensor [3] as it was");
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
        expect_refusal(graph, HK_ERROR_INVALID, "the gradient of square needs a tensor [3] as it was");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&other);
    }
}

static void test_gradients_that_do_not_exist_are_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(2), NULL);
        struct hk_value *g;
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x);
        assert_int_equal(hk_gradients(hk_relu(v), &v, 1, &g), HK_ERROR_INVALID);
        expect_refusal(graph, HK_ERROR_INVALID, "one f32 number");
        hk_graph_destroy(&graph);
        graph = hk_graph_create();
        v = hk_leaf(graph, x);
        struct hk_value *loss = hk_global_norm(graph, &x, 1);
        assert_int_equal(hk_gradients(loss, &v, 1, &g), HK_ERROR_INVALID);
        expect_refusal(graph, HK_ERROR_INVALID, "has no gradient");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
    }
}

/* Eight times four layers x = tanh(x w) on [64, 64]; the gradient of the sum by the first x, and the memory it took. */
static uint64_t run_layers(bool checkpoint, float *gradient) {
    enum { N = 64, LAYERS = 8 };
    float data[N * N];
    uint64_t random = 3;
    for (int i = 0; i < N * N; i++) data[i] = (float)test_uniform(&random, -0.2, 0.2);
    struct hk_tensor *w = tensor(HK_SHAPE(N, N), data), *first = tensor(HK_SHAPE(N, N), data),
                     *grad = tensor(HK_SHAPE(N, N), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = hk_leaf(graph, first);
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < 4; k++) x = hk_tanh(hk_matmul(x, hk_leaf(graph, w)));
        if (checkpoint) x = hk_checkpoint(x);
    }
    store_gradient(hk_sum(x, HK_ALL_AXES, false), first, grad);
    struct hk_program *program = hk_compile(device, graph, NULL);
    assert_non_null(program);
    const uint64_t arena = hk_program_get_info(program)->arena_bytes;
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(grad, gradient, sizeof data), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&w), hk_tensor_destroy(&first), hk_tensor_destroy(&grad);
    return arena;
}

static void test_checkpointing_takes_less_memory_for_the_same_bits(void **state) {
    (void)state;
    static float plain[64 * 64], checkpointed[64 * 64];
    ON_EACH_DEVICE {
        const uint64_t all = run_layers(false, plain), some = run_layers(true, checkpointed);
        assert_memory_equal(plain, checkpointed, sizeof plain);
        if (some * 10 > all * 6)
            fail_msg("checkpointing takes %llu bytes, without it %llu", (unsigned long long)some,
                     (unsigned long long)all);
    }
}

/* What is computed again has all that the op needs: a sum of many numbers, scratch memory. */
static void test_what_checkpointing_repeats_has_its_scratch_memory(void **state) {
    (void)state;
    enum { N = 40000 };
    static float gradients[2][N];
    ON_EACH_DEVICE {
        for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
            static float data[N];
            for (int i = 0; i < N; i++) data[i] = (float)(i % 7) / N;
            struct hk_tensor *x = tensor(HK_SHAPE(N), data), *grad = tensor(HK_SHAPE(N), NULL);
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_affine(hk_leaf(graph, x), 2, 1);
            if (checkpoint) v = hk_checkpoint(v);
            v = hk_square(hk_sum(hk_exp(v), HK_ALL_AXES, false));
            if (checkpoint) v = hk_checkpoint(v);
            store_gradient(hk_affine(v, 0x1p-20f, 0), x, grad);
            compile_and_run(graph);
            assert_int_equal(hk_tensor_read(grad, gradients[checkpoint], sizeof data), HK_OK);
            hk_graph_destroy(&graph);
            hk_tensor_destroy(&x), hk_tensor_destroy(&grad);
        }
        assert_true(gradients[0][0] > 0);
        assert_memory_equal(gradients[0], gradients[1], sizeof gradients[0]);
    }
}

/* Elementwise, so that parts have the bits of the whole. */
static struct hk_value *activate_part(struct hk_value *x) {
    return hk_mul(hk_gelu_tanh(x), hk_silu(x));
}

/* Three layers x = act(norm(x)) w with x [rows, 64]; the gradient of the sum by w, and the memory it took. whole: large
   activations; else each is made in two halves, too small to be computed again. type: of what products read. */
static uint64_t run_activations(bool whole, enum hk_dtype type, float *gradient) {
    enum { N = 64, LAYERS = 3, ROWS = ((4 << 20) / 4 / N) };
    static float data[ROWS * N];
    uint64_t random = 5;
    for (int i = 0; i < ROWS * N; i++) data[i] = (float)test_uniform(&random, -1, 1);
    struct hk_tensor *w = tensor(HK_SHAPE(N, N), data), *one = tensor(HK_SHAPE(N), data),
                     *first = tensor(HK_SHAPE(ROWS, N), data), *grad = tensor(HK_SHAPE(N, N), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = hk_leaf(graph, first), *weight = hk_leaf(graph, w);
    for (int i = 0; i < LAYERS; i++) {
        x = hk_matmul(x, weight);
        struct hk_value *halves[2];
        for (int k = 0; k < 2; k++) {
            struct hk_value *h = hk_slice(x, 0, k * ROWS / 2, (k + 1) * ROWS / 2, 1);
            halves[k] = activate_part(hk_rms_norm(h, hk_leaf(graph, one), 1e-5f));
        }
        x = whole ? activate_part(hk_rms_norm(x, hk_leaf(graph, one), 1e-5f)) : hk_concat(halves, 2, 0);
        x = hk_cast(x, type);
    }
    store_gradient(hk_sum(hk_matmul(x, weight), HK_ALL_AXES, false), w, grad);
    struct hk_program *program = hk_compile(device, graph, NULL);
    assert_non_null(program);
    const uint64_t arena = hk_program_get_info(program)->arena_bytes;
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(grad, gradient, N * N * sizeof *gradient), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&w), hk_tensor_destroy(&one), hk_tensor_destroy(&first), hk_tensor_destroy(&grad);
    return arena;
}

/* Of each layer, x w stays until the backward pass, and not the four that are made of it. */
static void test_large_cheap_values_are_computed_again_for_the_same_bits(void **state) {
    (void)state;
    static float kept[64 * 64], again[64 * 64];
    ON_EACH_DEVICE {
        const uint64_t all = run_activations(false, HK_F32, kept), some = run_activations(true, HK_F32, again);
        assert_memory_equal(kept, again, sizeof kept);
        if (some * 10 > all * 7)
            fail_msg("computing again takes %llu bytes, keeping %llu", (unsigned long long)some, (unsigned long long)all);
        const uint64_t narrow = run_activations(true, HK_BF16, again);
        run_activations(false, HK_BF16, kept);
        assert_memory_equal(kept, again, sizeof kept);
        if (narrow > some)
            fail_msg("bf16 takes %llu bytes, f32 %llu", (unsigned long long)narrow, (unsigned long long)some);
    }
}

/* A counter is read and written between two marks: its addition is repeated there, but no gradient needs it. */
static void test_checkpointing_minds_only_what_gradients_need(void **state) {
    (void)state;
    enum { N = 8 };
    const float data[N] = {0, 1, 2, 3, 4, 5, 6, 7};
    ON_EACH_DEVICE {
        float got[N], count;
        struct hk_tensor *x = tensor(HK_SHAPE(N), data), *counter = tensor(HK_SHAPE(1), NULL),
                         *grad = tensor(HK_SHAPE(N), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_checkpoint(hk_square(hk_leaf(graph, x)));
        hk_store(counter, hk_affine(hk_leaf(graph, counter), 1, 1));
        v = hk_checkpoint(hk_square(hk_affine(v, 2, 0)));
        store_gradient(hk_sum(v, HK_ALL_AXES, false), x, grad);
        compile_and_run(graph);
        assert_int_equal(hk_tensor_read(grad, got, sizeof got), HK_OK);
        for (int i = 0; i < N; i++) assert_true(got[i] == 16 * data[i] * data[i] * data[i]); /* of 4 x^4 */
        assert_int_equal(hk_tensor_read(counter, &count, sizeof count), HK_OK);
        assert_true(count == 1);
        hk_graph_destroy(&graph);
        graph = hk_graph_create(); /* where a gradient does need it, that is said */
        struct hk_value *leaf = hk_leaf(graph, x), *g;
        v = hk_checkpoint(hk_square(leaf));
        v = hk_checkpoint(hk_square(hk_affine(hk_mul(v, hk_leaf(graph, counter)), 2, 0)));
        hk_store(counter, hk_fill(graph, HK_F32, HK_SHAPE(1), 2));
        assert_int_equal(hk_gradients(hk_sum(v, HK_ALL_AXES, false), &leaf, 1, &g), HK_ERROR_INVALID);
        expect_refusal(graph, HK_ERROR_INVALID, "has changed it");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&counter), hk_tensor_destroy(&grad);
    }
}

static void test_an_update_of_overlapping_memory_is_refused(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *all = tensor(HK_SHAPE(102), NULL), *hyper = tensor(HK_SHAPE(HK_HYPER_COUNT), NULL);
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
            expect_refusal(graph, HK_ERROR_INVALID, "share memory");
            hk_graph_destroy(&graph);
        }
        hk_tensor_destroy(&a), hk_tensor_destroy(&b), hk_tensor_destroy(&c), hk_tensor_destroy(&d),
            hk_tensor_destroy(&e), hk_tensor_destroy(&f);
        hk_tensor_destroy(&all), hk_tensor_destroy(&hyper);
    }
}

static void test_a_program_counts_and_keeps_the_tensors_that_it_uses(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = tensor(HK_SHAPE(100), NULL), *y = tensor(HK_SHAPE(100), NULL),
                         *unused = tensor(HK_SHAPE(5000), NULL);
        struct hk_stats before, after;
        struct hk_graph *graph = hk_graph_create();
        hk_sum(hk_leaf(graph, unused), HK_ALL_AXES, false); /* nothing needs it */
        hk_store(y, hk_neg(hk_leaf(graph, x)));             /* computed where y is: no step has y as an input */
        struct hk_program *program = hk_compile(device, graph, NULL);
        assert_non_null(program);
        assert_int_equal(hk_program_get_info(program)->tensor_bytes, 800);
        hk_graph_destroy(&graph);
        hk_device_get_stats(device, &before);
        hk_tensor_destroy(&unused);
        hk_device_get_stats(device, &after);
        assert_true(after.bytes + 20000 <= before.bytes);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_device_wait(device), HK_OK);
        hk_program_destroy(&program);
    }
}

/* x's gradient, after `late` is stored to `changed`: must be possible. */
static void check_gradient(struct hk_value *loss, struct hk_value *x, struct hk_tensor *changed, struct hk_value *late) {
    struct hk_tensor *result = tensor(hk_value_shape(x), NULL);
    struct hk_graph *graph = hk_value_graph(loss);
    struct hk_value *dx;
    hk_store(changed, late);
    assert_int_equal(hk_gradients(loss, &x, 1, &dx), HK_OK);
    hk_store(result, dx);
    struct hk_program *program = hk_compile(device, graph, NULL);
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
        struct hk_tensor *w = tensor(HK_SHAPE(4), NULL), *s = tensor(HK_SHAPE(4), NULL);
        struct hk_tensor *large = tensor(HK_SHAPE(2 << 20), NULL);
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
        cmocka_unit_test(test_the_first_error_stays),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
        cmocka_unit_test(test_null_is_refused),
        cmocka_unit_test(test_values_of_two_graphs_do_not_mix),
        cmocka_unit_test(test_what_cannot_be_compiled_is_refused),
        cmocka_unit_test(test_a_tensor_of_another_device_is_refused),
        cmocka_unit_test(test_dead_ops_are_removed),
        cmocka_unit_test(test_a_program_outlives_what_it_was_made_of),
        cmocka_unit_test(test_memory_is_known_and_limited),
        cmocka_unit_test(test_a_device_keeps_its_memory_limit),
        cmocka_unit_test(test_programs_share_memory),
        cmocka_unit_test(test_gradients_ask_for_no_more_than_they_need),
        cmocka_unit_test(test_more_memory_than_the_machine_has_is_refused),
        cmocka_unit_test(test_tensors_change_at_their_place_in_the_program),
        cmocka_unit_test(test_views_of_a_tensor_share_its_memory),
        cmocka_unit_test(test_views_begin_at_words),
        cmocka_unit_test(test_a_fill_leaves_its_neighbours_alone),
        cmocka_unit_test(test_a_tensor_is_stored_over_itself),
        cmocka_unit_test(test_a_value_of_another_shape_is_not_stored),
        cmocka_unit_test(test_memory_that_was_used_begins_as_zero_again),
        cmocka_unit_test(test_a_device_that_is_not_there_is_refused_with_those_that_are),
        cmocka_unit_test(test_empty_tensors_work),
        cmocka_unit_test(test_gradients_of_shared_parts_add_up),
        cmocka_unit_test(test_gradients_of_16_bits_add_up),
        cmocka_unit_test(test_gradients_of_a_table_that_is_also_added_add_up),
        cmocka_unit_test(test_gradients_of_what_was_broadcast_are_sums),
        cmocka_unit_test(test_integers_divide_by_anything),
        cmocka_unit_test(test_gradients_of_extrema_share_ties),
        cmocka_unit_test(test_gradients_of_powers_of_zero_are_zero),
        cmocka_unit_test(test_gradients_stop_and_are_zero_where_nothing_depends),
        cmocka_unit_test(test_gradients_of_what_has_changed_are_refused),
        cmocka_unit_test(test_gradients_of_what_has_just_changed_are_refused),
        cmocka_unit_test(test_gradients_that_do_not_exist_are_refused),
        cmocka_unit_test(test_checkpointing_takes_less_memory_for_the_same_bits),
        cmocka_unit_test(test_what_checkpointing_repeats_has_its_scratch_memory),
        cmocka_unit_test(test_large_cheap_values_are_computed_again_for_the_same_bits),
        cmocka_unit_test(test_checkpointing_minds_only_what_gradients_need),
        cmocka_unit_test(test_an_update_of_overlapping_memory_is_refused),
        cmocka_unit_test(test_a_program_counts_and_keeps_the_tensors_that_it_uses),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
