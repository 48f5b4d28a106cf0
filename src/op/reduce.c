/* Sums, means and maxima over axes. The builders bring every case to dense [A, R, B] -> [A, B]; the kernels reduce
   pieces of the R rows, then the pieces, so that the order of additions is a matter of the shape alone and no sum has
   many terms. */
#include "op/fused.h"

/* The last: the second level of argmax on the GPU. */
enum reduce_kind { REDUCE_SUM, REDUCE_MAX, REDUCE_ARGMAX, REDUCE_ARGMAX_PIECES };

struct reduce_attrs {
    enum reduce_kind kind;
    float scale; /* of the sum */
};

/* Rows that make one piece, for rows of B elements: a piece has 16384 elements or, where that is more, 256 rows. */
static inline int64_t piece_rows(int64_t columns) {
    int64_t width = 1;
    while (width < columns && width < 64) width *= 2;
    return 16384 / width;
}

static inline int64_t piece_count(int64_t rows, int64_t columns) {
    return HK_MAX((rows + piece_rows(columns) - 1) / piece_rows(columns), 1);
}

#ifdef HK_ISA_NAME
#include "op/reduce_cpu.h"

enum { COLUMNS = 512, FEW_ROWS = 64, BLOCK = 4096, MOST_PIECE = 16384 /* piece_rows(1) */ };
_Static_assert(HK_MAX(FEW_ROWS * COLUMNS, MOST_PIECE) * sizeof(float) <= CPU_WORKSPACE_BYTES, "a thread's buffer of elements");

struct job {
    enum reduce_kind kind;
    int64_t A, R, B, pieces, blocks; /* blocks of COLUMNS columns */
    const float *x;                  /* [A, R, B]; NULL: `first` makes it, for us alone */
    float *y;                        /* [A, pieces, B] */
    int32_t *index;                  /* argmax: [A] */
    float scale;
    const struct cpu *cpu;
    const struct fused_job *first; /* what makes x, part by part; NULL: it is there */
};

/* Elements [begin, begin + n) of x, which are made now if `first` makes them; without memory of their own from element `at` of
   the thread's buffer on. */
static const float *elements_of(const struct job *j, int thread, int64_t begin, int64_t n, int64_t at) {
    float *buffer = (float *)((char *)j->cpu->workspace + (size_t)thread * j->cpu->workspace_bytes) + at;
    if (j->first) fused_run(j->first, begin, begin + n, buffer);
    return j->x ? j->x + begin : buffer;
}

static inline float max_of(float m, float x) { return x > m || x != x ? x : m; } /* NaN wins */

static float row_sum(const float *x, int64_t n) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = HK_MIN(begin + BLOCK, n);
        vf acc[4] = {0};
        float tail = 0;
        int64_t i = begin;
        for (; i + 4 * VW <= end; i += 4 * VW)
            for (int k = 0; k < 4; k++) acc[k] += v_load(x + i + k * VW);
        for (; i + VW <= end; i += VW) acc[0] += v_load(x + i);
        for (; i < end; i++) tail += x[i];
        total += (double)(v_sum((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail);
    }
    return (float)total;
}

static float row_max(const float *x, int64_t n) {
    vf acc = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        const vf v = v_load(x + i);
        acc = v_select((v > acc) | (v != v), v, acc);
    }
    float m = -INFINITY;
    for (int k = 0; k < VW; k++) m = max_of(m, acc[k]);
    for (; i < n; i++) m = max_of(m, x[i]);
    return m;
}

static int32_t row_argmax(const float *x, int64_t n) {
    const float m = row_max(x, n);
    for (int64_t i = 0; i < n; i++)
        if (x[i] == m || x[i] != x[i]) return (int32_t)i;
    return 0;
}

static void reduce_row(const struct job *j, const float *x, int64_t n, int64_t item) {
    if (j->kind == REDUCE_SUM) j->y[item] = row_sum(x, n) * j->scale;
    else if (j->kind == REDUCE_MAX) j->y[item] = row_max(x, n);
    else j->index[item] = row_argmax(x, n);
}

