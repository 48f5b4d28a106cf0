/* Copies: contiguous, and conversion between dtypes. */
#include "op/op.h"
#include "op/shape.h"
#include "op/strided.h"
#include "op/written.h"

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

CPU_KERNEL(copy) { cpu_copy(cpu, &step->outputs[0], &step->inputs[0]); }

static inline float read_f32(const void *from, enum hk_dtype dtype, int64_t i) {
    switch (dtype) {
    case HK_F16: return hk_f32_from_f16(((const uint16_t *)from)[i]);
    case HK_BF16: return f32_of_bf16(((const uint16_t *)from)[i]);
    case HK_I32: return (float)((const int32_t *)from)[i];
    case HK_U8: return (float)((const uint8_t *)from)[i];
    case HK_I8: return (float)((const int8_t *)from)[i];
    default: return ((const float *)from)[i];
    }
}

/* Toward zero, clamped; NaN gives 0. */
static inline int32_t i32_of(float x) {
    if (x >= 2147483648.0f) return INT32_MAX;
    if (x <= -2147483648.0f) return INT32_MIN;
    return x != x ? 0 : (int32_t)x;
}

static inline int32_t read_i32(const void *from, enum hk_dtype dtype, int64_t i) {
    if (dtype == HK_I32) return ((const int32_t *)from)[i];
    if (dtype == HK_U8) return ((const uint8_t *)from)[i];
    if (dtype == HK_I8) return ((const int8_t *)from)[i];
    return i32_of(read_f32(from, dtype, i));
}

/* To the nearest, even where two are as near; clamped. NaN gives 0. The sum has no bits for a fraction. */
static inline int8_t i8_of(float x) {
    const float magic = 12582912.0f, clamped = HK_MIN(HK_MAX(x != x ? 0.0f : x, -128.0f), 127.0f); /* 1.5 * 2^23 */
    return (int8_t)(int32_t)((clamped + magic) - magic);
}

static inline int8_t read_i8(const void *from, enum hk_dtype dtype, int64_t i) {
    if (dtype == HK_I32 || dtype == HK_U8) return (int8_t)HK_MIN(HK_MAX(read_i32(from, dtype, i), -128), 127);
    return i8_of(read_f32(from, dtype, i));
}

/* Inlined with the dtypes known. */
static inline __attribute__((always_inline)) void convert_run(void *to, enum hk_dtype to_dtype, const void *from,
                                                              enum hk_dtype from_dtype, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        switch (to_dtype) {
        case HK_F16: ((uint16_t *)to)[i] = hk_f16_from_f32(read_f32(from, from_dtype, i)); break;
        case HK_BF16: ((uint16_t *)to)[i] = bf16_of(read_f32(from, from_dtype, i)); break;
        case HK_I32: ((int32_t *)to)[i] = read_i32(from, from_dtype, i); break;
        case HK_U8: ((uint8_t *)to)[i] = (uint8_t)HK_MIN(HK_MAX(read_i32(from, from_dtype, i), 0), 255); break;
        case HK_I8: ((int8_t *)to)[i] = read_i8(from, from_dtype, i); break;
        default: ((float *)to)[i] = read_f32(from, from_dtype, i);
        }
    }
}

static inline __attribute__((always_inline)) void convert_to(void *to, enum hk_dtype to_dtype, const void *from,
                                                             enum hk_dtype dtype, int64_t n) {
    switch (dtype) {
    case HK_F16: convert_run(to, to_dtype, from, HK_F16, n); break;
    case HK_BF16: convert_run(to, to_dtype, from, HK_BF16, n); break;
    case HK_I32: convert_run(to, to_dtype, from, HK_I32, n); break;
    case HK_U8: convert_run(to, to_dtype, from, HK_U8, n); break;
    case HK_I8: convert_run(to, to_dtype, from, HK_I8, n); break;
    default: convert_run(to, to_dtype, from, HK_F32, n);
    }
}

