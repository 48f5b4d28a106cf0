/* How reductions are laid out for a GPU: level by level, each in windows that a binding covers. */
#ifndef HK_ISA_NAME
#include "op/gpu.h"
#include "op/reduce.h"
#include "op/strided.h"

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

static int64_t rows_of_piece(const struct level *l) { return l->pieces > 1 ? piece_rows(l->B) : l->R; }

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
    push.items = (uint32_t)(w->count * pieces * push.blocks);
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
    l.y = step->outputs[0], l.scale = attrs->scale;
    return record_level(recorder, &l);
}

/* In one window. */
bool hk_reduce_starts(const struct hk_step *step, const struct hk_start *start, const struct hk_limits *limits) {
    const struct hk_recorder recorder = {.limits = limits};
    const int64_t *shape = step->inputs[0].shape, most = hk_window_elements(&recorder, 4);
    return shape[0] * shape[1] * shape[2] <= HK_MIN(most, INT32_MAX) &&
           hk_start_fits(start, sizeof(struct push) / sizeof(uint32_t), 3, limits);
}

#endif
