/* Which kernel makes a product on a GPU: a row of a table, and the parts of k that it is given. */
#ifndef HK_ISA_NAME
#include "op/matmul_gpu.h"
#include <stdio.h>

#define WORKGROUP_ROW(fill, bm, bn, bk, invocations)                                                                       \
    {"matmul_cooperative2", "matmul_cooperative2_bf16", WORKGROUP, 0, fill, bm, bn, invocations, {bm, bn, bk}, 0, false}

/* The first row that fits is the standard one. All invocations of matmul read a tile's vectors in equal shares, so a tile has a
   multiple of them. */
static const struct product_kernel kernels[] = {
    {"matmul_direct", NULL, SOFTWARE, 1, false, 1, 2, 0, {1, 2, 32}, 0, false},
    {"matmul_direct", NULL, SOFTWARE, 0, false, 8, 8, 0, {8, 8, 4}, 0, false},
    {"matmul_few", NULL, PLAIN, 1, false, 1, 16, 256, {1, 16}, 0, false},
    {"matmul_few", NULL, PLAIN, 4, false, 4, 16, 256, {4, 16}, 0, false},
    {"matmul_cooperative", "matmul_cooperative_bf16", COOPERATIVE, 0, true, 128, 128, 4, {128, 128, 32, 64, 64}, 256, false},
    {"matmul_cooperative", "matmul_cooperative_bf16", COOPERATIVE, 0, false, 64, 64, 4, {64, 64, 32, 32, 32}, 128, false},
    {"matmul_cooperative", "matmul_cooperative_bf16", COOPERATIVE, 0, false, 32, 32, 4, {32, 32, 32, 16, 16}, 0, false},
    /* matrices of workgroups are slower than those of subgroups on an H200: for tuning, and where there are none of those */
    WORKGROUP_ROW(true, 128, 256, 64, 256),
    WORKGROUP_ROW(true, 128, 128, 32, 128),
    WORKGROUP_ROW(false, 64, 64, 32, 128),
    {"matmul", NULL, PLAIN, 0, true, 128, 128, 256, {128, 128, 16, 8, 8}, 256, true},
    {"matmul", NULL, PLAIN, 0, true, 128, 64, 256, {128, 64, 16, 8, 4}, 128, false},
    {"matmul", NULL, PLAIN, 0, true, 64, 64, 128, {64, 64, 16, 8, 4}, 0, false},
    {"matmul", NULL, PLAIN, 0, false, 32, 64, 128, {32, 64, 16, 4, 4}, 0, true},
};

const struct hk_cooperative *hk_product_matrix(const struct product *p, const struct product_kernel *kernel,
                                               const struct hk_limits *limits) {
    enum { MOST_PRODUCTS = 32 }; /* in a subgroup's unrolled loop: more is too much code, and slow to compile */
    const uint32_t *const s = kernel->spec;
    const struct hk_cooperative *best = NULL;
    const enum hk_dtype dtype = p->side[A].operand->dtype;
    if (dtype != p->side[B].operand->dtype || kernel->invocations * limits->cooperative_subgroup > limits->max_invocations)
        return NULL;
    for (const struct hk_cooperative *i = limits->cooperative; i < limits->cooperative + limits->n_cooperative; i++) {
        const bool whole = i->m % 8 == 0 && i->n % 8 == 0 && i->k % 8 == 0 && s[2] % i->k == 0 && s[3] % i->m == 0 &&
                           s[4] % i->n == 0;
        /* the tiles, their rows 16 bytes longer, and a matrix of c for each subgroup */
        const uint32_t shared = 2 * ((s[0] + s[1]) * (s[2] + 8)) + 4 * kernel->invocations * i->m * i->n;
        if (i->invocations || i->dtype != dtype || !whole || shared > limits->shared_memory) continue;
        if (s[3] / i->m * (s[4] / i->n) * (s[2] / i->k) > MOST_PRODUCTS) continue;
        if (!best || i->m * i->n * i->k > best->m * best->n * best->k) best = i;
    }
    return best;
}

/* Whether matrices of whole workgroups can be the kernel's tiles. */
static bool has_workgroup_matrices(const struct product_kernel *kernel, const struct product *p,
                                   const struct hk_limits *limits) {
    const uint32_t *const s = kernel->spec;
    const enum hk_dtype dtype = p->side[A].operand->dtype;
    if (dtype != p->side[B].operand->dtype || HK_MAX(HK_MAX(s[0], s[1]), s[2]) > limits->cooperative_largest) return false;
    for (const struct hk_cooperative *i = limits->cooperative; i < limits->cooperative + limits->n_cooperative; i++)
        if (i->invocations == kernel->invocations && i->dtype == dtype && s[0] % i->m == 0 && s[1] % i->n == 0 &&
            s[2] % i->k == 0)
            return true;
    return false;
}

