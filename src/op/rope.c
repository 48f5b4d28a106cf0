/* Rotary position embedding (Su et al., 2021). Its gradient is the rotation back. */
#include "op/rowwise.h"

enum { ROPE_FACTORS = 8, ROPE_MAX_PAIRS = 1 << ROPE_FACTORS };

struct rope_attrs {
    /* base^(-2 * 2^k / D) * 2^64: the frequency of pair i is the product of those whose bit i has. Fixed point, so that
       position * frequency wraps at a whole turn by itself: angles are exact for every position, on every device. */
    uint64_t factors[ROPE_FACTORS];
    int32_t adjacent, inverse, start, unused;
};

#ifdef HK_ISA_NAME

struct rope_rows {
    const struct hk_operand *x, *y;
    const struct rope_attrs *attrs;
    uint64_t frequency[ROPE_MAX_PAIRS]; /* 2^-64 turns per position */
    int64_t start;
};

static uint64_t multiply_high(uint64_t a, uint64_t b) {
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

/* cos and sin of u / 2^32 turns: the nearest quarter turn, and polynomials for the rest in [-pi/4, pi/4] (Cephes). */
static inline void cos_sin(uint32_t u, float *cosine, float *sine) {
    const uint32_t quarter = (u + 0x20000000u) >> 30;
    const float a = (float)(int32_t)(u - (quarter << 30)) * 1.46291807926715968e-9f; /* 2 pi / 2^32 */
    const float z = a * a;
    const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * a + a;
    const float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1;
    const float c1 = quarter & 1 ? -s : c, s1 = quarter & 1 ? c : s;
    *cosine = quarter & 2 ? -c1 : c1;
    *sine = quarter & 2 ? -s1 : s1;
}

static void rotate_half(const float *x, float *y, const float *c, const float *s, int64_t pairs) {
    for (int64_t i = 0; i < pairs; i += VW) {
        const int64_t left = pairs - i;
        const vf u = row_load(x + i, left, 0), v = row_load(x + pairs + i, left, 0);
        const vf ci = row_load(c + i, left, 0), si = row_load(s + i, left, 0);
        row_store(y + i, u * ci - v * si, left);
        row_store(y + pairs + i, v * ci + u * si, left);
    }
}

static void rotate_adjacent(const float *x, float *y, const float *c, const float *s, int64_t pairs) {
    for (int64_t i = 0; i < pairs; i++) {
        const float u = x[2 * i], v = x[2 * i + 1];
        y[2 * i] = u * c[i] - v * s[i];
        y[2 * i + 1] = v * c[i] + u * s[i];
    }
}

/* Rows begin .. end of the T, in all batches and heads: the angles are found once. */
static void rope_body(void *context, int64_t begin, int64_t end) {
    const struct rope_rows *r = context;
    const struct hk_operand *x = r->x, *y = r->y;
    const int64_t pairs = x->shape[3] / 2;
    float c[ROPE_MAX_PAIRS], s[ROPE_MAX_PAIRS];
    for (int64_t t = begin; t < end; t++) {
        const int64_t at = r->start + t;
        const float sign = (at < 0) != (r->attrs->inverse != 0) ? -1.0f : 1.0f;
        for (int64_t i = 0; i < pairs; i++) {
            cos_sin((uint32_t)(((uint64_t)(at < 0 ? -at : at) * r->frequency[i]) >> 32), &c[i], &s[i]);
            s[i] *= sign;
        }
        for (int64_t b = 0; b < x->shape[0]; b++)
            for (int64_t h = 0; h < x->shape[1]; h++) {
                const float *from = (const float *)cpu_data(x) + b * x->stride[0] + h * x->stride[1] + t * x->stride[2];
                float *to = (float *)cpu_data(y) + b * y->stride[0] + h * y->stride[1] + t * y->stride[2];
                if (r->attrs->adjacent)
                    rotate_adjacent(from, to, c, s, pairs);
                else
                    rotate_half(from, to, c, s, pairs);
            }
    }
}

CPU_KERNEL(rope) {
    const struct rope_attrs *a = step->attrs;
    struct rope_rows r = {.x = &step->inputs[0], .y = &step->outputs[0], .attrs = a, .start = a->start};
    if (step->n_inputs > 1) r.start += *(const int32_t *)cpu_data(&step->inputs[1]);
    const int64_t *shape = r.x->shape;
    for (int64_t i = 0; i < shape[3] / 2; i++) {
        r.frequency[i] = 0x28BE60DB9391054Au; /* 2^64 / 2 pi: pair 0 turns by one radian per position */
        for (int k = 0; k < ROPE_FACTORS; k++)
            if (i >> k & 1) r.frequency[i] = multiply_high(r.frequency[i], a->factors[k]);
    }
    cpu_for(cpu, shape[2], row_grain(shape[0] * shape[1] * shape[3]), rope_body, &r);
}

#else
#include <math.h>

CPU_DECLARE(rope);

/* x [B, H, T, D] -> the same, in memory as [B, T, H, D] */
static bool rope_infer(struct hk_call *call) {
    static const int order[4] = {0, 2, 1, 3};
    const struct hk_value *x = call->inputs[0];
    if (!need_dtype(call, "rope", "x", 0, HK_F32)) return false;
    if (x->rank != 4 || x->shape[3] % 2 || x->shape[3] > 2 * ROPE_MAX_PAIRS)
        return refuse(call, "rope: x must be [B, H, T, D] with D even and at most %d, it is %s", 2 * ROPE_MAX_PAIRS,
                      hk_shape_text(x));
    if (call->n_inputs > 1) {
        if (!need_dtype(call, "rope", "position", 1, HK_I32)) return false;
        if (hk_elements(call->inputs[1]) != 1)
            return refuse(call, "rope: position must be [1], it is %s", hk_shape_text(call->inputs[1]));
    }
    hk_infer_output_order(call, 0, HK_F32, 4, x->shape, order);
    return true;
}

static struct hk_value *add_rope(struct hk_value *x, struct hk_value *position, const struct rope_attrs *attrs) {
    struct hk_value *in[2] = {x, position};
    if (x && x->rank > 0 && x->stride[x->rank - 1] != 1) in[0] = hk_contiguous(x);
    return hk_call_op(NULL, &hk_op_rope, in, position ? 2 : 1, attrs, sizeof *attrs);
}

static void rope_gradient(struct hk_backward *b) {
    struct rope_attrs attrs = *(const struct rope_attrs *)b->call->attrs;
    attrs.inverse = !attrs.inverse;
    if (b->needed[0]) b->results[0] = add_rope(b->grads[0], b->call->n_inputs > 1 ? b->call->inputs[1] : NULL, &attrs);
}

static struct hk_cost rope_cost(const struct hk_step *step) {
    const int64_t *shape = step->inputs[0].shape;
    return (struct hk_cost){.flops = 3.0 * (double)(shape[0] * shape[1]) * (double)(shape[2] * shape[3])};
}

struct rope_push {
    uint32_t base_x, base_y, base_position;
    int32_t start;
    uint32_t heads, rows, pairs, count;
    uint32_t x_stride_b, x_stride_h, x_stride_t;
    uint32_t y_stride_b, y_stride_h, y_stride_t;
    uint32_t factors[2 * ROPE_FACTORS]; /* low, high */
};

static hk_status record_rope(const struct hk_step *step, struct hk_recorder *recorder, const struct hk_operand *x,
                             const struct hk_operand *y, int64_t first) {
    const struct rope_attrs *a = step->attrs;
    const bool offset = step->n_inputs > 1;
    const int64_t pairs = x->shape[3] / 2, count = x->shape[0] * x->shape[2] * pairs;
    struct rope_push push = {.start = (int32_t)(a->start + first), .heads = (uint32_t)x->shape[1],
                             .rows = (uint32_t)x->shape[2], .pairs = (uint32_t)pairs, .count = (uint32_t)count,
                             .x_stride_b = (uint32_t)x->stride[0], .x_stride_h = (uint32_t)x->stride[1],
                             .x_stride_t = (uint32_t)x->stride[2], .y_stride_b = (uint32_t)y->stride[0],
                             .y_stride_h = (uint32_t)y->stride[1], .y_stride_t = (uint32_t)y->stride[2]};
    for (int k = 0; k < ROPE_FACTORS; k++) {
        push.factors[2 * k] = (uint32_t)a->factors[k];
        push.factors[2 * k + 1] = (uint32_t)(a->factors[k] >> 32);
    }
    struct hk_dispatch d = {.shader = "rope", .spec = {64, a->adjacent != 0, a->inverse != 0, offset}, .n_spec = 4};
    HK_PUSH(&d, push);
    hk_bind(&d, x, HK_READ, 0);
    hk_bind(&d, y, HK_WRITE, 1);
    if (offset)
        hk_bind(&d, &step->inputs[1], HK_READ, 2);
    else
        hk_bind(&d, x, HK_READ, 2); /* a binding is there, but nothing reads it */
    hk_groups(recorder, &d, (uint64_t)(count + 63) / 64);
    return recorder->record(recorder, &d);
}

/* Halves batches, then rows, until both operands fit the device's bindings. */
static hk_status split_rope(const struct hk_step *step, struct hk_recorder *recorder, const struct hk_operand *x,
                            const struct hk_operand *y, int64_t first) {
    const uint64_t range = recorder->limits->max_range - recorder->limits->offset_align;
    if (hk_operand_span(x) <= range && hk_operand_span(y) <= range) return record_rope(step, recorder, x, y, first);
    const int axis = x->shape[0] > 1 ? 0 : 2;
    const int64_t half = x->shape[axis] / 2;
    if (half == 0) return hk_fail(HK_ERROR_UNSUPPORTED, "rope: one row of all heads exceeds what this device can bind");
    for (int side = 0; side < 2; side++) {
        struct hk_operand part[2] = {*x, *y};
        for (int k = 0; k < 2; k++) {
            part[k].shape[axis] = side ? x->shape[axis] - half : half;
            if (side) part[k].offset += (uint64_t)(half * part[k].stride[axis]) * sizeof(float);
        }
        const hk_status status = split_rope(step, recorder, &part[0], &part[1], first + (axis == 2 && side ? half : 0));
        if (status) return status;
    }
    return HK_OK;
}

static hk_status rope_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    if (hk_operand_span(&step->inputs[0]) == 0) return HK_OK;
    return split_rope(step, recorder, &step->inputs[0], &step->outputs[0], 0);
}

const struct hk_op hk_op_rope = {
    .name = "rope", .min_inputs = 1, .max_inputs = 2, .n_outputs = 1,
    .infer = rope_infer, .backward = rope_gradient, .cost = rope_cost, .cpu = CPU_KERNELS(rope), .gpu = rope_gpu};

struct hk_value *hk_rope(struct hk_value *x, const struct hk_rope_params *params) {
    const struct hk_rope_params how = params ? *params : (struct hk_rope_params){0};
    const double base = how.base != 0 ? (double)how.base : 10000.0;
    if (!(base > 1))
        return hk_graph_fail(hk_value_graph(x), HK_ERROR_INVALID, "rope: base must be greater than 1, it is %g", base);
    struct rope_attrs attrs = {.adjacent = how.style == HK_ROPE_ADJACENT, .start = how.start};
    const double width = x && x->rank == 4 && x->shape[3] > 0 ? (double)x->shape[3] : 2;
    for (int k = 0; k < ROPE_FACTORS; k++) attrs.factors[k] = (uint64_t)ldexp(pow(base, -2.0 * (double)(1 << k) / width), 64);
    return add_rope(x, how.position, &attrs);
}

#endif
