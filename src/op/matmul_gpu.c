/* matmul on a GPU: launches of the kernels that are chosen for its pieces. */
#ifndef HK_ISA_NAME
#include "op/matmul_gpu.h"

enum { COMMON_SPEC = 7 }; /* constants that all kernels have */

static void bind(struct hk_dispatch *d, const struct product *p, int side, int access, int push_word) {
    const struct product_side *s = &p->side[side];
    hk_bind_range(d, s->operand, s->offset, hk_product_span(p, side), access, push_word);
}

/* c; where the kernel does not store it, a side of another product, to be read in its place. */
static void bind_result(struct hk_dispatch *d, const struct product *p, const struct product *other, int side, int push_word) {
    if (p->finish && !p->finish->keeps) bind(d, other, side, HK_READ, push_word);
    else bind(d, p, C, p->accumulate ? HK_READ | HK_WRITE : HK_WRITE, push_word);
}

/* The last constants of matmul_direct: whether elements k and k + 1, of 16 bits, are a word, and of a's four of 32 bits a
   vector: all invocations read the same ones, and the driver looks once whether those exist. */
static void set_whole(struct hk_dispatch *d, const struct product *p) {
    for (int side = A; side <= B; side++) {
        const bool narrow = hk_dtype_size(p->side[side].operand->dtype) == 2;
        d->spec[COMMON_SPEC + 3 + side] = (narrow || side == A) && p->side[side].stride[K] == 1 &&
                                          hk_product_aligned(p, side, K, narrow ? 4 : 16);
    }
}

/* The last constants of matmul and matmul_few: whether four elements along the dense dimension of each side are a vector. */
static void add_fours(struct hk_dispatch *d, const struct product_kernel *kernel, const struct product *p) {
    d->spec[d->n_spec++] = kernel->ahead;
    for (int side = A; side <= B; side++) {
        const int dense = hk_product_dense(p, side);
        d->spec[d->n_spec++] = p->side[side].stride[dense] == 1 &&
                               hk_product_aligned(p, side, dense, 4 * hk_dtype_size(p->side[side].operand->dtype));
    }
    d->spec[d->n_spec++] = hk_product_fours(p);
}

/* How many elements of a side with 16 bits are read at once. */
static uint32_t read_width(const struct product *p, int side) {
    const int dense = hk_product_dense(p, side);
    return hk_product_aligned(p, side, dense, 16) ? 8 : hk_product_aligned(p, side, dense, 4) ? 2 : 1;
}

/* What matmul_cooperative has besides. */
static void add_matrices(struct hk_dispatch *d, const struct product_kernel *kernel, const struct product *p,
                         const struct hk_limits *limits) {
    const struct hk_cooperative *const matrix = hk_product_matrix(p, kernel, limits);
    const bool whole = !p->bias && !p->accumulate && !p->finish && hk_product_fours(p);
    const uint32_t spec[] = {matrix->m, matrix->n, matrix->k, read_width(p, A), read_width(p, B), whole, hk_product_fours(p)};
    if (matrix->dtype == HK_BF16 && !p->finish) d->shader = kernel->bf16;
    memcpy(d->spec + d->n_spec, spec, sizeof spec);
    d->n_spec += (int)HK_LENGTH(spec);
    d->subgroup_size = limits->cooperative_subgroup;
    d->spec[0] *= limits->cooperative_subgroup;
}

/* What matmul_cooperative2 has: multiples of which the rows' strides are. */
static void add_widths(struct hk_dispatch *d, const struct product_kernel *kernel, const struct hk_matmul_push *push,
                       enum hk_dtype dtype) {
    const uint32_t strides[] = {d->spec[1] ? push->a_row : push->a_column, d->spec[2] ? push->b_row : push->b_column,
                                push->c_row};
    for (size_t i = 0; i < HK_LENGTH(strides); i++)
        d->spec[d->n_spec++] = strides[i] % 8 == 0 ? 8 : strides[i] % 4 == 0 ? 4 : 1;
    if (dtype == HK_BF16) d->shader = kernel->bf16;
}

/* push: where the bases of its operands are, in bytes. */
static hk_status add_finish(const struct product *p, const char *define, bool fours, size_t push, struct hk_written *text,
                            struct hk_dispatch *d) {
    text->length = 0, text->n_constants = 0;
    return p->finish ? hk_finish_add(p->finish, define, fours, (int)(push / sizeof(uint32_t)), text, d) : HK_OK;
}

