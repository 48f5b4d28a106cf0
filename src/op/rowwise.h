/* What ops that work on rows share: dense operands seen as [rows, width], the last dimension being the row. */
#ifndef HK_OP_ROWWISE_H
#define HK_OP_ROWWISE_H

#include "op/gpu.h"

static inline int64_t row_width(const struct hk_operand *x) { return x->rank ? x->shape[x->rank - 1] : 1; }
static inline int64_t row_count(const struct hk_operand *x) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) rows *= x->shape[i];
    return rows;
}

#if defined(HK_ISA_NAME)

#include "cpu/simd.h"

/* Rows per piece of work, so that a piece is worth handing to a thread. */
static inline int64_t row_grain(int64_t width) { return HK_MAX(16384 / HK_MAX(width, 1), 1); }

/* Elements whose sum is taken in f32, in vectors; such sums are added in double. A multiple of every vector's width. */
enum { ROW_BLOCK = 4096 };

/* A vector of a row of which `left` elements are left. */
static inline vf row_load(const float *p, int64_t left, float fill) {
    return left >= VW ? v_load(p) : v_load_part(p, left, fill);
}
static inline void row_store(float *p, vf x, int64_t left) {
    if (left >= VW)
        v_store(p, x);
    else
        v_store_part(p, x, left);
}

#else

/* Marks the graph with the message and is false: `return refuse(call, ...)` in an infer function. */
#define refuse(call, ...) (hk_graph_fail((call)->graph, HK_ERROR_INVALID, __VA_ARGS__), false)

static inline bool need_dtype(struct hk_call *call, const char *op, const char *what, int input, enum hk_dtype dtype) {
    const enum hk_dtype is = call->inputs[input]->dtype;
    return is == dtype || refuse(call, "%s: %s must be %s, it is %s", op, what, hk_dtype_name(dtype), hk_dtype_name(is));
}

/* A workgroup for rows of this width: some elements per invocation, and no idle lanes. A power of two from 16 to 256. On a
   processor, where a barrier costs as much as a hundred elements, few invocations with many elements each. */
static inline uint32_t row_workgroup(const struct hk_recorder *recorder, int64_t width) {
    uint32_t size = 16;
    if (recorder->limits->software && width <= 1024) return size;
    while (size < 256 && (size < recorder->limits->subgroup_size || (int64_t)size * 8 < width)) size *= 2;
    return size;
}

/* How many rows of that many bytes one binding can cover; 0 with the message set where not even one fits, or where it is too
   long for llvmpipe, which ends loops without a word when an invocation has gone round 65,535 times, all its loops together. */
static inline int64_t row_window(const struct hk_recorder *recorder, int64_t row_bytes) {
    /* the backend rounds a binding's start down: leave room for that */
    const int64_t range = (int64_t)(recorder->limits->max_range - recorder->limits->offset_align);
    const int64_t most = recorder->limits->software ? HK_MIN(range, (int64_t)16 << 20) : range;
    if (row_bytes <= most) return HK_MIN(range / row_bytes, INT32_MAX);
    hk_fail(HK_ERROR_UNSUPPORTED, "a row of %lld bytes is too long for this device (at most %lld)", (long long)row_bytes,
            (long long)most);
    return 0;
}

/* Binds rows first .. first + count of a dense operand. */
static inline void bind_rows(struct hk_dispatch *dispatch, const struct hk_operand *operand, int64_t row_bytes, int64_t first,
                             int64_t count, int access, int push_word) {
    hk_bind_range(dispatch, operand, (uint64_t)(first * row_bytes), (uint64_t)(count * row_bytes), access, push_word);
}

#endif
#endif
