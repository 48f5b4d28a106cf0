/* Elementwise ops on one value: a table of kinds, each with its function and its derivative, one kernel for all of
 * either. */
#include "op/op.h"
#include "op/strided.h"
#include "op/written.h"

/* The order of the rows' kinds, of the kernels' switches here and of shaders/unary.comp and unary_backward.comp. */
enum unary_kind {
    UNARY_NEG,
    UNARY_EXP,
    UNARY_LOG,
    UNARY_SQRT,
    UNARY_RSQRT,
    UNARY_SQUARE,
    UNARY_ABS,
    UNARY_SIN,
    UNARY_COS,
    UNARY_TANH,
    UNARY_SIGMOID,
    UNARY_RELU,
    UNARY_LEAKY_RELU,
    UNARY_ELU,
    UNARY_SILU,
    UNARY_GELU,
    UNARY_GELU_TANH,
    UNARY_SOFTPLUS,
    UNARY_AFFINE
};

/* a and b: affine's scale and offset, leaky_relu's slope, elu's alpha. */
struct unary_attrs {
    enum unary_kind kind;
    float a, b;
};

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

#define ONE v_set(1.0f)
#define HALF v_set(0.5f)
#define ZERO v_set(0.0f)

/* 2 sqrt(2 / pi) (x + 0.044715 x^3): gelu_tanh is x * sigmoid of it. */
static inline vf gelu_argument(vf x) { return v_set(1.59576912f) * (x + v_set(0.044715f) * x * x * x); }

static inline vf v_sqrt(vf x) {
    for (int i = 0; i < VW; i++) x[i] = sqrtf(x[i]);
    return x;
}

static inline vf apply(enum unary_kind kind, vf x, vf a, vf b) {
    vf gauss;
    switch (kind) {
    case UNARY_NEG: return -x;
    case UNARY_EXP: return v_exp(x);
    case UNARY_LOG: return v_log(x);
    case UNARY_SQRT: return v_sqrt(x);
    case UNARY_RSQRT: return ONE / v_sqrt(x);
    case UNARY_SQUARE: return x * x;
    case UNARY_ABS: return (vf)((vi)x & 0x7fffffff);
    case UNARY_SIN: return v_sin(x);
    case UNARY_COS: return v_cos(x);
    case UNARY_TANH: return v_tanh(x);
    case UNARY_SIGMOID: return v_sigmoid(x);
    case UNARY_RELU: return v_select(x < ZERO, ZERO, x);
    case UNARY_LEAKY_RELU: return v_select(x < ZERO, a * x, x);
    case UNARY_ELU: return v_select(x > ZERO, x, a * v_expm1(x));
    case UNARY_SILU: return x * v_sigmoid(x);
    case UNARY_GELU: return x * v_normal_cdf(x, &gauss);
    case UNARY_GELU_TANH: return x * v_sigmoid(gelu_argument(x));
    case UNARY_SOFTPLUS: return v_softplus(x);
    case UNARY_AFFINE: return a * x + b;
    }
    return x;
}

/* dx of dy. x is the op's input, or its output where uses_output() says so. */
static inline vf differentiate(enum unary_kind kind, vf x, vf dy, vf a) {
    vf gauss, s;
    switch (kind) {
    case UNARY_NEG: return -dy;
    case UNARY_EXP: return dy * x;
    case UNARY_LOG: return dy / x;
    case UNARY_SQRT: return HALF * dy / x;
    case UNARY_RSQRT: return v_set(-0.5f) * dy * x * x * x;
    case UNARY_SQUARE: return v_set(2.0f) * dy * x;
    case UNARY_ABS: return v_select(x > ZERO, dy, v_select(x < ZERO, -dy, ZERO));
    case UNARY_SIN: return dy * v_cos(x);
    case UNARY_COS: return -dy * v_sin(x);
    case UNARY_TANH: return dy * (ONE - x * x);
    case UNARY_SIGMOID: return dy * x * (ONE - x);
    case UNARY_RELU: return v_select(x > ZERO, dy, ZERO);
    case UNARY_LEAKY_RELU: return v_select(x > ZERO, dy, a * dy);
    case UNARY_ELU: return v_select(x > ZERO, dy, a * dy * v_exp(x));
    case UNARY_SILU: s = v_sigmoid(x); return dy * s * (ONE + x * (ONE - s));
    case UNARY_GELU: s = v_normal_cdf(x, &gauss); return dy * (s + x * v_set(0.39894228f) * gauss);
    case UNARY_GELU_TANH:
        x = v_max(v_set(-16.0f), v_min(v_set(16.0f), x)); /* where s is 0 or 1, and the square is finite; NaN stays */
        s = v_sigmoid(gelu_argument(x));
        return dy * (s + x * s * (ONE - s) * v_set(1.59576912f) * (ONE + v_set(0.134145f) * x * x));
    case UNARY_SOFTPLUS: return dy * v_sigmoid(x);
    case UNARY_AFFINE: return dy * a;
    }
    return dy;
}

