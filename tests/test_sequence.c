/* Sequence ops where the answer depends on what the device holds: indices out of range, positions, caches; and targets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support.h"
#include <math.h>
#include <string.h>

static struct hk_tensor *tensor(struct hk_device *device, enum hk_dtype dtype, struct hk_shape shape, const void *data) {
    struct hk_tensor *t = hk_tensor_create(device, dtype, shape);
    if (!t) fail_msg("%s", hk_error_message());
    if (data) assert_int_equal(hk_tensor_write(t, data, hk_tensor_bytes(t)), HK_OK);
    return t;
}

static void run(struct hk_device *device, struct hk_graph **graph) {
    struct hk_program *program = hk_compile(device, *graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_device_wait(device), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(graph);
}

static void read(struct hk_tensor *t, float *data) { assert_int_equal(hk_tensor_read(t, data, hk_tensor_bytes(t)), HK_OK); }

/* ---- Embedding ---- */

static void check_missing_rows(struct hk_device *device) {
    const float more[5][2] = {{9, 9}, {9, 9}, {1, 2}, {3, 4}, {5, 6}}; /* numbers before and after the table's rows */
    const int32_t index[5] = {1, -1, 0, 2, 1};
    struct hk_tensor *all = tensor(device, HK_F32, HK_SHAPE(5, 2), more), *t = hk_tensor_view(all, 4, HK_SHAPE(2, 2)),
                     *i = tensor(device, HK_I32, HK_SHAPE(5), index),
                     *y = tensor(device, HK_F32, HK_SHAPE(5, 2), NULL), *g = tensor(device, HK_F32, HK_SHAPE(2, 2), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *leaf = hk_leaf(graph, t), *rows = hk_embedding(leaf, hk_leaf(graph, i)), *grad = NULL;
    hk_store(y, rows);
    assert_int_equal(hk_gradients(hk_sum(rows, HK_ALL_AXES, false), &leaf, 1, &grad), HK_OK);
    hk_store(g, grad);
    run(device, &graph);
    float got[5][2], slope[2][2];
    read(y, &got[0][0]);
    read(g, &slope[0][0]);
    assert_true(got[0][0] == 3 && got[0][1] == 4 && got[2][0] == 1 && got[4][1] == 4);
    assert_true(isnan(got[1][0]) && isnan(got[1][1]) && isnan(got[3][0]) && isnan(got[3][1]));
    assert_true(slope[0][0] == 1 && slope[0][1] == 1 && slope[1][0] == 2 && slope[1][1] == 2);
    hk_tensor_destroy(&all), hk_tensor_destroy(&t), hk_tensor_destroy(&i), hk_tensor_destroy(&y), hk_tensor_destroy(&g);
}

static void an_index_out_of_range_gives_nan_and_no_gradient(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_missing_rows));
}

/* A table of 160 MB, more than the 128 MiB that some devices can bind: rows at its ends, and gradients there. */
static void check_large_table(struct hk_device *device) {
    enum { ROWS = 20003, WIDTH = 2000, N = 5 };
    const int32_t index[N] = {0, ROWS - 1, 16776, 16777, ROWS - 1};
    struct hk_tensor *t = tensor(device, HK_F32, HK_SHAPE(ROWS, WIDTH), NULL),
                     *i = tensor(device, HK_I32, HK_SHAPE(N), index),
                     *y = tensor(device, HK_F32, HK_SHAPE(N, WIDTH), NULL);
    struct hk_graph *graph = hk_graph_create();
    /* the table becomes the gradient of sum(w * table[index]), w = 0, 1, 2, ...; then its rows are read */
    struct hk_value *leaf = hk_leaf(graph, t), *in = hk_leaf(graph, i), *grad = NULL;
    struct hk_value *w = hk_reshape(hk_arange(graph, HK_F32, N * WIDTH, 0, 1), HK_SHAPE(N, WIDTH));
    hk_gradients(hk_sum(hk_mul(w, hk_embedding(leaf, in)), HK_ALL_AXES, false), &leaf, 1, &grad);
    hk_store(t, grad);
    hk_store(y, hk_embedding(leaf, in));
    run(device, &graph);
    static float got[N][WIDTH];
    read(y, &got[0][0]);
    for (int k = 0; k < WIDTH; k++) {
        assert_true(got[0][k] == (float)k);
        assert_true(got[1][k] == (float)(WIDTH + k + 4 * WIDTH + k) && got[4][k] == got[1][k]);
        assert_true(got[2][k] == (float)(2 * WIDTH + k) && got[3][k] == (float)(3 * WIDTH + k));
    }
    hk_tensor_destroy(&t), hk_tensor_destroy(&i), hk_tensor_destroy(&y);
}

static void a_table_may_exceed_what_a_device_binds(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_large_table));
}

