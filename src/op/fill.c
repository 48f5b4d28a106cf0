/* Values made from nothing: fill and arange. */
#include "op/op.h"

struct fill_attrs {
    enum hk_dtype dtype;
    int rank;
    int64_t shape[HK_MAX_RANK];
    uint32_t bits; /* of one element */
};

struct arange_attrs {
    enum hk_dtype dtype; /* f32 or i32 */
    int64_t count;
    union {
        float f;
        int32_t i;
    } start, step;
};

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

struct fill_job {
    char *to;
    uint32_t bits;
    size_t size;
};

static void fill_body(void *context, int64_t begin, int64_t end) {
    const struct fill_job *job = context;
    switch (job->size) {
    case 4:
        for (int64_t i = begin; i < end; i++) ((uint32_t *)job->to)[i] = job->bits;
        break;
    case 2:
        for (int64_t i = begin; i < end; i++) ((uint16_t *)job->to)[i] = (uint16_t)job->bits;
        break;
    default: memset(job->to + begin, (int)job->bits, (size_t)(end - begin));
    }
}

CPU_KERNEL(fill) {
    const struct fill_attrs *attrs = step->attrs;
    struct fill_job job = {cpu_data(&step->outputs[0]), attrs->bits, hk_dtype_size(attrs->dtype)};
    cpu_for(cpu, cpu_elements(&step->outputs[0]), 2 * CPU_GRAIN, fill_body, &job);
}

static void arange_body(void *context, int64_t begin, int64_t end) {
    const struct hk_step *step = context;
    const struct arange_attrs *attrs = step->attrs;
    void *to = cpu_data(&step->outputs[0]);
    if (attrs->dtype == HK_F32)
        for (int64_t i = begin; i < end; i++) ((float *)to)[i] = attrs->start.f + attrs->step.f * (float)i;
    else
        for (int64_t i = begin; i < end; i++)
            ((uint32_t *)to)[i] = (uint32_t)attrs->start.i + (uint32_t)attrs->step.i * (uint32_t)i;
}

CPU_KERNEL(arange) { cpu_for(cpu, cpu_elements(&step->outputs[0]), CPU_GRAIN, arange_body, (void *)(uintptr_t)step); }

#else
#include "op/strided.h"
#include <math.h>

CPU_DECLARE(fill);
CPU_DECLARE(arange);

static int32_t i32_of(double x) {
    return x != x ? 0 : (int32_t)HK_MIN(HK_MAX(x, (double)INT32_MIN), (double)INT32_MAX);
}

static uint32_t bits_of(enum hk_dtype dtype, double value) {
    const float f = (float)value;
    uint32_t bits;
    switch (dtype) {
    case HK_F16: return hk_f16_from_f32(f);
    case HK_BF16: return hk_bf16_from_f32(f);
    case HK_I32: return (uint32_t)i32_of(value);
    case HK_U8: return (uint32_t)HK_MIN(HK_MAX(i32_of(value), 0), 255);
    case HK_I8: return (uint32_t)HK_MIN(HK_MAX(i32_of(rint(value)), -128), 127); /* as hk_cast rounds */
    default: memcpy(&bits, &f, sizeof bits); return bits;
    }
}

static bool infer_fill(struct hk_call *call) {
    const struct fill_attrs *attrs = call->attrs;
    if ((unsigned)attrs->dtype >= HK_DTYPE_COUNT || attrs->rank < 0 || attrs->rank > HK_MAX_RANK)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "fill: dtype %d or rank %d is none", (int)attrs->dtype,
                             attrs->rank);
    for (int i = 0; i < attrs->rank; i++)
        if (attrs->shape[i] < 0)
            return hk_graph_fail(call->graph, HK_ERROR_INVALID, "fill: size %d of the shape is %lld", i,
                                 (long long)attrs->shape[i]);
    hk_infer_output(call, 0, attrs->dtype, attrs->rank, attrs->shape);
    return true;
}

static hk_status gpu_fill(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_record_fill(recorder, &step->outputs[0], ((const struct fill_attrs *)step->attrs)->bits);
}

static bool infer_arange(struct hk_call *call) {
    const struct arange_attrs *attrs = call->attrs;
    if (attrs->count < 0)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "arange: the count is %lld", (long long)attrs->count);
    hk_infer_output(call, 0, attrs->dtype, 1, &attrs->count);
    return true;
}

static hk_status gpu_arange(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct arange_attrs *attrs = step->attrs;
    const int64_t window = hk_window_elements(recorder, 4);
    for (int64_t first = 0; first < attrs->count; first += window) {
        const int64_t n = HK_MIN(window, attrs->count - first);
        struct {
            uint32_t base, count, first, start, step;
        } push = {0, (uint32_t)n, (uint32_t)first, (uint32_t)attrs->start.i, (uint32_t)attrs->step.i};
        struct hk_dispatch d = {
            .shader = "arange", .spec = {HK_ELEMENTWISE_GROUP, attrs->dtype == HK_I32}, .n_spec = 2};
        hk_bind_range(&d, &step->outputs[0], (uint64_t)first * 4, (uint64_t)n * 4, HK_WRITE, 0);
        HK_PUSH(&d, push);
        hk_groups(recorder, &d, (uint64_t)(n + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

const struct hk_op hk_op_fill = {
    .name = "fill",
    .n_outputs = 1,
    .infer = infer_fill,
    .cpu = CPU_KERNELS(fill),
    .gpu = gpu_fill,
};

const struct hk_op hk_op_arange = {
    .name = "arange",
    .n_outputs = 1,
    .infer = infer_arange,
    .cpu = CPU_KERNELS(arange),
    .gpu = gpu_arange,
};

struct hk_value *hk_fill(struct hk_graph *graph, enum hk_dtype dtype, struct hk_shape shape, double value) {
    struct fill_attrs attrs = {.dtype = dtype, .rank = shape.rank, .bits = bits_of(dtype, value)};
    memcpy(attrs.shape, shape.size, sizeof attrs.shape);
    return hk_call_op(graph, &hk_op_fill, NULL, 0, &attrs, sizeof attrs);
}

/* Other dtypes than f32 and i32 are cast from f32. */
struct hk_value *hk_arange(struct hk_graph *graph, enum hk_dtype dtype, int64_t count, double start, double step) {
    struct arange_attrs attrs = {.dtype = dtype == HK_I32 ? HK_I32 : HK_F32, .count = count};
    if (dtype == HK_I32) attrs.start.i = i32_of(start), attrs.step.i = i32_of(step);
    else attrs.start.f = (float)start, attrs.step.f = (float)step;
    return hk_cast(hk_call_op(graph, &hk_op_arange, NULL, 0, &attrs, sizeof attrs), dtype);
}
#endif
