/* Elementwise calls that run as one: the kernels are as few as they should be, the memory no more, and the numbers
   those of the calls one by one (on the CPU and on lavapipe bit for bit). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "oracle.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct hk_device *devices[TEST_MAX_DEVICES];
static enum hk_fusing fusing[TEST_MAX_DEVICES]; /* as each device has it */
static int n_devices;

static void set_fusing(int d, bool on) {
    ((struct hk_device_base *)devices[d])->fusing = on ? fusing[d] : HK_FUSE_NOTHING;
}

static struct hk_program *compile(int d, struct hk_graph *graph, bool fused) {
    set_fusing(d, fused);
    struct hk_program *program = hk_compile(devices[d], graph, NULL);
    set_fusing(d, true);
    if (!program) fail_msg("%s: %s", test_device_name(devices[d]), hk_error_message());
    return program;
}

/* ---- Which calls are one ---- */

enum { ROWS = 32, COLUMNS = 64 };

struct example {
    const char *name;
    struct hk_value *(*build)(struct hk_value *x, struct hk_value *y, struct hk_value *row);
    int ops, fused; /* of the program, the store of the result counted where it is a copy */
    int apart;      /* ops more on GPUs, whose kernels of products have results of 16 bits by whole words or not at all */
    bool small;     /* there are such results: kernels for software devices have none */
};

static struct hk_value *chain(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_gelu_tanh(hk_add(hk_stop_gradient(hk_mul(hk_silu(x), y)), row));
}

/* What a gradient is computed from again, and the gradient. */
static struct hk_value *gated_backward(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *gate = hk_mul(x, row), *loss = hk_sum(hk_mul(hk_silu(gate), y), HK_ALL_AXES, false), *dx;
    return hk_gradients(loss, &x, 1, &dx) ? NULL : dx;
}

/* What a product reads in between is made before it, and what reads the last product is a part of it. */
static struct hk_value *interrupted(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *a = hk_exp(x), *b = hk_matmul(a, hk_transpose(y));
    return hk_add(hk_mul(a, row), hk_matmul(b, y));
}

/* A smaller shape is another kernel. */
static struct hk_value *of_two_shapes(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_sub(hk_mul(hk_neg(x), hk_sqrt(hk_abs(row))), y);
}

/* What is read in another order is another kernel's. */
static struct hk_value *of_two_orders(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_tanh(hk_add(hk_transpose(hk_exp(hk_add(x, row))), hk_transpose(y)));
}

/* Results and inputs of 16 bits, whose two halves change places. */
static struct hk_value *of_16_bits(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *a = hk_cast(hk_mul(hk_add(x, row), y), HK_BF16), *b = hk_cast(a, HK_F32);
    struct hk_value *halves[] = {hk_slice(a, 1, COLUMNS / 2, COLUMNS, 1), hk_slice(a, 1, 0, COLUMNS / 2, 1)};
    return hk_add(hk_cast(hk_concat(halves, 2, 1), HK_F32), b);
}

/* [COLUMNS, COLUMNS] */
static struct hk_value *square_of(struct hk_value *x, struct hk_value *y) { return hk_matmul(hk_transpose(x), y); }

static struct hk_value *product_and_chain(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *product = hk_matmul(x, square_of(x, y));
    return hk_mul(hk_gelu_tanh(hk_add(hk_affine(product, 0.01f, 1), row)), y);
}

/* A residual in the shape of the layer's input, of which the product's rows are some. */
static struct hk_value *product_in_other_shape(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    const struct hk_shape shape = HK_SHAPE(2, ROWS / 2, COLUMNS);
    struct hk_value *product = hk_linear_kn(hk_reshape(x, shape), square_of(x, y), row);
    return hk_add(hk_reshape(y, shape), hk_mul(hk_silu(product), row));
}

/* A row of either shape is in no one's kernel but its own. */
static struct hk_value *product_in_two_shapes(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    const struct hk_shape shape = HK_SHAPE(2, ROWS / 2, COLUMNS);
    struct hk_value *factor = hk_max(hk_reshape(y, shape), HK_AXES(1, 2), true);
    return hk_mul(hk_reshape(hk_mul(hk_matmul(x, square_of(x, y)), row), shape), factor);
}

