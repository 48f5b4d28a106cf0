/* Normalization of rows: layer norm (Ba et al., 2016) and RMS norm (Zhang and Sennrich, 2019), over the last dimension. Both
   are y = (x - mean) * rstd * weight + bias; RMS norm has mean = 0 and no bias. */
#include "op/rowwise.h"

struct norm_attrs {
    float epsilon;
};

/* The gradients of weight and bias are sums over rows: in fixed parts of this many, whatever the device. At most 64 parts
   where rows are not huge, so that scratch stays small. */
static inline int64_t rows_per_part(int64_t rows, int64_t width) {
    const int64_t most = HK_MAX(((int64_t)1 << 24) / HK_MAX(width, 1), 1); /* a part fits every device's binding */
    return HK_MIN(HK_MAX((rows + 63) / 64, 16), most);
}
static inline int64_t part_count(int64_t rows, int64_t width) {
    const int64_t each = rows_per_part(rows, width);
    return (rows + each - 1) / each;
}

#ifdef HK_ISA_NAME

/* ---- CPU: forward ---- */

struct norm_rows {
    const float *x, *weight, *bias;
    float *y, *mean, *rstd;
    int64_t width;
    float epsilon;
};

static float block_sum(const float *x, int64_t n) {
    vf sum[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        for (int k = 0; k < 4; k++) sum[k] += v_load(x + i + k * VW);
    for (; i < n; i += VW) sum[0] += row_load(x + i, n - i, 0);
    return v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

static double sum_of(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += ROW_BLOCK) sum += (double)block_sum(x + i, HK_MIN(ROW_BLOCK, n - i));
    return sum;
}

static float block_squares(const float *x, float mean, int64_t n) {
    const vf m = v_set(mean);
    vf sum[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        for (int k = 0; k < 4; k++) {
            const vf d = v_load(x + i + k * VW) - m;
            sum[k] += d * d;
        }
    for (; i < n; i += VW) {
        const vf d = row_load(x + i, n - i, mean) - m;
        sum[0] += d * d;
    }
    return v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

static double squares_around(const float *x, float mean, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += ROW_BLOCK) sum += (double)block_squares(x + i, mean, HK_MIN(ROW_BLOCK, n - i));
    return sum;
}

static void norm_body(void *context, int64_t begin, int64_t end) {
    const struct norm_rows *c = context;
    const int64_t n = c->width;
    for (int64_t row = begin; row < end; row++) {
        const float *x = c->x + row * n;
        float *y = c->y + row * n;
        const float mean = c->mean ? (float)sum_of(x, n) / (float)n : 0.0f;
        const float rstd = 1.0f / sqrtf((float)squares_around(x, mean, n) / (float)n + c->epsilon);
        const vf m = v_set(mean), r = v_set(rstd);
        for (int64_t i = 0; i < n; i += VW) {
            vf v = (row_load(x + i, n - i, 0) - m) * r * row_load(c->weight + i, n - i, 0);
            if (c->bias) v += row_load(c->bias + i, n - i, 0);
            row_store(y + i, v, n - i);
        }
        if (c->mean) c->mean[row] = mean;
        c->rstd[row] = rstd;
    }
}

CPU_KERNEL(layer_norm) {
    struct norm_rows c = {cpu_data(&step->inputs[0]), cpu_data(&step->inputs[1]),
                          step->n_inputs > 2 ? cpu_data(&step->inputs[2]) : NULL, cpu_data(&step->outputs[0]),
                          cpu_data(&step->outputs[1]), cpu_data(&step->outputs[2]), row_width(&step->inputs[0]),
                          ((const struct norm_attrs *)step->attrs)->epsilon};
    if (c.width) cpu_for(cpu, row_count(&step->inputs[0]), row_grain(c.width), norm_body, &c);
}

CPU_KERNEL(rms_norm) {
    struct norm_rows c = {cpu_data(&step->inputs[0]), cpu_data(&step->inputs[1]), NULL, cpu_data(&step->outputs[0]), NULL,
                          cpu_data(&step->outputs[1]), row_width(&step->inputs[0]),
                          ((const struct norm_attrs *)step->attrs)->epsilon};
    if (c.width) cpu_for(cpu, row_count(&step->inputs[0]), row_grain(c.width), norm_body, &c);
}

/* ---- CPU: backward, all gradients in one pass over the rows ---- */

struct norm_backward_rows {
    const float *dy, *x, *weight, *mean, *rstd; /* mean NULL: RMS norm */
    float *dx, *parts;                          /* parts [count][dweight, dbias][width] */
    float *dweight, *dbias;
    int64_t rows, width, per_part, count;
};

static void norm_backward_row(const struct norm_backward_rows *c, int64_t row, float *dweight, float *dbias) {
    const int64_t n = c->width;
    const float *dy = c->dy + row * n, *x = c->x + row * n;
    float *dx = c->dx + row * n;
    const vf mean = v_set(c->mean ? c->mean[row] : 0.0f), rstd = v_set(c->rstd[row]);
    double total_g = 0, total_gn = 0;
    vf sum_g = v_set(0), sum_gn = v_set(0);
    for (int64_t i = 0; i < n; i += VW) {
        const int64_t left = n - i;
        if (i % ROW_BLOCK == 0) {
            total_g += (double)v_sum(sum_g), total_gn += (double)v_sum(sum_gn);
            sum_g = sum_gn = v_set(0);
        }
        const vf d = row_load(dy + i, left, 0), normal = (row_load(x + i, left, 0) - mean) * rstd;
        const vf g = d * row_load(c->weight + i, left, 0);
        sum_g += g;
        sum_gn += g * normal;
        row_store(dweight + i, row_load(dweight + i, left, 0) + d * normal, left);
        if (dbias) row_store(dbias + i, row_load(dbias + i, left, 0) + d, left);
    }
    total_g += (double)v_sum(sum_g), total_gn += (double)v_sum(sum_gn);
    const vf average_g = v_set(c->mean ? (float)total_g / (float)n : 0.0f), average_gn = v_set((float)total_gn / (float)n);
    for (int64_t i = 0; i < n; i += VW) {
        const int64_t left = n - i;
        const vf normal = (row_load(x + i, left, 0) - mean) * rstd;
        const vf g = row_load(dy + i, left, 0) * row_load(c->weight + i, left, 0);
        row_store(dx + i, rstd * (g - average_g - normal * average_gn), left);
    }
}

static void norm_backward_body(void *context, int64_t begin, int64_t end) {
    const struct norm_backward_rows *c = context;
    const int64_t sums = c->mean ? 2 : 1;
    for (int64_t part = begin; part < end; part++) {
        float *dweight = c->parts + part * sums * c->width, *dbias = c->mean ? dweight + c->width : NULL;
        memset(dweight, 0, (size_t)(sums * c->width) * sizeof(float));
        const int64_t last = HK_MIN((part + 1) * c->per_part, c->rows);
        for (int64_t row = part * c->per_part; row < last; row++) norm_backward_row(c, row, dweight, dbias);
    }
}

static void sum_parts_body(void *context, int64_t begin, int64_t end) {
    const struct norm_backward_rows *c = context;
    const int64_t sums = c->mean ? 2 : 1;
    for (int64_t s = 0; s < sums; s++) {
        float *out = s ? c->dbias : c->dweight;
        memset(out + begin, 0, (size_t)(end - begin) * sizeof(float));
        for (int64_t part = 0; part < c->count; part++) {
            const float *in = c->parts + (part * sums + s) * c->width;
            for (int64_t i = begin; i < end; i++) out[i] += in[i];
        }
    }
}

static void norm_backward(struct norm_backward_rows *c, const struct hk_operand *x, const struct cpu *cpu) {
    c->rows = row_count(x), c->width = row_width(x);
    c->per_part = rows_per_part(c->rows, c->width), c->count = part_count(c->rows, c->width);
    if (c->width == 0) return;
    cpu_for(cpu, c->count, 1, norm_backward_body, c);
    cpu_for(cpu, c->width, 1024, sum_parts_body, c);
}

CPU_KERNEL(layer_norm_backward) {
    const struct hk_operand *in = step->inputs, *out = step->outputs;
    struct norm_backward_rows c = {.dy = cpu_data(&in[0]), .x = cpu_data(&in[1]), .weight = cpu_data(&in[2]),
                                   .mean = cpu_data(&in[3]), .rstd = cpu_data(&in[4]), .dx = cpu_data(&out[0]),
                                   .dweight = cpu_data(&out[1]), .dbias = cpu_data(&out[2]), .parts = cpu_data(&step->scratch)};
    norm_backward(&c, &in[1], cpu);
}

CPU_KERNEL(rms_norm_backward) {
    const struct hk_operand *in = step->inputs, *out = step->outputs;
    struct norm_backward_rows c = {.dy = cpu_data(&in[0]), .x = cpu_data(&in[1]), .weight = cpu_data(&in[2]),
                                   .rstd = cpu_data(&in[3]), .dx = cpu_data(&out[0]), .dweight = cpu_data(&out[1]),
                                   .parts = cpu_data(&step->scratch)};
    norm_backward(&c, &in[1], cpu);
}

#else

CPU_DECLARE(layer_norm);
CPU_DECLARE(rms_norm);
CPU_DECLARE(layer_norm_backward);
CPU_DECLARE(rms_norm_backward);

/* ---- Shapes ---- */

static bool check_norm(struct hk_call *call) {
    const char *op = call->op->name;
    const struct hk_value *x = call->inputs[0];
    if (!need_dtype(call, op, "x", 0, HK_F32) || !need_dtype(call, op, "weight", 1, HK_F32)) return false;
    if (x->rank < 1) return refuse(call, "%s: x must have a dimension to normalize, it is a scalar", op);
    for (int i = 1; i < call->n_inputs; i++) {
        const struct hk_value *w = call->inputs[i];
        const char *what = i == 1 ? "weight" : "bias";
        if (!need_dtype(call, op, what, i, HK_F32)) return false;
        if (w->rank != 1 || w->shape[0] != x->shape[x->rank - 1])
            return refuse(call, "%s: %s must be as wide as x's last dimension: x is %s, %s is %s", op, what, hk_shape_text(x),
                          what, hk_shape_text(w));
    }
    return true;
}

static int64_t count_rows(const struct hk_value *x) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++) rows *= x->shape[i];
    return rows;
}

