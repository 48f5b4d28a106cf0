/* Which kernels products and attention get on GPUs that are not there, among them ones whose extensions no driver of the other
   tests has; and that every kernel of these that could be chosen, also by measuring, is launched as its shader wants it. (With steps
   behind a product: test_fusion, where the lab's driver runs them.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launches.h"
#include "op/attention.h"
#include "support.h"
#include <string.h>

/* ---- Devices ---- */

#define COMMON .max_range = 1u << 31, .max_invocations = 1024, .max_groups = 65535
#define PHONE                                                                                                        \
    .max_range = 1u << 27, .max_invocations = 256, .max_groups = 65535, .offset_align = 64, .shared_memory = 32768,   \
    .subgroup_size = 128, .processors = 6
#define SUBGROUPS(dtype) {dtype, 16, 16, 16, 0}, {dtype, 16, 8, 16, 0}, {dtype, 16, 8, 8, 0}
#define WORKGROUPS(dtype) {dtype, 32, 16, 16, 128}, {dtype, 32, 32, 16, 256}

enum { H200, WORKGROUPS_ONLY, RDNA3, RDNA2, ADRENO_600, ADRENO_700, PROCESSOR, DEVICES };
static const struct hk_limits devices[DEVICES] = {
    [H200] = {COMMON, .offset_align = 16, .shared_memory = 49152, .subgroup_size = 32, .processors = 132, .registers = 256,
              .cooperative = {SUBGROUPS(HK_F16), SUBGROUPS(HK_BF16), WORKGROUPS(HK_F16), WORKGROUPS(HK_BF16)},
              .n_cooperative = 10, .cooperative_subgroup = 32, .cooperative_largest = 256},
    [WORKGROUPS_ONLY] = {COMMON, .offset_align = 64, .shared_memory = 49152, .subgroup_size = 32, .processors = 132,
                         .registers = 256, .cooperative = {WORKGROUPS(HK_F16), WORKGROUPS(HK_BF16)}, .n_cooperative = 4,
                         .cooperative_subgroup = 32, .cooperative_largest = 256},
    /* of two sizes of subgroups, and without matrices of bf16 */
    [RDNA3] = {COMMON, .amd = true, .offset_align = 4, .shared_memory = 65536, .subgroup_size = 64, .processors = 48,
               .registers = 256, .cooperative = {{HK_F16, 16, 16, 16, 0}}, .n_cooperative = 1, .cooperative_subgroup = 32},
    [RDNA2] = {COMMON, .amd = true, .offset_align = 4, .shared_memory = 65536, .subgroup_size = 64, .processors = 40,
               .registers = 256, .cooperative_subgroup = 32},
    [ADRENO_600] = {PHONE, .registers = 64},
    [ADRENO_700] = {PHONE, .registers = 96},
    [PROCESSOR] = {COMMON, .offset_align = 16, .shared_memory = 32768, .subgroup_size = 8, .processors = 4, .registers = 256,
                   .cooperative = {{HK_F16, 8, 8, 8, 0}}, .n_cooperative = 1, .cooperative_subgroup = 8, .software = true},
};
static const char *const device_names[DEVICES] = {"H200", "workgroups only", "RDNA3", "RDNA2", "Adreno 600", "Adreno 700",
                                                  "processor"};

/* Whatever it holds: nothing runs. */
static struct hk_value *leaf(struct hk_graph *graph, enum hk_dtype dtype, struct hk_shape shape) {
    struct hk_value *x = hk_fill(graph, dtype, shape, 0.0);
    assert_non_null(x);
    return x;
}

/* The call of that op which made the value, or what it was cast from. */
static const struct hk_call *call_of(const struct hk_value *value, const struct hk_op *op) {
    assert_non_null(value);
    const struct hk_call *call = value->root->call;
    while (call && call->op != op) call = call->n_inputs ? call->inputs[0]->root->call : NULL;
    assert_non_null(call);
    return call;
}

/* ---- The standard kernels ---- */

