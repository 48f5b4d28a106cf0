/* Elementwise jobs on strided operands. */
#include "op/strided.h"

#ifndef HK_ISA_NAME
struct hk_operand hk_broadcast_operand(const struct hk_operand *operand, const struct hk_operand *to) {
    struct hk_operand result = *operand;
    const int missing = to->rank - operand->rank;
    result.rank = to->rank;
    for (int i = 0; i < to->rank; i++) {
        const bool stretched = i < missing || operand->shape[i - missing] != to->shape[i];
        result.shape[i] = to->shape[i];
        result.stride[i] = stretched ? 0 : operand->stride[i - missing];
    }
    return result;
}

struct hk_operand hk_dense_operand(enum hk_dtype dtype, int rank, const int64_t *shape) {
    struct hk_operand result = {.dtype = dtype, .rank = rank};
    memcpy(result.shape, shape, (size_t)rank * sizeof *shape);
    hk_dense_strides(rank, shape, result.stride);
    return result;
}

struct hk_operand hk_part_of(const struct hk_operand *operand, const int64_t *begin, const int64_t *step,
                             const int64_t *shape) {
    struct hk_operand part = *operand;
    for (int i = 0; i < operand->rank; i++) {
        part.offset += (uint64_t)(begin[i] * operand->stride[i]) * hk_dtype_size(operand->dtype);
        part.shape[i] = shape[i];
        part.stride[i] = operand->stride[i] * step[i];
    }
    return part;
}

struct hk_operand hk_inner_operand(const struct hk_operand *operand, int64_t i) {
    struct hk_operand inner = *operand;
    inner.rank--;
    inner.offset += (uint64_t)(i * operand->stride[0]) * hk_dtype_size(operand->dtype);
    for (int j = 1; j < operand->rank; j++) inner.shape[j - 1] = operand->shape[j], inner.stride[j - 1] = operand->stride[j];
    return inner;
}

struct context {
    struct hk_recorder *recorder;
    const struct hk_strided_job *job;
    int count;
};

static bool is_dense(const struct hk_operand *o) {
    int64_t stride = 1;
    for (int i = o->rank - 1; i >= 0; i--) {
        if (o->shape[i] != 1 && o->stride[i] != stride) return false;
        stride *= o->shape[i];
    }
    return true;
}

/* Whether each row along the last dimension is dense and of whole words. */
static bool has_whole_words(const struct hk_operand *o) {
    const int64_t per_word = (int64_t)(4 / hk_dtype_size(o->dtype));
    const int last = o->rank - 1;
    if (o->offset % 4 || last < 0 || o->stride[last] != 1 || o->shape[last] % per_word) return false;
    for (int i = 0; i < last; i++)
        if (o->shape[i] != 1 && o->stride[i] % per_word) return false;
    return true;
}

/* Dimensions go innermost first; a rank of 0 becomes one dimension of 1. The innermost counts units of so many elements, and
   so do strides. */
static void push_strided(const struct context *c, const struct hk_operand *operands, int64_t unit, struct hk_dispatch *d) {
    const struct hk_strided_job *job = c->job;
    const int rank = operands[0].rank, n = c->count;
    uint32_t words[HK_MAX_PUSH_BYTES / 4] = {1}, *size = words + 1, *base = size + HK_STRIDED_RANK - 1,
                                       *stride = base + n;
    uint32_t *extra = stride + n * HK_STRIDED_RANK;
    int n_extra = job->n_extra;
    for (int i = 0; i < rank; i++) {
        const int d_in = rank - 1 - i;
        const uint32_t length = (uint32_t)(operands[0].shape[d_in] / (i ? 1 : unit));
        words[0] *= length;
        if (i < HK_STRIDED_RANK - 1) size[i] = length;
        for (int k = 0; k < n; k++) stride[k * HK_STRIDED_RANK + i] = (uint32_t)(operands[k].stride[d_in] / (i ? unit : 1));
    }
    memcpy(extra, job->extra, sizeof(uint32_t) * (size_t)n_extra);
    for (int k = 0; k < n; k++) {
        hk_bind(d, &operands[k], k ? HK_READ : HK_WRITE, (int)(base - words) + k);
        if (job->rests) extra[n_extra++] = hk_binding_rest(&operands[k]);
    }
    d->push_bytes = (uint32_t)(extra + n_extra - words) * 4;
    assert(d->push_bytes <= HK_MAX_PUSH_BYTES);
    memcpy(d->push, words, d->push_bytes);
}

/* One dispatch each for the elements of the outermost dimension. */
static hk_status record_piece(void *context, const struct hk_operand *operands);
static hk_status record_outer(struct context *c, const struct hk_operand *operands) {
    struct hk_operand part[HK_MAX_BINDINGS];
    for (int64_t i = 0; i < operands[0].shape[0]; i++) {
        for (int k = 0; k < c->count; k++) part[k] = hk_inner_operand(&operands[k], i);
        const hk_status status = record_piece(c, part);
        if (status) return status;
    }
    return HK_OK;
}