/* y, then one number per row for each further output. */
static bool norm_infer(struct hk_call *call) {
    if (!check_norm(call)) return false;
    const struct hk_value *x = call->inputs[0];
    const int64_t rows = count_rows(x);
    hk_infer_output(call, 0, HK_F32, x->rank, x->shape);
    for (int i = 1; i < call->n_outputs; i++) hk_infer_output(call, i, HK_F32, 1, &rows);
    return true;
}

/* dy, x, weight, mean (layer norm), rstd -> dx, dweight, dbias (layer norm) */
static bool norm_backward_infer(struct hk_call *call) {
    const struct hk_value *x = call->inputs[1];
    const int64_t width = x->shape[x->rank - 1];
    hk_infer_output(call, 0, HK_F32, x->rank, x->shape);
    for (int i = 1; i < call->n_outputs; i++) hk_infer_output(call, i, HK_F32, 1, &width);
    return true;
}

/* The parts' sums: [parts, dweight and dbias, width]. */
static uint64_t norm_backward_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    const struct hk_value *x = call->inputs[1];
    const int64_t width = x->shape[x->rank - 1], sums = call->n_outputs - 1;
    (void)limits;
    return (uint64_t)(HK_MAX(part_count(count_rows(x), width), 1) * sums * HK_MAX(width, 1)) * sizeof(float);
}