/* item: one piece of one row of the R numbers (B is 1). Short rows are fetched several at a time. */
static void rows_body(void *context, int thread, int64_t begin, int64_t end) {
    const struct job *j = context;
    const int64_t piece = j->pieces > 1 ? piece_rows(1) : HK_MAX(j->R, 1);
    const int64_t at_once = j->pieces > 1 ? 1 : HK_MAX(BLOCK / piece, 1);
    for (int64_t item = begin; item < end; item += at_once) {
        const int64_t a = item / j->pieces, r = (item - a * j->pieces) * piece, n = HK_MIN(piece, j->R - r);
        const int64_t items = HK_MIN(at_once, end - item);
        const float *x = elements_of(j, thread, a * j->R + r, n * items, 0);
        for (int64_t k = 0; k < items; k++) reduce_row(j, x + k * n, n, item + k);
    }
}

/* Some columns of some of the R rows of a: of such a block, row r begins at x + r * stride. */
struct block {
    const struct job *job;
    int thread;
    int64_t a, row, rows, column, columns;
};

static const float *rows_of(const struct block *k, int64_t row, int64_t rows, int64_t *stride) {
    const struct job *j = k->job;
    const int64_t begin = (k->a * j->R + k->row + row) * j->B + k->column;
    const bool whole = k->columns == j->B || !j->first;
    *stride = j->x ? j->B : k->columns;
    if (whole) return elements_of(j, k->thread, begin, rows * j->B, 0);
    for (int64_t r = rows - 1; r > 0; r--) elements_of(j, k->thread, begin + r * j->B, k->columns, r * k->columns);
    return elements_of(j, k->thread, begin, k->columns, 0);
}

static void add_rows(const float *x, int64_t rows, int64_t stride, int64_t columns, float *sum) {
    memset(sum, 0, (size_t)columns * sizeof *sum);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < columns; b++) sum[b] += x[r * stride + b];
}

static void columns_sum(const struct block *k, float *y) {
    float total[COLUMNS], part[COLUMNS];
    int64_t stride;
    memset(total, 0, sizeof total);
    for (int64_t r = 0; r < k->rows; r += FEW_ROWS) {
        const int64_t rows = HK_MIN(FEW_ROWS, k->rows - r);
        const float *x = rows_of(k, r, rows, &stride);
        add_rows(x, rows, stride, k->columns, part);
        for (int64_t b = 0; b < k->columns; b++) total[b] += part[b];
    }
    for (int64_t b = 0; b < k->columns; b++) y[b] = total[b] * k->job->scale;
}

static void columns_max(const struct block *k, float *y) {
    int64_t stride;
    for (int64_t b = 0; b < k->columns; b++) y[b] = -INFINITY;
    for (int64_t r = 0; r < k->rows; r += FEW_ROWS) {
        const int64_t rows = HK_MIN(FEW_ROWS, k->rows - r);
        const float *x = rows_of(k, r, rows, &stride);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t b = 0; b < k->columns; b++) y[b] = max_of(y[b], x[i * stride + b]);
    }
}

/* item: one block of columns of one piece of one a. */
static void columns_body(void *context, int thread, int64_t begin, int64_t end) {
    const struct job *j = context;
    const int64_t piece = j->pieces > 1 ? piece_rows(j->B) : j->R;
    for (int64_t item = begin; item < end; item++) {
        const int64_t b = item % j->blocks * COLUMNS, rest = item / j->blocks, p = rest % j->pieces,
                      a = rest / j->pieces;
        const struct block block = {j, thread, a, p * piece, HK_MIN(piece, j->R - p * piece), b, HK_MIN(COLUMNS, j->B - b)};
        float *y = j->y + (a * j->pieces + p) * j->B + b;
        if (j->kind == REDUCE_SUM) columns_sum(&block, y);
        else columns_max(&block, y);
    }
}

static void run_job(struct job *j) {
    const int64_t piece = HK_MIN(piece_rows(j->B), HK_MAX(j->R, 1));
    j->blocks = (j->B + COLUMNS - 1) / COLUMNS;
    const int64_t grain = HK_MAX(CPU_GRAIN / (piece * HK_MIN(j->B, COLUMNS)), 1);
    cpu_for_threads(j->cpu, j->A * j->pieces * j->blocks, grain, j->B == 1 ? rows_body : columns_body, j);
}