/* One dispatch. unit: see push_strided; 1: one by one, or by words. */
static hk_status launch(const struct context *c, const struct hk_operand *operands, int64_t unit) {
    struct hk_dispatch d = {.shader = c->job->shader, .n_spec = c->job->n_spec + 3};
    d.spec[0] = HK_ELEMENTWISE_GROUP;
    d.spec[1] = (uint32_t)HK_MAX(operands[0].rank, 1);
    d.spec[2] = unit > 1;
    memcpy(d.spec + 3, c->job->spec, sizeof(uint32_t) * (size_t)c->job->n_spec);
    push_strided(c, operands, unit, &d);
    uint64_t items = 1, per_item = unit > 1 ? (uint64_t)unit : HK_MAX(c->job->per_item, 1);
    for (int i = 0; i < operands[0].rank; i++) items *= (uint64_t)operands[0].shape[i];
    /* an output that begins within a word has one word more */
    items = (items + hk_binding_rest(&operands[0]) + per_item - 1) / per_item;
    hk_groups(c->recorder, &d, (items + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
    return c->recorder->record(c->recorder, &d);
}

/* Whether all operands have runs of whole units, at addresses where four words can be read at once; a single run may end with
   less than a unit. On a processor, loads of four words are no faster. */
static bool has_units(const struct context *c, const struct hk_operand *operands) {
    const int64_t unit = c->job->unit;
    const int last = operands[0].rank - 1;
    if (!unit || last < 0 || c->recorder->limits->software) return false;
    if (operands[0].shape[last] < unit || (last > 0 && operands[0].shape[last] % unit)) return false;
    bool whole = true;
    for (int k = 0; k < c->count; k++) whole = whole && hk_binds_units(c->recorder, &operands[k], unit);
    return whole;
}

/* Elements first .. first + length of the last dimension. */
static hk_status launch_range(const struct context *c, const struct hk_operand *operands, int64_t first, int64_t length,
                              int64_t unit) {
    struct hk_operand part[HK_MAX_BINDINGS];
    const int last = operands[0].rank - 1;
    for (int k = 0; k < c->count; k++) {
        part[k] = operands[k];
        part[k].offset += (uint64_t)first * hk_dtype_size(operands[k].dtype);
        part[k].shape[last] = length;
    }
    return launch(c, part, unit);
}

static hk_status record_piece(void *context, const struct hk_operand *operands) {
    struct context *c = context;
    if (operands[0].rank <= HK_STRIDED_RANK && has_units(c, operands)) {
        const int64_t unit = c->job->unit, length = operands[0].shape[operands[0].rank - 1], rest = length % unit;
        const hk_status status = launch_range(c, operands, 0, length - rest, unit);
        return status || !rest ? status : launch_range(c, operands, length - rest, rest, 1);
    }
    if (operands[0].rank > HK_STRIDED_RANK || (c->job->by_words && !is_dense(&operands[0]) && !has_whole_words(&operands[0])))
        return record_outer(c, operands);
    return launch(c, operands, 1);
}

hk_status hk_record_strided(struct hk_recorder *recorder, const struct hk_strided_job *job,
                            const struct hk_operand *operands, int count) {
    struct context c = {recorder, job, count};
    return hk_for_pieces(recorder, operands, count, record_piece, &c);
}

hk_status hk_record_copy(struct hk_recorder *recorder, const struct hk_operand *to, const struct hk_operand *from) {
    const struct hk_operand operands[2] = {*to, *from};
    const size_t size = hk_dtype_size(to->dtype), from_size = hk_dtype_size(from->dtype);
    const struct hk_strided_job job = {
        .shader = "cast",
        .spec = {from->dtype, to->dtype},
        .n_spec = 2,
        .rests = true,
        .by_words = size < 4,
        .per_item = (uint32_t)(4 / size),
        .unit = size == 1 || from_size == 1 ? 0 : size == 4 && from_size == 4 ? 4 : 8,
    };
    return hk_record_strided(recorder, &job, operands, 2);
}

int64_t hk_window_elements(const struct hk_recorder *recorder, size_t element_bytes) {
    /* the backend rounds a binding's start down, so leave room for that */
    return (int64_t)((recorder->limits->max_range - recorder->limits->offset_align) / element_bytes / 1024 * 1024);
}

hk_status hk_record_fill(struct hk_recorder *recorder, const struct hk_operand *to, uint32_t bits) {
    struct {
        uint32_t base, words, head, tail,
            value; /* head and tail: the bits of the first and last word that are the operand's */
    } push;
    const uint64_t size = hk_dtype_size(to->dtype), bytes = hk_operand_span(to);
    const uint64_t window = (uint64_t)hk_window_elements(recorder, 1);
    push.value = size == 4 ? bits : size == 2 ? (bits & 0xffffu) * 0x10001u : (bits & 0xffu) * 0x1010101u;
    for (uint64_t first = 0; first < bytes; first += window) {
        const uint64_t n = HK_MIN(window, bytes - first), begin = (to->offset + first) % 4, end = begin + n;
        struct hk_dispatch d = {.shader = "fill", .spec = {HK_ELEMENTWISE_GROUP}, .n_spec = 1};
        push.base = 0;
        push.words = (uint32_t)((end + 3) / 4);
        push.head = UINT32_MAX << 8 * begin;
        push.tail = UINT32_MAX >> (32 - 8 * end % 32) % 32;
        hk_bind_range(&d, to, first, n, HK_WRITE, 0);
        HK_PUSH(&d, push);
        hk_groups(recorder, &d, (push.words + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}
#endif
