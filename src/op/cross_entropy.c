/* Cross entropy of logits [N, C] with integer targets [N], as torch.nn.functional.cross_entropy: the mean over the rows that are
   not ignored. The forward op keeps each row's maximum m and log(sum(exp(row - m))), so that the backward op is one pass; their
   sum would have lost what log() says where m is large. */
#include "op/rowwise.h"

struct cross_entropy_attrs {
    int32_t ignore, ignore_index;
    float smoothing;
};

#ifdef HK_ISA_NAME

struct cross_entropy_rows {
    const float *x;
    const int32_t *targets;
    float *max, *log_sum, *losses, *kept;
    float *dx;
    float scale; /* backward: dloss / count */
    int64_t width;
    const struct cross_entropy_attrs *attrs;
};

/* m = the maximum of row x [n], *log_sum = log(sum(exp(x - m))), *below = sum(x - m); the row is read from memory once, by
   pieces that stay in the first cache. */
static float row_logsum(const float *x, int64_t n, float *log_sum, float *below) {
    enum { PIECE = 1024 };
    float max = -INFINITY;
    double sum = 0, total = 0;
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = HK_MIN(n - first, PIECE);
        const float *piece = x + first;
        vf most = v_set(-INFINITY), exps = v_set(0), plain = v_set(0);
        for (int64_t i = 0; i < count; i += VW) most = v_max(row_load(piece + i, count - i, -INFINITY), most);
        const float piece_max = HK_MAX(v_max_of(most), max);
        if (piece_max > max && max > -INFINITY) sum *= exp((double)max - (double)piece_max);
        max = piece_max;
        const vf m = v_set(max);
        for (int64_t i = 0; max > -INFINITY && i < count; i += VW)
            exps += v_exp(row_load(piece + i, count - i, -INFINITY) - m);
        for (int64_t i = 0; below && i < count; i += VW) plain += row_load(piece + i, count - i, 0);
        sum += (double)v_sum(exps);
        total += (double)v_sum(plain);
    }
    *log_sum = (float)log(sum);
    if (below) *below = (float)(total - (double)n * (double)max);
    return max;
}

static void cross_entropy_body(void *context, int64_t begin, int64_t end) {
    const struct cross_entropy_rows *c = context;
    const struct cross_entropy_attrs *a = c->attrs;
    for (int64_t row = begin; row < end; row++) {
        const float *x = c->x + row * c->width;
        const int32_t target = c->targets[row];
        float log_sum, below = 0;
        const float max = c->max[row] = row_logsum(x, c->width, &log_sum, a->smoothing > 0 ? &below : NULL);
        float loss = 0;
        const bool kept = !(a->ignore && target == a->ignore_index);
        if (kept) {
            loss = target >= 0 && target < c->width ? log_sum - (x[target] - max) : NAN;
            if (a->smoothing > 0) loss += a->smoothing * (log_sum - below / (float)c->width - loss);
        }
        c->log_sum[row] = log_sum;
        c->losses[row] = loss;
        c->kept[row] = kept;
    }
}

CPU_KERNEL(cross_entropy) {
    const struct hk_operand *x = &step->inputs[0];
    const int64_t rows = row_count(x);
    float *losses = cpu_data(&step->scratch), *max = cpu_data(&step->outputs[1]);
    struct cross_entropy_rows c = {.x = cpu_data(x), .targets = cpu_data(&step->inputs[1]), .max = max, .log_sum = max + rows,
                                   .losses = losses, .kept = losses + rows, .width = row_width(x), .attrs = step->attrs};
    cpu_for(cpu, rows, row_grain(4 * c.width), cross_entropy_body, &c);
    double loss = 0, count = 0;
    for (int64_t row = 0; row < rows; row++) loss += (double)c.losses[row], count += (double)c.kept[row];
    *(float *)cpu_data(&step->outputs[0]) = count > 0 ? (float)(loss / count) : NAN;
    *(float *)cpu_data(&step->outputs[2]) = (float)count;
}

static void cross_entropy_backward_body(void *context, int64_t begin, int64_t end) {
    const struct cross_entropy_rows *c = context;
    const struct cross_entropy_attrs *a = c->attrs;
    const int64_t n = c->width;
    for (int64_t row = begin; row < end; row++) {
        const float *x = c->x + row * n;
        float *dx = c->dx + row * n;
        const int32_t target = c->targets[row];
        if (a->ignore && target == a->ignore_index) {
            memset(dx, 0, (size_t)n * sizeof(float));
            continue;
        }
        const bool inside = target >= 0 && target < n;
        const vf max = v_set(c->max[row]), log_sum = v_set(c->log_sum[row]), share = v_set(a->smoothing / (float)n), scale = v_set(inside ? c->scale : NAN);
        for (int64_t i = 0; i < n; i += VW)
            row_store(dx + i, (v_exp(row_load(x + i, n - i, 0) - max - log_sum) - share) * scale, n - i);
        if (inside) dx[target] -= (1 - a->smoothing) * c->scale;
    }
}

