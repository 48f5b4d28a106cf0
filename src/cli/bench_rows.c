/* The ops that hekla bench op times: one row each. */
#include "bench.h"

static int64_t at(const struct op_sizes *s, int i) { return s->size[i]; }

static double product(const struct op_sizes *s) {
    double n = 1;
    for (int i = 0; i < s->count; i++) n *= (double)s->size[i];
    return n;
}

/* ---- Shapes ---- */

/* [M, K] and [K, N], or [B, M, K] and [B, K, N]; those that lie transposed have the last two the other way round. */
static struct hk_shape matrices(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    const int first = s->count - 3;
    const int64_t m = at(s, first), n = at(s, first + 1), k = at(s, first + 2);
    const int64_t rows = i == 0 ? m : k, columns = i == 0 ? k : n;
    const bool transposed = transpose[i] == 't';
    const int64_t upper = transposed ? columns : rows, lower = transposed ? rows : columns;
    (void)dtype;
    return first ? HK_SHAPE(at(s, 0), upper, lower) : HK_SHAPE(upper, lower);
}

/* q [B, H, T, D]; k and v [B, H, S, D], S being T where there are four sizes: BxHxTxD or BxHxTxSxD */
static struct hk_shape heads(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    const int64_t keys = at(s, s->count - 2), depth = at(s, s->count - 1);
    (void)transpose, (void)dtype;
    return HK_SHAPE(at(s, 0), at(s, 1), i == 0 ? at(s, 2) : keys, depth);
}

/* x [rows, columns], and one number per column for each other input */
static struct hk_shape rows(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    (void)transpose, (void)dtype;
    return i == 0 ? HK_SHAPE(at(s, 0), at(s, 1)) : HK_SHAPE(at(s, 1));
}

/* logits [rows, classes], targets i32 [rows] */
static struct hk_shape classes(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    (void)transpose;
    if (i == 1) *dtype = HK_I32;
    return i == 0 ? HK_SHAPE(at(s, 0), at(s, 1)) : HK_SHAPE(at(s, 0));
}

/* any shape, the same for all inputs */
static struct hk_shape same(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    struct hk_shape shape = {.rank = s->count};
    (void)i, (void)transpose, (void)dtype;
    for (int k = 0; k < s->count; k++) shape.size[k] = s->size[k];
    return shape;
}

static struct hk_shape slabs(const struct op_sizes *s, int i, const char *transpose, enum hk_dtype *dtype) {
    (void)transpose, (void)dtype;
    return i == 4 ? HK_SHAPE(HK_HYPER_COUNT) : HK_SHAPE(at(s, 0));
}

/* ---- Values ---- */

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *build_##name(struct hk_value *const *in, struct hk_tensor *const *tensors,                 \
                                         const char *transpose) {                                                      \
        (void)tensors, (void)transpose;                                                                                \
        return expression;                                                                                             \
    }

static struct hk_value *as_seen(struct hk_value *x, char transposed) { return transposed == 't' ? hk_transpose(x) : x; }

BUILD(matmul, hk_matmul(as_seen(in[0], transpose[0]), as_seen(in[1], transpose[1])))
BUILD(attention, hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true}))
BUILD(softmax, hk_softmax(in[0], -1))
BUILD(layer_norm, hk_layer_norm(in[0], in[1], in[2], 1e-5f))
BUILD(rms_norm, hk_rms_norm(in[0], in[1], 1e-5f))
BUILD(cross_entropy, hk_cross_entropy(in[0], in[1], NULL))
BUILD(gelu, hk_gelu_tanh(in[0]))
BUILD(add, hk_add(in[0], in[1]))
BUILD(sum, hk_sum(in[0], HK_AXES(-1), false))
BUILD(squared_error, hk_mean(hk_square(hk_sub(in[0], in[1])), HK_ALL_AXES, false))
BUILD(copy, in[0])

static const float adamw_hyper[HK_HYPER_COUNT] = {
    [HK_HYPER_LR] = 1e-3f,    [HK_HYPER_BETA1] = 0.9f,  [HK_HYPER_BETA2] = 0.999f, [HK_HYPER_EPSILON] = 1e-8f,
    [HK_HYPER_DECAY] = 0.01f, [HK_HYPER_BIAS1] = 0.99f, [HK_HYPER_BIAS2] = 0.9f,   [HK_HYPER_UNSCALE] = 1,
};

/* Parameters, gradients, both moments, and the numbers of enum hk_hyper. */
static struct hk_value *build_adamw(struct hk_value *const *in, struct hk_tensor *const *t, const char *transpose) {
    (void)transpose;
    const struct hk_optimizer_slab slab = {.parameters = t[0],
                                           .gradients = t[1],
                                           .moment1 = t[2],
                                           .moment2 = t[3],
                                           .decayed = hk_tensor_elements(t[0])};
    hk_optimizer_update(HK_ADAMW, &slab, in[4], NULL);
    return NULL;
}

