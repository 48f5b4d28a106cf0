/* A product for GPUs' kernels: how its operands lie, and the pieces of it whose operands fit a binding. */
#ifndef HK_ISA_NAME
#include "op/matmul_gpu.h"

struct product hk_product_of(const struct hk_step *step) {
    const struct hk_operand *const a = &step->inputs[0], *const b = &step->inputs[1], *const c = &step->outputs[0];
    const bool bias = step->n_inputs > 2;
    const int rank = c->rank;
    struct product p = {.batch_rank = rank - 2, .bias = bias};
    p.size[M] = c->shape[rank - 2], p.size[N] = c->shape[rank - 1], p.size[K] = a->shape[rank - 1];
    p.side[A] = (struct product_side){.operand = a, .stride = {[M] = a->stride[rank - 2], [K] = a->stride[rank - 1]}};
    p.side[B] = (struct product_side){.operand = b, .stride = {[K] = b->stride[rank - 2], [N] = b->stride[rank - 1]}};
    p.side[C] = (struct product_side){.operand = c, .stride = {[M] = c->stride[rank - 2], [N] = c->stride[rank - 1]}};
    p.side[BIAS] = (struct product_side){.operand = bias ? &step->inputs[2] : b, .stride = {[N] = bias}};
    for (int i = 0; i < rank - 2; i++) {
        p.size[BATCH + i] = c->shape[i];
        p.side[A].stride[BATCH + i] = a->stride[i];
        p.side[B].stride[BATCH + i] = b->stride[i];
        p.side[C].stride[BATCH + i] = c->stride[i];
    }
    return p;
}

/* ---- How operands lie ---- */

int64_t hk_product_items(const struct product *p) {
    int64_t items = 1;
    for (int i = 0; i < p->batch_rank; i++) items *= p->size[BATCH + i];
    return items;
}

uint64_t hk_product_span(const struct product *p, int side) {
    int64_t last = 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++) last += (p->size[i] - 1) * p->side[side].stride[i];
    return (uint64_t)(last + 1) * hk_dtype_size(p->side[side].operand->dtype);
}

int hk_product_dense(const struct product *p, int side) {
    const int columns = side == A ? K : N, rows = side == B ? K : M;
    return p->side[side].stride[columns] == 1 || p->size[columns] == 1 ? columns : rows;
}

bool hk_product_aligned(const struct product *p, int side, int dense, uint64_t bytes) {
    const struct product_side *s = &p->side[side];
    const uint64_t size = hk_dtype_size(s->operand->dtype);
    bool aligned = (s->operand->offset + s->offset) % bytes == 0 && (uint64_t)p->size[dense] * size % bytes == 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++)
        if (i != dense && p->size[i] > 1) aligned = aligned && (uint64_t)s->stride[i] * size % bytes == 0;
    return aligned;
}

bool hk_product_fours(const struct product *p) {
    return hk_product_aligned(p, C, N, 16) && (!p->finish || p->finish->fours);
}

/* Elements between the start of the word that holds a side's first element and that element. */
static uint32_t rest(const struct product_side *s) {
    return (uint32_t)((s->operand->offset + s->offset) % 4 / hk_dtype_size(s->operand->dtype));
}

static uint32_t stride(const struct product *p, int side, int axis) { return (uint32_t)p->side[side].stride[axis]; }

struct hk_matmul_push hk_product_push(const struct product *p) {
    /* the batch has two dimensions for the kernels: those that are not there have size 1 */
    const int inner = p->batch_rank > 0 ? BATCH + p->batch_rank - 1 : BATCH, outer = p->batch_rank > 1 ? BATCH : inner;
    return (struct hk_matmul_push){
        .rest_a = rest(&p->side[A]),
        .rest_b = rest(&p->side[B]),
        .m = (uint32_t)p->size[M],
        .n = (uint32_t)p->size[N],
        .k = (uint32_t)p->size[K],
        .a_row = stride(p, A, M),
        .a_column = stride(p, A, K),
        .b_row = stride(p, B, K),
        .b_column = stride(p, B, N),
        .c_row = stride(p, C, M),
        .a_outer = stride(p, A, outer),
        .b_outer = stride(p, B, outer),
        .c_outer = stride(p, C, outer),
        .a_inner = stride(p, A, inner),
        .b_inner = stride(p, B, inner),
        .c_inner = stride(p, C, inner),
        .inner = p->batch_rank > 0 ? (uint32_t)p->size[inner] : 1,
    };
}

/* ---- Cutting ---- */

