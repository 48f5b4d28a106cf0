/* Writing keys and values into a cache, at a position that is read on the device. */
#include "op/rowwise.h"

#ifdef HK_ISA_NAME

struct cache_rows {
    const struct hk_operand *cache, *rows;
    int64_t position;
};

/* Rows begin .. end of all B * H * T. */
static void cache_body(void *context, int64_t begin, int64_t end) {
    const struct cache_rows *c = context;
    const struct hk_operand *cache = c->cache, *rows = c->rows;
    const int64_t heads = rows->shape[1], length = rows->shape[2];
    for (int64_t i = begin; i < end; i++) {
        const int64_t t = i % length, h = i / length % heads, b = i / length / heads, at = c->position + t;
        if (at < 0 || at >= cache->shape[2]) continue;
        float *to = (float *)cpu_data(cache) + b * cache->stride[0] + h * cache->stride[1] + at * cache->stride[2];
        const float *from = (const float *)cpu_data(rows) + b * rows->stride[0] + h * rows->stride[1] + t * rows->stride[2];
        memcpy(to, from, (size_t)rows->shape[3] * sizeof(float));
    }
}

CPU_KERNEL(cache_write) {
    struct cache_rows c = {&step->inputs[0], &step->inputs[1], *(const int32_t *)cpu_data(&step->inputs[2])};
    const int64_t *shape = c.rows->shape;
    cpu_for(cpu, shape[0] * shape[1] * shape[2], row_grain(shape[3]), cache_body, &c);
}

#else

CPU_DECLARE(cache_write);

/* cache [B, H, S, D], rows [B, H, T, D], position [1] */
static bool cache_write_infer(struct hk_call *call) {
    const struct hk_value *cache = call->inputs[0], *rows = call->inputs[1];
    if (!need_dtype(call, "cache_write", "cache", 0, HK_F32) || !need_dtype(call, "cache_write", "rows", 1, HK_F32) ||
        !need_dtype(call, "cache_write", "position", 2, HK_I32))
        return false;
    if (cache->rank != 4 || rows->rank != 4 || cache->shape[0] != rows->shape[0] || cache->shape[1] != rows->shape[1] ||
        cache->shape[3] != rows->shape[3])
        return refuse(call, "cache_write: cache must be [B, H, S, D] and rows [B, H, T, D], they are %s and %s",
                      hk_shape_text(cache), hk_shape_text(rows));
    if (hk_elements(call->inputs[2]) != 1)
        return refuse(call, "cache_write: position must be [1], it is %s", hk_shape_text(call->inputs[2]));
    return true;
}

static hk_status record_write(const struct hk_step *step, struct hk_recorder *recorder, const struct hk_operand *cache,
                              const struct hk_operand *rows, int64_t first) {
    const int64_t count = row_count(rows) * row_width(rows);
    struct {
        uint32_t base_cache, base_rows, base_position;
        uint32_t count, heads, length, width;
        int32_t room;
        uint32_t cache_stride_b, cache_stride_h;
        uint32_t rows_stride_b, rows_stride_h, rows_stride_t;
        int32_t first;
    } push = {.count = (uint32_t)count, .heads = (uint32_t)rows->shape[1], .length = (uint32_t)rows->shape[2],
              .width = (uint32_t)rows->shape[3], .room = (int32_t)cache->shape[2],
              .cache_stride_b = (uint32_t)cache->stride[0], .cache_stride_h = (uint32_t)cache->stride[1],
              .rows_stride_b = (uint32_t)rows->stride[0], .rows_stride_h = (uint32_t)rows->stride[1],
              .rows_stride_t = (uint32_t)rows->stride[2], .first = (int32_t)first};
    struct hk_dispatch d = {.shader = "cache_write", .spec = {64}, .n_spec = 1};
    HK_PUSH(&d, push);
    hk_bind(&d, cache, HK_WRITE, 0);
    hk_bind(&d, rows, HK_READ, 1);
    hk_bind(&d, &step->inputs[2], HK_READ, 2);
    hk_groups(recorder, &d, (uint64_t)(count + 63) / 64);
    d.bytes = 8.0 * (double)count; /* not the whole cache */
    return recorder->record(recorder, &d);
}

/* Halves batches, then heads, then rows, until both operands fit the device's bindings. */
static hk_status split_write(const struct hk_step *step, struct hk_recorder *recorder, const struct hk_operand *cache,
                             const struct hk_operand *rows, int64_t first) {
    const uint64_t range = recorder->limits->max_range - recorder->limits->offset_align;
    if (hk_operand_span(cache) <= range && hk_operand_span(rows) <= range)
        return record_write(step, recorder, cache, rows, first);
    const int axis = rows->shape[0] > 1 ? 0 : rows->shape[1] > 1 ? 1 : 2;
    const int64_t half = rows->shape[axis] / 2;
    if (half == 0 || (axis == 2 && hk_operand_span(cache) > range))
        return hk_fail(HK_ERROR_UNSUPPORTED, "cache_write: one head of the cache exceeds what this device can bind");
    for (int side = 0; side < 2; side++) {
        struct hk_operand part[2] = {*cache, *rows};
        for (int k = axis == 2; k < 2; k++) {
            part[k].shape[axis] = side ? rows->shape[axis] - half : half;
            if (side) part[k].offset += (uint64_t)(half * part[k].stride[axis]) * sizeof(float);
        }
        const hk_status status = split_write(step, recorder, &part[0], &part[1], first + (axis == 2 && side ? half : 0));
        if (status) return status;
    }
    return HK_OK;
}

static hk_status cache_write_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    if (hk_operand_span(&step->inputs[0]) == 0 || hk_operand_span(&step->inputs[1]) == 0) return HK_OK;
    return split_write(step, recorder, &step->inputs[0], &step->inputs[1], 0);
}

static struct hk_cost cache_write_cost(const struct hk_step *step) {
    return (struct hk_cost){.bytes = 8.0 * (double)row_count(&step->inputs[1]) * (double)row_width(&step->inputs[1])};
}

const struct hk_op hk_op_cache_write = {
    .name = "cache_write", .min_inputs = 3, .max_inputs = 3, .writes = 1,
    .infer = cache_write_infer, .cost = cache_write_cost, .cpu = CPU_KERNELS(cache_write), .gpu = cache_write_gpu};

struct hk_value *hk_cache_write(struct hk_tensor *cache, struct hk_value *rows, struct hk_value *position) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){rows, position}, 2);
    if (!graph) return NULL;
    struct hk_value *in[3] = {hk_leaf(graph, cache), rows, position};
    /* rows of the cache itself are copied first: one could be overwritten before it is read */
    if (in[0] && rows->root->storage == in[0]->storage) in[1] = hk_call_op(graph, &hk_op_copy, &rows, 1, NULL, 0);
    else if (rows->rank > 0 && rows->stride[rows->rank - 1] != 1) in[1] = hk_contiguous(rows);
    hk_call_op(graph, &hk_op_cache_write, in, 3, NULL, 0);
    return graph->status ? NULL : in[0];
}

#endif
