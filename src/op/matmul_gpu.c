/* How matmul is laid out for a GPU: the product is cut until every operand fits a binding, then a row of a table picks
   the kernel. */
#ifndef HK_ISA_NAME
#include "op/gpu.h"
#include "op/matmul.h"
#include <stdio.h>

/* The dimensions of a product, and who has them: a [batch, M, K], b [batch, K, N], c [batch, M, N], bias [N]. */
enum { M, N, K, BATCH, AXES = BATCH + HK_MAX_RANK - 2 };
enum { A, B, C, BIAS, SIDES };

struct side {
    const struct hk_operand *operand;
    uint64_t offset;      /* bytes from the operand's first element */
    int64_t stride[AXES]; /* elements; 0 where the operand has no such dimension, or is broadcast */
};

struct product {
    int64_t size[AXES];
    int batch_rank;
    struct side side[SIDES];
    bool bias, accumulate;
    const struct hk_operand *scratch; /* f32: products of parts of k, until they are added */
    const struct hk_finish *finish;   /* what its kernel does with the sums; NULL: stores them */
};

/* ---- Kernels ---- */

/* A kernel and when it is the standard one: the first row that fits. */
struct kernel {
    const char *shader, *bf16; /* bf16: the shader for operands of that dtype, where that is another */
    enum {
        PLAIN,
        SOFTWARE,    /* a device that is a processor in disguise; for those only */
        COOPERATIVE, /* matrices of subgroups */
        WORKGROUP    /* and of whole workgroups */
    } needs;
    int64_t most_m; /* rows of c; 0: any */
    bool fill;      /* only where there are enough tiles for all processors */
    int64_t tile_m, tile_n;
    uint32_t invocations; /* 0: the subgroup's size, and tile_n columns for each of them; COOPERATIVE: subgroups */
    uint32_t spec[5];     /* constants from COMMON_SPEC on; COOPERATIVE: BM, BN, BK, WM, WN; WORKGROUP: BM, BN, BK */
    uint32_t registers;   /* that an invocation must have (see struct hk_limits) */
    bool ahead;           /* matmul: reads ahead */
};

enum {
    COMMON_SPEC = 7,   /* constants that all kernels have */
    MOST_PRODUCTS = 32 /* of matrices, in a subgroup's unrolled loop: more is too much code, and slow to compile */
};

#define WORKGROUP_ROW(fill, bm, bn, bk, invocations)                                                                       \
    {"matmul_cooperative2", "matmul_cooperative2_bf16", WORKGROUP, 0, fill, bm, bn, invocations, {bm, bn, bk}, 0, false}

/* Of matmul: all invocations read a tile's vectors in equal shares, so a tile has a multiple of them. */
static const struct kernel kernels[] = {
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

static int64_t batch_items(const struct product *p) {
    int64_t items = 1;
    for (int i = 0; i < p->batch_rank; i++) items *= p->size[BATCH + i];
    return items;
}

/* Where the side's rows (along its dense axis) and batch items begin and end, and so does its memory, is a multiple of so
   many bytes. */
static bool is_aligned(const struct product *p, int side, int dense, uint64_t bytes) {
    const struct side *s = &p->side[side];
    const uint64_t size = hk_dtype_size(s->operand->dtype);
    bool aligned = (s->operand->offset + s->offset) % bytes == 0 && (uint64_t)p->size[dense] * size % bytes == 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++)
        if (i != dense && p->size[i] > 1) aligned = aligned && (uint64_t)s->stride[i] * size % bytes == 0;
    return aligned;
}

/* How many elements of a 16-bit operand are read at once. */
static uint32_t read_width(const struct product *p, int side, int dense) {
    return is_aligned(p, side, dense, 16) ? 8 : is_aligned(p, side, dense, 4) ? 2 : 1;
}

/* The axis of an operand along which its elements lie side by side. */
static int dense_axis(const struct product *p, int side) {
    const int columns = side == A ? K : N, rows = side == B ? K : M;
    return p->side[side].stride[columns] == 1 || p->size[columns] == 1 ? columns : rows;
}