/* What a product reads is made before it, though what follows the product reads it, too. */
static struct hk_value *product_of_a_residual(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *part = hk_mul(hk_tanh(x), row);
    return hk_add(part, hk_matmul(part, square_of(x, y)));
}

/* One factor for each row, one for each column, and one for all. */
static struct hk_value *products_of_a_batch(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    const struct hk_shape shape = HK_SHAPE(2, ROWS / 2, COLUMNS);
    struct hk_value *a = hk_reshape(x, shape), *b = hk_reshape(y, shape);
    struct hk_value *column = hk_max(a, HK_AXES(2), true), *all = hk_max(b, HK_ALL_AXES, true);
    struct hk_value *product = hk_matmul(hk_matmul(a, hk_transpose(b)), b);
    return hk_add(hk_mul(hk_mul(product, column), row), all);
}

/* What another kernel reads, too, and in another order. */
static struct hk_value *product_that_is_kept(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *product = hk_matmul(x, square_of(x, y));
    return hk_add(hk_mul(hk_tanh(product), row), hk_transpose(hk_neg(hk_transpose(product))));
}

/* Of few rows: one number, from many. */
static struct hk_value *product_of_one_row(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *flat = hk_reshape(x, HK_SHAPE(1, ROWS * COLUMNS));
    struct hk_value *product = hk_matmul(flat, hk_reshape(y, HK_SHAPE(ROWS * COLUMNS, 1)));
    return hk_mul(hk_add(y, row), hk_reshape(hk_tanh(hk_affine(product, 0.1f, 0)), HK_SHAPE(1)));
}

/* Operands of 16 bits, and results. */
static struct hk_value *product_of_16_bits(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *a = hk_cast(x, HK_BF16), *b = hk_cast(hk_affine(square_of(x, y), 0.1f, 0), HK_BF16);
    struct hk_value *halves = hk_cast(hk_silu(hk_add(hk_matmul(a, b), row)), HK_BF16);
    struct hk_value *other = hk_cast(hk_mul(hk_matmul(halves, b), hk_cast(halves, HK_F32)), HK_F16);
    return hk_cast(hk_matmul(other, hk_cast(square_of(y, x), HK_F16)), HK_F32);
}

/* Rows that are no whole words: a kernel of its own on GPUs. */
static struct hk_value *product_of_odd_rows(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *square = square_of(x, y);
    struct hk_value *odd = hk_cast(hk_matmul(x, hk_slice(square, 1, 0, COLUMNS - 1, 1)), HK_F16);
    struct hk_value *less = hk_cast(hk_slice(odd, 1, 0, COLUMNS - 2, 1), HK_F32);
    return hk_add(hk_matmul(less, hk_slice(square, 0, 0, COLUMNS - 2, 1)), row);
}

/* x's shape, each element the same in it. */
static struct hk_value *everywhere(struct hk_value *one, struct hk_value *x) { return hk_broadcast_to(one, hk_value_shape(x)); }

/* What is summed has no memory. */
static struct hk_value *squared_distance(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    (void)row;
    return everywhere(hk_sum(hk_square(hk_sub(x, y)), HK_ALL_AXES, false), x);
}

static struct hk_value *mean_of_rows(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_mul(y, hk_mean(hk_exp(hk_add(x, row)), HK_AXES(-1), true));
}

/* What is summed is read by others, too, which then are no part of it. */
static struct hk_value *sums_of_columns(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *made = hk_mul(hk_silu(x), y);
    return hk_sub(made, hk_mul(row, hk_sum(made, HK_AXES(0), true)));
}

/* A part of what others make is no end of theirs. */
static struct hk_value *sums_of_a_part(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *made = hk_mul(hk_exp(x), y);
    return hk_mul(x, hk_add(row, hk_sum(hk_slice(made, 0, 1, ROWS, 1), HK_AXES(0), false)));
}

/* Rows of odd sizes, none of whose parts begin where a vector does. */
static struct hk_value *largest_of_odd_rows(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *a = hk_slice(hk_slice(x, 0, 0, ROWS - 1, 1), 1, 2, COLUMNS - 1, 1);
    struct hk_value *b = hk_slice(hk_slice(y, 0, 1, ROWS, 1), 1, 0, COLUMNS - 3, 1);
    struct hk_value *most = hk_max(hk_mul(a, hk_neg(b)), HK_AXES(1), false);
    return hk_mul(row, everywhere(hk_sum(most, HK_ALL_AXES, false), x));
}

