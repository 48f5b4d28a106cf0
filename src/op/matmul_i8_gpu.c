/* How matmul_i8 is laid out for a GPU: of each piece that fits the bindings, a row of a table picks the kernel. */
#ifndef HK_ISA_NAME
#include "op/gpu.h"
#include "op/matmul.h"

/* The dimensions of a piece's operands. */
enum { OUTER, INNER, ROWS, COLUMNS };

/* A kernel and when it is taken: the first row that fits. */
struct kernel {
    const char *shader;
    bool software;        /* for a device that is a processor in disguise, and only there */
    int64_t most_m;       /* rows of c; 0: any */
    bool fill;            /* only where there are enough tiles for all processors */
    int64_t tile_m, tile_n;
    uint32_t invocations; /* 0: the subgroup's size, and tile_n columns for each of them */
    uint32_t spec[5];     /* constants from COMMON_SPEC on */
    uint32_t registers;   /* that an invocation must have (see struct hk_limits) */
};

enum { COMMON_SPEC = 7 }; /* constants that all kernels have */

/* The last row fits all devices: Vulkan 1.3 has 128 invocations and 16 KiB of shared memory. */
static const struct kernel kernels[] = {
    {"matmul_i8_direct", true, 1, false, 1, 4, 0, {1, 4}, 0},
    {"matmul_i8_direct", true, 0, false, 8, 4, 0, {8, 4}, 0},
    {"matmul_i8_few", false, 1, false, 1, 64, 256, {1, 16}, 0},
    {"matmul_i8_few", false, 4, false, 4, 64, 256, {4, 16}, 0},
    {"matmul_i8", false, 0, true, 128, 128, 256, {128, 128, 8, 8, 8}, 256},
    {"matmul_i8", false, 0, true, 64, 64, 128, {64, 64, 8, 8, 4}, 0},
    {"matmul_i8", false, 0, false, 32, 64, 64, {32, 64, 8, 4, 8}, 0},
};

static int64_t batch_items(const struct hk_operand *o) { return o->shape[OUTER] * o->shape[INNER]; }

static int64_t count_tiles(const struct kernel *kernel, const struct hk_operand *c) {
    return hk_divide_up(c->shape[ROWS], kernel->tile_m) * hk_divide_up(c->shape[COLUMNS], kernel->tile_n) * batch_items(c);
}

static bool is_usable(const struct kernel *kernel, const struct hk_operand *c, const struct hk_limits *limits) {
    return kernel->software == limits->software && kernel->registers <= limits->registers &&
           kernel->invocations <= limits->max_invocations && (!kernel->most_m || c->shape[ROWS] <= kernel->most_m) &&
           (!kernel->fill || count_tiles(kernel, c) >= limits->processors);
}

static const struct kernel *choose(const struct hk_operand *c, const struct hk_limits *limits) {
    const struct kernel *kernel = kernels, *const last = kernels + HK_LENGTH(kernels) - 1;
    while (kernel < last && !is_usable(kernel, c, limits)) kernel++;
    return kernel;
}

/* Whether all that is dense begins at a multiple of so many bytes; `dense` is the dimension along which it lies. */
static bool is_aligned(const struct hk_operand *o, int dense, uint64_t bytes) {
    const uint64_t size = hk_dtype_size(o->dtype);
    bool aligned = o->offset % bytes == 0;
    for (int i = 0; i < o->rank; i++)
        if (i != dense && o->shape[i] > 1) aligned = aligned && (uint64_t)o->stride[i] * size % bytes == 0;
    return aligned;
}

static hk_status record(const struct hk_matmul_piece *piece, void *context) {
    struct hk_recorder *const recorder = context;
    const struct hk_operand *const a = &piece->a, *const b = &piece->b, *const c = &piece->c;
    const struct kernel *const kernel = choose(c, recorder->limits);
    const uint32_t invocations = kernel->invocations ? kernel->invocations : HK_MAX(recorder->limits->subgroup_size, 1);
    const int64_t tile_n = kernel->invocations ? kernel->tile_n : kernel->tile_n * invocations;
    const bool a_along_k = a->stride[COLUMNS] == 1 || a->shape[COLUMNS] == 1;
    const bool b_along_k = b->stride[ROWS] == 1 || b->shape[ROWS] == 1;
    struct hk_matmul_push push = piece->push;
    hk_matmul_tile(&push, kernel->tile_m, tile_n, batch_items(c));
    struct hk_dispatch d = {.shader = kernel->shader,
                            .spec = {invocations, a_along_k, b_along_k, is_aligned(a, a_along_k ? COLUMNS : ROWS, 4),
                                     is_aligned(b, b_along_k ? ROWS : COLUMNS, 4),
                                     c->shape[COLUMNS] % 4 == 0 && hk_binds_units(recorder, c, 4), piece->accumulate},
                            .n_spec = COMMON_SPEC + (int)HK_LENGTH(kernel->spec),
                            .flops = 2.0 * push.m * push.n * push.k * (double)batch_items(c)};
    memcpy(d.spec + COMMON_SPEC, kernel->spec, sizeof kernel->spec);
    HK_PUSH(&d, push);
    hk_bind(&d, a, HK_READ, 0);
    hk_bind(&d, b, HK_READ, 1);
    hk_bind(&d, c, piece->accumulate ? HK_READ | HK_WRITE : HK_WRITE, 2);
    hk_groups(recorder, &d, push.groups);
    return recorder->record(recorder, &d);
}

hk_status hk_matmul_i8_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_matmul_for_pieces(step, recorder->limits, record, recorder);
}
#endif