CPU_KERNEL(cross_entropy_backward) {
    const struct hk_operand *x = &step->inputs[0];
    const float count = *(const float *)cpu_data(&step->inputs[3]), dloss = *(const float *)cpu_data(&step->inputs[4]);
    float *max = cpu_data(&step->inputs[2]);
    struct cross_entropy_rows c = {.x = cpu_data(x), .targets = cpu_data(&step->inputs[1]), .max = max,
                                   .log_sum = max + row_count(x), .dx = cpu_data(&step->outputs[0]), .scale = dloss / count, .width = row_width(x),
                                   .attrs = step->attrs};
    cpu_for(cpu, row_count(x), row_grain(2 * c.width), cross_entropy_backward_body, &c);
}

#else

CPU_DECLARE(cross_entropy);
CPU_DECLARE(cross_entropy_backward);

/* logits [N, C], targets [N] -> the loss, maxima and log sums [2, N], the count of kept rows [1] */
static bool cross_entropy_infer(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0];
    const struct cross_entropy_attrs *a = call->attrs;
    const int64_t rows = x->shape[0], one = 1, level[2] = {2, rows};
    if (x->shape[1] == 0) return refuse(call, "cross_entropy: there are no classes: logits are [%lld, 0]", (long long)rows);
    if (!(a->smoothing >= 0 && a->smoothing <= 1))
        return refuse(call, "cross_entropy: label_smoothing must be from 0 to 1, it is %g", (double)a->smoothing);
    hk_infer_output(call, 0, HK_F32, 0, &one);
    hk_infer_output(call, 1, HK_F32, 2, level);
    hk_infer_output(call, 2, HK_F32, 1, &one);
    return true;
}

/* losses [N], kept [N] */
static uint64_t cross_entropy_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    (void)limits;
    return (uint64_t)HK_MAX(call->inputs[0]->shape[0], 1) * 2 * sizeof(float);
}

/* logits [N, C], targets [N], maxima and log sums [2, N], count [1], dloss -> dlogits [N, C] */
static bool cross_entropy_backward_infer(struct hk_call *call) {
    hk_infer_output(call, 0, HK_F32, 2, call->inputs[0]->shape);
    return true;
}

static void cross_entropy_gradient(struct hk_backward *b) {
    struct hk_call *call = b->call;
    struct hk_value *in[5] = {call->inputs[0], call->inputs[1], call->outputs[1], call->outputs[2], b->grads[0]};
    if (b->needed[0] && b->grads[0])
        b->results[0] = hk_call_op(call->graph, &hk_op_cross_entropy_backward, in, 5, call->attrs, call->attrs_bytes);
}

static struct hk_cost cross_entropy_cost(const struct hk_step *step) {
    return (struct hk_cost){.flops = 5.0 * (double)row_count(&step->inputs[0]) * (double)row_width(&step->inputs[0])};
}

static hk_status record_mean(const struct hk_step *step, struct hk_recorder *recorder, int64_t rows) {
    struct {
        uint32_t base_loss, base_kept, base_mean, base_count;
        uint32_t rows;
    } push = {.rows = (uint32_t)rows};
    struct hk_dispatch d = {.shader = "cross_entropy_mean", .spec = {row_workgroup(recorder, rows)}, .n_spec = 1};
    const int64_t bound = HK_MAX(rows, 1); /* a binding is not empty */
    HK_PUSH(&d, push);
    bind_rows(&d, &step->scratch, 4, 0, bound, HK_READ, 0);
    bind_rows(&d, &step->scratch, 4, rows, bound, HK_READ, 1);
    hk_bind(&d, &step->outputs[0], HK_WRITE, 2);
    hk_bind(&d, &step->outputs[2], HK_WRITE, 3);
    hk_groups(recorder, &d, 1);
    d.bytes = 8.0 * (double)bound;
    return recorder->record(recorder, &d);
}

static hk_status cross_entropy_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct cross_entropy_attrs *a = step->attrs;
    struct {
        uint32_t base_x, base_target, base_max, base_log_sum, base_loss, base_kept;
        uint32_t rows, width;
        int32_t ignore_index;
        float smoothing;
    } push = {.ignore_index = a->ignore_index, .smoothing = a->smoothing};
    const struct hk_operand *x = &step->inputs[0];
    const int64_t rows = row_count(x), width = row_width(x), window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    if (rows > row_window(recorder, 4)) return hk_fail(HK_ERROR_UNSUPPORTED, "cross_entropy: %lld rows are too many for this "
                                                       "device; split them", (long long)rows);
    for (int64_t first = 0; first < rows; first += window) {
        const int64_t count = HK_MIN(window, rows - first);
        struct hk_dispatch d = {.shader = "cross_entropy", .n_spec = 3,
                                .spec = {row_workgroup(recorder, width), a->ignore != 0, a->smoothing > 0}};
        push.rows = (uint32_t)count, push.width = (uint32_t)width;
        HK_PUSH(&d, push);
        bind_rows(&d, x, width * 4, first, count, HK_READ, 0);
        bind_rows(&d, &step->inputs[1], 4, first, count, HK_READ, 1);
        bind_rows(&d, &step->outputs[1], 4, first, count, HK_WRITE, 2);
        bind_rows(&d, &step->outputs[1], 4, rows + first, count, HK_WRITE, 3);
        bind_rows(&d, &step->scratch, 4, first, count, HK_WRITE, 4);
        bind_rows(&d, &step->scratch, 4, rows + first, count, HK_WRITE, 5);
        hk_groups(recorder, &d, (uint64_t)count);
        d.bytes = 4.0 * (double)count * (double)width; /* the mean's launch reads next to nothing */
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return record_mean(step, recorder, rows);
}