/* The kernel that is taken where nothing was measured, and how many launches there are. */
static void expect(const struct hk_call *call, int device, const char *kernel, int launches) {
    struct launches l;
    launches_record(&l, call, &devices[device], -1);
    const char *const got = l.choice.names[l.choice.standard];
    if (strcmp(got, kernel) || l.count != launches)
        fail_msg("%s: %s gets %s in %d launches, not %s in %d", device_names[device], l.choice.work, got, l.count, kernel,
                 launches);
    if (call->op == &hk_op_matmul) launches_check_matmul(&l);
    else launches_check_attention(&l);
    launches_free(&l);
}

enum layout { DENSE, TRANSPOSED /* b */, ODD /* rows of b begin at odd elements */, SHIFTED /* a begins at an odd one */ };

static struct hk_value *laid_out(struct hk_graph *graph, enum hk_dtype dtype, int64_t rows, int64_t columns,
                                 enum layout layout) {
    if (layout == TRANSPOSED) return hk_transpose(leaf(graph, dtype, HK_SHAPE(columns, rows)));
    if (layout == ODD) return hk_slice(leaf(graph, dtype, HK_SHAPE(rows, columns + 1)), 1, 0, columns, 1);
    if (layout == SHIFTED) return hk_slice(leaf(graph, dtype, HK_SHAPE(rows, columns + 8)), 1, 1, columns + 1, 1);
    return leaf(graph, dtype, HK_SHAPE(rows, columns));
}

#define SUBGROUP_LARGE "matmul_cooperative 128x128x32x64x64"
#define SUBGROUP_MIDDLE "matmul_cooperative 64x64x32x32x32"
#define SUBGROUP_SMALL "matmul_cooperative 32x32x32x16x16"
#define WORKGROUP_WIDE "matmul_cooperative2 128x256x64"
#define WORKGROUP_LARGE "matmul_cooperative2 128x128x32"
#define WORKGROUP_SMALL "matmul_cooperative2 64x64x32"
#define PLAIN_LARGE "matmul 128x128x16x8x8"
#define PLAIN_TALL "matmul 128x64x16x8x4"
#define PLAIN_MIDDLE "matmul 64x64x16x8x4"
#define PLAIN_SMALL "matmul 32x64x16x4x4"
#define FEW "matmul_few 4x16"
#define ONE "matmul_few 1x16"
#define DIRECT "matmul_direct 8x8x4"
#define DIRECT_ONE "matmul_direct 1x2x32"

