/* How attention is laid out for a GPU: one slice of the batch after another where operands exceed a binding. */
#ifndef HK_ISA_NAME
#include "op/attention.h"
#include "op/gpu.h"

/* Of all attention kernels, in the order of shaders/attention.glsl. */
struct push {
    uint32_t base[8];
    uint32_t queries, keys, heads, shared_by;
    uint32_t tiles, groups;
    float scale;
    uint32_t unused;
    uint32_t q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row;
};

enum { MAX_OPERANDS = 10 };

/* Operands of a step, and the same for a slice of the batch. */
struct operands {
    int count;
    struct hk_operand of[MAX_OPERANDS];
};

static void slice(const struct operands *all, int64_t first, int64_t count, struct operands *part) {
    *part = *all;
    for (int i = 0; i < all->count; i++) {
        struct hk_operand *o = &part->of[i];
        if (o->rank < 3) continue; /* the position */
        o->shape[0] = count;
        o->offset += (uint64_t)(first * o->stride[0]) * sizeof(float);
    }
}

/* How many items of the batch fit the bindings at once; 0 with the message set where not even one does. */
static int64_t slice_size(const struct operands *all, const struct hk_limits *limits, int64_t batch) {
    const uint64_t range = limits->max_range - limits->offset_align;
    for (int64_t count = batch; count > 0; count /= 2) {
        struct operands part;
        slice(all, 0, count, &part);
        bool fits = true;
        for (int i = 0; i < part.count; i++) fits = fits && hk_operand_span(&part.of[i]) <= range;
        if (fits) return count;
    }
    hk_fail(HK_ERROR_UNSUPPORTED, "attention: one sequence exceeds what this device can bind (%llu bytes): shorten it",
            (unsigned long long)range);
    return 0;
}

static struct push describe(const struct hk_step *step, const struct hk_operand *q, const struct hk_operand *k,
                            const struct hk_operand *v, const struct hk_operand *g) {
    const struct attention_attrs *attrs = step->attrs;
    return (struct push){
        .queries = (uint32_t)q->shape[2],
        .keys = (uint32_t)k->shape[2],
        .heads = (uint32_t)q->shape[1],
        .shared_by = (uint32_t)(q->shape[1] / k->shape[1]),
        .scale = attrs->scale,
        .q_batch = (uint32_t)q->stride[0],
        .q_head = (uint32_t)q->stride[1],
        .q_row = (uint32_t)q->stride[2],
        .k_batch = (uint32_t)k->stride[0],
        .k_head = (uint32_t)k->stride[1],
        .k_row = (uint32_t)k->stride[2],
        .v_batch = (uint32_t)v->stride[0],
        .v_head = (uint32_t)v->stride[1],
        .v_row = (uint32_t)v->stride[2],
        .g_batch = (uint32_t)g->stride[0],
        .g_head = (uint32_t)g->stride[1],
        .g_row = (uint32_t)g->stride[2],
    };
}

/* Kernels, and for which devices: the first row that fits. */
static const struct variant {
    bool software;      /* only for processors in disguise (see struct hk_limits) */
    int64_t most_depth; /* D; a row of it is in an invocation's registers, and long to compile */
    const char *forward, *dq, *dkv;
    uint32_t invocations, tile; /* tile: rows (queries, or keys for dkv) of a workgroup */
} variants[] = {
    {true, 64, "attention_rows", "attention_rows_dq", "attention_rows_dkv", 32, 32},
    {false, ATTENTION_MAX_DEPTH, "attention", "attention_dq", "attention_dkv", 256, 64},
};

static const struct variant *choose(const struct hk_recorder *recorder, int64_t depth) {
    const struct variant *v = variants;
    while (v < variants + HK_LENGTH(variants) - 1 &&
           ((v->software && !recorder->limits->software) || depth > v->most_depth))
        v++;
    return v;
}

/* A kernel over tiles of rows of each head; outputs are the bindings from first_output on. */
struct kernel {
    const char *shader;
    uint32_t invocations, tile;
    int64_t rows, heads;
    double flops;
    int count, first_output;
    const struct hk_operand *bindings[HK_MAX_BINDINGS];
};

static hk_status record(struct hk_recorder *recorder, const struct kernel *kernel, const struct hk_step *step,
                        struct push push) {
    const struct attention_attrs *attrs = step->attrs;
    push.tiles = (uint32_t)((kernel->rows + kernel->tile - 1) / kernel->tile);
    push.groups = push.tiles * (uint32_t)kernel->heads;
    struct hk_dispatch d = {.shader = kernel->shader, .n_spec = 4, .flops = kernel->flops};
    d.spec[0] = kernel->invocations;
    d.spec[1] = (uint32_t)step->inputs[ATTENTION_Q].shape[3];
    d.spec[2] = (uint32_t)attrs->causal;
    d.spec[3] = step->n_outputs == 2 && step->n_inputs > ATTENTION_POSITION; /* the forward pass with a position */
    HK_PUSH(&d, push);
    for (int i = 0; i < kernel->count; i++)
        hk_bind(&d, kernel->bindings[i], i < kernel->first_output ? HK_READ : HK_WRITE, i);
    hk_groups(recorder, &d, push.groups);
    return recorder->record(recorder, &d);
}

