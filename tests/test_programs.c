/* Programs: what compiling leaves out, what memory it takes, whom it shares that with, and what it keeps alive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graphs.h"
#include <string.h>

static void test_dead_ops_are_removed(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = TENSOR(HK_SHAPE(4), 1, -2, 3, -4), *y = graph_tensor(HK_SHAPE(4), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x), *unused = hk_exp(v), *used = hk_relu(v);
        for (int i = 0; i < 10; i++) unused = hk_sin(hk_add(unused, used));
        hk_store(y, hk_square(used));
        struct hk_program *program = hk_compile(graph_device, graph, NULL);
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
                         *y = graph_tensor(HK_SHAPE(3), NULL);
        struct hk_graph *graph = hk_graph_create();
        hk_store(y, hk_add(hk_leaf(graph, x), hk_leaf(graph, w)));
        struct hk_program *program = hk_compile(graph_device, graph, &(struct hk_compile_params){.name = "adder"});
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
        struct hk_tensor *x = graph_tensor(HK_SHAPE(1 << 16), NULL), *y = graph_tensor(HK_SHAPE(1), NULL);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *v = hk_leaf(graph, x);
        for (int i = 0; i < 50; i++)
            v = hk_add(hk_softmax(v, 0), hk_log_softmax(v, 0)); /* no two of which are one kernel */
        hk_store(y, hk_sum(v, HK_AXES(0), true));
        struct hk_stats before, after;
        hk_device_get_stats(graph_device, &before);
        struct hk_program *program = hk_compile(graph_device, graph, NULL);
        assert_non_null(program);
        hk_device_get_stats(graph_device, &after);
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
        assert_null(hk_compile(graph_device, graph, &(struct hk_compile_params){.memory_limit = need - 1}));
        assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
        assert_non_null(strstr(hk_error_message(), need_text));
        assert_non_null(strstr(hk_error_message(), have_text));
        program = hk_compile(graph_device, graph, &(struct hk_compile_params){.memory_limit = need});
        assert_non_null(program);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&y);
    }
}

static void test_a_device_keeps_its_memory_limit(void **state) {
    (void)state;
    graph_device = hk_device_open(&(struct hk_device_params){.name = "cpu", .memory_limit = 1 << 20});
    assert_non_null(graph_device);
    struct hk_tensor *x = graph_tensor(HK_SHAPE(1 << 17), NULL); /* half of it */
    assert_null(hk_tensor_create(graph_device, HK_F32, HK_SHAPE(1 << 18)));
    assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "1048576"));
    struct hk_graph *graph = hk_graph_create();
    /* two copies of x besides x do not fit */
    struct hk_value *both[] = {hk_leaf(graph, x), hk_leaf(graph, x)};
    hk_store(x, hk_slice(hk_sin(hk_concat(both, 2, 0)), 0, 0, 1 << 17, 1));
    graph_refused(graph, HK_ERROR_OUT_OF_MEMORY, "bytes");
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_device_destroy(&graph_device);
}

/* Granted by the system and then used, it would end the process. */
static void test_more_memory_than_the_machine_has_is_refused(void **state) {
    (void)state;
    graph_device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    assert_non_null(graph_device);
    const uint64_t much = hk_device_get_info(graph_device)->memory_free / 4 + (1 << 20);
    assert_null(hk_tensor_create(graph_device, HK_F32, HK_SHAPE((int64_t)much)));
    assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "need "));
    assert_non_null(strstr(hk_error_message(), "have "));
    hk_device_destroy(&graph_device);
}

/* y [n, n] = x's column sums times (x + k): through the arena. */
static struct hk_program *compile_sharing(struct hk_tensor *x, int n, int k, struct hk_tensor *y,
                                          struct hk_program *share) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *v = hk_affine(hk_leaf(graph, x), 1, (float)k), *sums = hk_sum(hk_leaf(graph, x), HK_AXES(0), true);
    hk_store(y, hk_mul(hk_contiguous(hk_broadcast_to(sums, HK_SHAPE(n, n))), v));
    struct hk_program *program = hk_compile(graph_device, graph, &(struct hk_compile_params){.share = share});
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

/* No memory for a second program that is no larger; neither minds what the other left there, nor that the other ends.
 */
static void test_programs_share_memory(void **state) {
    (void)state;
    enum { N = 64, LARGER = 128 };
    static float data[LARGER * LARGER];
    for (int i = 0; i < LARGER * LARGER; i++) data[i] = (float)(i % 5);
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(N, N), data), *y = graph_tensor(HK_SHAPE(N, N), NULL),
                         *larger = graph_tensor(HK_SHAPE(LARGER, LARGER), data),
                         *z = graph_tensor(HK_SHAPE(LARGER, LARGER), NULL);
        struct hk_program *first = compile_sharing(x, N, 1, y, NULL);
        struct hk_stats before, after;
        const uint64_t arena = hk_program_get_info(first)->arena_bytes;
        assert_true(arena > 0);
        hk_device_get_stats(graph_device, &before);
        struct hk_program *second = compile_sharing(x, N, 2, y, first);
        hk_device_get_stats(graph_device, &after);
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

static void test_a_program_counts_and_keeps_the_tensors_that_it_uses(void **state) {
    (void)state;
    ON_EACH_DEVICE {
        struct hk_tensor *x = graph_tensor(HK_SHAPE(100), NULL), *y = graph_tensor(HK_SHAPE(100), NULL),
                         *unused = graph_tensor(HK_SHAPE(5000), NULL);
        struct hk_stats before, after;
        struct hk_graph *graph = hk_graph_create();
        hk_sum(hk_leaf(graph, unused), HK_ALL_AXES, false); /* nothing needs it */
        hk_store(y, hk_neg(hk_leaf(graph, x)));             /* computed where y is: no step has y as an input */
        struct hk_program *program = hk_compile(graph_device, graph, NULL);
        assert_non_null(program);
        assert_int_equal(hk_program_get_info(program)->tensor_bytes, 800);
        hk_graph_destroy(&graph);
        hk_device_get_stats(graph_device, &before);
        hk_tensor_destroy(&unused);
        hk_device_get_stats(graph_device, &after);
        assert_true(after.bytes + 20000 <= before.bytes);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_device_wait(graph_device), HK_OK);
        hk_program_destroy(&program);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dead_ops_are_removed),
        cmocka_unit_test(test_a_program_outlives_what_it_was_made_of),
        cmocka_unit_test(test_memory_is_known_and_limited),
        cmocka_unit_test(test_a_device_keeps_its_memory_limit),
        cmocka_unit_test(test_more_memory_than_the_machine_has_is_refused),
        cmocka_unit_test(test_programs_share_memory),
        cmocka_unit_test(test_a_program_counts_and_keeps_the_tensors_that_it_uses),
    };
    n_graph_devices = test_devices_open(graph_devices);
    return test_devices_end(graph_devices, n_graph_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