static hk_status record_kernel(const struct product *p, const struct product_kernel *kernel, struct hk_recorder *recorder) {
    struct hk_written text;
    const uint32_t invocations = kernel->invocations ? kernel->invocations : HK_MAX(recorder->limits->subgroup_size, 1);
    const int64_t tile_n = kernel->invocations ? kernel->tile_n : kernel->tile_n * invocations;
    struct hk_matmul_push push = hk_product_push(p);
    hk_matmul_tile(&push, kernel->tile_m, tile_n, hk_product_items(p));
    struct hk_dispatch d = {.shader = kernel->shader,
                            .spec = {invocations, hk_product_dense(p, A) == K, hk_product_dense(p, B) == N, p->bias,
                                     p->accumulate, p->side[A].operand->dtype, p->side[B].operand->dtype},
                            .n_spec = COMMON_SPEC + (int)HK_LENGTH(kernel->spec),
                            .flops = 2.0 * (double)p->size[M] * (double)p->size[N] * (double)p->size[K] *
                                     (double)hk_product_items(p)};
    memcpy(d.spec + COMMON_SPEC, kernel->spec, sizeof kernel->spec);
    if (kernel->needs == SOFTWARE) set_whole(&d, p);
    if (kernel->needs == PLAIN) add_fours(&d, kernel, p);
    if (kernel->needs == COOPERATIVE) add_matrices(&d, kernel, p, recorder->limits);
    if (kernel->needs == WORKGROUP) add_widths(&d, kernel, &push, p->side[A].operand->dtype);
    HK_PUSH(&d, push);
    bind(&d, p, A, HK_READ, A);
    bind(&d, p, B, HK_READ, B);
    bind_result(&d, p, p, B, C);
    bind(&d, p, BIAS, HK_READ, BIAS);
    const bool bf16 = kernel->needs == COOPERATIVE && p->side[A].operand->dtype == HK_BF16;
    const hk_status status = add_finish(p, bf16 ? "BF16_ELEMENTS" : NULL, !kernel->most_m,
                                        offsetof(struct hk_matmul_push, after), &text, &d);
    hk_groups(recorder, &d, push.groups);
    return status ? status : recorder->record(recorder, &d);
}

/* The products of parts of k, [parts, batch, M, N] in the scratch memory. */
static struct product in_parts(const struct product *p, int64_t parts) {
    const int64_t k = p->size[K] / parts, items = hk_product_items(p), elements = p->size[M] * p->size[N];
    struct product result = *p;
    result.bias = result.accumulate = false;
    result.finish = NULL;
    result.batch_rank = 2;
    result.size[K] = k, result.size[BATCH] = parts, result.size[BATCH + 1] = items;
    for (int s = A; s <= B; s++) {
        result.side[s].stride[BATCH] = k * p->side[s].stride[K];
        result.side[s].stride[BATCH + 1] = p->batch_rank ? p->side[s].stride[BATCH] : 0;
    }
    result.side[C] = (struct product_side){
        .operand = p->scratch, .stride = {[M] = p->size[N], [N] = 1, [BATCH] = items * elements, [BATCH + 1] = elements}};
    return result;
}

/* c from what in_parts made. */
static hk_status record_sum(const struct product *p, const struct product *parts, struct hk_recorder *recorder) {
    enum { INVOCATIONS = 256 };
    struct {
        uint32_t base_parts, base_c, base_bias;
        uint32_t parts, elements, m, n, c_batch, c_row;
        uint32_t after[HK_FINISH_OPERANDS];
    } push = {.parts = (uint32_t)parts->size[BATCH],
              .elements = (uint32_t)parts->side[C].stride[BATCH],
              .m = (uint32_t)p->size[M],
              .n = (uint32_t)p->size[N],
              .c_batch = p->batch_rank ? (uint32_t)p->side[C].stride[BATCH] : 0,
              .c_row = (uint32_t)p->side[C].stride[M]};
    const double read = (double)push.parts * push.elements, more = 1 + p->bias + p->accumulate;
    struct hk_dispatch d = {.shader = "matmul_parts",
                            .spec = {INVOCATIONS, p->bias, p->accumulate},
                            .n_spec = 3,
                            .flops = read + more * push.elements,
                            .bytes = 4 * (read + more * push.elements)};
    struct hk_written text;
    HK_PUSH(&d, push);
    bind(&d, parts, C, HK_READ, 0);
    bind_result(&d, p, parts, C, 1);
    bind(&d, p, BIAS, HK_READ, 2);
    const hk_status status = add_finish(p, NULL, false, (size_t)((char *)push.after - (char *)&push), &text, &d);
    hk_groups(recorder, &d, (push.elements + INVOCATIONS - 1) / INVOCATIONS);
    return status ? status : recorder->record(recorder, &d);
}

/* A product whose operands fit. */
static hk_status record(const struct product *p, void *context) {
    struct hk_recorder *const recorder = context;
    const struct product_way way = hk_product_choose(p, recorder);
    if (way.parts == 1) return record_kernel(p, way.kernel, recorder);
    const struct product parts = in_parts(p, way.parts);
    const hk_status status = record_kernel(&parts, way.kernel, recorder);
    return status ? status : record_sum(p, &parts, recorder);
}

hk_status hk_matmul_record(const struct hk_step *step, const struct hk_finish *finish, struct hk_recorder *recorder) {
    struct hk_operand scratch = step->scratch;
    scratch.dtype = HK_F32;
    struct product p = hk_product_of(step);
    p.scratch = &scratch;
    p.finish = finish;
    return hk_product_for_pieces(&p, recorder->limits, record, recorder);
}

hk_status hk_matmul_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_matmul_record(step, NULL, recorder);
}
#endif
