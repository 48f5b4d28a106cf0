/* Shapes: views (reshape, permute, broadcast_to, slice) and the copies that none can replace (concat, pad,
 * slice_backward). */
#include "op/shape.h"
#include "op/strided.h"

struct concat_attrs {
    int axis;
};

struct pad_attrs {
    int64_t before[HK_MAX_RANK], after[HK_MAX_RANK];
    float value;
};

/* The gradient of a slice: zeros but for the sliced elements. */
struct slice_backward_attrs {
    struct slice_attrs slice;
    int64_t size; /* of the axis */
};

/* Where input 0 of pad and slice_backward goes in the output. */
struct hk_operand hk_pad_target(const struct hk_step *step);
struct hk_operand hk_slice_target(const struct hk_step *step);
/* Where an input of concat goes, that begins at the given element of the axis. */
struct hk_operand hk_concat_target(const struct hk_step *step, int input, int64_t begin);

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

CPU_KERNEL(concat) {
    int64_t begin = 0;
    for (int i = 0; i < step->n_inputs; i++) {
        const struct hk_operand part = hk_concat_target(step, i, begin);
        cpu_copy(cpu, &part, &step->inputs[i]);
        begin += step->inputs[i].shape[((const struct concat_attrs *)step->attrs)->axis];
    }
}

struct fill_job {
    float *to, value;
};

static void fill_body(void *context, int64_t begin, int64_t end) {
    const struct fill_job *job = context;
    for (int64_t i = begin; i < end; i++) job->to[i] = job->value;
}

CPU_KERNEL(pad) {
    struct fill_job job = {cpu_data(&step->outputs[0]), ((const struct pad_attrs *)step->attrs)->value};
    const struct hk_operand target = hk_pad_target(step);
    cpu_for(cpu, cpu_elements(&step->outputs[0]), 2 * CPU_GRAIN, fill_body, &job);
    cpu_copy(cpu, &target, &step->inputs[0]);
}

static void zero_body(void *context, int64_t begin, int64_t end) {
    memset((char *)context + begin, 0, (size_t)(end - begin));
}

CPU_KERNEL(slice_backward) {
    const struct hk_operand *dx = &step->outputs[0], target = hk_slice_target(step);
    cpu_for(cpu, cpu_elements(dx) * (int64_t)hk_dtype_size(dx->dtype), 8 * CPU_GRAIN, zero_body, cpu_data(dx));
    cpu_copy(cpu, &target, &step->inputs[0]);
}

#else
#include "op/reduce.h"

CPU_DECLARE(concat);
CPU_DECLARE(pad);
CPU_DECLARE(slice_backward);

/* ---- Reshape ---- */

/* The strides with which x's memory reads as the shape; false where there are none. Runs of x's dimensions that come to
   the same number of elements as runs of the new ones must each be dense in themselves. */
static bool view_strides(const struct hk_value *x, int rank, const int64_t *shape, int64_t *stride) {
    int64_t size[HK_MAX_RANK], old[HK_MAX_RANK];
    int n = 0, i = 0, j = 0;
    const bool empty = hk_elements(x) == 0;
    for (int k = 0; k < x->rank; k++)
        if (x->shape[k] != 1) size[n] = x->shape[k], old[n++] = x->stride[k];
    for (int k = rank - 1; k >= 0; k--) stride[k] = k == rank - 1 ? 1 : stride[k + 1] * HK_MAX(shape[k + 1], 1);
    while (!empty && i < n && j < rank) {
        const int first_new = j;
        int64_t have = size[i++], want = shape[j++];
        while (have != want) {
            if (want < have) {
                want *= shape[j++];
            } else {
                if (old[i - 1] != size[i] * old[i]) return false;
                have *= size[i++];
            }
        }
        stride[j - 1] = old[i - 1];
        for (int k = j - 1; k > first_new; k--) stride[k - 1] = stride[k] * shape[k];
    }
    return true;
}

static void reshape_backward(struct hk_backward *b) {
    b->results[0] = hk_reshape(b->grads[0], hk_value_shape(b->call->inputs[0]));
}

const struct hk_op hk_op_reshape = {
    .name = "reshape",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .flags = HK_OP_VIEW,
    .backward = reshape_backward,
};