static hk_status cross_entropy_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct cross_entropy_attrs *a = step->attrs;
    struct {
        uint32_t base_x, base_target, base_max, base_log_sum, base_count, base_dloss, base_dx;
        uint32_t rows, width;
        uint32_t tiles;
        int32_t ignore_index;
        float smoothing;
    } push = {.ignore_index = a->ignore_index, .smoothing = a->smoothing};
    enum { FOURS = 4 }; /* per invocation */
    const struct hk_operand *x = &step->inputs[0];
    const int64_t rows = row_count(x), width = row_width(x), window = row_window(recorder, width * 4);
    if (window == 0) return HK_ERROR_UNSUPPORTED;
    const uint32_t workgroup = row_workgroup(recorder, width), tile = workgroup * FOURS * 4;
    /* a row may begin three words after a multiple of four */
    push.width = (uint32_t)width, push.tiles = (uint32_t)((width + 3 + tile - 1) / tile);
    for (int64_t first = 0; first < rows; first += window) {
        const int64_t count = HK_MIN(window, rows - first);
        struct hk_dispatch d = {.shader = "cross_entropy_backward", .spec = {workgroup, a->ignore != 0, FOURS}, .n_spec = 3};
        push.rows = (uint32_t)count;
        HK_PUSH(&d, push);
        bind_rows(&d, x, width * 4, first, count, HK_READ, 0);
        bind_rows(&d, &step->inputs[1], 4, first, count, HK_READ, 1);
        bind_rows(&d, &step->inputs[2], 4, first, count, HK_READ, 2);
        bind_rows(&d, &step->inputs[2], 4, rows + first, count, HK_READ, 3);
        hk_bind(&d, &step->inputs[3], HK_READ, 4);
        hk_bind(&d, &step->inputs[4], HK_READ, 5);
        bind_rows(&d, &step->outputs[0], width * 4, first, count, HK_WRITE, 6);
        hk_groups(recorder, &d, (uint64_t)count * push.tiles);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

const struct hk_op hk_op_cross_entropy = {
    .name = "cross_entropy", .min_inputs = 2, .max_inputs = 2, .n_outputs = 3,
    .infer = cross_entropy_infer, .scratch = cross_entropy_scratch, .backward = cross_entropy_gradient, .cost = cross_entropy_cost,
    .cpu = CPU_KERNELS(cross_entropy), .gpu = cross_entropy_gpu};

const struct hk_op hk_op_cross_entropy_backward = {
    .name = "cross_entropy_backward", .min_inputs = 5, .max_inputs = 5, .n_outputs = 1, .flags = HK_OP_FIRST_IN_PLACE,
    .infer = cross_entropy_backward_infer, .cost = cross_entropy_cost,
    .cpu = CPU_KERNELS(cross_entropy_backward), .gpu = cross_entropy_backward_gpu};

static bool check_rows(const struct hk_value *logits, const struct hk_value *targets) {
    if (logits->rank < 1 || targets->rank != logits->rank - 1) return false;
    for (int i = 0; i < targets->rank; i++)
        if (targets->shape[i] != logits->shape[i]) return false;
    return true;
}

struct hk_value *hk_cross_entropy(struct hk_value *logits, struct hk_value *targets,
                                  const struct hk_cross_entropy_params *params) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){logits, targets}, 2);
    if (!graph) return NULL;
    if (logits->dtype != HK_F32 || targets->dtype != HK_I32)
        return hk_graph_fail(graph, HK_ERROR_INVALID, "cross_entropy: logits must be f32 and targets i32, they are %s and %s",
                             hk_dtype_name(logits->dtype), hk_dtype_name(targets->dtype));
    if (!check_rows(logits, targets))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "cross_entropy: there must be one target per row: logits are %s, targets "
                             "are %s", hk_shape_text(logits), hk_shape_text(targets));
    const int64_t rows = hk_elements(targets);
    struct hk_value *in[2] = {hk_contiguous(hk_reshape(logits, HK_SHAPE(rows, logits->shape[logits->rank - 1]))),
                              hk_contiguous(hk_reshape(targets, HK_SHAPE(rows)))};
    const struct cross_entropy_attrs attrs = {params && params->ignore, params ? params->ignore_index : 0,
                                              params ? params->label_smoothing : 0};
    return hk_call_op(graph, &hk_op_cross_entropy, in, 2, &attrs, sizeof attrs);
}

#endif
