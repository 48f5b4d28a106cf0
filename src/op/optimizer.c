/* Global gradient norm, and optimizer steps in place: SGD with momentum or Nesterov's, Adam, AdamW, as PyTorch computes them.
   What changes from step to step is read on the device (enum hk_hyper), so a program that was compiled once trains. */
#include "op/rowwise.h"
#include "op/strided.h"

/* The norm is summed in blocks of this many elements, whatever the device. */
enum { NORM_BLOCK = 16384 };

/* RULE of optimizer.comp. */
enum optimizer_rule { RULE_SGD, RULE_MOMENTUM, RULE_NESTEROV, RULE_ADAM, RULE_ADAMW };

struct optimizer_attrs {
    int64_t decayed; /* elements at the start that take weight decay */
    int32_t rule, zero;
};

static inline int64_t norm_blocks(int64_t elements) { return (elements + NORM_BLOCK - 1) / NORM_BLOCK; }

/* Inputs: parameters, the moments that the op has, the 16-bit copy (the parameters again where there is none), gradients,
   hyper, norm (optional). */
static inline int moment_count(const struct hk_step *step) {
    const int32_t rule = ((const struct optimizer_attrs *)step->attrs)->rule;
    return rule == RULE_SGD ? 0 : rule <= RULE_NESTEROV ? 1 : 2;
}

#ifdef HK_ISA_NAME

/* ---- CPU: the norm ---- */

struct norm_input {
    const float *x;
    float *parts;
};