/* Fills in a size of -1; false where the shape does not hold x's elements. */
static bool complete_shape(const struct hk_value *x, struct hk_shape *shape) {
    const int64_t have = hk_elements(x);
    int64_t known = 1;
    int open = -1;
    if (shape->rank < 0 || shape->rank > HK_MAX_RANK) return false;
    for (int i = 0; i < shape->rank; i++) {
        const int64_t size = shape->size[i];
        if (size == -1 && open < 0) open = i;
        else if (size < 0 || (size && known > INT64_MAX / size)) return false;
        else known *= size;
    }
    if (open >= 0) shape->size[open] = known ? have / known : 0;
    return open >= 0 ? known && shape->size[open] * known == have : known == have;
}

struct hk_value *hk_reshape(struct hk_value *x, struct hk_shape shape) {
    if (!x) return NULL;
    struct hk_value wanted = {.rank = HK_MAX(HK_MIN(shape.rank, HK_MAX_RANK), 0)};
    int64_t stride[HK_MAX_RANK];
    memcpy(wanted.shape, shape.size, sizeof wanted.shape);
    if (!complete_shape(x, &shape))
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "reshape: %s does not hold the elements of %s",
                             hk_shape_text(&wanted), hk_shape_text(x));
    memcpy(wanted.shape, shape.size, sizeof wanted.shape);
    if (hk_same_shape(x, &wanted)) return x;
    if (!view_strides(x, shape.rank, shape.size, stride)) {
        x = hk_contiguous(x);
        if (!x) return NULL;
        view_strides(x, shape.rank, shape.size, stride);
    }
    return hk_call_view(&hk_op_reshape, x, shape.rank, shape.size, stride, 0, NULL, 0);
}

/* ---- Permute and transpose ---- */

struct hk_value *hk_in_memory_order(struct hk_value *x, struct hk_axes *order) {
    order->count = x->rank;
    for (int i = 0; i < x->rank; i++) {
        int k = i;
        for (; k > 0 && x->stride[order->axis[k - 1]] < x->stride[i]; k--) order->axis[k] = order->axis[k - 1];
        order->axis[k] = i;
    }
    struct hk_value *permuted = hk_permute(x, *order);
    return permuted && hk_is_dense(permuted) ? permuted : NULL;
}

struct hk_axes hk_inverse(struct hk_axes order) {
    struct hk_axes inverse = {.count = order.count};
    for (int i = 0; i < order.count; i++) inverse.axis[order.axis[i]] = i;
    return inverse;
}

static void permute_backward(struct hk_backward *b) {
    b->results[0] = hk_permute(b->grads[0], hk_inverse(*(const struct hk_axes *)b->call->attrs));
}

const struct hk_op hk_op_permute = {
    .name = "permute",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .flags = HK_OP_VIEW,
    .backward = permute_backward,
};

struct hk_value *hk_permute(struct hk_value *x, struct hk_axes order) {
    if (!x) return NULL;
    int64_t shape[HK_MAX_RANK], stride[HK_MAX_RANK];
    unsigned seen = 0;
    if (order.count != x->rank)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "permute: %d axes for %s", order.count, hk_shape_text(x));
    for (int i = 0; i < x->rank; i++) {
        const int axis = hk_axis(x, order.axis[i], "permute");
        if (axis < 0) return NULL;
        if (seen >> axis & 1)
            return hk_graph_fail(x->graph, HK_ERROR_INVALID, "permute: axis %d is given twice", order.axis[i]);
        seen |= 1u << axis;
        order.axis[i] = axis;
        shape[i] = x->shape[axis], stride[i] = x->stride[axis];
    }
    return hk_call_view(&hk_op_permute, x, x->rank, shape, stride, 0, &order, sizeof order);
}

struct hk_value *hk_transpose(struct hk_value *x) {
    if (!x) return NULL;
    struct hk_axes order = {.count = x->rank};
    if (x->rank < 2)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "transpose: needs two dimensions, x is %s", hk_shape_text(x));
    for (int i = 0; i < x->rank; i++) order.axis[i] = i;
    order.axis[x->rank - 2] = x->rank - 1, order.axis[x->rank - 1] = x->rank - 2;
    return hk_permute(x, order);
}

/* ---- Broadcasting ---- */