static void products_have_their_standard_kernels(void **state) {
    (void)state;
    static const struct {
        int device;
        enum hk_dtype a, b;
        int64_t m, n, k;
        enum layout layout;
        const char *kernel;
        int launches;
    } cases[] = {
        {H200, HK_F32, HK_F32, 4096, 4096, 4096, DENSE, PLAIN_LARGE, 1},
        {H200, HK_F32, HK_F32, 1024, 768, 512, DENSE, PLAIN_MIDDLE, 1}, /* 48 tiles of 128 by 128, 96 of 128 by 64, 192 */
        {H200, HK_F32, HK_F32, 100, 100, 100, DENSE, PLAIN_SMALL, 1},
        {H200, HK_F32, HK_F32, 4, 4096, 768, DENSE, FEW, 1},
        {H200, HK_F16, HK_F16, 4096, 4096, 4096, DENSE, SUBGROUP_LARGE, 1},
        {H200, HK_BF16, HK_BF16, 4096, 4096, 4096, TRANSPOSED, SUBGROUP_LARGE, 1},
        {H200, HK_F16, HK_F16, 4096, 4096, 4096, ODD, SUBGROUP_LARGE, 1},
        {H200, HK_F16, HK_F16, 4096, 4096, 4096, SHIFTED, SUBGROUP_LARGE, 1},
        {H200, HK_F16, HK_F16, 1024, 768, 512, DENSE, SUBGROUP_MIDDLE, 1},
        {H200, HK_F16, HK_F16, 5, 4096, 768, DENSE, SUBGROUP_MIDDLE, 1},
        {H200, HK_F16, HK_F16, 1, 4096, 768, DENSE, ONE, 1},
        {H200, HK_F16, HK_F32, 4096, 4096, 4096, DENSE, PLAIN_LARGE, 1},
        {H200, HK_BF16, HK_BF16, 768, 768, 16384, TRANSPOSED, SUBGROUP_LARGE "x4", 2},
        {WORKGROUPS_ONLY, HK_F16, HK_F16, 4096, 4096, 4096, DENSE, WORKGROUP_WIDE, 1},
        {WORKGROUPS_ONLY, HK_F16, HK_F16, 4096, 4096, 4096, ODD, WORKGROUP_WIDE, 1}, /* rows may begin anywhere */
        {WORKGROUPS_ONLY, HK_F16, HK_F16, 4096, 4096, 4096, SHIFTED, PLAIN_LARGE, 1},  /* an operand may not */
        {WORKGROUPS_ONLY, HK_BF16, HK_BF16, 2048, 1536, 768, TRANSPOSED, WORKGROUP_LARGE, 1},
        {WORKGROUPS_ONLY, HK_BF16, HK_BF16, 512, 512, 512, TRANSPOSED, WORKGROUP_SMALL, 1},
        {WORKGROUPS_ONLY, HK_F16, HK_F16, 3, 512, 512, DENSE, FEW, 1},
        {WORKGROUPS_ONLY, HK_F16, HK_F32, 4096, 4096, 4096, DENSE, PLAIN_LARGE, 1},
        {RDNA3, HK_F16, HK_F16, 4096, 4096, 4096, DENSE, SUBGROUP_LARGE, 1},
        {RDNA3, HK_F16, HK_F16, 512, 512, 512, ODD, SUBGROUP_MIDDLE, 1},
        {RDNA3, HK_BF16, HK_BF16, 4096, 4096, 4096, DENSE, PLAIN_LARGE, 1},
        {RDNA2, HK_F16, HK_F16, 4096, 4096, 4096, DENSE, PLAIN_LARGE, 1},
        {RDNA2, HK_F32, HK_F32, 512, 512, 512, DENSE, PLAIN_MIDDLE, 1},
        {RDNA2, HK_F32, HK_F32, 64, 64, 65536, DENSE, PLAIN_SMALL "x16", 2},
        {ADRENO_600, HK_F32, HK_F32, 1024, 1024, 1024, DENSE, PLAIN_MIDDLE, 1},
        {ADRENO_600, HK_F16, HK_F16, 1, 1024, 1024, TRANSPOSED, ONE, 1},
        {ADRENO_600, HK_F32, HK_F32, 8192, 4096, 32, DENSE, PLAIN_MIDDLE, 2}, /* c is more than a binding has */
        {ADRENO_700, HK_F32, HK_F32, 1024, 1024, 1024, DENSE, PLAIN_MIDDLE, 1},
        {PROCESSOR, HK_F16, HK_F16, 4096, 4096, 4096, DENSE, DIRECT, 1},
        {PROCESSOR, HK_F32, HK_F32, 1, 4096, 4096, TRANSPOSED, DIRECT_ONE, 1},
        {PROCESSOR, HK_F32, HK_F32, 64, 64, 65536, DENSE, DIRECT, 1},
    };
    for (size_t i = 0; i < HK_LENGTH(cases); i++) {
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *a = laid_out(graph, cases[i].a, cases[i].m, cases[i].k, cases[i].layout == SHIFTED ? SHIFTED : DENSE);
        struct hk_value *b = laid_out(graph, cases[i].b, cases[i].k, cases[i].n,
                                      cases[i].layout == SHIFTED ? DENSE : cases[i].layout);
        expect(call_of(hk_matmul(a, b), &hk_op_matmul), cases[i].device, cases[i].kernel, cases[i].launches);
        hk_graph_destroy(&graph);
    }
}