/* The largest cooperative matrices that the operands' dtype has and the kernel's tiles are made of; NULL: none. */
static const struct hk_cooperative *find_matrix(const struct kernel *kernel, const struct product *p,
                                                const struct hk_limits *limits) {
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
static bool has_workgroup_matrices(const struct kernel *kernel, const struct product *p, const struct hk_limits *limits) {
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
        const struct side *s = &p->side[side];
        const int dense = dense_axis(p, side), rows = side == B ? K : M, columns = side == A ? K : N;
        const int64_t size = (int64_t)hk_dtype_size(s->operand->dtype);
        bool aligned = (s->operand->offset + s->offset) % 16 == 0;
        for (int i = BATCH; i < BATCH + p->batch_rank; i++) aligned = aligned && s->stride[i] * size % 16 == 0;
        if (!aligned || s->stride[rows + columns - dense] < p->size[dense]) return false;
    }
    return true;
}

/* Of the tiles of matmul.comp. */
static int64_t shared_bytes(const struct kernel *kernel) {
    if (strcmp(kernel->shader, "matmul")) return 0;
    return (kernel->tile_m / 4 + 1 + kernel->tile_n / 4 + 1) * kernel->spec[2] * 16;
}

static bool is_usable(const struct kernel *kernel, const struct product *p, const struct hk_limits *limits) {
    if ((kernel->needs == SOFTWARE && !limits->software) || kernel->registers > limits->registers) return false;
    if (kernel->needs == PLAIN && (kernel->invocations > limits->max_invocations || shared_bytes(kernel) > limits->shared_memory))
        return false;
    if (kernel->most_m && p->size[M] > kernel->most_m) return false;
    if (kernel->needs == WORKGROUP) return has_workgroup_matrices(kernel, p, limits) && can_be_tensors(p);
    return kernel->needs != COOPERATIVE || find_matrix(kernel, p, limits);
}

static int64_t count_tiles(const struct kernel *kernel, const struct product *p) {
    return hk_divide_up(p->size[M], kernel->tile_m) * hk_divide_up(p->size[N], kernel->tile_n) * batch_items(p);
}

/* Where the tiles of c are too few for all processors, k is cut into parts, each of them one more item of the batch, whose
   products matmul_parts adds. */
static uint64_t parts_bytes(const struct product *p, int64_t parts) {
    return (uint64_t)(parts * batch_items(p) * p->size[M] * p->size[N]) * sizeof(float);
}

/* As many, by doubling, as all processors need. A part of k is long next to a tile, so that writing and reading the products
   of parts costs little, and a multiple of what most kernels stage of k at once. */
