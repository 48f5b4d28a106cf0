/* Softmax and its logarithm over one axis: the axis is moved last, the kernels work on rows. */
#include "op/rowwise.h"

#ifdef HK_ISA_NAME

struct softmax_rows {
    const float *x; /* backward: dy */
    const float *result; /* backward: y */
    float *y; /* backward: dx */
    int64_t width;
    bool log;
};

static void softmax_row(const float *x, float *y, int64_t n, bool log) {
    vf most = v_set(-INFINITY);
    double total = 0;
    for (int64_t i = 0; i < n; i += VW) most = v_max(row_load(x + i, n - i, -INFINITY), most);
    const vf max = v_set(v_max_of(most));
    for (int64_t block = 0; block < n; block += ROW_BLOCK) {
        vf sum = v_set(0);
        for (int64_t i = block; i < HK_MIN(block + ROW_BLOCK, n); i += VW) {
            const vf e = v_exp(row_load(x + i, n - i, -INFINITY) - max);
            if (!log) row_store(y + i, e, n - i);
            sum += e;
        }
        total += (double)v_sum(sum);
    }
    const vf scale = v_set(log ? logf((float)total) : 1.0f / (float)total);
    for (int64_t i = 0; i < n; i += VW)
        row_store(y + i, log ? row_load(x + i, n - i, 0) - max - scale : row_load(y + i, n - i, 0) * scale, n - i);
}

static void softmax_body(void *context, int64_t begin, int64_t end) {
    const struct softmax_rows *c = context;
    for (int64_t row = begin; row < end; row++) softmax_row(c->x + row * c->width, c->y + row * c->width, c->width, c->log);
}

static void softmax_rows(const struct hk_step *step, const struct cpu *cpu, bool log) {
    const struct hk_operand *x = &step->inputs[0];
    struct softmax_rows c = {.x = cpu_data(x), .y = cpu_data(&step->outputs[0]), .width = row_width(x), .log = log};
    if (c.width) cpu_for(cpu, row_count(x), row_grain(c.width), softmax_body, &c);
}

CPU_KERNEL(softmax) { softmax_rows(step, cpu, false); }
CPU_KERNEL(log_softmax) { softmax_rows(step, cpu, true); }

/* softmax: dx = y * (dy - sum(dy * y)); log: dx = dy - exp(y) * sum(dy) */
static void softmax_backward_body(void *context, int64_t begin, int64_t end) {
    const struct softmax_rows *c = context;
    const int64_t n = c->width;
    for (int64_t row = begin; row < end; row++) {
        const float *dy = c->x + row * n, *y = c->result + row * n;
        float *dx = c->y + row * n;
        double sum = 0;
        for (int64_t block = 0; block < n; block += ROW_BLOCK) {
            vf part = v_set(0);
            for (int64_t i = block; i < HK_MIN(block + ROW_BLOCK, n); i += VW) {
                const vf d = row_load(dy + i, n - i, 0);
                part += c->log ? d : d * row_load(y + i, n - i, 0);
            }
            sum += (double)v_sum(part);
        }
        const vf total = v_set((float)sum);
        for (int64_t i = 0; i < n; i += VW) {
            const vf d = row_load(dy + i, n - i, 0), v = row_load(y + i, n - i, 0);
            row_store(dx + i, c->log ? d - v_exp(v) * total : v * (d - total), n - i);
        }
    }
}

static void softmax_backward_rows(const struct hk_step *step, const struct cpu *cpu, bool log) {
    const struct hk_operand *dy = &step->inputs[0];
    struct softmax_rows c = {.x = cpu_data(dy), .result = cpu_data(&step->inputs[1]), .y = cpu_data(&step->outputs[0]),
                             .width = row_width(dy), .log = log};
    if (c.width) cpu_for(cpu, row_count(dy), row_grain(c.width), softmax_backward_body, &c);
}

CPU_KERNEL(softmax_backward) { softmax_backward_rows(step, cpu, false); }
CPU_KERNEL(log_softmax_backward) { softmax_backward_rows(step, cpu, true); }

#else

CPU_DECLARE(softmax);
CPU_DECLARE(log_softmax);
CPU_DECLARE(softmax_backward);
CPU_DECLARE(log_softmax_backward);

static bool softmax_infer(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0];
    if (!need_dtype(call, call->op->name, "x", 0, HK_F32)) return false;
    hk_infer_output(call, 0, HK_F32, x->rank, x->shape);
    return true;
}