/* Elements begin .. begin + size of one dimension. Of the windows of k the first sets c, and has the bias. */
static struct product window(const struct product *p, int axis, int64_t begin, int64_t size) {
    struct product part = *p;
    part.size[axis] = size;
    for (int s = 0; s < SIDES; s++)
        part.side[s].offset +=
            (uint64_t)(begin * p->side[s].stride[axis]) * hk_dtype_size(p->side[s].operand->dtype);
    if (axis == K && begin > 0) part.accumulate = true, part.bias = false;
    return part;
}

/* Makes one batch dimension of two that follow each other in all operands, and drops those of size 1. */
static void merge_batch(struct product *p) {
    for (int i = p->batch_rank - 1; i >= 0; i--) {
        const int axis = BATCH + i, next = axis + 1;
        bool merge = p->size[axis] == 1 || i + 1 < p->batch_rank;
        for (int s = 0; s < SIDES && p->size[axis] != 1 && merge; s++)
            merge = p->side[s].stride[axis] == p->side[s].stride[next] * p->size[next];
        if (!merge) continue;
        if (p->size[axis] != 1) p->size[next] *= p->size[axis];
        for (int d = axis; d + 1 < BATCH + p->batch_rank; d++) {
            p->size[d] = p->size[d + 1];
            for (int s = 0; s < SIDES; s++) p->side[s].stride[d] = p->side[s].stride[d + 1];
        }
        p->batch_rank--;
    }
}

/* The dimension that makes the largest operand large; -1 where all of them fit. */
static int axis_to_cut(const struct product *p, const struct hk_limits *limits) {
    int largest = A, axis = -1;
    for (int s = B; s < SIDES; s++)
        if (hk_product_span(p, s) > hk_product_span(p, largest)) largest = s;
    /* the backend rounds a binding's start down, so leave room for that */
    if (hk_product_span(p, largest) <= limits->max_range - limits->offset_align) return -1;
    int64_t reach = 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++) {
        const int64_t r = (p->size[i] - 1) * p->side[largest].stride[i];
        if (r > reach) axis = i, reach = r;
    }
    return axis;
}

static bool is_empty(const struct product *p) {
    bool empty = false;
    for (int i = 0; i < BATCH + p->batch_rank; i++) empty |= p->size[i] == 0;
    return empty;
}

hk_status hk_product_for_pieces(const struct product *given, const struct hk_limits *limits,
                                hk_status (*piece)(const struct product *p, void *context), void *context) {
    struct product p = *given;
    if (is_empty(&p)) return HK_OK;
    merge_batch(&p);
    int axis = axis_to_cut(&p, limits);
    if (axis < 0 && p.batch_rank <= 2) return piece(&p, context);
    if (axis < 0) axis = BATCH; /* the kernels know two batch dimensions */
    const int64_t size = p.size[axis], half = size / 2 >= 256 ? size / 2 / 256 * 256 : size / 2;
    const struct product first = window(&p, axis, 0, half), second = window(&p, axis, half, size - half);
    const hk_status status = hk_product_for_pieces(&first, limits, piece, context);
    return status ? status : hk_product_for_pieces(&second, limits, piece, context);
}

/* ---- Pieces for other kernels ---- */

struct visit {
    hk_status (*piece)(const struct hk_matmul_piece *piece, void *context);
    void *context;
};

/* A side with its last two axes, and two of the batch. */
static struct hk_operand piece_side(const struct product *p, int side, int rows, int columns) {
    struct hk_operand o = *p->side[side].operand;
    const int axes[] = {BATCH, BATCH + p->batch_rank - 1, rows, columns};
    o.offset += p->side[side].offset;
    o.rank = HK_LENGTH(axes);
    for (int i = 0; i < o.rank; i++) {
        const bool there = i >= 2 || p->batch_rank > 1 - i; /* of a batch with one dimension, the inner one is */
        o.shape[i] = there ? p->size[axes[i]] : 1;
        o.stride[i] = there ? p->side[side].stride[axes[i]] : 0;
    }
    return o;
}

static hk_status visit(const struct product *p, void *context) {
    const struct visit *const v = context;
    const struct hk_matmul_piece piece = {.a = piece_side(p, A, M, K),
                                          .b = piece_side(p, B, K, N),
                                          .c = piece_side(p, C, M, N),
                                          .push = hk_product_push(p),
                                          .accumulate = p->accumulate};
    return v->piece(&piece, v->context);
}

hk_status hk_matmul_for_pieces(const struct hk_step *step, const struct hk_limits *limits,
                               hk_status (*piece)(const struct hk_matmul_piece *piece, void *context), void *context) {
    const struct product p = hk_product_of(step);
    struct visit v = {piece, context};
    return hk_product_for_pieces(&p, limits, visit, &v);
}
#endif