static struct hk_value *smallest_of_odd_columns(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *a = hk_slice(x, 1, 0, COLUMNS - 1, 1), *b = hk_slice(y, 1, 1, COLUMNS, 1);
    struct hk_value *least = hk_max(hk_neg(hk_mul(a, b)), HK_AXES(0), false);
    return hk_mul(row, everywhere(hk_sum(least, HK_ALL_AXES, false), x));
}

/* Of more elements than one part has, summed in two levels; and in rows wider than one block has columns. */
static struct hk_value *of_many(struct hk_value *x, struct hk_value *y) {
    return hk_mul(hk_reshape(x, HK_SHAPE(ROWS, 1, COLUMNS)), hk_reshape(y, HK_SHAPE(1, ROWS, COLUMNS)));
}
static struct hk_value *mean_of_many(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_add(row, everywhere(hk_mean(hk_neg(of_many(x, y)), HK_ALL_AXES, false), x));
}
static struct hk_value *sums_of_many(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    return hk_add(row, hk_sum(hk_square(of_many(x, y)), HK_AXES(0), false));
}
static struct hk_value *sums_of_many_kept(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *made = hk_square(of_many(x, y));
    return hk_add(row, hk_sub(hk_max(made, HK_AXES(0), false), hk_sum(made, HK_AXES(0), false)));
}

/* 16-bit elements that begin in the middle of a word. */
static struct hk_value *sum_of_16_bits(struct hk_value *x, struct hk_value *y, struct hk_value *row) {
    struct hk_value *all = hk_reshape(hk_contiguous(hk_cast(x, HK_BF16)), HK_SHAPE(-1));
    struct hk_value *half = hk_slice(all, 0, 1, 1 + ROWS / 2 * COLUMNS, 1);
    struct hk_value *sums = hk_sum(hk_exp(hk_cast(hk_reshape(half, HK_SHAPE(ROWS / 2, COLUMNS)), HK_F32)), HK_AXES(0), false);
    return hk_mul(y, hk_add(row, sums));
}

static const struct example examples[] = {
    {"a chain", chain, 1, 3, 0, false},
    {"a gated layer's gradient", gated_backward, 2, 3, 0, false},
    {"around products", interrupted, 3, 2, 0, false},
    {"of two shapes", of_two_shapes, 2, 3, 0, false},
    {"of two orders", of_two_orders, 2, 2, 0, false},
    {"of 16 bits", of_16_bits, 3, 4, 0, false},
    {"a product and a chain", product_and_chain, 2, 4, 0, false},
    {"a product in another shape", product_in_other_shape, 2, 3, 0, false},
    {"a product in two shapes", product_in_two_shapes, 4, 1, 0, false},
    {"a product of a residual", product_of_a_residual, 3, 2, 0, false},
    {"products of a batch", products_of_a_batch, 4, 3, 0, false},
    {"a product that is kept", product_that_is_kept, 4, 2, 0, false},
    {"a product of one row", product_of_one_row, 2, 3, 0, false},
    {"a product of 16 bits", product_of_16_bits, 10, 5, 0, true},
    {"a product of odd rows", product_of_odd_rows, 5, 2, 1, true},
    {"a sum of squares", squared_distance, 2, 2, 0, false},
    {"means of rows", mean_of_rows, 2, 2, 0, false},
    {"sums of columns", sums_of_columns, 3, 2, 0, false},
    {"sums of a part", sums_of_a_part, 4, 1, 0, false},
    {"largest of odd rows", largest_of_odd_rows, 3, 2, 0, false},
    {"largest of odd columns", smallest_of_odd_columns, 3, 2, 0, false},
    {"a mean of many", mean_of_many, 2, 2, 0, false},
    {"sums of many", sums_of_many, 2, 2, 0, false},
    {"sums of many that are kept", sums_of_many_kept, 3, 3, 0, false},
    {"sums of 16 bits", sum_of_16_bits, 4, 2, 0, false},
};