/* Inlined with kind and backward known. backward: in[1] is dy. */
static inline __attribute__((always_inline)) void run(enum unary_kind kind, bool backward,
                                                      const struct unary_attrs *attrs, float *out,
                                                      const void *const *in, int64_t n) {
    const float *x = in[0], *dy = backward ? in[1] : in[0];
    const vf a = v_set(attrs->a), b = v_set(attrs->b);
    int64_t i = 0;
    for (; i + VW <= n; i += VW)
        v_store(out + i,
                backward ? differentiate(kind, v_load(x + i), v_load(dy + i), a) : apply(kind, v_load(x + i), a, b));
    if (i == n) return;
    const vf last = v_load_part(x + i, n - i, 1.0f), last_dy = v_load_part(dy + i, n - i, 1.0f);
    v_store_part(out + i, backward ? differentiate(kind, last, last_dy, a) : apply(kind, last, a, b), n - i);
}

static void on_floats(const struct hk_chunk *chunk, void *out, const void *const *in, int64_t n) {
    const struct unary_attrs *attrs = chunk->attrs;
    const bool backward = chunk->n_inputs == 2;
#define RUN(kind)                                                                                                      \
    case kind:                                                                                                         \
        if (backward) run(kind, true, attrs, out, in, n);                                                              \
        else run(kind, false, attrs, out, in, n);                                                                      \
        break
    switch (attrs->kind) {
        RUN(UNARY_NEG);
        RUN(UNARY_EXP);
        RUN(UNARY_LOG);
        RUN(UNARY_SQRT);
        RUN(UNARY_RSQRT);
        RUN(UNARY_SQUARE);
        RUN(UNARY_ABS);
        RUN(UNARY_SIN);
        RUN(UNARY_COS);
        RUN(UNARY_TANH);
        RUN(UNARY_SIGMOID);
        RUN(UNARY_RELU);
        RUN(UNARY_LEAKY_RELU);
        RUN(UNARY_ELU);
        RUN(UNARY_SILU);
        RUN(UNARY_GELU);
        RUN(UNARY_GELU_TANH);
        RUN(UNARY_SOFTPLUS);
        RUN(UNARY_AFFINE);
    }
#undef RUN
}

static void on_integers(const struct hk_chunk *chunk, void *out, const void *const *in, int64_t n) {
    const uint32_t *x = in[0];
    uint32_t *y = out;
    switch (((const struct unary_attrs *)chunk->attrs)->kind) {
    case UNARY_NEG:
        for (int64_t i = 0; i < n; i++) y[i] = 0 - x[i];
        break;
    case UNARY_ABS:
        for (int64_t i = 0; i < n; i++) y[i] = x[i] >> 31 ? 0 - x[i] : x[i];
        break;
    default: /* square */
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i];
    }
}

CPU_CHUNK(unary) {
    if (chunk->to == HK_I32) on_integers(chunk, out, in, n);
    else on_floats(chunk, out, in, n);
}

CPU_KERNEL(unary) { cpu_elementwise(cpu, step, CPU_NAME(cpu_unary_chunk)); }

#else
CPU_DECLARE(unary);
CPU_DECLARE_CHUNK(unary);

static bool has_integers(enum unary_kind kind) {
    return kind == UNARY_NEG || kind == UNARY_ABS || kind == UNARY_SQUARE;
}

/* Whether the derivative is computed from y rather than from x. */
static bool uses_output(enum unary_kind kind) {
    return kind == UNARY_EXP || kind == UNARY_SQRT || kind == UNARY_RSQRT || kind == UNARY_TANH ||
           kind == UNARY_SIGMOID || kind == UNARY_RELU;
}

static bool infer(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0];
    const enum unary_kind kind = ((const struct unary_attrs *)call->attrs)->kind;
    if (x->dtype != HK_F32 && !(x->dtype == HK_I32 && has_integers(kind)))
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: the dtype must be %s, x is %s", call->op->name,
                             has_integers(kind) ? "f32 or i32" : "f32", hk_dtype_name(x->dtype));
    hk_infer_output(call, 0, x->dtype, x->rank, x->shape);
    return true;
}

static bool infer_backward(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0], *dy = call->inputs[1];
    if (x->dtype != HK_F32 || dy->dtype != HK_F32 || !hk_same_shape(x, dy))
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "unary_backward: x %s and dy %s must be f32 of one shape",
                             hk_shape_text(x), hk_shape_text(dy));
    hk_infer_output(call, 0, HK_F32, x->rank, x->shape);
    return true;
}

static void backward(struct hk_backward *b) {
    const struct unary_attrs *attrs = b->call->attrs;
    struct hk_value *dy = b->grads[0];
    struct hk_value *x = uses_output(attrs->kind) ? b->call->outputs[0] : b->call->inputs[0];
    if (attrs->kind == UNARY_NEG) b->results[0] = hk_neg(dy);
    else if (attrs->kind == UNARY_AFFINE) b->results[0] = hk_affine(dy, attrs->a, 0);
    else b->results[0] = hk_call_op(NULL, &hk_op_unary_backward, (struct hk_value *[]){x, dy}, 2, attrs, sizeof *attrs);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct unary_attrs *attrs = step->attrs;
    struct hk_operand operands[3] = {step->outputs[0]};
    struct hk_strided_job job = {
        .shader = step->n_inputs == 2 ? "unary_backward" : "unary",
        .unit = 4,
        .spec = {attrs->kind, step->outputs[0].dtype == HK_I32},
        .n_spec = step->n_inputs == 2 ? 1 : 2,
        .n_extra = 2,
    };
    for (int k = 0; k < step->n_inputs; k++) operands[k + 1] = step->inputs[k];
    memcpy(&job.extra[0], &attrs->a, 4);
    memcpy(&job.extra[1], &attrs->b, 4);
    return hk_record_strided(recorder, &job, operands, step->n_inputs + 1);
}

