/* Sums, means and maxima over axes. The builders bring every case to dense [A, R, B] -> [A, B], which the kernels of
   reduce_cpu.c and reduce_gpu.c reduce. */
#ifndef HK_ISA_NAME
#include "op/reduce.h"
#include "op/shape.h"

CPU_DECLARE(reduce);

enum { ARGMAX_AT_ONCE = 1024 }; /* elements that fit any window */

/* x [A, R, B] -> [A, B] */
static bool infer(struct hk_call *call) {
    const struct reduce_attrs *attrs = call->attrs;
    const struct hk_value *x = call->inputs[0];
    hk_infer_output(call, 0, attrs->kind == REDUCE_ARGMAX ? HK_I32 : HK_F32, 2, (int64_t[]){x->shape[0], x->shape[2]});
    return true;
}

/* The pieces' results of one level and, behind them, of the next: later ones take turns. Of argmax: the pieces' maxima,
   [A, pieces], then their indices. */
uint64_t hk_reduce_scratch(const struct hk_step *step) {
    const struct reduce_attrs *attrs = step->attrs;
    const int64_t *shape = step->inputs[0].shape, A = shape[0], R = shape[1], B = shape[2];
    const int64_t first = piece_count(R, B), second = piece_count(first, B);
    if (attrs->kind == REDUCE_ARGMAX) return R > ARGMAX_AT_ONCE ? (uint64_t)(A * first) * 2 * sizeof(float) : 0;
    return first > 1 ? (uint64_t)(A * B * (first + second)) * sizeof(float) : 0;
}

static uint64_t scratch(const struct hk_call *call, const struct hk_limits *limits) {
    struct hk_operand operands[2];
    const struct hk_step step = hk_step_of(call, operands);
    (void)limits;
    return hk_reduce_scratch(&step);
}

/* [A, B] -> [A, R, B] */
static struct hk_value *spread(struct hk_value *y, const struct hk_value *x) {
    return hk_broadcast_to(hk_reshape(y, HK_SHAPE(x->shape[0], 1, x->shape[2])), hk_value_shape(x));
}

static void sum_backward(struct hk_backward *b) {
    const float scale = ((const struct reduce_attrs *)b->call->attrs)->scale;
    struct hk_value *dy = b->grads[0];
    b->results[0] = spread(scale == 1 ? dy : hk_affine(dy, scale, 0), b->call->inputs[0]);
}

/* Equal maxima share the gradient equally. */
static void max_backward(struct hk_backward *b) {
    struct hk_value *x = b->call->inputs[0], *y = b->call->outputs[0];
    struct hk_value *is_max = hk_equal(x, spread(y, x));
    struct hk_value *share = hk_div(b->grads[0], hk_sum(hk_cast(is_max, HK_F32), HK_AXES(1), false));
    b->results[0] = hk_where(is_max, spread(share, x), hk_fill(x->graph, HK_F32, HK_SCALAR, 0));
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_reduce_record(step, NULL, recorder);
}

/* ---- Rows ---- */

#define REDUCE_ROW(op_name, op_backward, op_preceded)                                                                  \
    const struct hk_op hk_op_##op_name = {                                                                             \
        .name = #op_name,                                                                                              \
        .min_inputs = 1,                                                                                               \
        .max_inputs = 1,                                                                                               \
        .n_outputs = 1,                                                                                                \
        .infer = infer,                                                                                                \
        .scratch = scratch,                                                                                            \
        .backward = op_backward,                                                                                       \
        .cpu = CPU_KERNELS(reduce),                                                                                    \
        .preceded = op_preceded,                                                                                       \
        .gpu = gpu,                                                                                                    \
    };

REDUCE_ROW(sum, sum_backward, &hk_op_fused_reduce)
REDUCE_ROW(mean, sum_backward, &hk_op_fused_reduce)
REDUCE_ROW(max, max_backward, &hk_op_fused_reduce)
REDUCE_ROW(argmax, NULL, NULL)

/* ---- Builders ---- */

/* What is asked for: which axes, as bits. */
struct request {
    const struct hk_op *op;
    enum reduce_kind kind;
    unsigned mask;
    float scale;
};

static struct hk_value *call_reduce(const struct request *q, struct hk_value *x, int64_t A, int64_t R, int64_t B,
                                    float scale) {
    const struct reduce_attrs attrs = {q->kind, scale};
    x = hk_reshape(x, HK_SHAPE(A, R, B));
    return hk_call_op(NULL, q->op, &x, 1, &attrs, sizeof attrs);
}

/* Reduced axes last, in one run: [kept, reduced, 1]. For what must see all of its terms at once. */
static struct hk_value *reduce_at_once(const struct request *q, struct hk_value *x) {
    struct hk_axes order = {0};
    int64_t kept = 1, reduced = 1;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if ((int)(q->mask >> i & 1) == pass) {
                order.axis[order.count++] = i;
                *(pass ? &reduced : &kept) *= x->shape[i];
            }
    x = hk_contiguous(hk_permute(x, order));
    return call_reduce(q, x, kept, reduced, 1, q->scale);
}

/* Runs of neighbouring axes that are all reduced or all kept; axes of size 1 belong to any. */
struct runs {
    int count, n_reduced;
    bool reduced[HK_MAX_RANK];
    int64_t size[HK_MAX_RANK];
};