static int64_t count_parts(const struct kernel *kernel, const struct product *p, const struct hk_limits *limits) {
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

/* A kernel, and the parts of k that it is given. */
struct way {
    const struct kernel *kernel;
    int64_t parts;
};

/* Whether the product's four neighbouring results, and what is beside them, are read and written at once. */
static bool has_fours(const struct product *p) {
    return is_aligned(p, C, N, 16) && (!p->finish || p->finish->fours);
}

/* Whether it runs the steps that follow. Results of 16 bits are written by fours, which kernels with tiles make, or not at
   all. */
static bool can_finish(const struct way *way, const struct product *p, const struct hk_limits *limits) {
    const struct kernel *const kernel = way->kernel;
    const bool tiles = kernel->needs == COOPERATIVE || (kernel->needs == PLAIN && !kernel->most_m);
    for (int o = 0; o < p->finish->steps->n_outputs; o++)
        if (hk_dtype_size(p->finish->operands[o].dtype) != 4 && !(tiles && way->parts == 1 && has_fours(p))) return false;
    if (kernel->needs == COOPERATIVE) return limits->writes_matrices && limits->writes_matrices(p->side[A].operand->dtype);
    return kernel->needs != WORKGROUP;
}

/* The first row that fits. */
static const struct kernel *find_standard(const struct product *p, const struct hk_limits *limits) {
    const struct kernel *kernel = kernels, *const last = kernels + HK_LENGTH(kernels) - 1;
    for (; kernel < last; kernel++) {
        if (!is_usable(kernel, p, limits) || (kernel->needs == SOFTWARE) != limits->software) continue;
        if (!kernel->fill || count_tiles(kernel, p) * count_parts(kernel, p, limits) >= limits->processors) break;
    }
    return kernel;
}

/* What follows, as far as the kernels that can do it depend on that. */
static const char *describe_finish(const struct hk_finish *finish) {
    for (int o = 0; finish && o < finish->steps->n_outputs; o++)
        if (hk_dtype_size(finish->operands[o].dtype) != 4) return " followed16";
    return finish ? " followed" : "";
}

static void describe_work(const struct product *p, struct hk_choice *choice) {
    bool aligned = true;
    for (int side = A; side <= C; side++) aligned = aligned && is_aligned(p, side, side == C ? N : dense_axis(p, side), 16);
    aligned = aligned && (!p->finish || p->finish->fours);
    snprintf(choice->work, sizeof choice->work, "matmul %s*%s %c%c %lldx%lldx%lld x%lld%s%s%s%s",
             hk_dtype_name(p->side[A].operand->dtype), hk_dtype_name(p->side[B].operand->dtype),
             p->side[A].stride[K] == 1 || p->size[K] == 1 ? 'n' : 't', p->side[B].stride[N] == 1 || p->size[N] == 1 ? 'n' : 't',
             (long long)p->size[M], (long long)p->size[N], (long long)p->size[K], (long long)batch_items(p),
             p->bias ? " bias" : "", p->accumulate ? " accumulate" : "", aligned ? "" : " unaligned",
             describe_finish(p->finish));
}

static void add_way(struct hk_choice *choice, struct way *ways, struct way way, bool standard) {
    uint32_t constants[HK_LENGTH(way.kernel->spec) + 1];
    memcpy(constants, way.kernel->spec, sizeof way.kernel->spec);
    constants[HK_LENGTH(way.kernel->spec)] = way.parts > 1 ? (uint32_t)way.parts : 0;
    ways[choice->count] = way;
    hk_choice_add(choice, way.kernel->shader, constants, (int)HK_LENGTH(constants), standard);
}

/* The standard row, with parts of k where it needs them, unless it was measured that another one is faster, or that it is with
   k in one piece. */
static struct way choose(const struct product *p, struct hk_recorder *recorder) {
    const struct kernel *const standard = find_standard(p, recorder->limits);
    struct way ways[2 * HK_LENGTH(kernels)];
    struct hk_choice choice = {.count = 0};
    static_assert(HK_LENGTH(ways) <= HK_MAX_KERNELS, "a choice of all kernels, with and without parts");
    if (!recorder->choose) return (struct way){standard, count_parts(standard, p, recorder->limits)};
    describe_work(p, &choice);
    for (const struct kernel *i = kernels; i < kernels + HK_LENGTH(kernels); i++) {
        if (i != standard && !is_usable(i, p, recorder->limits)) continue;
        const int64_t parts = count_parts(i, p, recorder->limits);
        const struct way whole = {i, 1}, in_parts = {i, parts};
        if (!p->finish || can_finish(&whole, p, recorder->limits)) add_way(&choice, ways, whole, i == standard && parts == 1);
        if (parts > 1 && (!p->finish || can_finish(&in_parts, p, recorder->limits)))
            add_way(&choice, ways, in_parts, i == standard);
    }
    return ways[recorder->choose(recorder, &choice)];
}

/* ---- Recording ---- */

static uint64_t span(const struct product *p, int side) {
    int64_t last = 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++) last += (p->size[i] - 1) * p->side[side].stride[i];
    return (uint64_t)(last + 1) * hk_dtype_size(p->side[side].operand->dtype);
}

/* Elements between the start of the word that holds a side's first element and that element. */
static uint32_t rest(const struct side *s) {
    return (uint32_t)((s->operand->offset + s->offset) % 4 / hk_dtype_size(s->operand->dtype));
}

static uint32_t stride(const struct product *p, int side, int axis) { return (uint32_t)p->side[side].stride[axis]; }