static void check_example(int d, const struct example *e) {
    struct hk_tensor *in[4];
    float data[ROWS * COLUMNS], held[2][ROWS * COLUMNS];
    uint64_t random = 5;
    const struct hk_limits *limits = ((struct hk_device_base *)devices[d])->limits;
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *values[3];
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < ROWS * COLUMNS; i++) data[i] = (float)test_uniform(&random, -2, 2);
        in[k] = hk_tensor_from(devices[d], HK_F32, k == 2 ? HK_SHAPE(COLUMNS) : HK_SHAPE(ROWS, COLUMNS), data);
        if (k < 3) values[k] = hk_leaf(graph, in[k]);
    }
    struct hk_value *y = e->build(values[0], values[1], values[2]);
    hk_store(in[3], hk_reshape(y, HK_SHAPE(ROWS, COLUMNS)));
    for (int fused = 0; fused < 2; fused++) {
        struct hk_program *program = compile(d, graph, fused);
        const struct hk_program_info *info = hk_program_get_info(program);
        const int apart = limits ? e->apart : 0;
        const bool counted = !(e->small && limits && limits->software);
        if (fused ? counted && (info->ops != e->ops + apart || info->fused != e->fused - apart)
                  : info->fused || info->ops != e->ops + e->fused)
            fail_msg("%s on %s: %d ops and %d fused", e->name, test_device_name(devices[d]), info->ops, info->fused);
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_tensor_read(in[3], held[fused], sizeof *held), HK_OK);
        hk_program_destroy(&program);
    }
    assert_memory_equal(held[0], held[1], sizeof *held);
    hk_graph_destroy(&graph);
    for (int k = 0; k < 4; k++) hk_tensor_destroy(&in[k]);
}

static void chains_become_one_kernel(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++)
        for (int i = 0; fusing[d] && i < COUNT(examples); i++) check_example(d, &examples[i]);
}

/* ---- Large products ---- */

/* Kernels of products for software devices have no results of 16 bits. */
static bool is_software(int d) {
    const struct hk_limits *limits = ((struct hk_device_base *)devices[d])->limits;
    return limits && limits->software;
}

/* How many of large_graph's products stay apart from what follows: those by matrices, of f16 and bf16, where shaderc knows less
   of these than the glslc that made their kernels. */
static int count_apart(int d) {
    const struct hk_limits *limits = ((struct hk_device_base *)devices[d])->limits;
    int f16 = 0, bf16 = 0;
    for (int i = 0; limits && i < limits->n_cooperative; i++) {
        const enum hk_dtype dtype = limits->cooperative[i].dtype;
        const bool apart = !limits->writes_matrices || !limits->writes_matrices(dtype);
        if (dtype == HK_F16) f16 = apart;
        if (dtype == HK_BF16) bf16 = apart;
    }
    return 2 * f16 + bf16;
}

enum { M = 70, N = 2100, K = 130, PRODUCTS = 5 };

/* Products that are cut into tiles, and among threads, with results of both sizes; of f16 by matrices where there are some. */
static struct hk_graph *large_graph(struct hk_device *device, struct hk_tensor *results[PRODUCTS], struct hk_tensor *in[4]) {
    float *data = test_malloc(K * N * sizeof *data);
    uint64_t random = 9;
    for (int i = 0; i < K * N; i++) data[i] = (float)test_uniform(&random, -1, 1);
    const struct hk_shape shapes[] = {HK_SHAPE(M, K), HK_SHAPE(K, N), HK_SHAPE(N), HK_SHAPE(M, N)};
    for (int i = 0; i < 4; i++) in[i] = hk_tensor_from(device, HK_F32, shapes[i], data);
    test_free(data);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *a = hk_leaf(graph, in[0]), *b = hk_leaf(graph, in[1]);
    struct hk_value *bias = hk_leaf(graph, in[2]), *residual = hk_leaf(graph, in[3]);
    struct hk_value *narrow = hk_matmul(hk_cast(a, HK_BF16), hk_cast(b, HK_BF16));
    struct hk_value *x = hk_cast(a, HK_F16), *y = hk_cast(b, HK_F16); /* there until the second product has read them */
    struct hk_value *made[PRODUCTS] = {hk_add(hk_gelu(hk_linear_kn(a, b, bias)), residual),
                                       hk_cast(hk_mul(hk_silu(hk_matmul(a, b)), residual), HK_BF16),
                                       hk_cast(hk_add(narrow, bias), HK_BF16), hk_cast(hk_mul(hk_matmul(x, y), residual), HK_BF16),
                                       hk_add(hk_silu(hk_matmul(x, y)), bias)};
    for (int i = 0; i < PRODUCTS; i++) {
        results[i] = hk_tensor_create(device, hk_value_dtype(made[i]), shapes[3]);
        hk_store(results[i], made[i]);
    }
    return graph;
}