int hk_broadcast_shape(const struct hk_value *a, const struct hk_value *b, int64_t *shape) {
    const int rank = HK_MAX(a->rank, b->rank);
    for (int i = 0; i < rank; i++) {
        const int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        const int64_t sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
        if (sa != sb && sa != 1 && sb != 1) return -1;
        shape[i] = sa == 1 ? sb : sa;
    }
    return rank;
}

/* Sums are f32's. */
static void broadcast_backward(struct hk_backward *b) {
    struct hk_value *dy = b->grads[0];
    b->results[0] = hk_cast(hk_sum_to(hk_cast(dy, HK_F32), b->call->inputs[0]), hk_value_dtype(dy));
}

const struct hk_op hk_op_broadcast_to = {
    .name = "broadcast_to",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .flags = HK_OP_VIEW,
    .backward = broadcast_backward,
};

struct hk_value *hk_broadcast_to(struct hk_value *x, struct hk_shape shape) {
    if (!x) return NULL;
    struct hk_value to = {.rank = HK_MAX(HK_MIN(shape.rank, HK_MAX_RANK), 0)};
    int64_t both[HK_MAX_RANK], stride[HK_MAX_RANK];
    bool fits = shape.rank == to.rank && shape.rank >= x->rank;
    memcpy(to.shape, shape.size, sizeof to.shape);
    for (int i = 0; i < to.rank; i++) fits = fits && shape.size[i] >= 0;
    fits =
        fits && hk_broadcast_shape(x, &to, both) == to.rank && !memcmp(both, to.shape, sizeof *both * (size_t)to.rank);
    if (!fits)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "broadcast_to: %s does not broadcast to %s", hk_shape_text(x),
                             hk_shape_text(&to));
    if (hk_same_shape(x, &to)) return x;
    for (int i = 0; i < to.rank; i++) {
        const int from = i - (to.rank - x->rank);
        stride[i] = from < 0 || x->shape[from] != to.shape[i] ? 0 : x->stride[from];
    }
    return hk_call_view(&hk_op_broadcast_to, x, to.rank, to.shape, stride, 0, NULL, 0);
}

/* ---- Slice ---- */

static void slice_backward(struct hk_backward *b) {
    const struct slice_attrs *slice = b->call->attrs;
    const struct slice_backward_attrs attrs = {*slice, b->call->inputs[0]->shape[slice->axis]};
    b->results[0] = hk_call_op(NULL, &hk_op_slice_backward, b->grads, 1, &attrs, sizeof attrs);
}

const struct hk_op hk_op_slice = {
    .name = "slice",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .flags = HK_OP_VIEW,
    .backward = slice_backward,
};

struct hk_value *hk_slice(struct hk_value *x, int axis, int64_t begin, int64_t end, int64_t step) {
    if (!x) return NULL;
    struct slice_attrs attrs = {.axis = hk_axis(x, axis, "slice"), .step = step};
    int64_t shape[HK_MAX_RANK], stride[HK_MAX_RANK];
    if (attrs.axis < 0) return NULL;
    const int64_t size = x->shape[attrs.axis];
    attrs.begin = begin < 0 ? begin + size : begin;
    attrs.end = end < 0 ? end + size : end;
    attrs.step = HK_MIN(step, HK_MAX(size, 1)); /* more is the same, but may overflow */
    if (attrs.begin < 0 || attrs.end < attrs.begin || attrs.end > size || step < 1)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID,
                             "slice: %lld to %lld in steps of %lld is out of range for axis %d of %s", (long long)begin,
                             (long long)end, (long long)step, axis, hk_shape_text(x));
    if (attrs.begin == 0 && attrs.end == size && step == 1) return x;
    memcpy(shape, x->shape, sizeof shape);
    memcpy(stride, x->stride, sizeof stride);
    shape[attrs.axis] = attrs.end > attrs.begin ? (attrs.end - attrs.begin - 1) / attrs.step + 1 : 0;
    stride[attrs.axis] *= attrs.step;
    const int64_t offset = shape[attrs.axis] ? attrs.begin * x->stride[attrs.axis] : 0;
    return hk_call_view(&hk_op_slice, x, x->rank, shape, stride, offset, &attrs, sizeof attrs);
}

static bool infer_slice_backward(struct hk_call *call) {
    const struct slice_backward_attrs *attrs = call->attrs;
    const struct hk_value *dy = call->inputs[0];
    int64_t shape[HK_MAX_RANK];
    memcpy(shape, dy->shape, sizeof shape);
    shape[attrs->slice.axis] = attrs->size;
    hk_infer_output(call, 0, dy->dtype, dy->rank, shape);
    return true;
}