static struct hk_matmul_push describe(const struct product *p) {
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

static void bind(struct hk_dispatch *d, const struct product *p, int side, int access) {
    const struct side *s = &p->side[side];
    hk_bind_range(d, s->operand, s->offset, span(p, side), access, side);
}

/* The last constants of matmul_direct: whether elements k and k + 1, of 16 bits, are a word, and of a's four of 32 bits a
   vector: all invocations read the same ones, and the driver looks once whether those exist. */
static void set_whole(struct hk_dispatch *d, const struct product *p) {
    for (int side = A; side <= B; side++) {
        const bool narrow = hk_dtype_size(p->side[side].operand->dtype) == 2;
        d->spec[COMMON_SPEC + 3 + side] = (narrow || side == A) && p->side[side].stride[K] == 1 &&
                                          is_aligned(p, side, K, narrow ? 4 : 16);
    }
}

/* The last constants of matmul and matmul_few: whether four elements along the dense dimension of each side are a vector. */
static void add_fours(struct hk_dispatch *d, const struct kernel *kernel, const struct product *p) {
    d->spec[d->n_spec++] = kernel->ahead;
    for (int side = A; side <= C; side++) {
        const int dense = side == C ? N : side == A ? (d->spec[1] ? K : M) : (d->spec[2] ? N : K);
        d->spec[d->n_spec++] = side == C ? has_fours(p) : p->side[side].stride[dense] == 1 &&
                               is_aligned(p, side, dense, 4 * hk_dtype_size(p->side[side].operand->dtype));
    }
}

/* What matmul_cooperative has besides. */
static void add_matrices(struct hk_dispatch *d, const struct kernel *kernel, const struct product *p,
                         const struct hk_limits *limits) {
    const struct hk_cooperative *const matrix = find_matrix(kernel, p, limits);
    const bool whole = !p->bias && !p->accumulate && !p->finish && has_fours(p);
    const uint32_t spec[] = {matrix->m, matrix->n, matrix->k, read_width(p, A, dense_axis(p, A)),
                             read_width(p, B, dense_axis(p, B)), whole, has_fours(p)};
    if (matrix->dtype == HK_BF16 && !p->finish) d->shader = kernel->bf16;
    memcpy(d->spec + d->n_spec, spec, sizeof spec);
    d->n_spec += (int)HK_LENGTH(spec);
    d->subgroup_size = limits->cooperative_subgroup;
    d->spec[0] *= limits->cooperative_subgroup;
}

/* What matmul_cooperative2 has: multiples of which the rows' strides are. */
static void add_widths(struct hk_dispatch *d, const struct kernel *kernel, const struct hk_matmul_push *push, enum hk_dtype dtype) {
    const uint32_t strides[] = {d->spec[1] ? push->a_row : push->a_column, d->spec[2] ? push->b_row : push->b_column,
                                push->c_row};
    for (size_t i = 0; i < HK_LENGTH(strides); i++)
        d->spec[d->n_spec++] = strides[i] % 8 == 0 ? 8 : strides[i] % 4 == 0 ? 4 : 1;
    if (dtype == HK_BF16) d->shader = kernel->bf16;
}

/* c; where the kernel does not store it, something to read in its place. */
static void bind_result(struct hk_dispatch *d, const struct product *p) {
    if (p->finish && !p->finish->keeps) hk_bind_range(d, p->side[B].operand, p->side[B].offset, span(p, B), HK_READ, C);
    else bind(d, p, C, p->accumulate ? HK_READ | HK_WRITE : HK_WRITE);
}

/* push: where the bases of its operands are, in bytes. */
static hk_status add_finish(const struct product *p, const char *define, bool fours, size_t push, struct hk_written *text,
                            struct hk_dispatch *d) {
    text->length = 0, text->n_constants = 0;
    return p->finish ? hk_finish_add(p->finish, define, fours, (int)(push / sizeof(uint32_t)), text, d) : HK_OK;
}

static hk_status record_kernel(const struct product *p, const struct kernel *kernel, struct hk_recorder *recorder) {
    struct hk_written text;
    const uint32_t invocations = kernel->invocations ? kernel->invocations : HK_MAX(recorder->limits->subgroup_size, 1);
    const int64_t tile_n = kernel->invocations ? kernel->tile_n : kernel->tile_n * invocations;
    struct hk_matmul_push push = describe(p);
    hk_matmul_tile(&push, kernel->tile_m, tile_n, batch_items(p));
    struct hk_dispatch d = {.shader = kernel->shader,
                            .spec = {invocations, push.a_column == 1 || push.k == 1, push.b_column == 1 || push.n == 1,
                                     p->bias, p->accumulate, p->side[A].operand->dtype,
                                     p->side[B].operand->dtype},
                            .n_spec = COMMON_SPEC + (int)HK_LENGTH(kernel->spec),
                            .flops = 2.0 * (double)p->size[M] * (double)p->size[N] * (double)p->size[K] *
                                     (double)batch_items(p)};
    memcpy(d.spec + COMMON_SPEC, kernel->spec, sizeof kernel->spec);
    if (kernel->needs == SOFTWARE) set_whole(&d, p);
    if (kernel->needs == PLAIN) add_fours(&d, kernel, p);
    if (kernel->needs == COOPERATIVE) add_matrices(&d, kernel, p, recorder->limits);
    if (kernel->needs == WORKGROUP) add_widths(&d, kernel, &push, p->side[A].operand->dtype);
    HK_PUSH(&d, push);
    bind(&d, p, A, HK_READ);
    bind(&d, p, B, HK_READ);
    bind_result(&d, p);
    bind(&d, p, BIAS, HK_READ);
    const bool bf16 = kernel->needs == COOPERATIVE && p->side[A].operand->dtype == HK_BF16;
    const hk_status status = add_finish(p, bf16 ? "BF16_ELEMENTS" : NULL, !kernel->most_m, offsetof(struct hk_matmul_push, after), &text, &d);
    hk_groups(recorder, &d, push.groups);
    return status ? status : recorder->record(recorder, &d);
}

/* The products of parts of k, [parts, batch, M, N] in the scratch memory. */
static struct product in_parts(const struct product *p, int64_t parts) {
    const int64_t k = p->size[K] / parts, items = batch_items(p), elements = p->size[M] * p->size[N];
    struct product result = *p;
    result.bias = result.accumulate = false;
    result.finish = NULL;
    result.batch_rank = 2;
    result.size[K] = k, result.size[BATCH] = parts, result.size[BATCH + 1] = items;
    for (int s = A; s <= B; s++) {
        result.side[s].stride[BATCH] = k * p->side[s].stride[K];
        result.side[s].stride[BATCH + 1] = p->batch_rank ? p->side[s].stride[BATCH] : 0;
    }
    result.side[C] = (struct side){
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
              .c_batch = p->batch_rank ? stride(p, C, BATCH) : 0,
              .c_row = stride(p, C, M)};
    const double read = (double)push.parts * push.elements, more = 1 + p->bias + p->accumulate;
    struct hk_dispatch d = {.shader = "matmul_parts",
                            .spec = {INVOCATIONS, p->bias, p->accumulate},
                            .n_spec = 3,
                            .flops = read + more * push.elements,
                            .bytes = 4 * (read + more * push.elements)};
    struct hk_written text;
    HK_PUSH(&d, push);
    hk_bind_range(&d, p->scratch, 0, span(parts, C), HK_READ, 0);
    if (p->finish && !p->finish->keeps) hk_bind_range(&d, p->scratch, 0, span(parts, C), HK_READ, 1);
    else hk_bind_range(&d, p->side[C].operand, p->side[C].offset, span(p, C), p->accumulate ? HK_READ | HK_WRITE : HK_WRITE, 1);
    hk_bind_range(&d, p->side[BIAS].operand, p->side[BIAS].offset, span(p, BIAS), HK_READ, 2);
    const hk_status status =
        add_finish(p, NULL, false, (size_t)((char *)push.after - (char *)&push), &text, &d);
    hk_groups(recorder, &d, (push.elements + INVOCATIONS - 1) / INVOCATIONS);
    return status ? status : recorder->record(recorder, &d);
}

/* A product whose operands fit. */
static hk_status record(const struct product *p, void *context) {
    struct hk_recorder *const recorder = context;
    const struct way way = choose(p, recorder);
    if (way.parts == 1) return record_kernel(p, way.kernel, recorder);
    const struct product parts = in_parts(p, way.parts);
    const hk_status status = record_kernel(&parts, way.kernel, recorder);
    return status ? status : record_sum(p, &parts, recorder);
}

struct need {
    const struct hk_limits *limits;
    uint64_t bytes;
};

/* What any kernel that may be chosen needs. */
static hk_status add_scratch(const struct product *p, void *context) {
    struct need *const need = context;
    for (const struct kernel *i = kernels; i < kernels + HK_LENGTH(kernels); i++) {
        const int64_t parts = is_usable(i, p, need->limits) ? count_parts(i, p, need->limits) : 1;
        if (parts > 1) need->bytes = HK_MAX(need->bytes, parts_bytes(p, parts));
    }
    return HK_OK;
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
        if (span(p, s) > span(p, largest)) largest = s;
    /* the backend rounds a binding's start down, so leave room for that */
    if (span(p, largest) <= limits->max_range - limits->offset_align) return -1;
    int64_t reach = 0;
    for (int i = 0; i < BATCH + p->batch_rank; i++) {
        const int64_t r = (p->size[i] - 1) * p->side[largest].stride[i];
        if (r > reach) axis = i, reach = r;
    }
    return axis;
}

/* Calls piece() for products that fit, one after the other. */
static hk_status for_pieces(const struct product *given, const struct hk_limits *limits,
                            hk_status (*piece)(const struct product *p, void *context), void *context) {
    struct product p = *given;
    merge_batch(&p);
    int axis = axis_to_cut(&p, limits);
    if (axis < 0 && p.batch_rank <= 2) return piece(&p, context);
    if (axis < 0) axis = BATCH; /* the kernels know two batch dimensions */
    const int64_t size = p.size[axis], half = size / 2 >= 256 ? size / 2 / 256 * 256 : size / 2;
    const struct product first = window(&p, axis, 0, half), second = window(&p, axis, half, size - half);
    const hk_status status = for_pieces(&first, limits, piece, context);
    return status ? status : for_pieces(&second, limits, piece, context);
}

/* bias may be NULL. */
static struct product whole(const struct hk_operand *a, const struct hk_operand *b, const struct hk_operand *bias,
                            const struct hk_operand *c) {
    const int rank = c->rank;
    struct product p = {.batch_rank = rank - 2, .bias = bias != NULL};
    p.size[M] = c->shape[rank - 2], p.size[N] = c->shape[rank - 1], p.size[K] = a->shape[rank - 1];
    p.side[A] = (struct side){.operand = a, .stride = {[M] = a->stride[rank - 2], [K] = a->stride[rank - 1]}};
    p.side[B] = (struct side){.operand = b, .stride = {[K] = b->stride[rank - 2], [N] = b->stride[rank - 1]}};
    p.side[C] = (struct side){.operand = c, .stride = {[M] = c->stride[rank - 2], [N] = c->stride[rank - 1]}};
    p.side[BIAS] = (struct side){.operand = bias ? bias : b, .stride = {[N] = p.bias}};
    for (int i = 0; i < rank - 2; i++) {
        p.size[BATCH + i] = c->shape[i];
        p.side[A].stride[BATCH + i] = a->stride[i];
        p.side[B].stride[BATCH + i] = b->stride[i];
        p.side[C].stride[BATCH + i] = c->stride[i];
    }
    return p;
}

static bool is_empty(const struct product *p) {
    bool empty = false;
    for (int i = 0; i < BATCH + p->batch_rank; i++) empty |= p->size[i] == 0;
    return empty;
}

static struct product product_of(const struct hk_step *step) {
    const struct hk_operand *const in = step->inputs;
    return whole(&in[0], &in[1], step->n_inputs > 2 ? &in[2] : NULL, &step->outputs[0]);
}

hk_status hk_matmul_record(const struct hk_step *step, const struct hk_finish *finish, struct hk_recorder *recorder) {
    struct hk_operand scratch = step->scratch;
    scratch.dtype = HK_F32;
    struct product p = product_of(step);
    p.scratch = &scratch;
    p.finish = finish;
    return is_empty(&p) ? HK_OK : for_pieces(&p, recorder->limits, record, recorder);
}

hk_status hk_matmul_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_matmul_record(step, NULL, recorder);
}