static void large_products_end_in_their_steps(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct hk_tensor *results[PRODUCTS], *in[4];
        if (!fusing[d]) continue;
        struct hk_graph *graph = large_graph(devices[d], results, in);
        char *held[2][PRODUCTS];
        for (int fused = 0; fused < 2; fused++) {
            struct hk_program *program = compile(d, graph, fused);
            assert_int_equal(hk_program_get_info(program)->fused, !fused ? 0 : is_software(d) ? 8 : 11 - count_apart(d));
            assert_int_equal(hk_program_run(program), HK_OK);
            for (int i = 0; i < PRODUCTS; i++) {
                held[fused][i] = test_malloc(hk_tensor_bytes(results[i]));
                assert_int_equal(hk_tensor_read(results[i], held[fused][i], hk_tensor_bytes(results[i])), HK_OK);
            }
            hk_program_destroy(&program);
        }
        for (int i = 0; i < PRODUCTS; i++) {
            assert_memory_equal(held[0][i], held[1][i], hk_tensor_bytes(results[i]));
            test_free(held[0][i]), test_free(held[1][i]);
        }
        hk_graph_destroy(&graph);
        for (int i = 0; i < PRODUCTS; i++) hk_tensor_destroy(&results[i]);
        for (int i = 0; i < 4; i++) hk_tensor_destroy(&in[i]);
    }
}

/* Results of 16 bits are stored where no four of them begin: two kernels then, with the sums in memory between them. */
static void results_may_begin_anywhere(void **state) {
    (void)state;
    enum { SIZE = 64, FIRST = 2, WHOLE = SIZE * SIZE + 8 };
    for (int d = 0; d < n_devices; d++) {
        uint16_t held[2][WHOLE];
        if (!fusing[d]) continue;
        struct hk_tensor *all = hk_tensor_create(devices[d], HK_BF16, HK_SHAPE(WHOLE));
        struct hk_tensor *to = hk_tensor_view(all, FIRST, HK_SHAPE(SIZE, SIZE));
        float data[SIZE * SIZE];
        for (int i = 0; i < SIZE * SIZE; i++) data[i] = (float)(i * 7 % 31 - 15);
        struct hk_tensor *x = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(SIZE, SIZE), data);
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *in = hk_leaf(graph, x), *product = hk_matmul(in, hk_transpose(in));
        hk_store(to, hk_cast(hk_silu(hk_affine(product, 0.01f, 0)), HK_BF16));
        for (int fused = 0; fused < 2; fused++) {
            memset(held[fused], 0, sizeof held[fused]);
            assert_int_equal(hk_tensor_write(all, held[fused], sizeof held[fused]), HK_OK);
            struct hk_program *program = compile(d, graph, fused);
            const bool vulkan = ((struct hk_device_base *)devices[d])->limits;
            assert_int_equal(hk_program_get_info(program)->ops, !fused ? 4 : is_software(d) ? 2 : 1);
            if (fused && vulkan) assert_int_equal(hk_program_get_info(program)->dispatches, 2);
            assert_int_equal(hk_program_run(program), HK_OK);
            assert_int_equal(hk_tensor_read(all, held[fused], sizeof held[fused]), HK_OK);
            hk_program_destroy(&program);
        }
        assert_memory_equal(held[0], held[1], sizeof held[0]);
        assert_int_equal(held[1][FIRST - 1] | held[1][FIRST + SIZE * SIZE], 0);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&to);
        hk_tensor_destroy(&all);
    }
}

/* What is stored by all of the graph, fused or not: the same bits. */
static void same_bits(int d, struct hk_graph *graph, struct hk_tensor *const *results, int count, int ops, int fused) {
    char *held[2] = {NULL, NULL};
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += hk_tensor_bytes(results[i]);
    for (int on = 0; on < 2; on++) {
        struct hk_program *program = compile(d, graph, on);
        char *next = held[on] = test_malloc(bytes);
        if (on) assert_int_equal(hk_program_get_info(program)->ops, ops);
        if (on) assert_int_equal(hk_program_get_info(program)->fused, fused);
        assert_int_equal(hk_program_run(program), HK_OK);
        for (int i = 0; i < count; next += hk_tensor_bytes(results[i++]))
            assert_int_equal(hk_tensor_read(results[i], next, hk_tensor_bytes(results[i])), HK_OK);
        hk_program_destroy(&program);
    }
    assert_memory_equal(held[0], held[1], bytes);
    test_free(held[0]), test_free(held[1]);
}

