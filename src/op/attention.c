/* q [B, H, T, D], k and v [B, Hkv, S, D], position i32 [1] or none -> out [B, H, T, D] (in memory [B, T, H, D]) and
   lse f32 [B, H, T], the logarithm of each query's sum of exponentials, which the backward pass needs. q, k, v, out and
   their gradients are f32, f16 or bf16, all the same; sums are f32. */
#include "op/attention.h"

#ifndef HK_ISA_NAME
#include <math.h>

CPU_DECLARE(attention);
CPU_DECLARE(attention_backward);

static const int64_t *sizes(const struct hk_value *x) { return x->shape; }

static const int merged_heads[] = {0, 2, 1, 3}; /* memory as [B, T, H, D] */

/* ---- Forward ---- */

static bool infer(struct hk_call *call) {
    const struct hk_value *q = call->inputs[ATTENTION_Q];
    hk_infer_output_order(call, ATTENTION_OUT, q->dtype, 4, sizes(q), merged_heads);
    hk_infer_output(call, ATTENTION_LSE, HK_F32, 3, sizes(q));
    return true;
}

static struct hk_value *dense_depth(struct hk_value *x) {
    return x && x->stride[3] != 1 && x->shape[3] > 1 ? hk_contiguous(x) : x;
}

/* Every row is of whole 32-bit words: GPUs read and write 16-bit elements by two. */
static bool has_whole_words(const struct hk_value *x) {
    if (x->dtype == HK_F32) return true;
    bool whole = x->shape[3] % 2 == 0 && x->offset % 2 == 0 && x->root->storage_offset % 4 == 0;
    for (int i = 0; i < 3; i++) whole = whole && (x->shape[i] == 1 || x->stride[i] % 2 == 0);
    return whole;
}

static void backward(struct hk_backward *b);

/* Two products of [T, D] and [S, D] for each head; causal ones see about half. */
static double product_flops(const struct hk_step *step) {
    const int64_t *q = step->inputs[ATTENTION_Q].shape, *k = step->inputs[ATTENTION_K].shape;
    const struct attention_attrs *attrs = step->attrs;
    const double flops = 2.0 * (double)q[0] * (double)q[1] * (double)q[2] * (double)q[3] * (double)k[2];
    return attrs->causal && k[2] >= q[2] ? flops * (1.0 - 0.5 * (double)q[2] / (double)HK_MAX(k[2], 1)) : flops;
}

static struct hk_cost cost(const struct hk_step *step) { return (struct hk_cost){.flops = 2.0 * product_flops(step)}; }

const struct hk_op hk_op_attention = {
    .name = "attention",
    .min_inputs = 3,
    .max_inputs = 4,
    .n_outputs = 2,
    .infer = infer,
    .scratch = hk_attention_scratch,
    .backward = backward,
    .cost = cost,
    .cpu = CPU_KERNELS(attention),
    .gpu = hk_attention_gpu,
};

/* ---- Backward ---- */

static bool backward_infer(struct hk_call *call) {
    for (int i = 0; i < 3; i++)
        hk_infer_output_order(call, i, call->inputs[i]->dtype, 4, sizes(call->inputs[i]), merged_heads);
    return true;
}

/* For GPUs each query's sum of dout * out; for the CPU dq in f32, where that is summed over several blocks of keys. */
static uint64_t backward_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    const struct hk_value *q = call->inputs[ATTENTION_Q], *k = call->inputs[ATTENTION_K];
    if (limits) return (uint64_t)hk_elements(call->inputs[BACKWARD_LSE]) * sizeof(float);
    return q->dtype != HK_F32 && k->shape[2] > ATTENTION_CPU_KEYS ? (uint64_t)hk_elements(q) * sizeof(float) : 0;
}

static struct hk_cost backward_cost(const struct hk_step *step) {
    return (struct hk_cost){.flops = 5.0 * product_flops(step)};
}

const struct hk_op hk_op_attention_backward = {
    .name = "attention_backward",
    .min_inputs = 6,
    .max_inputs = 6,
    .n_outputs = 3,
    .infer = backward_infer,
    .scratch = backward_scratch,
    .cost = backward_cost,
    .cpu = CPU_KERNELS(attention_backward),
    .gpu = hk_attention_backward_gpu,
};