/* ---- Gradients ---- */

static void norm_gradients(struct hk_backward *b, const struct hk_op *op) {
    struct hk_call *call = b->call;
    struct hk_value *in[5] = {hk_contiguous(b->grads[0]), call->inputs[0], call->inputs[1]};
    int n = 3;
    for (int i = 1; i < call->n_outputs; i++) in[n++] = call->outputs[i];
    struct hk_value *dx = b->grads[0] ? hk_call_op(call->graph, op, in, n, NULL, 0) : NULL;
    for (int i = 0; i < call->n_inputs; i++) b->results[i] = hk_output(dx, i);
}

static void layer_norm_gradients(struct hk_backward *b) { norm_gradients(b, &hk_op_layer_norm_backward); }
static void rms_norm_gradients(struct hk_backward *b) { norm_gradients(b, &hk_op_rms_norm_backward); }

static struct hk_cost norm_cost(const struct hk_step *step) {
    return (struct hk_cost){.flops = 8.0 * (double)row_count(&step->outputs[0]) * (double)row_width(&step->outputs[0])};
}
static struct hk_cost norm_backward_cost(const struct hk_step *step) {
    return (struct hk_cost){.flops = 16.0 * (double)row_count(&step->outputs[0]) * (double)row_width(&step->outputs[0])};
}