static void slice_backward_backward(struct hk_backward *b) {
    const struct slice_attrs *s = &((const struct slice_backward_attrs *)b->call->attrs)->slice;
    b->results[0] = hk_slice(b->grads[0], s->axis, s->begin, s->end, s->step);
}

/* Slices that tile their value (a projection split into queries, keys and values): their gradients are laid side by
   side rather than spread out and added. */
static struct hk_value *merge_slices(struct hk_value *const *grads, int count, int which) {
    struct hk_value *parts[16];
    const struct slice_backward_attrs *first = grads[which]->call->attrs;
    int64_t end = 0;
    if (count > (int)HK_LENGTH(parts)) return NULL;
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < count; k++) {
            const struct hk_call *call = grads[k] ? grads[k]->call : NULL;
            if (!call || call->op != &hk_op_slice_backward) return NULL;
            const struct slice_backward_attrs *a = call->attrs;
            if (a->slice.axis != first->slice.axis || a->slice.step != 1 || a->size != first->size) return NULL;
            if (a->slice.begin != end || a->slice.end == a->slice.begin) continue;
            parts[i] = call->inputs[0];
            end = a->slice.end;
            break;
        }
        if (i + 1 < count && end == first->size) return NULL;
    }
    return end == first->size ? hk_concat(parts, count, first->slice.axis) : NULL;
}