static void convert(void *to, enum hk_dtype to_dtype, const void *from, enum hk_dtype from_dtype, int64_t n) {
    int64_t i = 0; /* what is done by vectors */
    if (to_dtype == HK_F16 && from_dtype == HK_F32)
        for (; i + VW <= n; i += VW) v_store_f16((uint16_t *)to + i, v_load((const float *)from + i));
    if (to_dtype == HK_F32 && from_dtype == HK_F16)
        for (; i + VW <= n; i += VW) v_store((float *)to + i, v_load_f16((const uint16_t *)from + i));
    to = (char *)to + i * (int64_t)hk_dtype_size(to_dtype);
    from = (const char *)from + i * (int64_t)hk_dtype_size(from_dtype);
    n -= i;
    switch (to_dtype) {
    case HK_F16: convert_to(to, HK_F16, from, from_dtype, n); break;
    case HK_BF16: convert_to(to, HK_BF16, from, from_dtype, n); break;
    case HK_I32: convert_to(to, HK_I32, from, from_dtype, n); break;
    case HK_U8: convert_to(to, HK_U8, from, from_dtype, n); break;
    case HK_I8: convert_to(to, HK_I8, from, from_dtype, n); break;
    default: convert_to(to, HK_F32, from, from_dtype, n);
    }
}

CPU_CHUNK(cast) { convert(out, chunk->to, in[0], chunk->from, n); }

CPU_KERNEL(cast) { cpu_elementwise(cpu, step, CPU_NAME(cpu_cast_chunk)); }

#else
CPU_DECLARE(copy);
CPU_DECLARE(cast);
CPU_DECLARE_CHUNK(cast);

static bool infer_copy(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0];
    hk_infer_output(call, 0, x->dtype, x->rank, x->shape);
    return true;
}

static void backward_copy(struct hk_backward *b) { b->results[0] = b->grads[0]; }

static bool infer_cast(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0];
    const enum hk_dtype dtype = *(const enum hk_dtype *)call->attrs;
    if ((unsigned)dtype >= HK_DTYPE_COUNT)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "cast: %d is no dtype", (int)dtype);
    hk_infer_output(call, 0, dtype, x->rank, x->shape);
    return true;
}

/* Nothing goes back through integers. */
static void backward_cast(struct hk_backward *b) {
    const enum hk_dtype from = b->call->inputs[0]->dtype;
    if (hk_is_float(from) && hk_is_float(b->call->outputs[0]->dtype)) b->results[0] = hk_cast(b->grads[0], from);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_record_copy(recorder, &step->outputs[0], &step->inputs[0]);
}

/* Bits of the result, with the function of convert.glsl. */
static void glsl(const struct hk_chunk *chunk, const char *const *in, struct hk_written *written) {
    hk_write(written, "convert(%s, %du, %du)", in[0], (int)chunk->from, (int)chunk->to);
}

const struct hk_op hk_op_copy = {
    .name = "copy",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .infer = infer_copy,
    .backward = backward_copy,
    .cpu = CPU_KERNELS(copy),
    .gpu = gpu,
};

const struct hk_op hk_op_cast = {
    .name = "cast",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .flags = HK_OP_CHEAP_TOO,
    .infer = infer_cast,
    .backward = backward_cast,
    .cpu = CPU_KERNELS(cast),
    .chunk = CPU_CHUNKS(cast),
    .glsl = glsl,
    .glsl_file = "convert.glsl",
    .gpu = gpu,
};

struct hk_value *hk_contiguous(struct hk_value *x) {
    return !x || hk_is_dense(x) ? x : hk_call_op(NULL, &hk_op_copy, &x, 1, NULL, 0);
}

/* Where it narrows, dimensions that lie in another order still do in the result: attention's queries and products' factors are
   read as they lie. What widens is for elementwise ops, which run as one where all of it is dense. */
struct hk_value *hk_cast(struct hk_value *x, enum hk_dtype dtype) {
    if (!x || x->dtype == dtype) return x;
    if (!hk_is_dense(x) && hk_dtype_size(dtype) < hk_dtype_size(x->dtype)) {
        struct hk_axes order;
        struct hk_value *in_order = hk_in_memory_order(x, &order);
        if (in_order) return hk_permute(hk_cast(in_order, dtype), hk_inverse(order));
    }
    x = hk_contiguous(x);
    return hk_call_op(NULL, &hk_op_cast, &x, 1, &dtype, sizeof dtype);
}
#endif