/* Bits of the result, with the functions of unary.glsl. */
static void glsl(const struct hk_chunk *chunk, const char *const *in, struct hk_written *written) {
    const struct unary_attrs *attrs = chunk->attrs;
    if (chunk->to == HK_I32) {
        hk_write(written, "uint(unary_integer(%du, int(%s)))", (int)attrs->kind, in[0]);
        return;
    }
    hk_write(written, "floatBitsToUint(%s(%du, ", chunk->n_inputs == 2 ? "unary_backward" : "unary", (int)attrs->kind);
    for (int k = 0; k < chunk->n_inputs; k++) hk_write(written, "uintBitsToFloat(%s), ", in[k]);
    hk_write_number(written, attrs->a);
    if (chunk->n_inputs == 1) {
        hk_write(written, ", ");
        hk_write_number(written, attrs->b);
    }
    hk_write(written, "))");
}

static struct hk_value *build(const struct hk_op *op, enum unary_kind kind, struct hk_value *x, float a, float b) {
    const struct unary_attrs attrs = {kind, a, b};
    return hk_call_op(NULL, op, &x, 1, &attrs, sizeof attrs);
}

/* ---- Rows, and the builders of the same names ---- */

const struct hk_op hk_op_unary_backward = {
    .name = "unary_backward",
    .min_inputs = 2,
    .max_inputs = 2,
    .n_outputs = 1,
    .flags = HK_OP_IN_PLACE,
    .infer = infer_backward,
    .cpu = CPU_KERNELS(unary),
    .chunk = CPU_CHUNKS(unary),
    .glsl = glsl,
    .glsl_file = "unary.glsl",
    .gpu = gpu,
};

/* Activations whose gradient reads x. */
#define UNARY_CHEAP(kind)                                                                                              \
    ((kind) == UNARY_SILU || (kind) == UNARY_GELU || (kind) == UNARY_GELU_TANH ? HK_OP_CHEAP : 0)

#define UNARY_ROW(op_name, kind)                                                                                       \
    const struct hk_op hk_op_##op_name = {                                                                             \
        .name = #op_name,                                                                                              \
        .min_inputs = 1,                                                                                               \
        .max_inputs = 1,                                                                                               \
        .n_outputs = 1,                                                                                                \
        .flags = HK_OP_IN_PLACE | UNARY_CHEAP(kind),                                                                   \
        .infer = infer,                                                                                                \
        .backward = backward,                                                                                          \
        .cpu = CPU_KERNELS(unary),                                                                                     \
        .chunk = CPU_CHUNKS(unary),                                                                                    \
        .glsl = glsl,                                                                                                  \
        .glsl_file = "unary.glsl",                                                                                     \
        .gpu = gpu,                                                                                                    \
    };
#define UNARY(op_name, kind)                                                                                           \
    UNARY_ROW(op_name, kind)                                                                                           \
    struct hk_value *hk_##op_name(struct hk_value *x) {                                                                \
        return build(&hk_op_##op_name, kind, x, 0, 0);                                                                 \
    }

UNARY(neg, UNARY_NEG)
UNARY(exp, UNARY_EXP)
UNARY(log, UNARY_LOG)
UNARY(sqrt, UNARY_SQRT)
UNARY(rsqrt, UNARY_RSQRT)
UNARY(square, UNARY_SQUARE)
UNARY(abs, UNARY_ABS)
UNARY(sin, UNARY_SIN)
UNARY(cos, UNARY_COS)
UNARY(tanh, UNARY_TANH)
UNARY(sigmoid, UNARY_SIGMOID)
UNARY(relu, UNARY_RELU)
UNARY(silu, UNARY_SILU)
UNARY(gelu, UNARY_GELU)
UNARY(gelu_tanh, UNARY_GELU_TANH)
UNARY(softplus, UNARY_SOFTPLUS)

UNARY_ROW(leaky_relu, UNARY_LEAKY_RELU)
struct hk_value *hk_leaky_relu(struct hk_value *x, float slope) {
    return build(&hk_op_leaky_relu, UNARY_LEAKY_RELU, x, slope, 0);
}
UNARY_ROW(elu, UNARY_ELU)
struct hk_value *hk_elu(struct hk_value *x, float alpha) {
    return build(&hk_op_elu, UNARY_ELU, x, alpha, 0);
}
UNARY_ROW(affine, UNARY_AFFINE)
struct hk_value *hk_affine(struct hk_value *x, float scale, float offset) {
    return build(&hk_op_affine, UNARY_AFFINE, x, scale, offset);
}
#endif