/* ---- GPU ---- */

/* The workgroup for a row, and fours of it that each invocation keeps in registers. */
struct row_grid {
    uint32_t workgroup, kept; /* kept 0: too many; rows are read again */
};

/* On a processor, rows stay in its cache. */
static struct row_grid row_grid(const struct hk_recorder *recorder, int64_t width) {
    enum { WANTED = 4 };
    const int64_t most = recorder->limits->registers >= 128 ? 8 : WANTED;
    const int64_t fours = (width + 3) / 4;
    uint32_t size = HK_MIN(HK_MAX(recorder->limits->subgroup_size, 16), 256);
    while (size < 256 && (int64_t)size * WANTED < fours) size *= 2;
    if (recorder->limits->software || (int64_t)size * most < fours) return (struct row_grid){row_workgroup(recorder, width), 0};
    return (struct row_grid){size, (uint32_t)((fours + size - 1) / size)};
}

static bool all_fours(const struct hk_recorder *recorder, int64_t width, const struct hk_operand *const *operands, int count) {
    bool fours = width % 4 == 0;
    for (int i = 0; i < count; i++) fours = fours && hk_binds_fours(recorder->limits, operands[i]);
    return fours;
}

static hk_status norm_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_x, base_w, base_b, base_y, base_mean, base_rstd;
        uint32_t rows, width;
        float epsilon;
    } push = {.epsilon = ((const struct norm_attrs *)step->attrs)->epsilon};
    const struct hk_operand *x = &step->inputs[0], *weight = &step->inputs[1];
    const bool centered = step->n_outputs == 3, bias = step->n_inputs == 3;
    const struct hk_operand *rstd = &step->outputs[step->n_outputs - 1], *mean = centered ? &step->outputs[1] : rstd;
    const int64_t rows = row_count(x), width = row_width(x);
    if (rows == 0 || width == 0) return HK_OK;
    const int64_t window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    const struct hk_operand *const rows_of[4] = {x, weight, bias ? &step->inputs[2] : weight, &step->outputs[0]};
    const bool fours = all_fours(recorder, width, rows_of, 4);
    const struct row_grid grid = row_grid(recorder, width);
    for (int64_t first = 0; first < rows; first += window) {
        const int64_t count = HK_MIN(window, rows - first);
        struct hk_dispatch d = {.shader = "norm", .spec = {grid.workgroup, centered, bias, fours, grid.kept}, .n_spec = 5};
        push.rows = (uint32_t)count, push.width = (uint32_t)width;
        HK_PUSH(&d, push);
        bind_rows(&d, x, width * 4, first, count, HK_READ, 0);
        hk_bind(&d, weight, HK_READ, 1);
        hk_bind(&d, bias ? &step->inputs[2] : weight, HK_READ, 2);
        bind_rows(&d, &step->outputs[0], width * 4, first, count, HK_WRITE, 3);
        bind_rows(&d, mean, 4, first, count, HK_WRITE, 4);
        bind_rows(&d, rstd, 4, first, count, HK_WRITE, 5);
        hk_groups(recorder, &d, (uint64_t)count);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

/* The operands of a backward step by name; without a mean, rstd stands in its binding. */
struct norm_backward_operands {
    const struct hk_operand *dy, *x, *weight, *mean, *rstd, *dx;
    bool centered;
    int64_t rows, width;
};

static struct norm_backward_operands backward_operands(const struct hk_step *step) {
    const struct hk_operand *in = step->inputs;
    return (struct norm_backward_operands){.dy = &in[0], .x = &in[1], .weight = &in[2], .mean = &in[3],
                                           .rstd = &in[step->n_inputs - 1], .dx = &step->outputs[0],
                                           .centered = step->n_inputs == 5, .rows = row_count(&in[1]),
                                           .width = row_width(&in[1])};
}

/* Kernels of sums over rows: invocations side by side, and how many share out what each of them adds, for hardware to have
   enough at work. */
enum { ACROSS = 32 };
static uint32_t lanes_of(const struct hk_recorder *recorder) { return recorder->limits->software ? 1 : 8; }

static hk_status record_weight_parts(const struct hk_step *step, struct hk_recorder *recorder, int64_t per_part) {
    struct {
        uint32_t base_dy, base_x, base_mean, base_rstd, base_parts;
        uint32_t rows, width;
        uint32_t rows_per_part, tiles;
        uint32_t groups;
    } push = {.rows_per_part = (uint32_t)per_part};
    const struct norm_backward_operands o = backward_operands(step);
    const int64_t width = o.width, sums_bytes = width * 4 * (o.centered ? 2 : 1);
    const int64_t window = row_window(recorder, width * 4) / per_part * per_part;
    if (window == 0) return hk_fail(HK_ERROR_UNSUPPORTED, "%s: rows of %lld elements are too long for this device",
                                    step->op->name, (long long)width);
    const bool fours = all_fours(recorder, width, (const struct hk_operand *const[]){o.dy, o.x, &step->scratch}, 3);
    const uint32_t lanes = lanes_of(recorder);
    for (int64_t first = 0; first < o.rows; first += window) {
        const int64_t count = HK_MIN(window, o.rows - first), parts = (count + per_part - 1) / per_part;
        struct hk_dispatch d = {.shader = "norm_weight_backward", .n_spec = 4,
                                .spec = {ACROSS * lanes, o.centered, fours, lanes}};
        push.rows = (uint32_t)count, push.width = (uint32_t)width;
        push.tiles = (uint32_t)((width + ACROSS * 4 - 1) / (ACROSS * 4));
        push.groups = push.tiles * (uint32_t)parts;
        HK_PUSH(&d, push);
        bind_rows(&d, o.dy, width * 4, first, count, HK_READ, 0);
        bind_rows(&d, o.x, width * 4, first, count, HK_READ, 1);
        bind_rows(&d, o.mean, 4, first, count, HK_READ, 2);
        bind_rows(&d, o.rstd, 4, first, count, HK_READ, 3);
        bind_rows(&d, &step->scratch, sums_bytes, first / per_part, parts, HK_WRITE, 4);
        hk_groups(recorder, &d, push.groups);
        d.bytes = 8.0 * (double)count * (double)width; /* each launch of the step says its own: they differ much */
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status record_sum_parts(const struct hk_step *step, struct hk_recorder *recorder, int64_t parts) {
    const int64_t width = row_width(&step->inputs[1]), sums = step->n_outputs - 1;
    struct {
        uint32_t base_parts, base_y, base_z;
        uint32_t width, sums, count;
    } push = {.width = (uint32_t)width, .sums = (uint32_t)sums, .count = (uint32_t)parts};
    const uint32_t lanes = lanes_of(recorder);
    struct hk_dispatch d = {.shader = "sum_parts", .spec = {ACROSS * lanes, lanes}, .n_spec = 2};
    HK_PUSH(&d, push);
    hk_bind_range(&d, &step->scratch, 0, (uint64_t)(HK_MAX(parts, 1) * sums * width * 4), HK_READ, 0);
    hk_bind(&d, &step->outputs[1], HK_WRITE, 1);
    hk_bind(&d, &step->outputs[sums], HK_WRITE, 2);
    hk_groups(recorder, &d, (uint64_t)(sums * width + ACROSS - 1) / ACROSS);
    d.bytes = 4.0 * (double)(parts + 1) * (double)(sums * width);
    return recorder->record(recorder, &d);
}

static hk_status record_norm_backward(const struct hk_step *step, struct hk_recorder *recorder) {
    struct {
        uint32_t base_dy, base_x, base_w, base_mean, base_rstd, base_dx;
        uint32_t rows, width;
    } push = {0};
    const struct norm_backward_operands o = backward_operands(step);
    const int64_t width = o.width, window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    const bool fours = all_fours(recorder, width, (const struct hk_operand *const[]){o.dy, o.x, o.weight, o.dx}, 4);
    const struct row_grid grid = row_grid(recorder, width);
    for (int64_t first = 0; first < o.rows; first += window) {
        const int64_t count = HK_MIN(window, o.rows - first);
        struct hk_dispatch d = {.shader = "norm_backward", .spec = {grid.workgroup, o.centered, fours, grid.kept}, .n_spec = 4};
        push.rows = (uint32_t)count, push.width = (uint32_t)width;
        HK_PUSH(&d, push);
        bind_rows(&d, o.dy, width * 4, first, count, HK_READ, 0);
        bind_rows(&d, o.x, width * 4, first, count, HK_READ, 1);
        hk_bind(&d, o.weight, HK_READ, 2);
        bind_rows(&d, o.mean, 4, first, count, HK_READ, 3);
        bind_rows(&d, o.rstd, 4, first, count, HK_READ, 4);
        bind_rows(&d, o.dx, width * 4, first, count, HK_WRITE, 5);
        hk_groups(recorder, &d, (uint64_t)count);
        d.bytes = 12.0 * (double)count * (double)width;
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

/* dx last: it may lie over dy, which the sums read. */
static hk_status norm_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const int64_t rows = row_count(&step->inputs[1]), width = row_width(&step->inputs[1]);
    if (width == 0) return HK_OK;
    hk_status status = record_weight_parts(step, recorder, rows_per_part(rows, width));
    if (!status) status = record_sum_parts(step, recorder, part_count(rows, width));
    return status ? status : record_norm_backward(step, recorder);
}

/* ---- Rows ---- */

const struct hk_op hk_op_layer_norm = {
    .name = "layer_norm", .min_inputs = 2, .max_inputs = 3, .n_outputs = 3, .flags = HK_OP_FIRST_IN_PLACE | HK_OP_CHEAP,
    .infer = norm_infer, .backward = layer_norm_gradients, .cost = norm_cost,
    .cpu = CPU_KERNELS(layer_norm), .gpu = norm_gpu};

const struct hk_op hk_op_layer_norm_backward = {
    .name = "layer_norm_backward", .min_inputs = 5, .max_inputs = 5, .n_outputs = 3, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = norm_backward_infer, .scratch = norm_backward_scratch, .cost = norm_backward_cost,
    .cpu = CPU_KERNELS(layer_norm_backward), .gpu = norm_backward_gpu};

const struct hk_op hk_op_rms_norm = {
    .name = "rms_norm", .min_inputs = 2, .max_inputs = 2, .n_outputs = 2, .flags = HK_OP_FIRST_IN_PLACE | HK_OP_CHEAP,
    .infer = norm_infer, .backward = rms_norm_gradients, .cost = norm_cost,
    .cpu = CPU_KERNELS(rms_norm), .gpu = norm_gpu};

const struct hk_op hk_op_rms_norm_backward = {
    .name = "rms_norm_backward", .min_inputs = 4, .max_inputs = 4, .n_outputs = 2, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = norm_backward_infer, .scratch = norm_backward_scratch, .cost = norm_backward_cost,
    .cpu = CPU_KERNELS(rms_norm_backward), .gpu = norm_backward_gpu};

struct hk_value *hk_layer_norm(struct hk_value *x, struct hk_value *weight, struct hk_value *bias, float epsilon) {
    struct hk_value *in[3] = {hk_contiguous(x), hk_contiguous(weight), bias ? hk_contiguous(bias) : NULL};
    const struct norm_attrs attrs = {epsilon};
    return hk_call_op(NULL, &hk_op_layer_norm, in, bias ? 3 : 2, &attrs, sizeof attrs);
}

struct hk_value *hk_rms_norm(struct hk_value *x, struct hk_value *weight, float epsilon) {
    struct hk_value *in[2] = {hk_contiguous(x), hk_contiguous(weight)};
    const struct norm_attrs attrs = {epsilon};
    return hk_call_op(NULL, &hk_op_rms_norm, in, 2, &attrs, sizeof attrs);
}

#endif