/* A batch item of each side begins at a multiple of 16 bytes, and rows do not overlap. */
static bool can_be_tensors(const struct product *p) {
    for (int side = A; side <= C; side++) {
        const struct product_side *s = &p->side[side];
        const int dense = hk_product_dense(p, side), rows = side == B ? K : M, columns = side == A ? K : N;
        const int64_t size = (int64_t)hk_dtype_size(s->operand->dtype);
        bool aligned = (s->operand->offset + s->offset) % 16 == 0;
        for (int i = BATCH; i < BATCH + p->batch_rank; i++) aligned = aligned && s->stride[i] * size % 16 == 0;
        if (!aligned || s->stride[rows + columns - dense] < p->size[dense]) return false;
    }
    return true;
}

/* Of the tiles of matmul.comp. */
static int64_t shared_bytes(const struct product_kernel *kernel) {
    if (strcmp(kernel->shader, "matmul")) return 0;
    return (kernel->tile_m / 4 + 1 + kernel->tile_n / 4 + 1) * kernel->spec[2] * 16;
}

static bool is_usable(const struct product_kernel *kernel, const struct product *p, const struct hk_limits *limits) {
    if ((kernel->needs == SOFTWARE && !limits->software) || kernel->registers > limits->registers) return false;
    if (kernel->needs == PLAIN && kernel->invocations > limits->max_invocations) return false;
    if (shared_bytes(kernel) > limits->shared_memory) return false;
    if (kernel->most_m && p->size[M] > kernel->most_m) return false;
    if (kernel->needs == WORKGROUP) return has_workgroup_matrices(kernel, p, limits) && can_be_tensors(p);
    return kernel->needs != COOPERATIVE || hk_product_matrix(p, kernel, limits);
}

static int64_t count_tiles(const struct product_kernel *kernel, const struct product *p) {
    return hk_divide_up(p->size[M], kernel->tile_m) * hk_divide_up(p->size[N], kernel->tile_n) * hk_product_items(p);
}

static uint64_t parts_bytes(const struct product *p, int64_t parts) {
    return (uint64_t)(parts * hk_product_items(p) * p->size[M] * p->size[N]) * sizeof(float);
}

/* As many, by doubling, as all processors need. A part of k is long next to a tile, so that writing and reading the products
   of parts costs little, and a multiple of what most kernels stage of k at once. */
static int64_t count_parts(const struct product_kernel *kernel, const struct product *p, const struct hk_limits *limits) {
    enum { MOST = 16, STEP = 32, LEAST = 512, LEAST_TILES = 8 };
    const int64_t least = HK_MAX(LEAST, LEAST_TILES * HK_MAX(kernel->tile_m, kernel->tile_n));
    const int64_t tiles = count_tiles(kernel, p), k = p->size[K];
    int64_t parts = 1;
    if (limits->software || p->batch_rank > 1) return 1; /* kernels know two batch dimensions, and one is the parts' */
    if (kernel->needs == WORKGROUP && p->size[M] * p->size[N] % 4) return 1; /* parts would not begin at 16 bytes */
    while (parts < MOST && tiles * parts < limits->processors && k % (2 * parts * STEP) == 0 && k / (2 * parts) >= least &&
           parts_bytes(p, 2 * parts) <= limits->max_range - limits->offset_align)
        parts *= 2;
    return parts;
}

/* Whether it runs the steps that follow, if any. Results of 16 bits are written by fours, which kernels with tiles make, or not
   at all. */
static bool can_finish(const struct product_way *way, const struct product *p, const struct hk_limits *limits) {
    const struct product_kernel *const kernel = way->kernel;
    const bool tiles = kernel->needs == COOPERATIVE || (kernel->needs == PLAIN && !kernel->most_m);
    const bool fours = tiles && way->parts == 1 && hk_product_fours(p);
    if (!p->finish) return true;
    for (int o = 0; o < p->finish->steps->n_outputs; o++)
        if (hk_dtype_size(p->finish->operands[o].dtype) != 4 && !fours) return false;
    if (kernel->needs == COOPERATIVE) return limits->writes_matrices && limits->writes_matrices(p->side[A].operand->dtype);
    return kernel->needs != WORKGROUP;
}

/* The first row that fits, with parts of k where it needs them. */
static struct product_way find_standard(const struct product *p, const struct hk_limits *limits) {
    const struct product_kernel *kernel = kernels, *const last = kernels + HK_LENGTH(kernels) - 1;
    for (; kernel < last; kernel++) {
        if (!is_usable(kernel, p, limits) || (kernel->needs == SOFTWARE) != limits->software) continue;
        if (!kernel->fill || count_tiles(kernel, p) * count_parts(kernel, p, limits) >= limits->processors) break;
    }
    return (struct product_way){kernel, count_parts(kernel, p, limits)};
}