void reduce_run(const struct hk_step *step, const struct cpu *cpu, const struct fused_job *first) {
    const struct reduce_attrs *attrs = step->attrs;
    const int64_t *shape = step->inputs[0].shape;
    struct job j = {.kind = attrs->kind, .A = shape[0], .R = shape[1], .B = shape[2], .pieces = 1, .scale = attrs->scale};
    j.cpu = cpu, j.first = first;
    j.x = step->inputs[0].buffer ? cpu_data(&step->inputs[0]) : NULL;
    j.y = cpu_data(&step->outputs[0]);
    j.index = cpu_data(&step->outputs[0]);
    if (j.A == 0 || j.B == 0) return;
    while (j.kind != REDUCE_ARGMAX && (j.pieces = piece_count(j.R, j.B)) > 1) {
        struct job level = j;
        level.y = cpu_data(&step->scratch);
        if (level.y == j.x) level.y += j.A * j.R * j.B; /* a second level: behind the first */
        level.scale = 1;
        run_job(&level);
        j.x = level.y, j.R = level.pieces, j.first = NULL;
    }
    j.pieces = 1;
    run_job(&j);
}

CPU_KERNEL(reduce) { reduce_run(step, cpu, NULL); }

#else
#include "op/reduce.h"
#include "op/strided.h"

CPU_DECLARE(reduce);

enum { ARGMAX_AT_ONCE = 1024 }; /* elements that fit any window */

/* x [A, R, B] -> [A, B] */
static bool infer(struct hk_call *call) {
    const struct reduce_attrs *attrs = call->attrs;
    const struct hk_value *x = call->inputs[0];
    hk_infer_output(call, 0, attrs->kind == REDUCE_ARGMAX ? HK_I32 : HK_F32, 2, (int64_t[]){x->shape[0], x->shape[2]});
    return true;
}

/* The pieces' results of one level and, behind them, of the next: later ones take turns. Of argmax: the pieces' maxima,
   [A, pieces], then their indices. */
uint64_t hk_reduce_scratch(const struct hk_step *step) {
    const struct reduce_attrs *attrs = step->attrs;
    const int64_t *shape = step->inputs[0].shape, A = shape[0], R = shape[1], B = shape[2];
    const int64_t first = piece_count(R, B), second = piece_count(first, B);
    if (attrs->kind == REDUCE_ARGMAX) return R > ARGMAX_AT_ONCE ? (uint64_t)(A * first) * 2 * sizeof(float) : 0;
    return first > 1 ? (uint64_t)(A * B * (first + second)) * sizeof(float) : 0;
}

static uint64_t scratch(const struct hk_call *call, const struct hk_limits *limits) {
    struct hk_operand operands[2];
    const struct hk_step step = hk_step_of(call, operands);
    (void)limits;
    return hk_reduce_scratch(&step);
}

/* [A, B] -> [A, R, B] */
static struct hk_value *spread(struct hk_value *y, const struct hk_value *x) {
    return hk_broadcast_to(hk_reshape(y, HK_SHAPE(x->shape[0], 1, x->shape[2])), hk_value_shape(x));
}

static void sum_backward(struct hk_backward *b) {
    const float scale = ((const struct reduce_attrs *)b->call->attrs)->scale;
    struct hk_value *dy = b->grads[0];
    b->results[0] = spread(scale == 1 ? dy : hk_affine(dy, scale, 0), b->call->inputs[0]);
}

/* Equal maxima share the gradient equally. */
static void max_backward(struct hk_backward *b) {
    struct hk_value *x = b->call->inputs[0], *y = b->call->outputs[0];
    struct hk_value *is_max = hk_equal(x, spread(y, x));
    struct hk_value *share = hk_div(b->grads[0], hk_sum(hk_cast(is_max, HK_F32), HK_AXES(1), false));
    b->results[0] = hk_where(is_max, spread(share, x), hk_fill(x->graph, HK_F32, HK_SCALAR, 0));
}

/* ---- GPU ---- */

/* One level: x [A, R, B] -> y [A, pieces, B]. */
struct level {
    enum reduce_kind kind;
    struct hk_operand x, y;
    struct hk_operand other; /* argmax: the maxima of pieces, [A, pieces], beside their indices y; of pieces: the indices
                                of the maxima x */
    int64_t A, R, B, pieces;
    float scale;
    const struct hk_start *start; /* what makes x; NULL: it is there */
};

static int64_t rows_of_piece(const struct level *l) { return l->pieces > 1 ? piece_rows(l->B) : HK_MAX(l->R, 1); }

/* What one dispatch reduces: rows of columns of count neighbouring a. Where count > 1, all rows; where it has not all
   columns, one row; whole pieces, or a part of one. */
struct window {
    int64_t a, count, row, rows, column, columns;
};

