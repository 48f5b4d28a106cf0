/* How attention is laid out for a GPU: one slice of the batch after another where operands exceed a binding. */
#ifndef HK_ISA_NAME
#include "op/attention.h"
#include "op/gpu.h"
#include <stdio.h>

/* Of all attention kernels, in the order of shaders/attention.glsl. */
struct push {
    uint32_t base[8];
    uint32_t queries, keys, heads, shared_by;
    uint32_t tiles, groups;
    float scale;
    uint32_t key_parts;
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
        o->offset += (uint64_t)(first * o->stride[0]) * hk_dtype_size(o->dtype);
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
        .key_parts = 1,
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
    uint32_t registers; /* that an invocation needs */
    int64_t most_depth; /* D; a row of it is in an invocation's registers, and long to compile */
    const char *forward, *dq, *dkv; /* NULL: another row has that pass */
    uint32_t invocations, tile; /* tile: rows (queries, or keys for dkv) of a workgroup; 1: for few queries, keys in parts */
    uint32_t chunk;    /* of D that is staged at once: its products are unrolled, and take registers; for single queries the
                          invocations that share a key */
    int64_t dkv_depth; /* what a workgroup of dkv has of D, as both results take registers: deeper ones are shared */
    enum hk_dtype dtype; /* of the cooperative matrices; HK_F32: made without */
    uint32_t subgroups;  /* with cooperative matrices, 16 rows each */
    int64_t least_queries;
    uint32_t columns;    /* with matrices of whole workgroups: tile rows of that many columns */
    int64_t amd_depth;   /* the deepest heads for which it is the standard on AMD's GPUs; 0: as for all */
} variants[] = {
    {true, 0, ATTENTION_MAX_DEPTH, "attention_few", NULL, NULL, 8, 1, 1, 128, HK_F32, 0, 0, 0, 0},
    {false, 0, ATTENTION_MAX_DEPTH, "attention_few", NULL, NULL, 128, 1, 8, 128, HK_F32, 0, 0, 0, 0},
#define WORKGROUP(forward_depth, depth, invocations, rows, columns, queries)                                              \
    WIDE(forward_depth, "attention_cooperative2", NULL, NULL, HK_F16, invocations, rows, columns, queries),               \
        WIDE(forward_depth, "attention_cooperative2_bf16", NULL, NULL, HK_BF16, invocations, rows, columns, queries),     \
        WIDE(depth, NULL, "attention_cooperative2_dq", "attention_cooperative2_dkv", HK_F16, invocations, rows, columns,  \
             queries),                                                                                                    \
        WIDE(depth, NULL, "attention_cooperative2_dq_bf16", "attention_cooperative2_dkv_bf16", HK_BF16, invocations, rows, \
             columns, queries)
#define WIDE(depth, forward, dq, dkv, dtype, invocations, rows, columns, queries)                                         \
    {false, 0, depth, forward, dq, dkv, invocations, rows, 0, ATTENTION_MAX_DEPTH, dtype, 0, queries, columns, 0}
    WORKGROUP(64, 64, 128, 64, 64, 0),
    WORKGROUP(128, 64, 128, 64, 32, 0),
    WORKGROUP(256, 128, 128, 32, 32, 0),
/* Of gradients of heads deeper than 64 the shared memory of AMD's processors holds but one workgroup, and the compiler there
   expects 1.3 to 3.4 times the cycles of kernels without matrices (`hekla_lab choices`). */
#define COOPERATIVE(subgroups, queries)                                                                                 \
    MATRICES(256, "attention_cooperative", NULL, NULL, HK_F16, subgroups, queries, 0),                                  \
        MATRICES(256, "attention_cooperative_bf16", NULL, NULL, HK_BF16, subgroups, queries, 0),                        \
        MATRICES(128, NULL, "attention_cooperative_dq", "attention_cooperative_dkv", HK_F16, subgroups, queries, 64),   \
        MATRICES(128, NULL, "attention_cooperative_dq_bf16", "attention_cooperative_dkv_bf16", HK_BF16, subgroups, queries, 64)
#define MATRICES(depth, forward, dq, dkv, dtype, subgroups, queries, amd_depth)                                         \
    {false, 0, depth, forward, dq, dkv, 0, 16 * (subgroups), 0, 64, dtype, subgroups, queries, 0, amd_depth}
    COOPERATIVE(4, 33),
    COOPERATIVE(2, 17),
    COOPERATIVE(1, 0),
    {true, 0, 64, "attention_rows", "attention_rows_dq", "attention_rows_dkv", 32, 32, 0, 64, HK_F32, 0, 0, 0, 0},
    {false, 96, ATTENTION_MAX_DEPTH, "attention", "attention_dq", "attention_dkv", 256, 64, 16, 128, HK_F32, 0, 0, 0, 0},
    {false, 0, ATTENTION_MAX_DEPTH, "attention", "attention_dq", "attention_dkv", 256, 64, 4, 128, HK_F32, 0, 0, 0, 0},
};