/* What follows, as far as the kernels that can do it depend on that. */
static const char *describe_finish(const struct hk_finish *finish) {
    for (int o = 0; finish && o < finish->steps->n_outputs; o++)
        if (hk_dtype_size(finish->operands[o].dtype) != 4) return " followed16";
    return finish ? " followed" : "";
}

static void describe_work(const struct product *p, struct hk_choice *choice) {
    const int a = hk_product_dense(p, A), b = hk_product_dense(p, B);
    const bool aligned = hk_product_aligned(p, A, a, 16) && hk_product_aligned(p, B, b, 16) && hk_product_fours(p);
    snprintf(choice->work, sizeof choice->work, "matmul %s*%s %c%c %lldx%lldx%lld x%lld%s%s%s%s",
             hk_dtype_name(p->side[A].operand->dtype), hk_dtype_name(p->side[B].operand->dtype), a == K ? 'n' : 't',
             b == N ? 'n' : 't', (long long)p->size[M], (long long)p->size[N], (long long)p->size[K],
             (long long)hk_product_items(p),
             p->bias ? " bias" : "", p->accumulate ? " accumulate" : "", aligned ? "" : " unaligned",
             describe_finish(p->finish));
}

static void add_way(struct hk_choice *choice, struct product_way *ways, struct product_way way, bool standard) {
    uint32_t constants[HK_LENGTH(way.kernel->spec) + 1];
    memcpy(constants, way.kernel->spec, sizeof way.kernel->spec);
    constants[HK_LENGTH(way.kernel->spec)] = way.parts > 1 ? (uint32_t)way.parts : 0;
    ways[choice->count] = way;
    hk_choice_add(choice, way.kernel->shader, constants, (int)HK_LENGTH(constants), standard);
}

/* The standard way, unless it was measured that another kernel is faster, or that one is with k in one piece. */
struct product_way hk_product_choose(const struct product *p, struct hk_recorder *recorder) {
    const struct hk_limits *const limits = recorder->limits;
    const struct product_way standard = find_standard(p, limits);
    struct product_way ways[2 * HK_LENGTH(kernels)];
    struct hk_choice choice = {.count = 0};
    static_assert(HK_LENGTH(ways) <= HK_MAX_KERNELS, "a choice of all kernels, with and without parts");
    if (!recorder->choose) return standard;
    describe_work(p, &choice);
    for (const struct product_kernel *i = kernels; i < kernels + HK_LENGTH(kernels); i++) {
        if (i != standard.kernel && !is_usable(i, p, limits)) continue;
        const struct product_way whole = {i, 1}, in_parts = {i, count_parts(i, p, limits)};
        if (in_parts.parts > 1 && can_finish(&whole, p, limits)) add_way(&choice, ways, whole, false);
        if (can_finish(&in_parts, p, limits)) add_way(&choice, ways, in_parts, i == standard.kernel);
    }
    return ways[recorder->choose(recorder, &choice)];
}

/* ---- What is known before memory is ---- */

struct need {
    const struct hk_limits *limits;
    uint64_t bytes;
};

/* What any kernel that may be chosen needs. */
static hk_status add_scratch(const struct product *p, void *context) {
    struct need *const need = context;
    for (const struct product_kernel *i = kernels; i < kernels + HK_LENGTH(kernels); i++) {
        const int64_t parts = is_usable(i, p, need->limits) ? count_parts(i, p, need->limits) : 1;
        if (parts > 1) need->bytes = HK_MAX(need->bytes, parts_bytes(p, parts));
    }
    return HK_OK;
}

uint64_t hk_matmul_scratch(const struct hk_step *step, const struct hk_limits *limits) {
    const struct product p = hk_product_of(step);
    struct need need = {limits, 0};
    if (limits) hk_product_for_pieces(&p, limits, add_scratch, &need);
    return need.bytes;
}

struct pieces {
    const struct hk_limits *limits;
    int count;
    bool finish;
};

static hk_status add_piece(const struct product *p, void *context) {
    struct pieces *const pieces = context;
    const struct product_way standard = find_standard(p, pieces->limits);
    pieces->finish = can_finish(&standard, p, pieces->limits);
    pieces->count++;
    return HK_OK;
}

/* One piece, whose standard kernel runs the steps. */
bool hk_matmul_finishes(const struct hk_step *step, const struct hk_finish *finish, const struct hk_limits *limits) {
    struct product p = hk_product_of(step);
    struct pieces pieces = {.limits = limits};
    p.finish = finish;
    hk_product_for_pieces(&p, limits, add_piece, &pieces);
    return pieces.count == 1 && pieces.finish;
}
#endif