/* GPT-2 uses its table twice: for tokens and for logits. */
static void check_tied_table(struct hk_device *device) {
    enum { ROWS = 10007, WIDTH = 64, N = 3 };
    const int32_t index[N] = {5, 9999, 5};
    struct hk_tensor *t = tensor(device, HK_F32, HK_SHAPE(ROWS, WIDTH), NULL), *i = tensor(device, HK_I32, HK_SHAPE(N), index),
                     *g = tensor(device, HK_F32, HK_SHAPE(ROWS, WIDTH), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *table = hk_leaf(graph, t), *grad = NULL, *logits =
        hk_matmul(table, hk_transpose(hk_affine(hk_embedding(table, hk_leaf(graph, i)), 1, 1))); /* 0 (1 + 0) */
    hk_gradients(hk_sum(hk_affine(logits, 2, 0), HK_ALL_AXES, false), &table, 1, &grad);
    hk_store(g, grad);
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    const uint64_t arena = hk_program_get_info(program)->arena_bytes;
    printf("  the table has %zu bytes, the program %llu\n", hk_tensor_bytes(t), (unsigned long long)arena);
    assert_true(arena < hk_tensor_bytes(t) / 4);
    assert_int_equal(hk_program_run(program), HK_OK);
    static float got[ROWS][WIDTH];
    read(g, &got[0][0]);
    for (int r = 0; r < ROWS; r++) /* 2 * sum over n of (1 + 0), and nothing through the zeros of the table */
        for (int k = 0; k < WIDTH; k++) assert_true(got[r][k] == 2 * N);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&t), hk_tensor_destroy(&i), hk_tensor_destroy(&g);
}

static void a_table_used_twice_takes_no_second_gradient(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_tied_table));
}

/* ---- Rope ---- */

static void check_device_position(struct hk_device *device) {
    const int32_t position = 37;
    float x[2 * 8], expected[2 * 8], got[2 * 8];
    for (int k = 0; k < 16; k++) x[k] = (float)(k - 7) * 0.25f;
    struct hk_tensor *tx = tensor(device, HK_F32, HK_SHAPE(1, 1, 2, 8), x), *tp = tensor(device, HK_I32, HK_SHAPE(1), &position),
                     *ta = tensor(device, HK_F32, HK_SHAPE(1, 1, 2, 8), NULL),
                     *tb = tensor(device, HK_F32, HK_SHAPE(1, 1, 2, 8), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *in = hk_leaf(graph, tx);
    hk_store(ta, hk_rope(in, &(struct hk_rope_params){.start = 42}));
    hk_store(tb, hk_rope(in, &(struct hk_rope_params){.start = 5, .position = hk_leaf(graph, tp)}));
    run(device, &graph);
    read(ta, expected);
    read(tb, got);
    assert_memory_equal(expected, got, sizeof got);
    assert_true(fabs((double)got[0] - ((double)x[0] * cos(42) - (double)x[4] * sin(42))) < 1e-6);
    hk_tensor_destroy(&tx), hk_tensor_destroy(&tp), hk_tensor_destroy(&ta), hk_tensor_destroy(&tb);
}

static void rope_adds_the_position_that_the_device_holds(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_device_position));
}

/* ---- Caches ---- */

/* Rows 1000 h + 100 t + d, as [B, T, H, D] in memory, go to the cache [B, H, S, D] at position. */
static void write_and_check(struct hk_device *device, int32_t position) {
    enum { B = 2, H = 3, T = 4, S = 9, D = 5 };
    float rows[B][T][H][D], cache[B][H][S][D];
    for (int k = 0; k < B * T * H * D; k++)
        (&rows[0][0][0][0])[k] = (float)(k / D % H * 1000 + k / D / H % T * 100 + k % D + 1);
    struct hk_tensor *tr = tensor(device, HK_F32, HK_SHAPE(B, T, H, D), rows), *tp = tensor(device, HK_I32, HK_SHAPE(1), &position),
                     *tc = tensor(device, HK_F32, HK_SHAPE(B, H, S, D), NULL),
                     *ty = tensor(device, HK_F32, HK_SHAPE(B, H, S, D), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *heads = hk_permute(hk_leaf(graph, tr), HK_AXES(0, 2, 1, 3));
    hk_store(ty, hk_neg(hk_cache_write(tc, heads, hk_leaf(graph, tp))));
    run(device, &graph);
    for (int copy = 0; copy < 2; copy++) { /* the tensor itself, and what ops after the write saw */
        read(copy ? ty : tc, &cache[0][0][0][0]);
        for (int k = 0; k < B * H * S * D; k++) {
            const int h = k / D / S % H, t = k / D % S - position;
            const float expected = t >= 0 && t < T ? (float)(h * 1000 + t * 100 + k % D + 1) : 0;
            assert_true((&cache[0][0][0][0])[k] == (copy ? -expected : expected));
        }
    }
    hk_tensor_destroy(&tr), hk_tensor_destroy(&tp), hk_tensor_destroy(&tc), hk_tensor_destroy(&ty);
}

static void check_cache(struct hk_device *device) {
    const int32_t positions[] = {0, 3, 5, 7, 9, 1000, INT32_MAX, -2};
    for (int i = 0; i < COUNT(positions); i++) write_and_check(device, positions[i]);
}

static void a_cache_takes_the_rows_that_fit(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_cache));
}