/* y has what earlier windows of the piece gave; later windows follow; `other` keeps the maxima. */
enum { CONTINUES = 1, UNFINISHED = 2, MAXIMA = 4 };

static uint32_t place_in_piece(const struct level *l, const struct window *w) {
    const int64_t piece = rows_of_piece(l), end = w->row + w->rows;
    const uint32_t place = (w->row % piece ? CONTINUES : 0) | (end % piece && end < l->R ? UNFINISHED : 0);
    return place | (l->kind == REDUCE_ARGMAX && (place || l->pieces > 1) ? MAXIMA : 0);
}

/* Whether the columns of a window begin and end at multiples of four. On a processor, loads of four are no faster. */
static bool has_fours(const struct hk_recorder *recorder, const struct level *l, const struct window *w) {
    return l->B % 4 == 0 && w->column % 4 == 0 && w->columns % 4 == 0 && hk_binds_fours(recorder->limits, &l->x) &&
           hk_binds_fours(recorder->limits, &l->y) && !recorder->limits->software;
}

struct push {
    uint32_t base_x, base_y, base_other, items, pieces, piece, rows, columns, blocks, first;
    float scale;
};

/* The first slot is written where x is made here, or nothing is in it. */
static void bind(struct hk_dispatch *d, const struct level *l, const struct window *w, uint32_t carry, int64_t pieces) {
    const uint64_t first_x = (uint64_t)((w->a * l->R + w->row) * l->B + w->column) * 4;
    const uint64_t bytes_x = (uint64_t)(w->count * w->rows * w->columns) * 4;
    const uint64_t first_y = (uint64_t)((w->a * l->pieces + w->row / rows_of_piece(l)) * l->B + w->column) * 4;
    const uint64_t bytes_y = (uint64_t)(w->count * pieces * w->columns) * 4;
    const int access_y = carry & CONTINUES ? HK_READ | HK_WRITE : HK_WRITE;
    if (l->x.buffer) hk_bind_range(d, &l->x, first_x, bytes_x, l->start ? HK_WRITE : HK_READ, 0);
    else hk_bind_range(d, &l->y, first_y, bytes_y, HK_WRITE, 0);
    hk_bind_range(d, &l->y, first_y, bytes_y, access_y, 1);
    if (l->kind == REDUCE_ARGMAX_PIECES) hk_bind_range(d, &l->other, first_x, bytes_x, HK_READ, 2);
    else hk_bind_range(d, carry & MAXIMA ? &l->other : &l->y, first_y, bytes_y, access_y, 2);
    d->bytes = (double)(l->x.buffer ? bytes_x : 0) + (double)bytes_y;
}

/* The spec constants and push constants of both shaders. */
static hk_status record_window(struct hk_recorder *recorder, const struct level *l, const struct window *w) {
    const int64_t piece = rows_of_piece(l), pieces = (w->rows + piece - 1) / piece;
    const uint32_t carry = place_in_piece(l, w);
    struct hk_written text = {0};
    struct push push = {.pieces = (uint32_t)pieces,
                   .piece = (uint32_t)piece,
                   .rows = (uint32_t)w->rows,
                   .columns = (uint32_t)w->columns,
                   .first = (uint32_t)w->row,
                   .scale = carry & UNFINISHED ? 1 : l->scale};
    struct hk_dispatch d = {.shader = l->B == 1 ? "reduce_rows" : "reduce_columns", .n_spec = l->B == 1 ? 4 : 5};
    uint32_t width = 1; /* rows: invocations for one row; columns: columns of one workgroup */
    if (l->B == 1)
        while (width < HK_ELEMENTWISE_GROUP && width * 4 < HK_MIN(piece, w->rows)) width *= 2;
    else
        while (width < 64 && width < w->columns) width *= 2;
    d.spec[0] = HK_ELEMENTWISE_GROUP, d.spec[1] = width, d.spec[2] = l->kind, d.spec[3] = carry;
    d.spec[4] = has_fours(recorder, l, w);
    push.blocks = (uint32_t)((w->columns + width - 1) / width);
    push.items = (uint32_t)(w->count * pieces * (l->B == 1 ? 1 : push.blocks));
    bind(&d, l, w, carry, pieces);
    HK_PUSH(&d, push);
    const hk_status status = l->start ? hk_start_add(l->start, d.spec[4], recorder, &text, &d) : HK_OK;
    if (status) return status;
    const uint32_t per_group = l->B == 1 ? HK_ELEMENTWISE_GROUP / width : 1;
    hk_groups(recorder, &d, (push.items + per_group - 1) / per_group);
    return recorder->record(recorder, &d);
}

