/* Kernels write their results and nothing beside them. Drivers that check bounds drop what is written past a binding,
   so bindings are wide here (src/vulkan/descriptors.c): each result is stored between numbers that must stay as they
   are. With the kernels that hardware gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"
#include <stdlib.h>

enum { BESIDE = 512, MOST = 70000 };
static const float mark = 7.25f;

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

/* ---- What is computed, from 0, 1, 2 ... ---- */

static struct hk_value *numbers(struct hk_graph *g, struct hk_shape shape) {
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.size[i];
    return hk_reshape(hk_affine(hk_arange(g, HK_F32, count, 0, 1), 0x1p-12f, -0.5f), shape);
}

static struct hk_value *rng(struct hk_graph *g) { return hk_fill(g, HK_I32, HK_SHAPE(4), 3); }

#define RESULT(name, expression)                                                                                       \
    static struct hk_value *name(struct hk_graph *g) { return expression; }
#define X(...) numbers(g, HK_SHAPE(__VA_ARGS__))
RESULT(product1, hk_matmul(X(1, 70), X(70, 67)))
RESULT(product2, hk_matmul(X(2, 70), X(70, 67)))
RESULT(product3, hk_matmul(X(3, 70), X(70, 67)))
RESULT(product3_columns, hk_matmul(X(3, 70), hk_transpose(X(67, 70))))
RESULT(product5, hk_matmul(X(5, 70), X(70, 67)))
RESULT(product33, hk_matmul(X(33, 20), X(20, 35)))
RESULT(product_batches, hk_matmul(X(5, 3, 20), X(5, 20, 13)))
/* of i8 of all sizes, plus 1/2, which no mark is */
#define I8(...) hk_cast(hk_affine(X(__VA_ARGS__), 500, 1), HK_I8)
#define PRODUCT_I8(a, b) hk_affine(hk_cast(hk_matmul(a, b), HK_F32), 1, 0.5f)
RESULT(product1_i8, PRODUCT_I8(I8(1, 70), I8(70, 67)))
RESULT(product3_i8, PRODUCT_I8(I8(3, 70), hk_transpose(I8(67, 70))))
RESULT(product33_i8, PRODUCT_I8(I8(33, 20), I8(20, 35)))
RESULT(attention, hk_attention(X(1, 2, 37, 24), X(1, 2, 37, 24), X(1, 2, 37, 24), NULL))
RESULT(softmax, hk_softmax(X(3, 37), 1))
RESULT(layer_norm, hk_layer_norm(X(3, 37), X(37), X(37), 1e-5f))
RESULT(rows_sum, hk_sum(X(37, 41), HK_AXES(1), false))
RESULT(columns_sum, hk_sum(X(300, 41), HK_AXES(0), false))
RESULT(pieces_sum, hk_sum(X(600, 70), HK_AXES(0), false))
RESULT(embedding, hk_embedding(X(9, 13), hk_fill(g, HK_I32, HK_SHAPE(5), 8)))
RESULT(uniform, hk_random_uniform(rng(g), HK_SHAPE(37), 0, 1))
RESULT(normal, hk_random_normal(rng(g), HK_SHAPE(37), 0, 1))
RESULT(dropout, hk_dropout(X(37), 0.5f, rng(g)))
RESULT(rope, hk_rope(X(1, 3, 5, 6), NULL))
RESULT(unary, hk_tanh(X(37)))
RESULT(binary, hk_add(X(5, 7), X(7)))
RESULT(fill, hk_fill(g, HK_F32, HK_SHAPE(37), 2))
RESULT(concat, hk_concat((struct hk_value *[]){X(3, 5), X(3, 6)}, 2, 1))
RESULT(pad, hk_pad(X(3, 5), (int64_t[]){1, 2}, (int64_t[]){0, 1}, 1))
RESULT(where, hk_where(hk_less(X(37), X(37)), X(37), X(1)))
RESULT(cross_entropy, hk_cross_entropy(X(3, 37), hk_fill(g, HK_I32, HK_SHAPE(3), 36), NULL))

static const struct {
    const char *name;
    struct hk_value *(*build)(struct hk_graph *g);
} results[] = {{"a row by a matrix", product1},
               {"two rows by a matrix", product2},
               {"three rows by a matrix", product3},
               {"three rows by columns", product3_columns},
               {"five rows by a matrix", product5},
               {"33 rows by a matrix", product33},
               {"batches of three rows", product_batches},
               {"a row by a matrix of i8", product1_i8},
               {"three rows by columns of i8", product3_i8},
               {"33 rows by a matrix of i8", product33_i8},
               {"attention", attention},
               {"softmax", softmax},
               {"layer_norm", layer_norm},
               {"sums of rows", rows_sum},
               {"sums of columns", columns_sum},
               {"sums of columns in pieces", pieces_sum},
               {"embedding", embedding},
               {"random_uniform", uniform},
               {"random_normal", normal},
               {"dropout", dropout},
               {"rope", rope},
               {"tanh", unary},
               {"add", binary},
               {"fill", fill},
               {"concat", concat},
               {"pad", pad},
               {"where", where},
               {"cross_entropy", cross_entropy}};

static void check_result(struct hk_device *device, int i) {
    static float marks[MOST], got[MOST];
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *value = results[i].build(graph);
    const struct hk_shape shape = hk_value_shape(value);
    const int64_t count = test_elements(shape), all = BESIDE + count + BESIDE;
    assert_in_range(all, 1, MOST);
    for (int64_t k = 0; k < all; k++) marks[k] = mark;
    struct hk_tensor *whole = hk_tensor_from(device, HK_F32, HK_SHAPE(all), marks);
    struct hk_tensor *part = hk_tensor_view(whole, BESIDE, shape);
    hk_store(part, value);
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s: %s", results[i].name, hk_error_message());
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(whole, got, hk_tensor_bytes(whole)), HK_OK);
    for (int64_t k = 0; k < all; k++) {
        const bool inside = k >= BESIDE && k < BESIDE + count;
        if ((got[k] == mark) == inside)
            fail_msg("%s on %s: number %d of %d is %g", results[i].name, test_device_name(device), (int)(k - BESIDE),
                     (int)count, (double)got[k]);
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&part);
    hk_tensor_destroy(&whole);
}

static void results_are_all_that_is_written(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++)
        for (int i = 0; i < COUNT(results); i++) check_result(devices[d], i);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(results_are_all_that_is_written)};
    setenv("HEKLA_WIDE_BINDINGS", "1", 1);
    setenv("HEKLA_GPU_KERNELS", "1", 1);
    setenv("HEKLA_VALIDATE", "0", 1); /* to which wide bindings look like conflicts */
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
