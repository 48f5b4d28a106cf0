/* Elementwise ops on two values that broadcast: arithmetic and comparisons, f32 and i32. */
#include "op/op.h"
#include "op/strided.h"
#include "op/written.h"

/* The order of the kernels' switch here and in shaders/binary.comp; comparisons come last. */
enum binary_kind {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_MAXIMUM,
    BINARY_MINIMUM,
    BINARY_POW,
    BINARY_EQUAL,
    BINARY_NOT_EQUAL,
    BINARY_LESS,
    BINARY_LESS_EQUAL,
    BINARY_GREATER,
    BINARY_GREATER_EQUAL
};

struct binary_attrs {
    enum binary_kind kind;
};

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

/* vi as loads and stores see it: any 4-byte element, at any address. */
typedef int32_t vi_unaligned __attribute__((vector_size(VW * 4), aligned(4), may_alias));

/* The result's bits. NaN wins in maximum and minimum. */
static inline vi apply_f32(enum binary_kind kind, vf a, vf b) {
    switch (kind) {
    case BINARY_ADD: return (vi)(a + b);
    case BINARY_SUB: return (vi)(a - b);
    case BINARY_MUL: return (vi)(a * b);
    case BINARY_DIV: return (vi)(a / b);
    case BINARY_MAXIMUM: return (vi)v_select((a > b) | (a != a), a, b);
    case BINARY_MINIMUM: return (vi)v_select((a < b) | (a != a), a, b);
    case BINARY_POW:
        for (int i = 0; i < VW; i++) a[i] = powf(a[i], b[i]);
        return (vi)a;
    case BINARY_EQUAL: return -(a == b);
    case BINARY_NOT_EQUAL: return -(a != b);
    case BINARY_LESS: return -(a < b);
    case BINARY_LESS_EQUAL: return -(a <= b);
    case BINARY_GREATER: return -(a > b);
    case BINARY_GREATER_EQUAL: return -(a >= b);
    }
    return (vi){0};
}

/* Toward zero; x / 0 is 0, and INT32_MIN / -1 wraps. */
static inline int32_t divide(int32_t a, int32_t b) {
    return b == 0 ? 0 : b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}

/* Wraps around, as unsigned arithmetic does. */
static inline vi apply_i32(enum binary_kind kind, vi a, vi b) {
    typedef uint32_t vu __attribute__((vector_size(VW * 4)));
    switch (kind) {
    case BINARY_ADD: return (vi)((vu)a + (vu)b);
    case BINARY_SUB: return (vi)((vu)a - (vu)b);
    case BINARY_MUL: return (vi)((vu)a * (vu)b);
    case BINARY_DIV:
        for (int i = 0; i < VW; i++) a[i] = divide(a[i], b[i]);
        return a;
    case BINARY_MAXIMUM: return (vi)v_select(a > b, (vf)a, (vf)b);
    case BINARY_MINIMUM: return (vi)v_select(a < b, (vf)a, (vf)b);
    case BINARY_POW: break;
    case BINARY_EQUAL: return -(a == b);
    case BINARY_NOT_EQUAL: return -(a != b);
    case BINARY_LESS: return -(a < b);
    case BINARY_LESS_EQUAL: return -(a <= b);
    case BINARY_GREATER: return -(a > b);
    case BINARY_GREATER_EQUAL: return -(a >= b);
    }
    return (vi){0};
}

static inline vi apply(enum binary_kind kind, bool integers, vi a, vi b) {
    return integers ? apply_i32(kind, a, b) : apply_f32(kind, (vf)a, (vf)b);
}

/* Inlined with kind and integers known, so that the loop holds one instruction or two. */
static inline __attribute__((always_inline)) void run(enum binary_kind kind, bool integers, void *out,
                                                      const void *const *in, int64_t n) {
    const char *a = in[0], *b = in[1];
    char *y = out;
    int64_t i = 0;
    for (; i + VW <= n; i += VW)
        *(vi_unaligned *)(y + 4 * i) =
            apply(kind, integers, *(const vi_unaligned *)(a + 4 * i), *(const vi_unaligned *)(b + 4 * i));
    if (i == n) return;
    vi last_a = {0}, last_b = {0};
    const size_t rest = (size_t)(n - i) * 4;
    memcpy(&last_a, a + 4 * i, rest);
    memcpy(&last_b, b + 4 * i, rest);
    last_a = apply(kind, integers, last_a, last_b);
    memcpy(y + 4 * i, &last_a, rest);
}