/* One a, in windows of whole pieces, of some rows of a piece, or of some columns of a row. The columns of a row come
   one after the other, so that neighbouring dispatches do not wait for each other. */
static hk_status record_windows_of(struct hk_recorder *recorder, const struct level *l, int64_t a, int64_t elements) {
    const int64_t piece = rows_of_piece(l), columns = HK_MIN(l->B, elements), most = HK_MAX(elements / l->B, 1);
    struct window w = {.a = a, .count = 1};
    for (w.row = 0; w.row < l->R; w.row += w.rows) {
        w.rows = most >= piece ? most / piece * piece : HK_MIN(most, piece - w.row % piece);
        w.rows = HK_MIN(w.rows, l->R - w.row);
        for (w.column = 0; w.column < l->B; w.column += columns) {
            w.columns = HK_MIN(columns, l->B - w.column);
            const hk_status status = record_window(recorder, l, &w);
            if (status) return status;
        }
    }
    return HK_OK;
}

static hk_status record_level(struct hk_recorder *recorder, const struct level *l) {
    const int64_t elements = hk_window_elements(recorder, 4), per_a = HK_MAX(l->R, l->pieces) * l->B;
    hk_status status = HK_OK;
    if (per_a > elements) {
        for (int64_t a = 0; a < l->A && !status; a++) status = record_windows_of(recorder, l, a, elements);
        return status;
    }
    struct window w = {.rows = l->R, .columns = l->B};
    for (w.a = 0; w.a < l->A && !status; w.a += w.count) {
        w.count = HK_MIN(elements / per_a, l->A - w.a);
        status = record_window(recorder, l, &w);
    }
    return status;
}

static hk_status record_empty(const struct hk_step *step, struct hk_recorder *recorder, float scale) {
    const float value = 0 * scale; /* NaN where scale is 1 / 0 */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return hk_record_fill(recorder, &step->outputs[0], bits);
}

/* In windows of any size but for the second level, whose rows are as many as i32 has pieces at most: 512 KiB. */
static hk_status record_argmax(const struct hk_step *step, struct hk_recorder *recorder, struct level *l) {
    l->pieces = piece_count(l->R, 1);
    l->other = step->scratch;
    if (l->pieces == 1) return record_level(recorder, l);
    l->y = step->scratch;
    l->y.offset += (uint64_t)(l->A * l->pieces) * 4;
    const hk_status status = record_level(recorder, l);
    if (status) return status;
    struct level last = *l;
    last.kind = REDUCE_ARGMAX_PIECES, last.R = l->pieces, last.pieces = 1;
    last.x = l->other, last.other = l->y, last.y = step->outputs[0];
    return record_level(recorder, &last);
}

hk_status hk_reduce_record(const struct hk_step *step, const struct hk_start *start, struct hk_recorder *recorder) {
    const struct reduce_attrs *attrs = step->attrs;
    const int64_t *shape = step->inputs[0].shape;
    struct level l = {.kind = attrs->kind, .x = step->inputs[0], .y = step->outputs[0], .scale = 1, .start = start};
    uint64_t used = 0;
    l.A = shape[0], l.R = shape[1], l.B = shape[2];
    if (l.A == 0 || l.B == 0) return HK_OK;
    if (l.R == 0) return record_empty(step, recorder, attrs->scale);
    if (l.kind == REDUCE_ARGMAX) return record_argmax(step, recorder, &l);
    while ((l.pieces = piece_count(l.R, l.B)) > 1) {
        l.y = step->scratch;
        l.y.offset += used;
        const hk_status status = record_level(recorder, &l);
        if (status) return status;
        used = used ? 0 : (uint64_t)(l.A * l.pieces * l.B) * 4;
        l.x = l.y, l.R = l.pieces, l.start = NULL;
    }
    l.pieces = 1, l.y = step->outputs[0], l.scale = attrs->scale;
    return record_level(recorder, &l);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_reduce_record(step, NULL, recorder);
}