static double slice_flops(const struct hk_operand *q, const struct hk_operand *k, double products) {
    return 2.0 * products * (double)q->shape[0] * (double)q->shape[1] * (double)q->shape[2] * (double)k->shape[2] *
           (double)q->shape[3];
}

/* ---- Forward ---- */

enum { F_Q, F_K, F_V, F_POSITION, F_OUT, F_LSE };

static hk_status forward_slice(const struct hk_step *step, struct hk_recorder *recorder, const struct operands *part) {
    const struct hk_operand *o = part->of, *q = &o[F_Q], *k = &o[F_K], *v = &o[F_V];
    const struct variant *variant = choose(recorder, q->shape[3]);
    const struct kernel kernel = {.shader = variant->forward,
                                  .invocations = variant->invocations,
                                  .tile = variant->tile,
                                  .rows = q->shape[2],
                                  .heads = q->shape[0] * q->shape[1],
                                  .flops = slice_flops(q, k, 2),
                                  .count = 6,
                                  .first_output = 4,
                                  .bindings = {q, k, v, &o[F_POSITION], &o[F_OUT], &o[F_LSE]}};
    return record(recorder, &kernel, step, describe(step, q, k, v, q));
}

hk_status hk_attention_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand *in = step->inputs, *out = step->outputs;
    const bool position = step->n_inputs > ATTENTION_POSITION;
    const struct operands all = {6,
                                 {in[ATTENTION_Q], in[ATTENTION_K], in[ATTENTION_V],
                                  position ? in[ATTENTION_POSITION] : in[ATTENTION_Q], out[ATTENTION_OUT],
                                  out[ATTENTION_LSE]}};
    const int64_t batch = in[ATTENTION_Q].shape[0];
    const int64_t size = slice_size(&all, recorder->limits, batch);
    if (size == 0) return HK_ERROR_UNSUPPORTED;
    for (int64_t b = 0; b < batch; b += size) {
        struct operands part;
        slice(&all, b, HK_MIN(size, batch - b), &part);
        const hk_status status = forward_slice(step, recorder, &part);
        if (status) return status;
    }
    return HK_OK;
}

/* ---- Backward ---- */

enum { B_Q, B_K, B_V, B_OUT, B_LSE, B_DOUT, B_DQ, B_DK, B_DV, B_DELTA };

static hk_status backward_slice(const struct hk_step *step, struct hk_recorder *recorder, const struct operands *part) {
    const struct hk_operand *o = part->of, *q = &o[B_Q], *k = &o[B_K], *v = &o[B_V], *g = &o[B_DOUT];
    const struct hk_operand *lse = &o[B_LSE], *delta = &o[B_DELTA];
    const struct variant *variant = choose(recorder, q->shape[3]);
    const struct push push = describe(step, q, k, v, g);
    const int64_t heads = q->shape[0] * q->shape[1], kv_heads = q->shape[0] * k->shape[1];
    const struct kernel kernels[] = {
        {.shader = "attention_delta",
         .invocations = 64,
         .tile = 64,
         .rows = q->shape[2],
         .heads = heads,
         .flops = 2.0 * (double)(heads * q->shape[2] * q->shape[3]),
         .count = 3,
         .first_output = 2,
         .bindings = {&o[B_OUT], g, delta}},
        {.shader = variant->dq,
         .invocations = variant->invocations,
         .tile = variant->tile,
         .rows = q->shape[2],
         .heads = heads,
         .flops = slice_flops(q, k, 3),
         .count = 7,
         .first_output = 6,
         .bindings = {q, k, v, g, lse, delta, &o[B_DQ]}},
        {.shader = variant->dkv,
         .invocations = variant->invocations,
         .tile = variant->tile,
         .rows = k->shape[2],
         .heads = kv_heads,
         .flops = slice_flops(q, k, 4),
         .count = 8,
         .first_output = 6,
         .bindings = {q, k, v, g, lse, delta, &o[B_DK], &o[B_DV]}},
    };
    hk_status status = HK_OK;
    for (size_t i = 0; i < HK_LENGTH(kernels) && !status; i++) status = record(recorder, &kernels[i], step, push);
    return status;
}

hk_status hk_attention_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand *in = step->inputs, *out = step->outputs;
    struct operands all = {10,
                           {in[ATTENTION_Q], in[ATTENTION_K], in[ATTENTION_V], in[BACKWARD_OUT], in[BACKWARD_LSE],
                            in[BACKWARD_DOUT], out[BACKWARD_DQ], out[BACKWARD_DK], out[BACKWARD_DV], in[BACKWARD_LSE]}};
    all.of[B_DELTA].buffer = step->scratch.buffer; /* shaped as lse */
    all.of[B_DELTA].offset = step->scratch.offset;
    const int64_t batch = in[ATTENTION_Q].shape[0];
    const int64_t size = slice_size(&all, recorder->limits, batch);
    if (size == 0) return HK_ERROR_UNSUPPORTED;
    for (int64_t b = 0; b < batch; b += size) {
        struct operands part;
        slice(&all, b, HK_MIN(size, batch - b), &part);
        const hk_status status = backward_slice(step, recorder, &part);
        if (status) return status;
    }
    return HK_OK;
}
#endif