/* One piece, whose standard kernel runs the steps. */
bool hk_matmul_finishes(const struct hk_step *step, const struct hk_finish *finish, const struct hk_limits *limits) {
    struct product p = product_of(step);
    p.finish = finish;
    merge_batch(&p);
    if (is_empty(&p) || p.batch_rank > 2 || axis_to_cut(&p, limits) >= 0) return false;
    struct way standard = {.kernel = find_standard(&p, limits)};
    standard.parts = count_parts(standard.kernel, &p, limits);
    return can_finish(&standard, &p, limits);
}

uint64_t hk_matmul_scratch(const struct hk_step *step, const struct hk_limits *limits) {
    const struct product p = product_of(step);
    struct need need = {limits, 0};
    if (limits && !is_empty(&p)) for_pieces(&p, limits, add_scratch, &need);
    return need.bytes;
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
                                          .push = describe(p),
                                          .accumulate = p->accumulate};
    return v->piece(&piece, v->context);
}

hk_status hk_matmul_for_pieces(const struct hk_step *step, const struct hk_limits *limits,
                               hk_status (*piece)(const struct hk_matmul_piece *piece, void *context), void *context) {
    const struct product p = whole(&step->inputs[0], &step->inputs[1], NULL, &step->outputs[0]);
    struct visit v = {piece, context};
    return is_empty(&p) ? HK_OK : for_pieces(&p, limits, visit, &v);
}
#endif