/* In one window. */
bool hk_reduce_starts(const struct hk_step *step, const struct hk_start *start, const struct hk_limits *limits) {
    const struct hk_recorder recorder = {.limits = limits};
    const int64_t *shape = step->inputs[0].shape, most = hk_window_elements(&recorder, 4);
    return shape[0] * shape[1] * shape[2] <= HK_MIN(most, INT32_MAX) &&
           hk_start_fits(start, sizeof(struct push) / sizeof(uint32_t), 3, limits);
}

/* ---- Rows ---- */

#define REDUCE_ROW(op_name, op_backward, op_preceded)                                                                  \
    const struct hk_op hk_op_##op_name = {                                                                             \
        .name = #op_name,                                                                                              \
        .min_inputs = 1,                                                                                               \
        .max_inputs = 1,                                                                                               \
        .n_outputs = 1,                                                                                                \
        .infer = infer,                                                                                                \
        .scratch = scratch,                                                                                            \
        .backward = op_backward,                                                                                       \
        .cpu = CPU_KERNELS(reduce),                                                                                    \
        .preceded = op_preceded,                                                                                       \
        .gpu = gpu,                                                                                                    \
    };

REDUCE_ROW(sum, sum_backward, &hk_op_fused_reduce)
REDUCE_ROW(mean, sum_backward, &hk_op_fused_reduce)
REDUCE_ROW(max, max_backward, &hk_op_fused_reduce)
REDUCE_ROW(argmax, NULL, NULL)

/* ---- Builders ---- */

/* What is asked for: which axes, as bits. */
struct request {
    const struct hk_op *op;
    enum reduce_kind kind;
    unsigned mask;
    float scale;
};

static struct hk_value *call_reduce(const struct request *q, struct hk_value *x, int64_t A, int64_t R, int64_t B,
                                    float scale) {
    const struct reduce_attrs attrs = {q->kind, scale};
    x = hk_reshape(x, HK_SHAPE(A, R, B));
    return hk_call_op(NULL, q->op, &x, 1, &attrs, sizeof attrs);
}

/* Reduced axes last, in one run: [kept, reduced, 1]. For what must see all of its terms at once. */
static struct hk_value *reduce_at_once(const struct request *q, struct hk_value *x) {
    struct hk_axes order = {0};
    int64_t kept = 1, reduced = 1;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if ((int)(q->mask >> i & 1) == pass) {
                order.axis[order.count++] = i;
                *(pass ? &reduced : &kept) *= x->shape[i];
            }
    x = hk_contiguous(hk_permute(x, order));
    return call_reduce(q, x, kept, reduced, 1, q->scale);
}

/* Runs of neighbouring axes that are all reduced or all kept; axes of size 1 belong to any. */
struct runs {
    int count;
    bool reduced[HK_MAX_RANK];
    int64_t size[HK_MAX_RANK];
};

static struct runs find_runs(const struct hk_value *x, unsigned mask) {
    struct runs runs = {0};
    for (int i = 0; i < x->rank; i++) {
        const bool reduced = mask >> i & 1;
        if (x->shape[i] == 1) continue;
        if (!runs.count || runs.reduced[runs.count - 1] != reduced) {
            runs.reduced[runs.count] = reduced;
            runs.size[runs.count++] = 1;
        }
        runs.size[runs.count - 1] *= x->shape[i];
    }
    return runs;
}

/* One call per run of reduced axes, the last first. */
static struct hk_value *reduce_runs(const struct request *q, struct hk_value *x, struct runs *runs) {
    int left = 0;
    for (int k = 0; k < runs->count; k++) left += runs->reduced[k];
    for (int k = runs->count - 1; k >= 0; k--) {
        int64_t A = 1, B = 1;
        if (!runs->reduced[k]) continue;
        for (int i = 0; i < k; i++) A *= runs->size[i];
        for (int i = k + 1; i < runs->count; i++) B *= runs->size[i];
        x = call_reduce(q, x, A, runs->size[k], B, --left ? 1 : q->scale);
        runs->size[k] = 1;
    }
    return x;
}

/* The dimensions in the order in which they lie in memory, outermost first. */
static struct hk_axes memory_order(const struct hk_value *x) {
    struct hk_axes order = {.count = x->rank};
    for (int i = 0; i < x->rank; i++) {
        int k = i;
        for (; k > 0 && x->stride[order.axis[k - 1]] < x->stride[i]; k--) order.axis[k] = order.axis[k - 1];
        order.axis[k] = i;
    }
    return order;
}

