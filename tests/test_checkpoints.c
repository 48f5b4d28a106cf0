/* What the backward pass computes again instead of keeping it: the same bits in less memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graphs.h"

/* Eight times four layers x = tanh(x w) on [64, 64]; the gradient of the sum by the first x, and the memory it took. */
static uint64_t run_layers(bool checkpoint, float *gradient) {
    enum { N = 64, LAYERS = 8 };
    float data[N * N];
    uint64_t random = 3;
    for (int i = 0; i < N * N; i++) data[i] = (float)test_uniform(&random, -0.2, 0.2);
    struct hk_tensor *w = graph_tensor(HK_SHAPE(N, N), data), *first = graph_tensor(HK_SHAPE(N, N), data),
                     *grad = graph_tensor(HK_SHAPE(N, N), NULL);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = hk_leaf(graph, first);
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < 4; k++) x = hk_tanh(hk_matmul(x, hk_leaf(graph, w)));
        if (checkpoint) x = hk_checkpoint(x);
    }
    graph_store_gradient(hk_sum(x, HK_ALL_AXES, false), first, grad);
    struct hk_program *program = hk_compile(graph_device, graph, NULL);
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
            struct hk_tensor *x = graph_tensor(HK_SHAPE(N), data), *grad = graph_tensor(HK_SHAPE(N), NULL);
            struct hk_graph *graph = hk_graph_create();
            struct hk_value *v = hk_affine(hk_leaf(graph, x), 2, 1);
            if (checkpoint) v = hk_checkpoint(v);
            v = hk_square(hk_sum(hk_exp(v), HK_ALL_AXES, false));
            if (checkpoint) v = hk_checkpoint(v);
            graph_store_gradient(hk_affine(v, 0x1p-20f, 0), x, grad);
            graph_run(graph);
            assert_int_equal(hk_tensor_read(grad, gradients[checkpoint], sizeof data), HK_OK);
            hk_graph_destroy(&graph);
            hk_tensor_destroy(&x), hk_tensor_destroy(&grad);
        }
        assert_true(gradients[0][0] > 0);
        assert_memory_equal(gradients[0], gradients[1], sizeof gradients[0]);
    }
}

/* Elementwise, so that parts have the bits of the whole. */
static struct hk_value *activate_part(struct hk_value *x) { return hk_mul(hk_gelu_tanh(x), hk_silu(x)); }

/* Three layers x = act(norm(x)) w with x [rows, 64]; the gradient of the sum by w, and the memory it took. whole: large
   activations; else each is made in two halves, too small to be computed again. type: of what products read. */
static uint64_t run_activations(bool whole, enum hk_dtype type, float *gradient) {
    enum { N = 64, LAYERS = 3, ROWS = ((4 << 20) / 4 / N) };
    static float data[ROWS * N];
    uint64_t random = 5;
    for (int i = 0; i < ROWS * N; i++) data[i] = (float)test_uniform(&random, -1, 1);
    struct hk_tensor *w = graph_tensor(HK_SHAPE(N, N), data), *one = graph_tensor(HK_SHAPE(N), data),
                     *first = graph_tensor(HK_SHAPE(ROWS, N), data), *grad = graph_tensor(HK_SHAPE(N, N), NULL);
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
    graph_store_gradient(hk_sum(hk_matmul(x, weight), HK_ALL_AXES, false), w, grad);
    struct hk_program *program = hk_compile(graph_device, graph, NULL);
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
            fail_msg("computing again takes %llu bytes, keeping %llu", (unsigned long long)some,
                     (unsigned long long)all);
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
        struct hk_tensor *x = graph_tensor(HK_SHAPE(N), data), *counter = graph_tensor(HK_SHAPE(1), NULL),
                         *grad = graph_tensor(HK_SHAPE(N), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_checkpoint(hk_square(hk_leaf(graph, x)));
        hk_store(counter, hk_affine(hk_leaf(graph, counter), 1, 1));
        v = hk_checkpoint(hk_square(hk_affine(v, 2, 0)));
        graph_store_gradient(hk_sum(v, HK_ALL_AXES, false), x, grad);
        graph_run(graph);
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
        graph_refused(graph, HK_ERROR_INVALID, "has changed it");
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&counter), hk_tensor_destroy(&grad);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpointing_takes_less_memory_for_the_same_bits),
        cmocka_unit_test(test_what_checkpointing_repeats_has_its_scratch_memory),
        cmocka_unit_test(test_large_cheap_values_are_computed_again_for_the_same_bits),
        cmocka_unit_test(test_checkpointing_minds_only_what_gradients_need),
    };
    n_graph_devices = test_devices_open(graph_devices);
    return test_devices_end(graph_devices, n_graph_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