/* An op that reads the same twice is not known to, and so x - x is not known to be 0. */
static void differences_of_the_same_may_be_nan(void **state) {
    (void)state;
    const float data[4] = {NAN, INFINITY, 1, 2};
    for (int d = 0; d < n_devices; d++) {
        if (!fusing[d]) continue;
        struct hk_tensor *x = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(4), data);
        struct hk_tensor *results[] = {hk_tensor_create(devices[d], HK_F32, HK_SHAPE(4)),
                                       hk_tensor_create(devices[d], HK_F32, HK_SCALAR)};
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *in = hk_leaf(graph, x), *zero = hk_sub(in, in);
        hk_store(results[0], hk_abs(zero));
        hk_store(results[1], hk_sum(hk_abs(hk_sub(in, in)), HK_ALL_AXES, false));
        same_bits(d, graph, results, 2, 2, 3);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        for (int i = 0; i < 2; i++) hk_tensor_destroy(&results[i]);
    }
}

/* On the CPU: they would be made a few elements at a time. */
static void columns_of_short_rows_are_reduced_apart(void **state) {
    (void)state;
    float data[2048];
    for (int i = 0; i < 2048; i++) data[i] = (float)(i % 37) - 18;
    for (int d = 0; d < n_devices; d++) {
        if (!fusing[d]) continue;
        const bool vulkan = ((struct hk_device_base *)devices[d])->limits;
        struct hk_tensor *x = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(512, 2, 2), data);
        struct hk_tensor *result = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(512, 2));
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *in = hk_leaf(graph, x);
        hk_store(result, hk_sum(hk_mul(hk_silu(in), in), HK_AXES(1), false));
        same_bits(d, graph, &result, 1, vulkan ? 1 : 2, vulkan ? 2 : 1);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&result);
    }
}

/* ---- Random graphs ---- */

static unsigned char *run(struct world *w, struct hk_program *program) {
    unsigned char *held = malloc(WORLD_STORAGES * hk_tensor_bytes(w->storages[0])), *next = held;
    world_reset(w);
    if (hk_program_run(program)) fail_msg("%s: %s", world_name(w), hk_error_message());
    for (int s = 0; s < WORLD_STORAGES; s++, next += hk_tensor_bytes(w->storages[0]))
        assert_int_equal(hk_tensor_read(w->storages[s], next, hk_tensor_bytes(w->storages[s])), HK_OK);
    return held;
}

struct gain {
    int graphs, ops, fused, copies, larger;
    uint64_t bytes, unfused_bytes;
};

static void compare(int d, struct world *w, struct gain *gain) {
    struct hk_program *one = compile(d, w->graph, false), *other = compile(d, w->graph, true);
    const struct hk_program_info *a = hk_program_get_info(one), *b = hk_program_get_info(other);
    unsigned char *x = run(w, one), *y = run(w, other);
    if (memcmp(x, y, WORLD_STORAGES * hk_tensor_bytes(w->storages[0])))
        fail_msg("%s: fused calls give other bits", world_name(w));
    if (a->ops < b->ops) fail_msg("%s: %d ops, then %d", world_name(w), a->ops, b->ops);
    gain->graphs++, gain->ops += b->ops, gain->fused += b->fused, gain->copies += b->ops + b->fused - a->ops;
    gain->larger += b->arena_bytes > a->arena_bytes;
    gain->bytes += b->arena_bytes, gain->unfused_bytes += a->arena_bytes;
    free(x), free(y);
    hk_program_destroy(&one);
    hk_program_destroy(&other);
}

static void fused_calls_give_the_same_bits(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct gain gain = {0};
        for (uint64_t seed = 1000; fusing[d] && seed < (test_is_cpu(devices[d]) ? 1400 : 1040); seed++) {
            struct world w;
            if (world_create(&w, devices[d], seed, seed % 4 == 0, 10 + (int)(seed % 80))) compare(d, &w, &gain);
            world_destroy(&w);
        }
        print_message(
            "on %s: %d graphs, %d ops and %d fused, %d copies more; memory %.3f of before, more in %d graphs\n",
            test_device_name(devices[d]), gain.graphs, gain.ops, gain.fused, gain.copies,
            (double)gain.bytes / (double)HK_MAX(gain.unfused_bytes, 1), gain.larger);
        if (fusing[d]) assert_true(gain.fused * 20 > gain.ops && !gain.larger);
    }
}