/* How many workgroups share D in dkv: each computes the scores. */
static int64_t dkv_parts(const struct variant *v, int64_t depth) { return (depth + v->dkv_depth - 1) / v->dkv_depth; }

/* The largest cooperative matrices of the operands' dtype for which the variant has memory; NULL: none. As in
   shaders/attention_cooperative.glsl. */
static const struct hk_cooperative *find_matrix(const struct variant *v, const struct hk_limits *limits, int64_t depth) {
    enum { BLOCK_ROWS = 16, BLOCK_COLUMNS = 32, MOST_PRODUCTS = 24 /* in an unrolled loop */ };
    const struct hk_cooperative *best = NULL;
    const uint32_t rows = BLOCK_ROWS * v->subgroups, parts = v->forward ? 1 : (uint32_t)dkv_parts(v, depth);
    const uint32_t padded = ((uint32_t)depth + 16 * parts - 1) / (16 * parts) * 16 * parts;
    const uint32_t operands = v->forward ? 1 : 2; /* of rows, and of columns */
    const uint32_t shared = 2 * operands * (rows + BLOCK_COLUMNS) * (padded + 8) +
                            rows * (2 * (BLOCK_COLUMNS + 8) + 4 * (BLOCK_COLUMNS + 4) + 4) +
                            (v->forward ? 0 : 8 * BLOCK_COLUMNS);
    const uint32_t invocations = v->subgroups * limits->cooperative_subgroup;
    /* Vulkan wants a multiple of the usual subgroup's size, whatever size is asked for */
    if (shared > limits->shared_memory || invocations > limits->max_invocations || invocations % limits->subgroup_size)
        return NULL;
    for (const struct hk_cooperative *i = limits->cooperative; i < limits->cooperative + limits->n_cooperative; i++) {
        const bool whole = (i->m == 8 || i->m == 16) && (i->n == 8 || i->n == 16) && (i->k == 8 || i->k == 16);
        if (i->invocations || i->dtype != v->dtype || !whole) continue;
        if (BLOCK_ROWS / i->m * (padded / HK_MIN(i->n, i->k)) > MOST_PRODUCTS) continue;
        if (!best || i->m * i->n * i->k > best->m * best->n * best->k) best = i;
    }
    return best;
}

/* Whether all rows of 16-bit elements begin and end at multiples of 16 bytes. */
static bool is_aligned(const struct hk_operand *o) {
    bool aligned = o->offset % 16 == 0 && o->shape[3] % 8 == 0;
    for (int i = 0; i < 3; i++) aligned = aligned && (o->shape[i] == 1 || o->stride[i] % 8 == 0);
    return aligned;
}

/* The same for all operands but lse and a position. */
static bool are_aligned(const struct hk_step *step) {
    bool aligned = true;
    for (int i = 0; i < step->n_inputs; i++)
        aligned = aligned && (step->inputs[i].rank < 4 || is_aligned(&step->inputs[i]));
    for (int i = 0; i < step->n_outputs; i++)
        aligned = aligned && (step->outputs[i].rank < 4 || is_aligned(&step->outputs[i]));
    return aligned;
}

/* What matrices of a workgroup have of D. */
static uint32_t wide_depth(int64_t depth) { return ((uint32_t)depth + 31) / 32 * 32; }

/* Whether the device has matrices of workgroups for the variant, and the operands lie for them. */
static bool can_be_wide(const struct variant *v, const struct hk_limits *limits, const struct hk_step *step) {
    const uint32_t depth = wide_depth(step->inputs[ATTENTION_Q].shape[3]);
    if (HK_MAX(HK_MAX(v->tile, v->columns), depth) > limits->cooperative_largest) return false;
    bool found = false;
    for (const struct hk_cooperative *i = limits->cooperative; i < limits->cooperative + limits->n_cooperative; i++)
        found = found || (i->invocations == v->invocations && i->dtype == v->dtype && v->tile % i->m == 0 &&
                          v->columns % i->n == 0 && v->columns % i->k == 0 && depth % i->n == 0 && depth % i->k == 0);
    return found && are_aligned(step);
}