static void sum_squares_body(void *context, int64_t begin, int64_t end) {
    const struct norm_input *c = context;
    vf sum[4] = {{0}};
    int64_t i = begin;
    for (; i + 4 * VW <= end; i += 4 * VW)
        for (int k = 0; k < 4; k++) {
            const vf v = v_load(c->x + i + k * VW);
            sum[k] += v * v;
        }
    for (; i < end; i += VW) {
        const vf v = row_load(c->x + i, end - i, 0);
        sum[0] += v * v;
    }
    c->parts[begin / NORM_BLOCK] = v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

CPU_KERNEL(global_norm) {
    float *parts = cpu_data(&step->scratch);
    int64_t n = 0;
    for (int i = 0; i < step->n_inputs; i++) {
        struct norm_input c = {cpu_data(&step->inputs[i]), parts + n};
        const int64_t elements = cpu_elements(&step->inputs[i]);
        cpu_for(cpu, elements, NORM_BLOCK, sum_squares_body, &c);
        n += norm_blocks(elements);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)parts[i];
    *(float *)cpu_data(&step->outputs[0]) = (float)sqrt(sum);
}

/* ---- CPU: the step. Plain loops that the compiler vectorizes, square roots and divisions included. ---- */

struct optimizer_slab {
    float *restrict x, *restrict m, *restrict v;
    const float *restrict g;
    const float *hyper;
    void *copy; /* NULL: none */
    enum hk_dtype copy_dtype;
    float clip; /* factor on the gradient: for clipping, and 1 / the loss's scale */
    int64_t decayed;
    enum optimizer_rule rule;
};

static float clip_factor(const float *hyper, const float *norm) {
    const float unscaled = hyper[HK_HYPER_UNSCALE] > 0 ? hyper[HK_HYPER_UNSCALE] : 1;
    if (!norm || hyper[HK_HYPER_CLIP] <= 0) return unscaled;
    const float factor = hyper[HK_HYPER_CLIP] / (*norm + 1e-6f);
    return factor >= 1 ? unscaled : factor * unscaled; /* NaN where the norm is */
}

static void sgd_range(const struct optimizer_slab *c, int64_t begin, int64_t end, float decay) {
    float *restrict x = c->x, *restrict m = c->m;
    const float *restrict g = c->g;
    const float lr = c->hyper[HK_HYPER_LR], clip = c->clip, momentum = c->hyper[HK_HYPER_BETA1];
    if (c->rule == RULE_SGD) {
        for (int64_t i = begin; i < end; i++) x[i] -= lr * (g[i] * clip + decay * x[i]);
        return;
    }
    if (c->hyper[HK_HYPER_BIAS1] == 0) memset(m + begin, 0, (size_t)(end - begin) * sizeof *m); /* the first step's: just g */
    if (c->rule == RULE_MOMENTUM) {
        for (int64_t i = begin; i < end; i++) {
            m[i] = momentum * m[i] + (g[i] * clip + decay * x[i]);
            x[i] -= lr * m[i];
        }
    } else {
        for (int64_t i = begin; i < end; i++) {
            const float d = g[i] * clip + decay * x[i];
            m[i] = momentum * m[i] + d;
            x[i] -= lr * (d + momentum * m[i]);
        }
    }
}

static void adam_range(const struct optimizer_slab *c, int64_t begin, int64_t end, float decay) {
    float *restrict x = c->x, *restrict m = c->m, *restrict v = c->v;
    const float *restrict g = c->g;
    const float lr = c->hyper[HK_HYPER_LR], step = lr / c->hyper[HK_HYPER_BIAS1], clip = c->clip;
    const float root = sqrtf(c->hyper[HK_HYPER_BIAS2]), epsilon = c->hyper[HK_HYPER_EPSILON];
    const float beta1 = c->hyper[HK_HYPER_BETA1], beta2 = c->hyper[HK_HYPER_BETA2];
    const float keep = c->rule == RULE_ADAMW ? 1 - lr * decay : 1, coupled = c->rule == RULE_ADAMW ? 0 : decay;
    for (int64_t i = begin; i < end; i++) {
        const float d = g[i] * clip + coupled * x[i];
        m[i] += (1 - beta1) * (d - m[i]);
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        x[i] = keep * x[i] - step * m[i] / (sqrtf(v[i]) / root + epsilon);
    }
}

static void optimizer_range(const struct optimizer_slab *c, int64_t begin, int64_t end, float decay) {
    if (begin >= end) return;
    if (c->rule >= RULE_ADAM)
        adam_range(c, begin, end, decay);
    else
        sgd_range(c, begin, end, decay);
}

static void round_range(const struct optimizer_slab *c, int64_t begin, int64_t end) {
    const float *restrict x = c->x;
    uint16_t *restrict copy = c->copy;
    if (c->copy_dtype == HK_BF16) {
        for (int64_t i = begin; i < end; i++) copy[i] = bf16_of(x[i]);
        return;
    }
    for (; begin + VW <= end; begin += VW) v_store_f16(copy + begin, v_load(x + begin));
    for (; begin < end; begin++) copy[begin] = hk_f16_from_f32(x[begin]);
}

/* In pieces that are still in the cache when they are rounded. */
static void optimizer_body(void *context, int64_t begin, int64_t end) {
    enum { PIECE = 4096 };
    const struct optimizer_slab *c = context;
    for (int64_t last; begin < end; begin = last) {
        last = HK_MIN(begin + PIECE, end);
        const int64_t cut = HK_MIN(HK_MAX(c->decayed, begin), last);
        optimizer_range(c, begin, cut, c->hyper[HK_HYPER_DECAY]);
        optimizer_range(c, cut, last, 0);
        if (c->copy) round_range(c, begin, last);
    }
}

static void optimizer_slab(const struct hk_step *step, const struct cpu *cpu) {
    const struct optimizer_attrs *a = step->attrs;
    const struct hk_operand *in = step->inputs;
    const int moments = moment_count(step), rest = 2 + moments;
    struct optimizer_slab c = {.x = cpu_data(&in[0]), .g = cpu_data(&in[rest]), .hyper = cpu_data(&in[rest + 1]),
                               .decayed = a->decayed, .rule = (enum optimizer_rule)a->rule};
    if (c.hyper[HK_HYPER_SKIP] > 0.5f) return;
    if (moments > 0) c.m = cpu_data(&in[1]);
    if (moments > 1) c.v = cpu_data(&in[2]);
    c.copy_dtype = in[rest - 1].dtype;
    if (c.copy_dtype != HK_F32) c.copy = cpu_data(&in[rest - 1]);
    c.clip = clip_factor(c.hyper, step->n_inputs > rest + 2 ? cpu_data(&in[rest + 2]) : NULL);
    cpu_for(cpu, cpu_elements(&in[0]), 1 << 15, optimizer_body, &c);
}

CPU_KERNEL(sgd) { optimizer_slab(step, cpu); }
CPU_KERNEL(momentum) { optimizer_slab(step, cpu); }
CPU_KERNEL(adam) { optimizer_slab(step, cpu); }

#else

CPU_DECLARE(global_norm);
CPU_DECLARE(sgd);
CPU_DECLARE(momentum);
CPU_DECLARE(adam);

/* ---- The norm ---- */

static bool global_norm_infer(struct hk_call *call) {
    const int64_t one = 1;
    for (int i = 0; i < call->n_inputs; i++)
        if (!need_dtype(call, "global_norm", "each tensor", i, HK_F32)) return false;
    hk_infer_output(call, 0, HK_F32, 1, &one);
    return true;
}

/* Each block's sum of squares. */
static uint64_t global_norm_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    int64_t blocks = 0;
    (void)limits;
    for (int i = 0; i < call->n_inputs; i++) blocks += norm_blocks(hk_elements(call->inputs[i]));
    return (uint64_t)HK_MAX(blocks, 1) * sizeof(float);
}