/* ---- Models ---- */

enum { STEPS = 3, VOCAB = 61, BATCH = 2, LENGTH = 16 };

static struct hk_stats train(int d, const struct hk_model_config *model, bool fused, float *losses) {
    const struct hk_trainer_params how = {
        .model = *model, .optimizer = {.kind = HK_ADAMW, .clip = 1}, .batch = BATCH, .length = LENGTH, .seed = 3};
    struct hk_stats before, after;
    int32_t tokens[BATCH * (LENGTH + 1)];
    float norm;
    for (int i = 0; i < COUNT(tokens); i++) tokens[i] = i * i % VOCAB;
    set_fusing(d, fused);
    hk_device_get_stats(devices[d], &before);
    struct hk_trainer *trainer = hk_trainer_create(devices[d], &how);
    assert_non_null(trainer);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
        assert_int_equal(hk_trainer_result(trainer, &losses[i], &norm), HK_OK);
    }
    hk_device_get_stats(devices[d], &after);
    hk_trainer_destroy(&trainer);
    set_fusing(d, true);
    after.dispatches -= before.dispatches;
    return after;
}

static void models_train_with_the_same_losses_in_fewer_kernels(void **state) {
    (void)state;
    static const struct hk_model_config models[] = {
        {.family = HK_GPT2, .vocab = VOCAB, .context = LENGTH, .layers = 2, .heads = 2, .width = 32, .dropout = 0.1f},
        {.family = HK_LLAMA,
         .vocab = VOCAB,
         .context = LENGTH,
         .layers = 2,
         .heads = 2,
         .kv_heads = 2,
         .width = 32,
         .hidden = 72},
    };
    for (int d = 0; d < n_devices; d++)
        for (int m = 0; fusing[d] && m < COUNT(models); m++) {
            float with[STEPS], without[STEPS];
            const struct hk_stats one = train(d, &models[m], true, with), other = train(d, &models[m], false, without);
            print_message("model %d on %s: %llu kernels, %llu unfused\n", m, test_device_name(devices[d]),
                          (unsigned long long)one.dispatches, (unsigned long long)other.dispatches);
            assert_memory_equal(with, without, sizeof with);
            if (models[m].family == HK_LLAMA) assert_true(one.dispatches + STEPS * 4 * 2 <= other.dispatches);
        }
}

/* ---- Kernels on disk ---- */

static bool fuses_glsl(int d) { return fusing[d] == HK_FUSE_GLSL; }

/* The ops of a sum of the squares of n ones. */
static int ops_of_squares(struct hk_device *device, int64_t n) {
    float held;
    struct hk_tensor *x = hk_tensor_create(device, HK_F32, HK_SHAPE(n)), *y = hk_tensor_create(device, HK_F32, HK_SCALAR);
    struct hk_graph *graph = hk_graph_create(), *ones = hk_graph_create();
    hk_store(x, hk_fill(ones, HK_F32, HK_SHAPE(n), 1));
    hk_store(y, hk_sum(hk_square(hk_leaf(graph, x)), HK_ALL_AXES, false));
    struct hk_program *fill = hk_compile(device, ones, NULL), *program = hk_compile(device, graph, NULL);
    if (!fill || !program) fail_msg("%s", hk_error_message());
    assert_int_equal(hk_program_run(fill) || hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(y, &held, sizeof held), HK_OK);
    assert_true(held == (float)n);
    const int ops = hk_program_get_info(program)->ops;
    hk_program_destroy(&fill);
    hk_program_destroy(&program);
    hk_graph_destroy(&ones);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_tensor_destroy(&y);
    return ops;
}

static void what_takes_several_windows_is_reduced_apart(void **state) {
    (void)state;
    int d = 0;
    while (d < n_devices && !fuses_glsl(d)) d++;
    if (d == n_devices) skip();
    setenv("HEKLA_MAX_BINDING", "16384", 1);
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "vulkan"});
    unsetenv("HEKLA_MAX_BINDING");
    assert_non_null(device);
    assert_int_equal(ops_of_squares(device, 3000), 1);
    assert_int_equal(ops_of_squares(device, 5000), 2);
    hk_device_destroy(&device);
}