/* Up to so many queries, each is worth reading all its keys. On processors attention_rows, where a head is not too deep for it,
   has more of them at once. */
static int64_t few_queries(const struct hk_limits *limits, int64_t depth) { return limits->software && depth <= 64 ? 2 : 4; }

static bool is_usable(const struct variant *v, const struct hk_limits *limits, const struct hk_step *step, bool forward) {
    const struct hk_operand *q = &step->inputs[ATTENTION_Q];
    if ((v->software && !limits->software) || q->shape[3] > v->most_depth || v->registers > limits->registers) return false;
    if (!(forward ? v->forward : v->dq)) return false;
    if (v->tile == 1 && q->shape[2] > few_queries(limits, q->shape[3])) return false;
    if (v->columns) return v->dtype == q->dtype && can_be_wide(v, limits, step);
    return v->dtype == HK_F32 || (v->dtype == q->dtype && find_matrix(v, limits, q->shape[3]));
}

/* The processor has no matrices. */
static bool is_standard(const struct variant *v, const struct hk_limits *limits, const struct hk_operand *q) {
    const bool too_deep = limits->amd && v->amd_depth && q->shape[3] > v->amd_depth;
    return v->dtype == HK_F32 || (!limits->software && q->shape[2] >= v->least_queries && !too_deep);
}

/* The first row that fits, unless it was measured that another one is faster; pass is "attention" or its gradient. */
static const struct variant *choose(struct hk_recorder *recorder, const struct hk_step *step, const char *pass,
                                    const struct hk_operand *q, const struct hk_operand *k) {
    const struct attention_attrs *attrs = step->attrs;
    const struct variant *rows[HK_LENGTH(variants)], *const last = variants + HK_LENGTH(variants) - 1;
    const bool forward = step->n_outputs == 2;
    struct hk_choice choice = {.count = 0};
    bool found = false;
    snprintf(choice.work, sizeof choice.work, "%s %s %lldx%lldx%lldx%lld keys %lldx%lld%s%s%s", pass, hk_dtype_name(q->dtype),
             (long long)q->shape[0], (long long)q->shape[1], (long long)q->shape[2], (long long)q->shape[3],
             (long long)k->shape[1], (long long)k->shape[2], attrs->causal ? " causal" : "",
             forward && step->n_inputs > ATTENTION_POSITION ? " position" : "", are_aligned(step) ? "" : " unaligned");
    for (const struct variant *v = variants; v <= last; v++) {
        if (v < last && !is_usable(v, recorder->limits, step, forward)) continue;
        const uint32_t constants[] = {v->invocations, v->tile, v->columns ? v->columns : v->chunk};
        const bool standard = !found && is_standard(v, recorder->limits, q);
        found |= standard;
        rows[choice.count] = v;
        hk_choice_add(&choice, v->forward ? v->forward : v->dq, constants, (int)HK_LENGTH(constants), standard);
    }
    return rows[recorder->choose ? recorder->choose(recorder, &choice) : choice.standard];
}

/* Rows of a workgroup. With an invocation for each there are no more than fill subgroups: decoding has one. */
static uint32_t tile_rows(const struct variant *variant, const struct hk_limits *limits, int64_t rows) {
    if (!variant->software || rows >= variant->tile) return variant->tile;
    const uint32_t subgroup = HK_MAX(limits->subgroup_size, 1);
    return HK_MIN(variant->tile, ((uint32_t)rows + subgroup - 1) / subgroup * subgroup);
}

/* A kernel over tiles of rows of each head; outputs are the bindings from first_output on. */
struct kernel {
    const char *shader;
    const struct variant *variant; /* NULL: there is but one kernel */
    uint32_t invocations, tile, chunk;
    int64_t parts; /* of D; 0: 1 */
    int64_t rows, heads;
    double flops;
    int count, first_output;
    const struct hk_operand *bindings[HK_MAX_BINDINGS];
};