struct hk_operand hk_slice_target(const struct hk_step *step) {
    const struct slice_attrs *s = &((const struct slice_backward_attrs *)step->attrs)->slice;
    int64_t begin[HK_MAX_RANK] = {0}, steps[HK_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    begin[s->axis] = s->begin, steps[s->axis] = s->step;
    return hk_part_of(&step->outputs[0], begin, steps, step->inputs[0].shape);
}

static hk_status fill_and_copy(const struct hk_step *step, struct hk_recorder *recorder, uint32_t bits,
                               const struct hk_operand *target) {
    const hk_status status = hk_record_fill(recorder, &step->outputs[0], bits);
    return status ? status : hk_record_copy(recorder, target, &step->inputs[0]);
}

static hk_status gpu_slice_backward(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand target = hk_slice_target(step);
    return fill_and_copy(step, recorder, 0, &target);
}

const struct hk_op hk_op_slice_backward = {
    .name = "slice_backward",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .infer = infer_slice_backward,
    .backward = slice_backward_backward,
    .merge = merge_slices,
    .cpu = CPU_KERNELS(slice_backward),
    .gpu = gpu_slice_backward,
};

/* ---- Concat ---- */

static bool infer_concat(struct hk_call *call) {
    const int axis = ((const struct concat_attrs *)call->attrs)->axis;
    const struct hk_value *first = call->inputs[0];
    int64_t shape[HK_MAX_RANK];
    memcpy(shape, first->shape, sizeof shape);
    shape[axis] = 0;
    for (int i = 0; i < call->n_inputs; i++) {
        const struct hk_value *x = call->inputs[i];
        bool fits = x->rank == first->rank && x->dtype == first->dtype;
        for (int k = 0; fits && k < x->rank; k++) fits = k == axis || x->shape[k] == first->shape[k];
        if (!fits)
            return hk_graph_fail(
                call->graph, HK_ERROR_INVALID, "concat: input %d is %s %s, but input 0 is %s %s (axis %d)", i,
                hk_dtype_name(x->dtype), hk_shape_text(x), hk_dtype_name(first->dtype), hk_shape_text(first), axis);
        shape[axis] = HK_MIN(shape[axis] + x->shape[axis], INT64_MAX / 2); /* refused as too many below */
    }
    hk_infer_output(call, 0, first->dtype, first->rank, shape);
    return true;
}

static void concat_backward(struct hk_backward *b) {
    const int axis = ((const struct concat_attrs *)b->call->attrs)->axis;
    int64_t begin = 0;
    for (int i = 0; i < b->call->n_inputs; i++) {
        const int64_t end = begin + b->call->inputs[i]->shape[axis];
        if (b->needed[i]) b->results[i] = hk_slice(b->grads[0], axis, begin, end, 1);
        begin = end;
    }
}

struct hk_operand hk_concat_target(const struct hk_step *step, int input, int64_t begin) {
    const int64_t ones[HK_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    int64_t begins[HK_MAX_RANK] = {0};
    begins[((const struct concat_attrs *)step->attrs)->axis] = begin;
    return hk_part_of(&step->outputs[0], begins, ones, step->inputs[input].shape);
}

static hk_status gpu_concat(const struct hk_step *step, struct hk_recorder *recorder) {
    int64_t begin = 0;
    for (int i = 0; i < step->n_inputs; i++) {
        const struct hk_operand part = hk_concat_target(step, i, begin);
        const hk_status status = hk_record_copy(recorder, &part, &step->inputs[i]);
        if (status) return status;
        begin += step->inputs[i].shape[((const struct concat_attrs *)step->attrs)->axis];
    }
    return HK_OK;
}

const struct hk_op hk_op_concat = {
    .name = "concat",
    .min_inputs = 1,
    .max_inputs = -1,
    .n_outputs = 1,
    .infer = infer_concat,
    .backward = concat_backward,
    .cpu = CPU_KERNELS(concat),
    .gpu = gpu_concat,
};

struct hk_value *hk_concat(struct hk_value *const *values, int count, int axis) {
    if (count < 1 || !values) {
        hk_fail(HK_ERROR_INVALID, "concat: %d values, or the array is NULL", count);
        return NULL;
    }
    if (!hk_graph_of(values, count)) return NULL;
    const struct concat_attrs attrs = {hk_axis(values[0], axis, "concat")};
    return attrs.axis < 0 ? NULL : hk_call_op(NULL, &hk_op_concat, values, count, &attrs, sizeof attrs);
}

/* ---- Pad ---- */

static bool infer_pad(struct hk_call *call) {
    const struct pad_attrs *attrs = call->attrs;
    const struct hk_value *x = call->inputs[0];
    int64_t shape[HK_MAX_RANK];
    if (x->dtype != HK_F32)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "pad: x must be f32, it is %s", hk_dtype_name(x->dtype));
    for (int i = 0; i < x->rank; i++) {
        if (attrs->before[i] < 0 || attrs->after[i] < 0 || attrs->before[i] > INT64_MAX / 4 || attrs->after[i] > INT64_MAX / 4)
            return hk_graph_fail(call->graph, HK_ERROR_INVALID, "pad: axis %d gets %lld elements before and %lld after",
                                 i, (long long)attrs->before[i], (long long)attrs->after[i]);
        shape[i] = attrs->before[i] + x->shape[i] + attrs->after[i];
    }
    hk_infer_output(call, 0, HK_F32, x->rank, shape);
    return true;
}

static void pad_backward(struct hk_backward *b) {
    const struct pad_attrs *attrs = b->call->attrs;
    const struct hk_value *x = b->call->inputs[0];
    struct hk_value *dx = b->grads[0];
    for (int i = 0; i < x->rank; i++) dx = hk_slice(dx, i, attrs->before[i], attrs->before[i] + x->shape[i], 1);
    b->results[0] = dx;
}

struct hk_operand hk_pad_target(const struct hk_step *step) {
    const int64_t ones[HK_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    return hk_part_of(&step->outputs[0], ((const struct pad_attrs *)step->attrs)->before, ones, step->inputs[0].shape);
}

static hk_status gpu_pad(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_operand target = hk_pad_target(step);
    uint32_t bits;
    memcpy(&bits, &((const struct pad_attrs *)step->attrs)->value, sizeof bits);
    return fill_and_copy(step, recorder, bits, &target);
}

const struct hk_op hk_op_pad = {
    .name = "pad",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .infer = infer_pad,
    .backward = pad_backward,
    .cpu = CPU_KERNELS(pad),
    .gpu = gpu_pad,
};

struct hk_value *hk_pad(struct hk_value *x, const int64_t *before, const int64_t *after, float value) {
    if (!x) return NULL;
    if (!before || !after) return hk_graph_fail(x->graph, HK_ERROR_INVALID, "pad: before or after is NULL");
    struct pad_attrs attrs = {.value = value};
    memcpy(attrs.before, before, sizeof *before * (size_t)x->rank);
    memcpy(attrs.after, after, sizeof *after * (size_t)x->rank);
    return hk_call_op(NULL, &hk_op_pad, &x, 1, &attrs, sizeof attrs);
}
#endif