static struct hk_cost global_norm_cost(const struct hk_step *step) {
    struct hk_cost cost = {0};
    for (int i = 0; i < step->n_inputs; i++)
        cost.flops += 2.0 * (double)row_count(&step->inputs[i]) * (double)row_width(&step->inputs[i]);
    return cost;
}

/* The blocks of one tensor, into parts from `part` on. */
static hk_status record_squares(const struct hk_step *step, struct hk_recorder *recorder, const struct hk_operand *x,
                                int64_t part) {
    struct {
        uint32_t base_x, base_parts;
        uint32_t count, blocks;
    } push = {0};
    const int64_t elements = row_count(x) * row_width(x), window = row_window(recorder, 4 * NORM_BLOCK) * NORM_BLOCK;
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    for (int64_t first = 0; first < elements; first += window) {
        const int64_t count = HK_MIN(window, elements - first), blocks = norm_blocks(count);
        struct hk_dispatch d = {.shader = "sum_squares", .spec = {256, NORM_BLOCK}, .n_spec = 2};
        push.count = (uint32_t)count, push.blocks = (uint32_t)blocks;
        HK_PUSH(&d, push);
        bind_rows(&d, x, 4, first, count, HK_READ, 0);
        bind_rows(&d, &step->scratch, 4, part + first / NORM_BLOCK, blocks, HK_WRITE, 1);
        hk_groups(recorder, &d, (uint64_t)blocks);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status global_norm_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_parts, base_y;
        uint32_t count;
    } push = {0};
    int64_t parts = 0;
    for (int i = 0; i < step->n_inputs; i++) {
        const struct hk_operand *x = &step->inputs[i];
        const hk_status status = record_squares(step, recorder, x, parts);
        if (status) return status;
        parts += norm_blocks(row_count(x) * row_width(x));
    }
    struct hk_dispatch d = {.shader = "global_norm", .spec = {row_workgroup(recorder, parts)}, .n_spec = 1};
    push.count = (uint32_t)parts;
    HK_PUSH(&d, push);
    hk_bind(&d, &step->scratch, HK_READ, 0);
    hk_bind(&d, &step->outputs[0], HK_WRITE, 1);
    hk_groups(recorder, &d, 1);
    return recorder->record(recorder, &d);
}

/* ---- The step ---- */

/* The index of the copy among the inputs. */
static int copy_of(const struct hk_call *call) { return call->op->min_inputs - 3; }
static bool has_copy(const struct hk_call *call) { return call->inputs[copy_of(call)] != call->inputs[0]; }

/* Nothing that the step writes is also something else to it: elements are computed in any order. */
static bool are_apart(struct hk_call *call) {
    const int left_out = has_copy(call) ? -1 : copy_of(call);
    for (int i = 0; i < call->n_inputs; i++)
        for (int k = 0; call->op->writes >> i & 1 && i != left_out && k < call->n_inputs; k++)
            if (k != i && k != left_out && hk_share_tensor(call->inputs[i], call->inputs[k]))
                return refuse(call, "optimizer_update: parameters or moments share memory with each other or with what is read: "
                              "operands %d and %d", i, k);
    return true;
}