/* What kernels with cooperative matrices have besides. */
static void add_matrices(struct hk_dispatch *d, const struct kernel *kernel, const struct hk_limits *limits) {
    const struct hk_cooperative *const matrix = find_matrix(kernel->variant, limits, kernel->bindings[0]->shape[3]);
    bool aligned = true;
    for (int i = 0; i < (kernel->variant->forward ? 3 : 4); i++) aligned = aligned && is_aligned(kernel->bindings[i]);
    const uint32_t spec[] = {kernel->variant->subgroups, matrix->m, matrix->n, matrix->k, aligned ? 8 : 2};
    memcpy(d->spec + d->n_spec, spec, sizeof spec);
    d->n_spec += (int)HK_LENGTH(spec);
    d->subgroup_size = limits->cooperative_subgroup;
    d->spec[0] = kernel->variant->subgroups * limits->cooperative_subgroup;
}

static hk_status record(struct hk_recorder *recorder, const struct kernel *kernel, const struct hk_step *step,
                        struct push push) {
    const struct attention_attrs *attrs = step->attrs;
    push.tiles = (uint32_t)((kernel->rows + kernel->tile - 1) / kernel->tile);
    const uint32_t parts = (uint32_t)HK_MAX(kernel->parts, 1);
    push.groups = push.tiles * (uint32_t)kernel->heads * parts;
    struct hk_dispatch d = {.shader = kernel->shader, .n_spec = 7, .flops = kernel->flops};
    d.spec[0] = kernel->invocations;
    d.spec[1] = (uint32_t)step->inputs[ATTENTION_Q].shape[3];
    d.spec[2] = (uint32_t)attrs->causal;
    d.spec[3] = step->n_outputs == 2 && step->n_inputs > ATTENTION_POSITION; /* the forward pass with a position */
    d.spec[4] = kernel->chunk;
    d.spec[5] = parts;
    d.spec[6] = step->inputs[ATTENTION_Q].dtype;
    if (kernel->tile == 1) d.spec[d.n_spec++] = kernel->invocations;
    if (kernel->variant && kernel->variant->subgroups) add_matrices(&d, kernel, recorder->limits);
    if (kernel->variant && kernel->variant->columns) {
        d.spec[d.n_spec++] = kernel->tile;
        d.spec[d.n_spec++] = kernel->variant->columns;
        d.spec[d.n_spec++] = wide_depth(step->inputs[ATTENTION_Q].shape[3]);
    }
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

enum { F_Q, F_K, F_V, F_POSITION, F_OUT, F_LSE, F_PARTS, F_PARTS_LSE };

/* In how many parts, by doubling, workgroups with a query each have its keys: so many that all processors have work while some
   of it waits for memory, and not so many that combining them is as much. */
static int64_t key_parts(const struct hk_limits *limits, const int64_t *q, const int64_t *k) {
    enum { MOST = 32, LEAST_KEYS = 256, AT_ONCE = 4 };
    const int64_t groups = q[0] * q[1] * q[2];
    int64_t parts = 1;
    while (q[2] <= few_queries(limits, q[3]) && parts < MOST && groups * parts < AT_ONCE * (int64_t)limits->processors &&
           k[2] / (2 * parts) >= LEAST_KEYS)
        parts *= 2;
    return parts;
}

/* f32 [B, parts, H, T, D], then [B, parts, H, T]. */
uint64_t hk_attention_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    const int64_t *const q = call->inputs[ATTENTION_Q]->shape;
    const int64_t parts = limits ? key_parts(limits, q, call->inputs[ATTENTION_K]->shape) : 1;
    return parts > 1 ? (uint64_t)(q[0] * parts * q[1] * q[2] * (q[3] + 1)) * sizeof(float) : 0;
}

static void add_parts(struct operands *all, const struct hk_operand *scratch, int64_t parts) {
    const int64_t *const q = all->of[F_Q].shape, rows = q[1] * q[2];
    struct hk_operand *const sums = &all->of[F_PARTS], *const lse = &all->of[F_PARTS_LSE];
    *sums = (struct hk_operand){.buffer = scratch->buffer,
                                .offset = scratch->offset,
                                .dtype = HK_F32,
                                .rank = 5,
                                .shape = {q[0], parts, q[1], q[2], q[3]},
                                .stride = {parts * rows * q[3], rows * q[3], q[2] * q[3], q[3], 1}};
    *lse = (struct hk_operand){.buffer = scratch->buffer,
                               .offset = scratch->offset + (uint64_t)(q[0] * parts * rows * q[3]) * sizeof(float),
                               .dtype = HK_F32,
                               .rank = 4,
                               .shape = {q[0], parts, q[1], q[2]},
                               .stride = {parts * rows, rows, q[2], 1}};
    all->count = F_PARTS_LSE + 1;
}