static void backward(struct hk_backward *b) {
    struct hk_call *call = b->call;
    if (call->n_inputs > ATTENTION_POSITION) {
        hk_graph_fail(call->graph, HK_ERROR_UNSUPPORTED,
                      "attention: no gradient where a position is given (a KV cache)");
        return;
    }
    struct hk_value *dout = b->grads[ATTENTION_OUT];
    if (!dout) return; /* lse is internal */
    dout = dense_depth(hk_cast(dout, call->inputs[ATTENTION_Q]->dtype));
    if (dout && !has_whole_words(dout)) dout = hk_cast(hk_cast(dout, HK_F32), dout->dtype);
    if (!dout) return;
    struct hk_value *in[] = {call->inputs[ATTENTION_Q],    call->inputs[ATTENTION_K],    call->inputs[ATTENTION_V],
                             call->outputs[ATTENTION_OUT], call->outputs[ATTENTION_LSE], dout};
    struct hk_value *dq = hk_call_op(call->graph, &hk_op_attention_backward, in, 6, call->attrs, call->attrs_bytes);
    if (!dq) return;
    for (int i = 0; i < 3; i++)
        if (b->needed[i]) b->results[i] = hk_output(dq, i);
}

/* ---- Public function ---- */

static bool check(struct hk_graph *graph, struct hk_value *q, struct hk_value *k, struct hk_value *v,
                  struct hk_value *position) {
    const char *wrong = NULL;
    if (q->dtype != k->dtype || q->dtype != v->dtype || (q->dtype != HK_F32 && q->dtype != HK_F16 && q->dtype != HK_BF16))
        wrong = "q, k and v must be f32, f16 or bf16, and the same (hk_cast converts)";
    else if (q->rank != 4 || k->rank != 4 || v->rank != 4) wrong = "q, k and v need four dimensions";
    else if (!hk_same_shape(k, v)) wrong = "k and v differ in shape";
    else if (q->shape[0] != k->shape[0]) wrong = "batch sizes differ";
    else if (q->shape[3] != k->shape[3]) wrong = "head depths differ";
    else if (k->shape[1] == 0 || q->shape[1] % k->shape[1] != 0) wrong = "query heads must be a multiple of key heads";
    else if (q->shape[3] > ATTENTION_MAX_DEPTH) wrong = "heads deeper than 256 are not supported";
    else if (q->shape[2] > INT32_MAX / 2 || k->shape[2] > INT32_MAX / 2) wrong = "sequence too long";
    if (wrong)
        hk_graph_fail(graph, HK_ERROR_INVALID, "attention: %s: q is %s, k is %s, v is %s", wrong, hk_shape_text(q),
                      hk_shape_text(k), hk_shape_text(v));
    else if (position && (position->dtype != HK_I32 || hk_elements(position) != 1))
        hk_graph_fail(graph, HK_ERROR_INVALID, "attention: position must be i32 [1], not %s %s",
                      hk_dtype_name(position->dtype), hk_shape_text(position));
    else return true;
    return false;
}

struct hk_value *hk_attention(struct hk_value *q, struct hk_value *k, struct hk_value *v,
                              const struct hk_attention_params *params) {
    struct hk_value *position = params ? params->position : NULL;
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){q, k, v, position}, position ? 4 : 3);
    if (!graph || !check(graph, q, k, v, position)) return NULL;
    if (hk_elements(q) == 0 || hk_elements(k) == 0) return hk_fill(graph, q->dtype, hk_value_shape(q), 0.0);
    const float scale = params && params->scale != 0 ? params->scale : 1.0f / sqrtf((float)HK_MAX(q->shape[3], 1));
    const struct attention_attrs attrs = {.causal = params && params->causal, .scale = scale};
    struct hk_value *in[] = {dense_depth(q), dense_depth(k), dense_depth(v), position};
    if (!in[0] || !in[1] || !in[2]) return NULL;
    const bool whole = has_whole_words(in[0]) && has_whole_words(in[1]) && has_whole_words(in[2]);
    for (int i = 0; i < 3 && !whole; i++) in[i] = hk_cast(in[i], HK_F32);
    struct hk_value *out = hk_call_op(graph, &hk_op_attention, in, position ? 4 : 3, &attrs, sizeof attrs);
    return out ? hk_cast(out, q->dtype) : NULL;
}
#endif