/* A batch item that begins at no multiple of 16 bytes is none for matrices of workgroups, nor is a part of k's products. */
static void tensors_begin_at_16_bytes(void **state) {
    (void)state;
    static const struct {
        int64_t batch, m, n, k;
        const char *kernel;
    } cases[] = {
        {2, 2048, 1024, 1024, WORKGROUP_LARGE}, {2, 2048, 1023, 1024, WORKGROUP_LARGE}, {2, 2047, 1024, 1023, PLAIN_LARGE},
        {1, 2047, 1023, 1023, WORKGROUP_SMALL},
        {1, 64, 64, 65536, WORKGROUP_SMALL "x0x0x16"}, {1, 63, 63, 65536, WORKGROUP_SMALL},
        {3, 1023, 1023, 1024, PLAIN_LARGE},
    };
    for (size_t i = 0; i < HK_LENGTH(cases); i++) {
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *a = leaf(graph, HK_F16, HK_SHAPE(cases[i].batch, cases[i].m, cases[i].k));
        struct hk_value *b = leaf(graph, HK_F16, HK_SHAPE(cases[i].batch, cases[i].k, cases[i].n));
        expect(call_of(hk_matmul(a, b), &hk_op_matmul), WORKGROUPS_ONLY, cases[i].kernel,
               1 + (strstr(cases[i].kernel, "x0x0x16") != NULL));
        hk_graph_destroy(&graph);
    }
}

static const struct hk_call *backward_of(const struct hk_call *forward) {
    struct hk_graph *const graph = forward->graph;
    struct hk_value *const q = forward->inputs[ATTENTION_Q];
    struct hk_value *const dout = leaf(graph, q->dtype, hk_value_shape(q));
    struct hk_value *const in[] = {q, forward->inputs[ATTENTION_K], forward->inputs[ATTENTION_V],
                                   forward->outputs[ATTENTION_OUT], forward->outputs[ATTENTION_LSE], dout};
    return call_of(hk_call_op(graph, &hk_op_attention_backward, in, 6, forward->attrs, forward->attrs_bytes),
                   &hk_op_attention_backward);
}

static void attention_has_its_standard_kernels(void **state) {
    (void)state;
    static const struct {
        int device;
        enum hk_dtype dtype;
        int64_t queries, keys, depth;
        const char *forward;
        int launches;
        const char *backward; /* of which there are three */
    } cases[] = {
        {H200, HK_F32, 1024, 1024, 64, "attention 256x64x16", 1, "attention 256x64x16"},
        {H200, HK_F16, 1024, 1024, 64, "attention_cooperative2 128x64x64", 1, "attention_cooperative2_dq 128x64x64"},
        {H200, HK_BF16, 1024, 1024, 64, "attention_cooperative2_bf16 128x64x64", 1, "attention_cooperative2_dq_bf16 128x64x64"},
        {H200, HK_BF16, 1024, 1024, 128, "attention_cooperative2_bf16 128x64x32", 1,
         "attention_cooperative2_dq_bf16 128x32x32"},
        {H200, HK_F16, 1024, 1024, 256, "attention_cooperative2 128x32x32", 1, "attention 256x64x16"},
        {H200, HK_F16, 1024, 1024, 60, "attention_cooperative 0x64", 1, "attention_cooperative_dq 0x64"}, /* 120 bytes */
        {H200, HK_F16, 20, 1024, 60, "attention_cooperative 0x32", 1, "attention_cooperative_dq 0x32"},
        {H200, HK_F16, 16, 1024, 60, "attention_cooperative 0x16", 1, "attention_cooperative_dq 0x16"},
        {H200, HK_F16, 1, 4096, 64, "attention_few 128x1x8", 2, "attention_cooperative2_dq 128x64x64"},
        {WORKGROUPS_ONLY, HK_F16, 1024, 1024, 128, "attention_cooperative2 128x64x32", 1,
         "attention_cooperative2_dq 128x32x32"},
        {WORKGROUPS_ONLY, HK_F16, 1024, 1024, 60, "attention 256x64x16", 1, "attention 256x64x16"},
        {RDNA3, HK_F16, 1024, 1024, 64, "attention_cooperative 0x64", 1, "attention_cooperative_dq 0x64"},
        {RDNA3, HK_F16, 1024, 1024, 128, "attention_cooperative 0x64", 1, "attention 256x64x16"}, /* by the lab's figures */
        {RDNA3, HK_BF16, 1024, 1024, 64, "attention 256x64x16", 1, "attention 256x64x16"},
        {RDNA2, HK_F16, 1024, 1024, 64, "attention 256x64x16", 1, "attention 256x64x16"},
        {ADRENO_600, HK_F16, 256, 256, 64, "attention 256x64x4", 1, "attention 256x64x4"},
        {ADRENO_600, HK_F32, 4, 256, 64, "attention_few 128x1x8", 1, "attention 256x64x4"},
        {ADRENO_700, HK_F16, 256, 256, 64, "attention 256x64x16", 1, "attention 256x64x16"}, /* the same */
        {PROCESSOR, HK_F16, 256, 256, 64, "attention_rows 32x32", 1, "attention_rows 32x32"},
        {PROCESSOR, HK_F16, 256, 256, 128, "attention 256x64x16", 1, "attention 256x64x16"},
        {PROCESSOR, HK_F32, 2, 256, 64, "attention_few 8x1x1", 1, "attention_rows 32x32"},
    };
    for (size_t i = 0; i < HK_LENGTH(cases); i++) {
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *q = leaf(graph, cases[i].dtype, HK_SHAPE(2, 8, cases[i].queries, cases[i].depth));
        struct hk_value *k = leaf(graph, cases[i].dtype, HK_SHAPE(2, 8, cases[i].keys, cases[i].depth));
        const struct hk_call *const forward = call_of(hk_attention(q, k, k, NULL), &hk_op_attention);
        expect(forward, cases[i].device, cases[i].forward, cases[i].launches);
        expect(backward_of(forward), cases[i].device, cases[i].backward, 3);
        hk_graph_destroy(&graph);
    }
}