/* As a cache forgets its oldest rows, or makes room before them. */
static void check_shift(struct hk_device *device) {
    enum { S = 64, D = 3 };
    float numbers[S][D], got[S][D];
    const int32_t one = 1;
    for (int k = 0; k < S * D; k++) (&numbers[0][0])[k] = (float)k;
    struct hk_tensor *tc = tensor(device, HK_F32, HK_SHAPE(1, 1, S, D), numbers), *tp = tensor(device, HK_I32, HK_SHAPE(1), &one);
    struct hk_graph *graph = hk_graph_create();
    hk_cache_write(tc, hk_slice(hk_leaf(graph, tc), 2, 0, S - 1, 1), hk_leaf(graph, tp));
    run(device, &graph);
    read(tc, &got[0][0]);
    for (int t = 0; t < S; t++) assert_memory_equal(got[t], numbers[t ? t - 1 : 0], sizeof got[t]);
    hk_tensor_destroy(&tc), hk_tensor_destroy(&tp);
}

static void a_cache_takes_its_own_rows(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_shift));
}

static void a_cache_of_another_shape_is_refused(void **unused) {
    (void)unused;
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    assert_non_null(device);
    struct hk_tensor *cache = tensor(device, HK_F32, HK_SHAPE(1, 2, 8, 4), NULL),
                     *rows = tensor(device, HK_F32, HK_SHAPE(1, 3, 1, 4), NULL), *at = tensor(device, HK_I32, HK_SHAPE(1), NULL);
    struct hk_graph *graph = hk_graph_create();
    assert_null(hk_cache_write(cache, hk_leaf(graph, rows), hk_leaf(graph, at)));
    assert_null(hk_compile(device, graph, NULL));
    assert_non_null(strstr(hk_error_message(), "they are [1, 2, 8, 4] and [1, 3, 1, 4]"));
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&cache), hk_tensor_destroy(&rows), hk_tensor_destroy(&at);
    hk_device_destroy(&device);
}

/* ---- Targets ---- */

static float loss_of(struct hk_device *device, const int32_t *targets, bool ignore, float *slope) {
    enum { ROWS = 3, CLASSES = 4 };
    const float logits[ROWS][CLASSES] = {{1, 2, 3, 4}, {0, 0, 0, -INFINITY}, {5, 1, 0, 2}};
    struct hk_tensor *tx = tensor(device, HK_F32, HK_SHAPE(ROWS, CLASSES), logits),
                     *tt = tensor(device, HK_I32, HK_SHAPE(ROWS), targets), *tl = tensor(device, HK_F32, HK_SCALAR, NULL),
                     *tg = tensor(device, HK_F32, HK_SHAPE(ROWS, CLASSES), NULL);
    struct hk_graph *graph = hk_graph_create();
    const struct hk_cross_entropy_params params = {.ignore = ignore, .ignore_index = -100};
    struct hk_value *x = hk_leaf(graph, tx), *loss = hk_cross_entropy(x, hk_leaf(graph, tt), &params), *grad = NULL;
    hk_gradients(loss, &x, 1, &grad);
    hk_store(tl, loss);
    hk_store(tg, grad);
    run(device, &graph);
    float result;
    read(tl, &result);
    read(tg, slope);
    hk_tensor_destroy(&tx), hk_tensor_destroy(&tt), hk_tensor_destroy(&tl), hk_tensor_destroy(&tg);
    return result;
}

static void check_targets(struct hk_device *device) {
    float slope[12];
    assert_true(isnan(loss_of(device, (const int32_t[]){0, 4, 0}, false, slope)));
    assert_true(isnan(loss_of(device, (const int32_t[]){0, -1, 0}, true, slope)));
    assert_true(isnan(loss_of(device, (const int32_t[]){-100, -100, -100}, true, slope)));
    /* one row kept, with a class that cannot be: log 3 */
    assert_true(fabs((double)loss_of(device, (const int32_t[]){-100, 1, -100}, true, slope) - log(3)) < 1e-6);
    const float expected[12] = {0, 0, 0, 0, 1 / 3.0f, -2 / 3.0f, 1 / 3.0f, 0, 0, 0, 0, 0};
    for (int i = 0; i < 12; i++) assert_true(fabsf(slope[i] - expected[i]) < 1e-6f);
}

static void targets_out_of_range_are_seen_and_ignored_ones_are_not(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_targets));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_out_of_range_gives_nan_and_no_gradient),
        cmocka_unit_test(a_table_may_exceed_what_a_device_binds),
        cmocka_unit_test(a_table_used_twice_takes_no_second_gradient),
        cmocka_unit_test(rope_adds_the_position_that_the_device_holds),
        cmocka_unit_test(a_cache_takes_the_rows_that_fit),
        cmocka_unit_test(a_cache_takes_its_own_rows),
        cmocka_unit_test(a_cache_of_another_shape_is_refused),
        cmocka_unit_test(targets_out_of_range_are_seen_and_ignored_ones_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