static bool check_dtypes(struct hk_call *call) {
    const enum hk_dtype dtype = call->inputs[copy_of(call)]->dtype;
    for (int i = 0; i < call->n_inputs; i++)
        if (i != copy_of(call) && !need_dtype(call, "optimizer_update", "each operand", i, HK_F32)) return false;
    if (!has_copy(call) || dtype == HK_F16 || dtype == HK_BF16) return true;
    return refuse(call, "optimizer_update: the copy must be f16 or bf16, it is %s", hk_dtype_name(dtype));
}

static bool optimizer_infer(struct hk_call *call) {
    const struct optimizer_attrs *a = call->attrs;
    const int64_t elements = hk_elements(call->inputs[0]);
    const int same = call->op->min_inputs - 1; /* parameters, moments, copy, gradients */
    if (!check_dtypes(call)) return false;
    for (int i = 1; i < same; i++)
        if (hk_elements(call->inputs[i]) != elements)
            return refuse(call, "optimizer_update: parameters are %s, but gradients, a moment or the copy are %s",
                          hk_shape_text(call->inputs[0]), hk_shape_text(call->inputs[i]));
    if (hk_elements(call->inputs[same]) != HK_HYPER_COUNT)
        return refuse(call, "optimizer_update: hyper must be [%d], it is %s", HK_HYPER_COUNT, hk_shape_text(call->inputs[same]));
    if (call->n_inputs > same + 1 && hk_elements(call->inputs[same + 1]) != 1)
        return refuse(call, "optimizer_update: norm must be [1], it is %s", hk_shape_text(call->inputs[same + 1]));
    if (!are_apart(call)) return false;
    if (a->decayed < 0 || a->decayed > elements)
        return refuse(call, "optimizer_update: %lld elements decay, but there are %lld", (long long)a->decayed,
                      (long long)elements);
    return true;
}

static struct hk_cost optimizer_cost(const struct hk_step *step) {
    const struct hk_operand *x = &step->inputs[0];
    const double elements = (double)row_count(x) * (double)row_width(x);
    const int moments = moment_count(step);
    const double copy = step->inputs[1 + moments].dtype == HK_F32 ? 0 : 2;
    return (struct hk_cost){.flops = (4.0 + 6.0 * moments) * elements, .bytes = (12.0 + 8.0 * moments + copy) * elements};
}

static hk_status optimizer_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_p, base_m, base_v, base_g, base_hyper, base_norm;
        uint32_t count, decayed;
    } push = {0};
    enum { WORKGROUP = 256, STRETCH = 4 };
    const struct optimizer_attrs *a = step->attrs;
    const struct hk_operand *in = step->inputs;
    const int moments = moment_count(step), rest = 2 + moments;
    const bool clip = step->n_inputs > rest + 2;
    const struct hk_operand *hyper = &in[rest + 1];
    const int64_t elements = row_count(&in[0]) * row_width(&in[0]), window = row_window(recorder, 4);
    for (int64_t first = 0; first < elements; first += window) {
        const int64_t count = HK_MIN(window, elements - first);
        struct hk_dispatch d = {.shader = "optimizer", .spec = {WORKGROUP, (uint32_t)a->rule, clip, STRETCH}, .n_spec = 4};
        push.count = (uint32_t)count;
        push.decayed = (uint32_t)HK_MIN(HK_MAX(a->decayed - first, 0), count);
        HK_PUSH(&d, push);
        bind_rows(&d, &in[0], 4, first, count, HK_READ | HK_WRITE, 0);
        /* parameters stand where a rule has no moment: the shader says that it may write there */
        for (int m = 0; m < 2; m++)
            bind_rows(&d, &in[m < moments ? 1 + m : 0], 4, first, count, HK_READ | HK_WRITE, 1 + m);
        bind_rows(&d, &in[rest], 4, first, count, HK_READ, 3);
        hk_bind(&d, hyper, HK_READ, 4);
        hk_bind(&d, clip ? &in[rest + 2] : hyper, HK_READ, 5);
        hk_groups(recorder, &d, (uint64_t)(count + WORKGROUP * STRETCH - 1) / (WORKGROUP * STRETCH));
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    const struct hk_operand *copy = &in[rest - 1];
    return copy->dtype == HK_F32 ? HK_OK : hk_record_copy(recorder, copy, &in[0]);
}