/* What was measured to be faster than the standard is launched, also where that is so by the lab's figures alone. */
static void measured_kernels_win(void **state) {
    (void)state;
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *q = leaf(graph, HK_F16, HK_SHAPE(2, 8, 1024, 128));
    const struct hk_call *const call = backward_of(call_of(hk_attention(q, q, q, NULL), &hk_op_attention));
    struct launches l;
    int wide = 0;
    launches_record(&l, call, &devices[RDNA3], -1);
    assert_string_equal(l.items[1].shader, "attention_dq");
    while (wide < l.choice.count && strcmp(l.choice.names[wide], "attention_cooperative_dq 0x32")) wide++;
    assert_in_range(wide, 0, l.choice.count - 1);
    launches_free(&l);
    launches_record(&l, call, &devices[RDNA3], wide);
    assert_string_equal(l.items[1].shader, "attention_cooperative_dq");
    launches_free(&l);
    hk_graph_destroy(&graph);
}

/* ---- All kernels ---- */

static uint64_t below(uint64_t *random, uint64_t most) { return test_random(random) % most; }
static bool one_in(uint64_t *random, uint64_t most) { return below(random, most) == 0; }

/* A device as those above, but with other limits where that may change what is launched. */
static struct hk_limits vary(int device, uint64_t *random) {
    struct hk_limits limits = devices[device];
    if (one_in(random, 2)) limits.max_range = 65536ull << below(random, 8);
    if (one_in(random, 4)) limits.offset_align = 256;
    if (one_in(random, 4)) limits.max_groups = 200 + (uint32_t)below(random, 100);
    if (one_in(random, 2)) limits.shared_memory = 16384 + 1024 * (uint32_t)below(random, 33);
    if (one_in(random, 4)) limits.cooperative_largest = 64u << below(random, 2);
    if (one_in(random, 4)) limits.processors = 1u << below(random, 9);
    if (one_in(random, 8)) limits.max_invocations = 256;
    return limits;
}