CPU_CHUNK(binary) {
    const struct binary_attrs *attrs = chunk->attrs;
    const bool integers = chunk->from == HK_I32;
#define RUN(kind)                                                                                                      \
    case kind:                                                                                                         \
        if (integers) run(kind, true, out, in, n);                                                                     \
        else run(kind, false, out, in, n);                                                                             \
        break
    switch (attrs->kind) {
        RUN(BINARY_ADD);
        RUN(BINARY_SUB);
        RUN(BINARY_MUL);
        RUN(BINARY_DIV);
        RUN(BINARY_MAXIMUM);
        RUN(BINARY_MINIMUM);
        RUN(BINARY_POW);
        RUN(BINARY_EQUAL);
        RUN(BINARY_NOT_EQUAL);
        RUN(BINARY_LESS);
        RUN(BINARY_LESS_EQUAL);
        RUN(BINARY_GREATER);
        RUN(BINARY_GREATER_EQUAL);
    }
#undef RUN
}

CPU_KERNEL(binary) { cpu_elementwise(cpu, step, CPU_NAME(cpu_binary_chunk)); }

#else
#include "op/reduce.h"
#include "op/shape.h"

CPU_DECLARE(binary);
CPU_DECLARE_CHUNK(binary);

static bool infer(struct hk_call *call) {
    const struct hk_value *a = call->inputs[0], *b = call->inputs[1];
    const enum binary_kind kind = ((const struct binary_attrs *)call->attrs)->kind;
    const char *name = call->op->name;
    int64_t shape[HK_MAX_RANK];
    if (a->dtype != b->dtype || (a->dtype != HK_F32 && (a->dtype != HK_I32 || kind == BINARY_POW)))
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: dtypes must both be %s: a is %s, b is %s", name,
                             kind == BINARY_POW ? "f32" : "f32 or both i32", hk_dtype_name(a->dtype),
                             hk_dtype_name(b->dtype));
    const int rank = hk_broadcast_shape(a, b, shape);
    if (rank < 0)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: shapes do not broadcast: a is %s, b is %s", name,
                             hk_shape_text(a), hk_shape_text(b));
    hk_infer_output(call, 0, kind >= BINARY_EQUAL ? HK_I32 : a->dtype, rank, shape);
    return true;
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand *out = &step->outputs[0];
    const struct hk_operand operands[3] = {*out, hk_broadcast_operand(&step->inputs[0], out),
                                           hk_broadcast_operand(&step->inputs[1], out)};
    const struct hk_strided_job job = {
        .shader = "binary",
        .unit = 4,
        .spec = {((const struct binary_attrs *)step->attrs)->kind, step->inputs[0].dtype == HK_I32},
        .n_spec = 2,
    };
    return hk_record_strided(recorder, &job, operands, 3);
}

/* Bits of the result, with the functions of binary.glsl. */
static void glsl(const struct hk_chunk *chunk, const char *const *in, struct hk_written *written) {
    const unsigned kind = (unsigned)((const struct binary_attrs *)chunk->attrs)->kind;
    if (chunk->from == HK_I32) hk_write(written, "binary_integers(%uu, int(%s), int(%s))", kind, in[0], in[1]);
    else hk_write(written, "binary_floats(%uu, uintBitsToFloat(%s), uintBitsToFloat(%s))", kind, in[0], in[1]);
}

static struct hk_value *build(const struct hk_op *op, enum binary_kind kind, struct hk_value *a, struct hk_value *b) {
    const struct binary_attrs attrs = {kind};
    return hk_call_op(NULL, op, (struct hk_value *[]){a, b}, 2, &attrs, sizeof attrs);
}

/* ---- Backward rules: da and db before they are summed to the inputs' shapes ---- */

static void give(struct hk_backward *b, int i, struct hk_value *grad) {
    b->results[i] = hk_sum_to(grad, b->call->inputs[i]);
}

static void add_backward(struct hk_backward *b) {
    for (int i = 0; i < 2; i++)
        if (b->needed[i]) give(b, i, b->grads[0]);
}

static void sub_backward(struct hk_backward *b) {
    if (b->needed[0]) give(b, 0, b->grads[0]);
    if (b->needed[1]) b->results[1] = hk_neg(hk_sum_to(b->grads[0], b->call->inputs[1]));
}

static void mul_backward(struct hk_backward *b) {
    for (int i = 0; i < 2; i++)
        if (b->needed[i]) give(b, i, hk_mul(b->grads[0], b->call->inputs[1 - i]));
}