const struct hk_op hk_op_global_norm = {
    .name = "global_norm", .min_inputs = 1, .max_inputs = -1, .n_outputs = 1,
    .infer = global_norm_infer, .scratch = global_norm_scratch, .cost = global_norm_cost,
    .cpu = CPU_KERNELS(global_norm), .gpu = global_norm_gpu};

const struct hk_op hk_op_sgd = {
    .name = "sgd", .min_inputs = 4, .max_inputs = 5, .writes = 3,
    .infer = optimizer_infer, .cost = optimizer_cost, .cpu = CPU_KERNELS(sgd), .gpu = optimizer_gpu};

const struct hk_op hk_op_momentum = {
    .name = "momentum", .min_inputs = 5, .max_inputs = 6, .writes = 7,
    .infer = optimizer_infer, .cost = optimizer_cost, .cpu = CPU_KERNELS(momentum), .gpu = optimizer_gpu};

const struct hk_op hk_op_adam = {
    .name = "adam", .min_inputs = 6, .max_inputs = 7, .writes = 15,
    .infer = optimizer_infer, .cost = optimizer_cost, .cpu = CPU_KERNELS(adam), .gpu = optimizer_gpu};

struct hk_value *hk_global_norm(struct hk_graph *graph, struct hk_tensor *const *tensors, int count) {
    if (count <= 0) return hk_fill(graph, HK_F32, HK_SHAPE(1), 0);
    if (!graph || !tensors) return hk_graph_fail(graph, HK_ERROR_INVALID, "global_norm: the graph or the array is NULL");
    struct hk_value **in = hk_arena_alloc(&graph->arena, (size_t)count * sizeof *in);
    if (!in) return hk_graph_fail(graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while building a graph");
    for (int i = 0; i < count; i++) in[i] = hk_leaf(graph, tensors[i]);
    return hk_call_op(graph, &hk_op_global_norm, in, count, NULL, 0);
}

static const struct {
    const struct hk_op *op;
    enum optimizer_rule rule;
    int moments;
} kinds[] = {
    [HK_SGD] = {&hk_op_momentum, RULE_MOMENTUM, 1},
    [HK_NESTEROV] = {&hk_op_momentum, RULE_NESTEROV, 1},
    [HK_ADAM] = {&hk_op_adam, RULE_ADAM, 2},
    [HK_ADAMW] = {&hk_op_adam, RULE_ADAMW, 2},
};

void hk_optimizer_update(enum hk_optimizer_kind kind, const struct hk_optimizer_slab *slab, struct hk_value *hyper,
                         struct hk_value *norm) {
    struct hk_graph *graph = hk_value_graph(hyper ? hyper : norm);
    if (!hyper || !slab) {
        hk_graph_fail(graph, HK_ERROR_INVALID, "optimizer_update: %s is NULL", hyper ? "slab" : "hyper");
        return;
    }
    if ((int)kind < 0 || (size_t)kind >= HK_LENGTH(kinds)) {
        hk_graph_fail(graph, HK_ERROR_INVALID, "optimizer_update: there is no kind %d", (int)kind);
        return;
    }
    const bool plain = kind == HK_SGD && !slab->moment1;
    const struct optimizer_attrs attrs = {.decayed = slab->decayed, .rule = (int32_t)(plain ? RULE_SGD : kinds[kind].rule)};
    struct hk_tensor *const moments[2] = {slab->moment1, slab->moment2};
    struct hk_value *in[7] = {hk_leaf(graph, slab->parameters)};
    int n = 1;
    for (int m = 0; m < (plain ? 0 : kinds[kind].moments); m++) in[n++] = hk_leaf(graph, moments[m]);
    in[n++] = slab->copy ? hk_leaf(graph, slab->copy) : in[0];
    in[n++] = hk_leaf(graph, slab->gradients);
    in[n++] = hk_contiguous(hyper);
    if (norm) in[n++] = hk_contiguous(norm);
    hk_call_op(graph, plain ? &hk_op_sgd : kinds[kind].op, in, n, &attrs, sizeof attrs);
}

#endif