/* Checks the standard kernel and then each that could have been measured to be faster; how many there are. */
static int check_all(const struct hk_call *call, const struct hk_limits *limits, void (*check)(const struct launches *)) {
    int kernels = 1;
    for (int take = -1; take < kernels; take++) {
        struct launches l;
        launches_record(&l, call, limits, take);
        check(&l);
        kernels = HK_MAX(kernels, l.most_kernels);
        launches_free(&l);
    }
    return kernels;
}

static int64_t some_size(uint64_t *random) {
    static const int64_t sizes[] = {8, 16, 32, 64, 96, 128, 256};
    return one_in(random, 2) ? sizes[below(random, HK_LENGTH(sizes))] : 1 + (int64_t)below(random, one_in(random, 3) ? 8 : 300);
}

/* [batch..., rows, columns], perhaps transposed, with gaps, or not at the beginning of its memory. */
static struct hk_value *some_matrix(struct hk_graph *graph, enum hk_dtype dtype, int n_batch, const int64_t *batch,
                                    int64_t rows, int64_t columns, uint64_t *random) {
    const bool transposed = one_in(random, 2);
    struct hk_shape shape = {.rank = n_batch + 2};
    for (int i = 0; i < n_batch; i++) shape.size[i] = batch[i];
    shape.size[n_batch] = transposed ? columns : rows, shape.size[n_batch + 1] = transposed ? rows : columns;
    const int axis = shape.rank - 1 - (int)below(random, (uint64_t)shape.rank);
    const int64_t size = shape.size[axis], before = (int64_t)(one_in(random, 2) ? 8 * below(random, 2) : below(random, 3));
    const bool part = one_in(random, 3);
    if (part) shape.size[axis] += before + (int64_t)(one_in(random, 2) ? 8 : below(random, 3));
    struct hk_value *x = leaf(graph, dtype, shape);
    if (part) x = hk_slice(x, axis, before, before + size, 1);
    return transposed ? hk_transpose(x) : x;
}

static const struct hk_call *some_product(struct hk_graph *graph, uint64_t *random) {
    static const enum hk_dtype dtypes[][2] = {{HK_F32, HK_F32}, {HK_F16, HK_F16}, {HK_F16, HK_F16},  {HK_BF16, HK_BF16},
                                              {HK_BF16, HK_BF16}, {HK_F16, HK_F32}, {HK_F32, HK_BF16}};
    const enum hk_dtype *const dtype = dtypes[below(random, HK_LENGTH(dtypes))];
    int64_t batch[3], m = some_size(random), n = some_size(random), k = some_size(random);
    int n_batch = one_in(random, 2) ? 0 : 1 + (int)below(random, 3);
    if (one_in(random, 4)) k = 1024 * (1 + (int64_t)below(random, 6)), n = HK_MIN(n, 64), n_batch = HK_MIN(n_batch, 1);
    if (one_in(random, 8)) m = 1;
    for (int i = 0; i < n_batch; i++) batch[i] = 1 + (int64_t)below(random, 3);
    struct hk_value *const a = some_matrix(graph, dtype[0], n_batch, batch, m, k, random);
    if (n_batch == 0 && one_in(random, 2)) {
        struct hk_value *const w = some_matrix(graph, dtype[1], 0, NULL, k, n, random);
        return call_of(hk_linear_kn(a, w, leaf(graph, HK_F32, HK_SHAPE(n))), &hk_op_matmul);
    }
    if (n_batch > 1 && one_in(random, 3)) batch[below(random, (uint64_t)n_batch)] = 1; /* b is the same for all of it */
    return call_of(hk_matmul(a, some_matrix(graph, dtype[1], n_batch, batch, k, n, random)), &hk_op_matmul);
}

enum { ROUNDS = 1500 }; /* for each device */

static void all_kernels_of_products_are_launched_rightly(void **state) {
    (void)state;
    uint64_t random = 3;
    for (int device = 0; device < DEVICES; device++) {
        int kernels = 0;
        for (int round = 0; round < ROUNDS; round++) {
            struct hk_graph *graph = hk_graph_create();
            const struct hk_limits limits = vary(device, &random);
            kernels += check_all(some_product(graph, &random), &limits, launches_check_matmul);
            hk_graph_destroy(&graph);
        }
        printf("%s: %d kernels for %d products\n", device_names[device], kernels, ROUNDS);
        assert_true(kernels > 3 * ROUNDS || !devices[device].n_cooperative);
    }
}

