/* Rows of a table by index, and the table's gradient: deterministic, and never a second table in memory. */
#include "op/embedding.h"
#include "op/rowwise.h"

struct embedding_backward_attrs {
    int32_t from_zero; /* accumulate is zeros made for this call */
};

#ifdef HK_ISA_NAME

struct embedding_rows {
    const float *from; /* forward: table; backward: dy */
    const int32_t *index;
    float *to; /* forward: y; backward: the table's gradient */
    const float *accumulate;
    int64_t positions, table_rows, width;
};

static void embedding_body(void *context, int64_t begin, int64_t end) {
    const struct embedding_rows *c = context;
    for (int64_t n = begin; n < end; n++) {
        const int32_t at = c->index[n];
        float *y = c->to + n * c->width;
        if (at >= 0 && at < c->table_rows)
            memcpy(y, c->from + at * c->width, (size_t)c->width * sizeof(float));
        else
            for (int64_t i = 0; i < c->width; i++) y[i] = NAN;
    }
}

CPU_KERNEL(embedding) {
    const struct hk_operand *table = &step->inputs[0];
    struct embedding_rows c = {.from = cpu_data(table), .index = cpu_data(&step->inputs[1]), .to = cpu_data(&step->outputs[0]),
                               .table_rows = table->shape[0], .width = table->shape[1]};
    cpu_for(cpu, cpu_elements(&step->inputs[1]), row_grain(c.width), embedding_body, &c);
}

static void copy_body(void *context, int64_t begin, int64_t end) {
    const struct embedding_rows *c = context;
    memcpy(c->to + begin, c->accumulate + begin, (size_t)(end - begin) * sizeof(float));
}

/* Columns begin .. end of all positions in order: threads never meet in an element. */
static void embedding_backward_body(void *context, int64_t begin, int64_t end) {
    const struct embedding_rows *c = context;
    for (int64_t n = 0; n < c->positions; n++) {
        const int32_t at = c->index[n];
        if (at < 0 || at >= c->table_rows) continue;
        const float *dy = c->from + n * c->width;
        float *to = c->to + at * c->width;
        int64_t i = begin;
        for (; i + VW <= end; i += VW) v_store(to + i, v_load(to + i) + v_load(dy + i));
        for (; i < end; i++) to[i] += dy[i];
    }
}

CPU_KERNEL(embedding_backward) {
    const struct hk_operand *out = &step->outputs[0];
    struct embedding_rows c = {.from = cpu_data(&step->inputs[1]), .index = cpu_data(&step->inputs[2]), .to = cpu_data(out),
                               .accumulate = cpu_data(&step->inputs[0]), .positions = cpu_elements(&step->inputs[2]),
                               .table_rows = out->shape[0], .width = out->shape[1]};
    if (c.to != c.accumulate) cpu_for(cpu, c.table_rows * c.width, 1 << 18, copy_body, &c);
    cpu_for(cpu, c.width, 64, embedding_backward_body, &c);
}

#else

CPU_DECLARE(embedding);
CPU_DECLARE(embedding_backward);

/* table [V, C], index [...] -> [..., C] */
static bool embedding_infer(struct hk_call *call) {
    const struct hk_value *table = call->inputs[0], *index = call->inputs[1];
    if (!need_dtype(call, "embedding", "table", 0, HK_F32) || !need_dtype(call, "embedding", "index", 1, HK_I32)) return false;
    if (table->rank != 2) return refuse(call, "embedding: table must be [V, C], it is %s", hk_shape_text(table));
    if (table->shape[0] == 0) return refuse(call, "embedding: the table has no rows: it is %s", hk_shape_text(table));
    if (index->rank == HK_MAX_RANK)
        return refuse(call, "embedding: index %s has too many dimensions: at most %d", hk_shape_text(index), HK_MAX_RANK - 1);
    int64_t shape[HK_MAX_RANK];
    for (int i = 0; i < index->rank; i++) shape[i] = index->shape[i];
    shape[index->rank] = table->shape[1];
    hk_infer_output(call, 0, HK_F32, index->rank + 1, shape);
    return true;
}

/* accumulate [V, C], dy [..., C], index [...] -> [V, C] */
static bool embedding_backward_infer(struct hk_call *call) {
    hk_infer_output(call, 0, HK_F32, 2, call->inputs[0]->shape);
    return true;
}

static void embedding_gradient(struct hk_backward *b) {
    if (b->needed[0])
        b->results[0] = hk_embedding_backward(NULL, b->grads[0], b->call->inputs[1], b->call->inputs[0]->shape[0]);
}

static bool is_from_zero(const struct hk_value *grad) {
    return grad && grad->call && grad->call->op == &hk_op_embedding_backward &&
           ((const struct embedding_backward_attrs *)grad->call->attrs)->from_zero;
}

/* First what others made, then each embedding's gradient on top of it. */
static struct hk_value *merge_gradients(struct hk_value *const *grads, int count, int which) {
    struct hk_value *sum = NULL;
    for (int i = 0; i < count; i++)
        if (!is_from_zero(grads[i])) sum = sum ? hk_add(sum, grads[i]) : grads[i];
    for (int i = 0; i < count; i++)
        if (is_from_zero(grads[i]))
            sum = hk_embedding_backward(sum, grads[i]->call->inputs[1], grads[i]->call->inputs[2], grads[which]->shape[0]);
    return sum;
}

static struct hk_cost embedding_backward_cost(const struct hk_step *step) {
    const double added = (double)row_count(&step->inputs[1]) * (double)row_width(&step->inputs[1]);
    return (struct hk_cost){.flops = added, .bytes = 16.0 * added};
}