static void div_backward(struct hk_backward *b) {
    struct hk_value *da = hk_div(b->grads[0], b->call->inputs[1]);
    if (b->needed[0]) give(b, 0, da);
    if (b->needed[1]) b->results[1] = hk_neg(hk_sum_to(hk_mul(da, b->call->outputs[0]), b->call->inputs[1]));
}

/* The side that was taken gets the gradient; where both are equal, half each. */
static void extremum_backward(struct hk_backward *b, struct hk_value *taken, struct hk_value *not_taken) {
    struct hk_value *dy = b->grads[0], *zero = hk_fill(b->call->graph, HK_F32, HK_SCALAR, 0);
    struct hk_value *da = hk_where(taken, dy, hk_where(not_taken, zero, hk_affine(dy, 0.5f, 0)));
    if (b->needed[0]) give(b, 0, da);
    if (b->needed[1]) give(b, 1, hk_sub(dy, da));
}

static void maximum_backward(struct hk_backward *b) {
    struct hk_value **in = b->call->inputs;
    extremum_backward(b, hk_greater(in[0], in[1]), hk_less(in[0], in[1]));
}

static void minimum_backward(struct hk_backward *b) {
    struct hk_value **in = b->call->inputs;
    extremum_backward(b, hk_less(in[0], in[1]), hk_greater(in[0], in[1]));
}

/* d a^b = b a^(b-1) da + a^b log(a) db, with the limits where a or b is 0 that PyTorch takes. */
static void pow_backward(struct hk_backward *b) {
    struct hk_value *x = b->call->inputs[0], *e = b->call->inputs[1], *y = b->call->outputs[0], *dy = b->grads[0];
    struct hk_value *zero = hk_fill(b->call->graph, HK_F32, HK_SCALAR, 0);
    if (b->needed[0]) {
        struct hk_value *slope = hk_mul(e, hk_pow(x, hk_affine(e, 1, -1)));
        give(b, 0, hk_mul(dy, hk_where(hk_equal(e, zero), zero, slope)));
    }
    if (b->needed[1]) {
        struct hk_value *flat = hk_mul(hk_equal(x, zero), hk_greater_equal(e, zero));
        give(b, 1, hk_mul(dy, hk_where(flat, zero, hk_mul(y, hk_log(x)))));
    }
}

/* ---- Rows, and the builders of the same names ---- */

#define BINARY_ROW(op_name, op_kind, op_backward)                                                                      \
    const struct hk_op hk_op_##op_name = {                                                                             \
        .name = #op_name,                                                                                              \
        .min_inputs = 2,                                                                                               \
        .max_inputs = 2,                                                                                               \
        .n_outputs = 1,                                                                                                \
        .flags = HK_OP_IN_PLACE | ((op_kind) == BINARY_MUL ? HK_OP_CHEAP : 0),                                         \
        .infer = infer,                                                                                                \
        .backward = op_backward,                                                                                       \
        .cpu = CPU_KERNELS(binary),                                                                                    \
        .chunk = CPU_CHUNKS(binary),                                                                                   \
        .glsl = glsl,                                                                                                  \
        .glsl_file = "binary.glsl",                                                                                    \
        .gpu = gpu,                                                                                                    \
    };                                                                                                                 \
    struct hk_value *hk_##op_name(struct hk_value *a, struct hk_value *b) {                                            \
        return build(&hk_op_##op_name, op_kind, a, b);                                                                 \
    }

BINARY_ROW(add, BINARY_ADD, add_backward)
BINARY_ROW(sub, BINARY_SUB, sub_backward)
BINARY_ROW(mul, BINARY_MUL, mul_backward)
BINARY_ROW(div, BINARY_DIV, div_backward)
BINARY_ROW(maximum, BINARY_MAXIMUM, maximum_backward)
BINARY_ROW(minimum, BINARY_MINIMUM, minimum_backward)
BINARY_ROW(pow, BINARY_POW, pow_backward)
BINARY_ROW(equal, BINARY_EQUAL, NULL)
BINARY_ROW(not_equal, BINARY_NOT_EQUAL, NULL)
BINARY_ROW(less, BINARY_LESS, NULL)
BINARY_ROW(less_equal, BINARY_LESS_EQUAL, NULL)
BINARY_ROW(greater, BINARY_GREATER, NULL)
BINARY_ROW(greater_equal, BINARY_GREATER_EQUAL, NULL)
#endif