/* Runs a chain on a new device with that cache. */
static void run_chain(const char *folder, float *held) {
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "vulkan", .cache_dir = folder});
    assert_non_null(device);
    const float data[4] = {-1, 0.5f, 2, 3};
    struct hk_tensor *x = hk_tensor_from(device, HK_F32, HK_SHAPE(4), data),
                     *y = hk_tensor_create(device, HK_F32, HK_SHAPE(4));
    struct hk_graph *graph = hk_graph_create();
    hk_store(y, hk_affine(hk_exp(hk_mul(hk_leaf(graph, x), hk_leaf(graph, x))), 0.5f, 1));
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    assert_int_equal(hk_program_get_info(program)->dispatches, 1);
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(y, held, 4 * sizeof *held), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_tensor_destroy(&y);
    hk_device_destroy(&device);
}

/* The largest kernel that the folder holds. */
static void find_kernel(const char *folder, char *path, size_t size) {
    off_t largest = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        char other[600];
        struct stat about;
        snprintf(other, sizeof other, "%s/%s", folder, entry->d_name);
        if (!strstr(other, ".spv") || stat(other, &about) || about.st_size <= largest) continue;
        largest = about.st_size;
        snprintf(path, size, "%s", other);
    }
    closedir(dir);
    assert_true(largest > 0);
}

static void remark(void *user, enum hk_log_level level, const char *message) {
    (void)level;
    *(int *)user += strstr(message, "is made again") != NULL;
}

static void damaged_kernels_are_made_again(void **state) {
    (void)state;
    char folder[] = "/tmp/hekla-kernels-XXXXXX", path[600], *good, *after;
    float first[4], held[4];
    size_t bytes, bytes_after;
    int d = 0, remarks = 0;
    while (d < n_devices && !fuses_glsl(d)) d++;
    if (d == n_devices) skip();
    assert_non_null(mkdtemp(folder));
    run_chain(folder, first);
    find_kernel(folder, path, sizeof path);
    assert_int_equal(hk_file_read(path, &good, &bytes), HK_OK);
    hk_set_log(remark, &remarks);
    run_chain(folder, held);
    assert_int_equal(remarks, 0);
    const size_t cuts[] = {0, 7, 100, bytes / 2, bytes - 4, bytes - 1},
                 flips[] = {0, 9, 30, 60, bytes / 2, bytes - 40, bytes - 1};
    for (int i = 0; i < COUNT(cuts) + COUNT(flips); i++) {
        char *bad = test_malloc(bytes);
        memcpy(bad, good, bytes);
        if (i >= COUNT(cuts)) bad[flips[i - COUNT(cuts)]] ^= 4;
        assert_int_equal(hk_file_write(path, bad, i < COUNT(cuts) ? cuts[i] : bytes), HK_OK);
        test_free(bad);
        run_chain(folder, held);
        assert_memory_equal(held, first, sizeof first);
        assert_int_equal(remarks, i + 1);
        assert_int_equal(hk_file_read(path, &after, &bytes_after), HK_OK);
        assert_int_equal(bytes_after, bytes);
        assert_memory_equal(after, good, bytes);
        free(after);
    }
    hk_set_log(NULL, NULL);
    free(good);
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_become_one_kernel),
        cmocka_unit_test(large_products_end_in_their_steps),
        cmocka_unit_test(results_may_begin_anywhere),
        cmocka_unit_test(differences_of_the_same_may_be_nan),
        cmocka_unit_test(columns_of_short_rows_are_reduced_apart),
        cmocka_unit_test(fused_calls_give_the_same_bits),
        cmocka_unit_test(what_takes_several_windows_is_reduced_apart),
        cmocka_unit_test(models_train_with_the_same_losses_in_fewer_kernels),
        cmocka_unit_test(damaged_kernels_are_made_again),
    };
    n_devices = test_devices_open(devices);
    for (int d = 0; d < n_devices; d++) fusing[d] = ((struct hk_device_base *)devices[d])->fusing;
    return test_devices_end(devices, n_devices, cmocka_run_group_tests_name("fusion", tests, NULL, NULL));
}