/* ---- Arithmetic: a function that is not a multiply or an add counts as one ---- */

static double flops_matmul(const struct op_sizes *s) { return 2 * product(s); }

/* Two products of T x S x D for each head, of which causality leaves about half where T is S: the last T of S rows. */
static double flops_attention(const struct op_sizes *s) {
    const double t = (double)at(s, 2), keys = (double)at(s, s->count - 2), depth = (double)at(s, s->count - 1);
    return 4 * (double)at(s, 0) * (double)at(s, 1) * depth * t * (keys - t / 2 + 0.5);
}

static double flops_1(const struct op_sizes *s) { return product(s); }
static double flops_3(const struct op_sizes *s) { return 3 * product(s); }
static double flops_5(const struct op_sizes *s) { return 5 * product(s); }
static double flops_8(const struct op_sizes *s) { return 8 * product(s); }
static double flops_14(const struct op_sizes *s) { return 14 * product(s); }

const struct op_row op_rows[] = {
    {.name = "matmul",
     .shape = "[Bx]MxNxK",
     .least_sizes = 3,
     .most_sizes = 4,
     .n_inputs = 2,
     .transposes = true,
     .input = matrices,
     .build = build_matmul,
     .flops = flops_matmul},
    {.name = "matmul_i8",
     .shape = "[Bx]MxNxK",
     .least_sizes = 3,
     .most_sizes = 4,
     .n_inputs = 2,
     .transposes = true,
     .forward_only = true,
     .whole = HK_I8,
     .input = matrices,
     .build = build_matmul,
     .flops = flops_matmul},
    {.name = "attention",
     .shape = "BxHxT[xS]xD",
     .least_sizes = 4,
     .most_sizes = 5,
     .n_inputs = 3,
     .rounds = true,
     .input = heads,
     .build = build_attention,
     .flops = flops_attention},
    {.name = "softmax",
     .shape = "ROWSxCOLUMNS",
     .least_sizes = 2,
     .most_sizes = 2,
     .n_inputs = 1,
     .input = rows,
     .build = build_softmax,
     .flops = flops_5,
     .touched = 2},
    {.name = "layer_norm",
     .shape = "ROWSxCOLUMNS",
     .least_sizes = 2,
     .most_sizes = 2,
     .n_inputs = 3,
     .input = rows,
     .build = build_layer_norm,
     .flops = flops_8,
     .touched = 2},
    {.name = "rms_norm",
     .shape = "ROWSxCOLUMNS",
     .least_sizes = 2,
     .most_sizes = 2,
     .n_inputs = 2,
     .input = rows,
     .build = build_rms_norm,
     .flops = flops_5,
     .touched = 2},
    {.name = "cross_entropy",
     .shape = "ROWSxCLASSES",
     .least_sizes = 2,
     .most_sizes = 2,
     .n_inputs = 2,
     .input = classes,
     .build = build_cross_entropy,
     .flops = flops_5,
     .touched = 1},
    {.name = "gelu",
     .shape = "ANY",
     .least_sizes = 1,
     .most_sizes = MOST_SIZES,
     .n_inputs = 1,
     .input = same,
     .build = build_gelu,
     .flops = flops_8,
     .touched = 2},
    {.name = "add",
     .shape = "ANY",
     .least_sizes = 1,
     .most_sizes = MOST_SIZES,
     .n_inputs = 2,
     .input = same,
     .build = build_add,
     .flops = flops_1,
     .touched = 3},
    {.name = "sum",
     .shape = "ANY",
     .least_sizes = 1,
     .most_sizes = MOST_SIZES,
     .n_inputs = 1,
     .input = same,
     .build = build_sum,
     .flops = flops_1,
     .touched = 1},
    {.name = "squared_error",
     .shape = "ANY",
     .least_sizes = 1,
     .most_sizes = MOST_SIZES,
     .n_inputs = 2,
     .input = same,
     .build = build_squared_error,
     .flops = flops_3,
     .touched = 2},
    {.name = "adamw",
     .shape = "ELEMENTS",
     .least_sizes = 1,
     .most_sizes = 1,
     .n_inputs = 5,
     .positive = true,
     .last = adamw_hyper,
     .in_place = true,
     .forward_only = true,
     .input = slabs,
     .build = build_adamw,
     .flops = flops_14,
     .touched = 7},
    {.name = "copy",
     .shape = "ANY",
     .least_sizes = 1,
     .most_sizes = MOST_SIZES,
     .n_inputs = 1,
     .forward_only = true,
     .input = same,
     .build = build_copy,
     .flops = flops_1,
     .touched = 2},
};
const int op_rows_count = COUNT_OF(op_rows);