static void softmax_gradient(struct hk_backward *b, const struct hk_op *op) {
    struct hk_value *in[2] = {hk_contiguous(b->grads[0]), b->call->outputs[0]};
    b->results[0] = hk_call_op(b->call->graph, op, in, 2, NULL, 0);
}
static void softmax_backward(struct hk_backward *b) { softmax_gradient(b, &hk_op_softmax_backward); }
static void log_softmax_backward(struct hk_backward *b) { softmax_gradient(b, &hk_op_log_softmax_backward); }

static struct hk_cost softmax_cost(const struct hk_step *step) {
    return (struct hk_cost){.flops = 5.0 * (double)row_count(&step->outputs[0]) * (double)row_width(&step->outputs[0])};
}

/* All operands are rows of one width: the push constants are their bases, then rows and width. */
static hk_status record_rows(const struct hk_step *step, struct hk_recorder *recorder, const char *shader, bool log) {
    const struct hk_operand *y = &step->outputs[0];
    const int64_t rows = row_count(y), width = row_width(y);
    if (rows == 0 || width == 0) return HK_OK;
    const int64_t window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    for (int64_t first = 0; first < rows; first += window) {
        const int64_t count = HK_MIN(window, rows - first);
        struct hk_dispatch d = {.shader = shader, .spec = {row_workgroup(recorder, width), log}, .n_spec = 2};
        uint32_t push[5] = {0};
        const int n = step->n_inputs + 1;
        push[n] = (uint32_t)count, push[n + 1] = (uint32_t)width;
        HK_PUSH(&d, push);
        d.push_bytes = (uint32_t)(n + 2) * 4;
        for (int i = 0; i < step->n_inputs; i++) bind_rows(&d, &step->inputs[i], width * 4, first, count, HK_READ, i);
        bind_rows(&d, y, width * 4, first, count, HK_WRITE, step->n_inputs);
        hk_groups(recorder, &d, (uint64_t)count);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status softmax_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return record_rows(step, recorder, "softmax", false);
}
static hk_status log_softmax_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return record_rows(step, recorder, "softmax", true);
}
static hk_status softmax_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return record_rows(step, recorder, "softmax_backward", false);
}
static hk_status log_softmax_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return record_rows(step, recorder, "softmax_backward", true);
}

const struct hk_op hk_op_softmax = {
    .name = "softmax", .min_inputs = 1, .max_inputs = 1, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = softmax_infer, .backward = softmax_backward, .cost = softmax_cost,
    .cpu = CPU_KERNELS(softmax), .gpu = softmax_gpu};

const struct hk_op hk_op_log_softmax = {
    .name = "log_softmax", .min_inputs = 1, .max_inputs = 1, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = softmax_infer, .backward = log_softmax_backward, .cost = softmax_cost,
    .cpu = CPU_KERNELS(log_softmax), .gpu = log_softmax_gpu};

const struct hk_op hk_op_softmax_backward = {
    .name = "softmax_backward", .min_inputs = 2, .max_inputs = 2, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = softmax_infer, .cost = softmax_cost, .cpu = CPU_KERNELS(softmax_backward), .gpu = softmax_backward_gpu};

const struct hk_op hk_op_log_softmax_backward = {
    .name = "log_softmax_backward", .min_inputs = 2, .max_inputs = 2, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = softmax_infer, .cost = softmax_cost, .cpu = CPU_KERNELS(log_softmax_backward), .gpu = log_softmax_backward_gpu};

/* Along the last dimension; another axis and the last change places before and after. */
static struct hk_value *along_axis(struct hk_value *x, int axis, const struct hk_op *op) {
    if (!x) return hk_call_op(NULL, op, &x, 1, NULL, 0);
    axis = hk_axis(x, axis, op->name);
    if (axis < 0) return NULL;
    if (axis == x->rank - 1) {
        struct hk_value *dense = hk_contiguous(x);
        return hk_call_op(x->graph, op, &dense, 1, NULL, 0);
    }
    struct hk_axes order = {.count = x->rank};
    for (int i = 0; i < x->rank; i++) order.axis[i] = i;
    order.axis[axis] = x->rank - 1, order.axis[x->rank - 1] = axis;
    struct hk_value *moved = hk_contiguous(hk_permute(x, order));
    return hk_permute(hk_call_op(x->graph, op, &moved, 1, NULL, 0), order);
}

struct hk_value *hk_softmax(struct hk_value *x, int axis) { return along_axis(x, axis, &hk_op_softmax); }
struct hk_value *hk_log_softmax(struct hk_value *x, int axis) { return along_axis(x, axis, &hk_op_log_softmax); }

#endif