/* Of a slice, from what attention_few has made of its keys' parts. */
static hk_status combine(const struct hk_step *step, struct hk_recorder *recorder, const struct operands *part,
                         struct push push) {
    const struct hk_operand *o = part->of, *q = &o[F_Q];
    const int64_t pairs = (q->shape[3] + 1) / 2;
    const struct kernel kernel = {.shader = "attention_parts",
                                  .invocations = 64,
                                  .tile = 64,
                                  .rows = q->shape[2] * pairs,
                                  .heads = q->shape[0] * q->shape[1],
                                  .flops = 2.0 * (double)hk_operand_span(&o[F_PARTS]) / sizeof(float),
                                  .count = 4,
                                  .first_output = 2,
                                  .bindings = {&o[F_PARTS], &o[F_PARTS_LSE], &o[F_OUT], &o[F_LSE]}};
    return record(recorder, &kernel, step, push);
}

static hk_status forward_slice(const struct hk_step *step, struct hk_recorder *recorder, const struct operands *part) {
    const struct hk_operand *o = part->of, *q = &o[F_Q], *k = &o[F_K], *v = &o[F_V];
    const struct variant *variant = choose(recorder, step, "attention", q, k);
    const uint32_t tile = tile_rows(variant, recorder->limits, q->shape[2]);
    const bool parts = variant->tile == 1 && part->count > F_PARTS;
    struct push push = describe(step, q, k, v, q);
    push.key_parts = parts ? (uint32_t)o[F_PARTS].shape[1] : 1;
    const struct kernel kernel = {.shader = variant->forward,
                                  .variant = variant,
                                  .invocations = tile < variant->tile ? tile : variant->invocations,
                                  .tile = tile,
                                  .chunk = variant->chunk,
                                  .parts = push.key_parts,
                                  .rows = q->shape[2],
                                  .heads = q->shape[0] * q->shape[1],
                                  .flops = slice_flops(q, k, 2),
                                  .count = 6,
                                  .first_output = 4,
                                  .bindings = {q, k, v, &o[F_POSITION], &o[parts ? F_PARTS : F_OUT],
                                               &o[parts ? F_PARTS_LSE : F_LSE]}};
    const hk_status status = record(recorder, &kernel, step, push);
    return status || !parts ? status : combine(step, recorder, part, push);
}

hk_status hk_attention_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand *in = step->inputs, *out = step->outputs;
    const bool position = step->n_inputs > ATTENTION_POSITION;
    struct operands all = {6,
                           {in[ATTENTION_Q], in[ATTENTION_K], in[ATTENTION_V],
                            position ? in[ATTENTION_POSITION] : in[ATTENTION_Q], out[ATTENTION_OUT], out[ATTENTION_LSE]}};
    const int64_t batch = in[ATTENTION_Q].shape[0];
    const int64_t parts = key_parts(recorder->limits, in[ATTENTION_Q].shape, in[ATTENTION_K].shape);
    if (parts > 1) add_parts(&all, &step->scratch, parts);
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
    const struct variant *variant = choose(recorder, step, "attention_backward", q, k);
    const struct push push = describe(step, q, k, v, g);
    const int64_t heads = q->shape[0] * q->shape[1], kv_heads = q->shape[0] * k->shape[1];
    const int64_t parts = dkv_parts(variant, q->shape[3]);
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
         .variant = variant,
         .invocations = variant->invocations,
         .tile = variant->tile,
         .chunk = variant->chunk,
         .rows = q->shape[2],
         .heads = heads,
         .flops = slice_flops(q, k, 3),
         .count = 7,
         .first_output = 6,
         .bindings = {q, k, v, g, lse, delta, &o[B_DQ]}},
        {.shader = variant->dkv,
         .variant = variant,
         .invocations = variant->invocations,
         .tile = variant->tile,
         .chunk = variant->chunk,
         .parts = parts,
         .rows = k->shape[2],
         .heads = kv_heads,
         .flops = slice_flops(q, k, 2 + 2 * (double)parts),
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