/* The table may be larger than a binding: windows of its rows, and of positions for y. */
static hk_status embedding_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_table, base_index, base_y;
        uint32_t count, width;
        int32_t first_row, rows, table_rows;
    } push = {0};
    const struct hk_operand *table = &step->inputs[0], *y = &step->outputs[0];
    const int64_t positions = row_count(y), width = row_width(y), rows = HK_MIN(table->shape[0], INT32_MAX);
    if (positions == 0 || width == 0) return HK_OK;
    const int64_t window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    push.width = (uint32_t)width, push.table_rows = (int32_t)rows;
    for (int64_t first = 0; first < positions; first += window) {
        for (int64_t row = 0; row < rows; row += window) {
            const int64_t count = HK_MIN(window, positions - first), here = HK_MIN(window, rows - row);
            struct hk_dispatch d = {.shader = "embedding", .spec = {HK_MIN(row_workgroup(recorder, width), 64)}, .n_spec = 1};
            push.count = (uint32_t)count, push.first_row = (int32_t)row, push.rows = (int32_t)here;
            HK_PUSH(&d, push);
            bind_rows(&d, table, width * 4, row, here, HK_READ, 0);
            bind_rows(&d, &step->inputs[1], 4, first, count, HK_READ, 1);
            bind_rows(&d, y, width * 4, first, count, HK_WRITE, 2);
            hk_groups(recorder, &d, (uint64_t)count);
            d.bytes = 8.0 * (double)count * (double)width; /* what is read, not all that is bound */
            const hk_status status = recorder->record(recorder, &d);
            if (status) return status;
        }
    }
    return HK_OK;
}

static hk_status record_copy(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_x, base_y;
        uint32_t count;
    } push = {0};
    const struct hk_operand *from = &step->inputs[0], *to = &step->outputs[0];
    const int64_t count = to->shape[0] * to->shape[1], window = row_window(recorder, 4);
    if (from->buffer == to->buffer && from->offset == to->offset) return HK_OK;
    for (int64_t first = 0; first < count; first += window) {
        const int64_t here = HK_MIN(window, count - first);
        struct hk_dispatch d = {.shader = "embedding_copy", .spec = {256}, .n_spec = 1};
        push.count = (uint32_t)here;
        HK_PUSH(&d, push);
        bind_rows(&d, from, 4, first, here, HK_READ, 0);
        bind_rows(&d, to, 4, first, here, HK_WRITE, 1);
        hk_groups(recorder, &d, (uint64_t)(here + 255) / 256);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status embedding_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_dy, base_index, base_y;
        uint32_t count, width;
        int32_t first_row, rows;
    } push = {0};
    const struct hk_operand *dy = &step->inputs[1], *to = &step->outputs[0];
    const int64_t positions = row_count(dy), width = to->shape[1], rows = HK_MIN(to->shape[0], INT32_MAX);
    if (rows == 0 || width == 0) return HK_OK;
    const int64_t window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    const bool fours = width % 4 == 0 && hk_binds_fours(recorder->limits, dy) && hk_binds_fours(recorder->limits, to);
    const bool by_columns = recorder->limits->software && positions > 512;
    hk_status status = record_copy(step, recorder);
    push.width = (uint32_t)width;
    for (int64_t first = 0; !status && first < positions; first += window) {
        for (int64_t row = 0; !status && row < rows; row += window) {
            const int64_t count = HK_MIN(window, positions - first), here = HK_MIN(window, rows - row);
            struct hk_dispatch d = {.shader = "embedding_backward", .spec = {256, fours}, .n_spec = 2};
            if (by_columns) d = (struct hk_dispatch){.shader = "embedding_backward_columns", .spec = {8}, .n_spec = 1};
            push.count = (uint32_t)count, push.first_row = (int32_t)row, push.rows = (int32_t)here;
            HK_PUSH(&d, push);
            bind_rows(&d, dy, width * 4, first, count, HK_READ, 0);
            bind_rows(&d, &step->inputs[2], 4, first, count, HK_READ, 1);
            bind_rows(&d, to, width * 4, row, here, HK_READ | HK_WRITE, 2);
            hk_groups(recorder, &d, by_columns ? (uint64_t)(width + 7) / 8 : (uint64_t)count);
            d.bytes = 12.0 * (double)count * (double)width;
            status = recorder->record(recorder, &d);
        }
    }
    return status;
}

const struct hk_op hk_op_embedding = {
    .name = "embedding", .min_inputs = 2, .max_inputs = 2, .n_outputs = 1,
    .infer = embedding_infer, .backward = embedding_gradient,
    .cpu = CPU_KERNELS(embedding), .gpu = embedding_gpu};

const struct hk_op hk_op_embedding_backward = {
    .name = "embedding_backward", .min_inputs = 3, .max_inputs = 3, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = embedding_backward_infer, .merge = merge_gradients, .cost = embedding_backward_cost,
    .cpu = CPU_KERNELS(embedding_backward), .gpu = embedding_backward_gpu};

struct hk_value *hk_embedding(struct hk_value *table, struct hk_value *index) {
    struct hk_value *in[2] = {hk_contiguous(table), hk_contiguous(index)};
    return hk_call_op(NULL, &hk_op_embedding, in, 2, NULL, 0);
}

struct hk_value *hk_embedding_backward(struct hk_value *accumulate, struct hk_value *dy, struct hk_value *index, int64_t rows) {
    const struct embedding_backward_attrs attrs = {accumulate == NULL};
    if (!dy) return NULL;
    if (!accumulate) accumulate = hk_fill(dy->graph, HK_F32, HK_SHAPE(rows, dy->shape[dy->rank - 1]), 0);
    struct hk_value *in[3] = {hk_contiguous(accumulate), hk_contiguous(dy), hk_contiguous(index)};
    return hk_call_op(NULL, &hk_op_embedding_backward, in, 3, &attrs, sizeof attrs);
}

#endif