/* [B, heads, rows, D] as models have it: dense, or cut out of projections [B, rows, heads, D] of several; or a part of longer
   rows. */
static struct hk_value *some_heads(struct hk_graph *graph, enum hk_dtype dtype, const int64_t q[4], uint64_t *random) {
    if (one_in(random, 3)) return leaf(graph, dtype, HK_SHAPE(q[0], q[1], q[2], q[3]));
    if (one_in(random, 3)) {
        const int64_t gap = one_in(random, 2) ? 2 : 8, begin = one_in(random, 2) ? 0 : gap;
        return hk_slice(leaf(graph, dtype, HK_SHAPE(q[0], q[1], q[2], q[3] + gap)), 3, begin, q[3] + begin, 1);
    }
    const int64_t extra = (int64_t)below(random, 3);
    struct hk_value *const x = leaf(graph, dtype, HK_SHAPE(q[0], q[2], q[1] + extra, q[3]));
    return hk_permute(hk_slice(x, 2, extra, q[1] + extra, 1), HK_AXES(0, 2, 1, 3));
}

static const struct hk_call *some_attention(struct hk_graph *graph, uint64_t *random) {
    static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16};
    static const int64_t depths[] = {8, 32, 64, 80, 128, 256};
    const enum hk_dtype dtype = dtypes[below(random, HK_LENGTH(dtypes))];
    const int64_t depth = one_in(random, 2) ? depths[below(random, HK_LENGTH(depths))] : 1 + (int64_t)below(random, 256);
    const int64_t kv_heads = 1 + (int64_t)below(random, 3), heads = kv_heads * (1 + (int64_t)below(random, 3));
    const int64_t queries = 1 + (int64_t)below(random, one_in(random, 3) ? 4 : 100);
    const int64_t keys = 1 + (int64_t)below(random, one_in(random, 3) ? 3000 : 200), batch = 1 + (int64_t)below(random, 5);
    const int64_t q[] = {batch, heads, queries, depth}, k[] = {batch, kv_heads, keys, depth};
    struct hk_attention_params params = {.causal = one_in(random, 2)};
    const bool forward = one_in(random, 2);
    if (forward && one_in(random, 2)) params.position = leaf(graph, HK_I32, HK_SHAPE(1));
    struct hk_value *const x = some_heads(graph, dtype, q, random), *const y = some_heads(graph, dtype, k, random);
    const struct hk_call *const call = call_of(hk_attention(x, y, some_heads(graph, dtype, k, random), &params),
                                               &hk_op_attention);
    return forward ? call : backward_of(call);
}

/* Where one sequence exceeds a binding, attention fails: the range is one that has room for it. */
static void all_kernels_of_attention_are_launched_rightly(void **state) {
    (void)state;
    uint64_t random = 5;
    for (int device = 0; device < DEVICES; device++) {
        int kernels = 0;
        for (int round = 0; round < ROUNDS; round++) {
            struct hk_graph *graph = hk_graph_create();
            struct hk_limits limits = vary(device, &random);
            limits.max_range = HK_MAX(limits.max_range, 16u << 20);
            kernels += check_all(some_attention(graph, &random), &limits, launches_check_attention);
            hk_graph_destroy(&graph);
        }
        printf("%s: %d kernels for %d attentions\n", device_names[device], kernels, ROUNDS);
        assert_true(kernels > 2 * ROUNDS || !devices[device].n_cooperative);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_their_standard_kernels),
        cmocka_unit_test(tensors_begin_at_16_bytes),
        cmocka_unit_test(attention_has_its_standard_kernels),
        cmocka_unit_test(measured_kernels_win),
        cmocka_unit_test(all_kernels_of_products_are_launched_rightly),
        cmocka_unit_test(all_kernels_of_attention_are_launched_rightly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