static struct runs find_runs(const struct hk_value *x, unsigned mask) {
    struct runs runs = {0};
    for (int i = 0; i < x->rank; i++) {
        const bool reduced = mask >> i & 1;
        if (x->shape[i] == 1) continue;
        if (!runs.count || runs.reduced[runs.count - 1] != reduced) {
            runs.n_reduced += reduced;
            runs.reduced[runs.count] = reduced;
            runs.size[runs.count++] = 1;
        }
        runs.size[runs.count - 1] *= x->shape[i];
    }
    return runs;
}

/* One call per run of reduced axes, the last first. */
static struct hk_value *reduce_runs(const struct request *q, struct hk_value *x, struct runs *runs) {
    int left = runs->n_reduced;
    for (int k = runs->count - 1; k >= 0; k--) {
        int64_t A = 1, B = 1;
        if (!runs->reduced[k]) continue;
        for (int i = 0; i < k; i++) A *= runs->size[i];
        for (int i = k + 1; i < runs->count; i++) B *= runs->size[i];
        x = call_reduce(q, x, A, runs->size[k], B, --left ? 1 : q->scale);
        runs->size[k] = 1;
    }
    return x;
}

static struct hk_shape result_shape(const struct hk_value *x, unsigned mask, bool keepdims) {
    struct hk_shape shape = {0};
    for (int i = 0; i < x->rank; i++) {
        const bool reduced = mask >> i & 1;
        if (keepdims || !reduced) shape.size[shape.rank++] = reduced ? 1 : x->shape[i];
    }
    return shape;
}

/* A permuted x whose memory is dense is reduced in its memory's order, as in_order has it, and the result permuted. */
static struct hk_value *reduce(const struct request *q, struct hk_value *x, bool keepdims);
static struct hk_value *reduce_in_memory_order(const struct request *q, struct hk_value *in_order, struct hk_axes order) {
    struct request there = *q;
    there.mask = 0;
    for (int i = 0; i < order.count; i++) there.mask |= (q->mask >> order.axis[i] & 1) << i;
    return hk_permute(reduce(&there, in_order, true), hk_inverse(order));
}

static struct hk_value *reduce(const struct request *q, struct hk_value *x, bool keepdims) {
    const struct hk_shape shape = result_shape(x, q->mask, keepdims);
    struct runs runs = find_runs(x, q->mask);
    if (q->kind == REDUCE_ARGMAX || (q->kind == REDUCE_MAX && runs.n_reduced > 1))
        return hk_reshape(reduce_at_once(q, x), shape);
    if (!hk_is_dense(x)) {
        struct hk_axes order;
        struct hk_value *in_order = hk_in_memory_order(x, &order);
        if (in_order) return hk_reshape(reduce_in_memory_order(q, in_order, order), shape);
        x = hk_contiguous(x);
    }
    return hk_reshape(x ? reduce_runs(q, x, &runs) : NULL, shape);
}

static struct hk_value *build(const struct hk_op *op, enum reduce_kind kind, struct hk_value *x, struct hk_axes axes,
                              bool keepdims) {
    if (!x) return NULL;
    struct request q = {.op = op, .kind = kind, .scale = 1};
    double terms = 1;
    if (x->dtype != HK_F32)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: x must be f32, it is %s", op->name,
                             hk_dtype_name(x->dtype));
    if (axes.count < 0 || axes.count > HK_MAX_RANK)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: %d axes", op->name, axes.count);
    for (int i = 0; i < axes.count; i++) {
        const int axis = hk_axis(x, axes.axis[i], op->name);
        if (axis < 0) return NULL;
        if (q.mask >> axis & 1)
            return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: axis %d is given twice", op->name, axes.axis[i]);
        q.mask |= 1u << axis;
    }
    if (axes.count == 0) q.mask = (1u << x->rank) - 1;
    for (int i = 0; i < x->rank; i++)
        if (q.mask >> i & 1) terms *= (double)x->shape[i];
    if (terms == 0 && kind != REDUCE_SUM)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: no elements to take it of: x is %s", op->name,
                             hk_shape_text(x));
    if (kind == REDUCE_ARGMAX && terms > (double)INT32_MAX)
        return hk_graph_fail(x->graph, HK_ERROR_UNSUPPORTED, "argmax: over more elements than i32 counts: x is %s",
                             hk_shape_text(x));
    if (op == &hk_op_mean) q.scale = (float)(1 / terms);
    return reduce(&q, x, keepdims);
}

struct hk_value *hk_sum(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_sum, REDUCE_SUM, x, axes, keepdims);
}
struct hk_value *hk_mean(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_mean, REDUCE_SUM, x, axes, keepdims);
}
struct hk_value *hk_max(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_max, REDUCE_MAX, x, axes, keepdims);
}
struct hk_value *hk_argmax(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_argmax, REDUCE_ARGMAX, x, axes, keepdims);
}

struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like) {
    if (!x || hk_same_shape(x, like)) return x;
    struct hk_axes axes = {0};
    const int missing = x->rank - like->rank;
    for (int i = 0; i < x->rank; i++)
        if (i < missing || like->shape[i - missing] != x->shape[i]) axes.axis[axes.count++] = i;
    return hk_reshape(axes.count ? hk_sum(x, axes, true) : x, hk_value_shape(like));
}

#endif