static struct hk_shape result_shape(const struct hk_value *x, unsigned mask, bool keepdims) {
    struct hk_shape shape = {0};
    for (int i = 0; i < x->rank; i++) {
        const bool reduced = mask >> i & 1;
        if (keepdims || !reduced) shape.size[shape.rank++] = reduced ? 1 : x->shape[i];
    }
    return shape;
}

/* A permuted x whose memory is dense is reduced in its memory's order, and the result permuted. */
static struct hk_value *reduce(const struct request *q, struct hk_value *x, bool keepdims);
static struct hk_value *reduce_in_memory_order(const struct request *q, struct hk_value *x, struct hk_axes order) {
    struct request there = *q;
    struct hk_axes inverse = {.count = order.count};
    there.mask = 0;
    for (int i = 0; i < order.count; i++) {
        inverse.axis[order.axis[i]] = i;
        there.mask |= (q->mask >> order.axis[i] & 1) << i;
    }
    return hk_permute(reduce(&there, hk_permute(x, order), true), inverse);
}

static struct hk_value *reduce(const struct request *q, struct hk_value *x, bool keepdims) {
    const struct hk_shape shape = result_shape(x, q->mask, keepdims);
    struct runs runs = find_runs(x, q->mask);
    int reduced_runs = 0;
    for (int k = 0; k < runs.count; k++) reduced_runs += runs.reduced[k];
    if (q->kind == REDUCE_ARGMAX || (q->kind == REDUCE_MAX && reduced_runs > 1))
        return hk_reshape(reduce_at_once(q, x), shape);
    if (!hk_is_dense(x)) {
        const struct hk_axes order = memory_order(x);
        struct hk_value *permuted = hk_permute(x, order);
        if (permuted && hk_is_dense(permuted)) return hk_reshape(reduce_in_memory_order(q, x, order), shape);
        x = hk_contiguous(x);
    }
    return hk_reshape(x ? reduce_runs(q, x, &runs) : NULL, shape);
}

static struct hk_value *build(const struct hk_op *op, enum reduce_kind kind, struct hk_value *x, struct hk_axes axes,
                              bool keepdims) {
    if (!x) return NULL;
    struct request q = {.op = op, .kind = kind, .scale = 1};
    double terms = 1;
    if (x->dtype != HK_F32)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: x must be f32, it is %s", op->name,
                             hk_dtype_name(x->dtype));
    if (axes.count < 0 || axes.count > HK_MAX_RANK)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: %d axes", op->name, axes.count);
    for (int i = 0; i < axes.count; i++) {
        const int axis = hk_axis(x, axes.axis[i], op->name);
        if (axis < 0) return NULL;
        if (q.mask >> axis & 1)
            return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: axis %d is given twice", op->name, axes.axis[i]);
        q.mask |= 1u << axis;
    }
    if (axes.count == 0) q.mask = (1u << x->rank) - 1;
    for (int i = 0; i < x->rank; i++)
        if (q.mask >> i & 1) terms *= (double)x->shape[i];
    if (terms == 0 && kind != REDUCE_SUM)
        return hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: no elements to take it of: x is %s", op->name,
                             hk_shape_text(x));
    if (kind == REDUCE_ARGMAX && terms > (double)INT32_MAX)
        return hk_graph_fail(x->graph, HK_ERROR_UNSUPPORTED, "argmax: over more elements than i32 counts: x is %s",
                             hk_shape_text(x));
    if (op == &hk_op_mean) q.scale = (float)(1 / terms);
    return reduce(&q, x, keepdims);
}

struct hk_value *hk_sum(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_sum, REDUCE_SUM, x, axes, keepdims);
}
struct hk_value *hk_mean(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_mean, REDUCE_SUM, x, axes, keepdims);
}
struct hk_value *hk_max(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_max, REDUCE_MAX, x, axes, keepdims);
}
struct hk_value *hk_argmax(struct hk_value *x, struct hk_axes axes, bool keepdims) {
    return build(&hk_op_argmax, REDUCE_ARGMAX, x, axes, keepdims);
}

struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like) {
    if (!x || hk_same_shape(x, like)) return x;
    struct hk_axes axes = {0};
    const int missing = x->rank - like->rank;
    for (int i = 0; i < x->rank; i++)
        if (i < missing || like->shape[i - missing] != x->shape[i]) axes.axis[axes.count++] = i;
    return hk_reshape(axes.count ? hk_sum(x, axes, true) : x, hk_value_shape(like));
}
#endif
