#ifdef HK_ISA_NAME
#include "op/gemm.h"

/* ---- Packing ---- */

INLINED vf load(enum hk_dtype type, const void *p) {
    return type == HK_F16 ? v_load_f16(p) : type == HK_BF16 ? v_load_bf16(p) : v_load(p);
}

/* The next n elements, at most a vector of them: what lies beyond may be another thread's. */
INLINED vf load_up_to(enum hk_dtype type, const void *p, int64_t n) {
    if (n >= VW) return load(type, p);
    uint16_t part[VW];
    if (type == HK_F32) return v_load_part(p, n, 0);
    v_copy_part16(part, p, n);
    return load(type, part);
}

INLINED void widen(float *to, const void *from, enum hk_dtype type, int64_t n) {
    for (int64_t i = 0; i < n; i += VW) {
        const vf x = load_up_to(type, gemm_at(from, type, i), n - i);
        if (n - i >= VW) v_store(to + i, x);
        else v_store_part(to + i, x, n - i);
    }
}

void gemm_widen(float *to, const void *from, enum hk_dtype type, int64_t n) {
    if (type == HK_F16) widen(to, from, HK_F16, n);
    else if (type == HK_BF16) widen(to, from, HK_BF16, n);
    else widen(to, from, HK_F32, n);
}

void gemm_narrow(void *to, const float *from, enum hk_dtype type, int64_t n) {
    uint16_t *const halves = to;
    int64_t i = 0;
    if (type == HK_F32) {
        memcpy(to, from, (size_t)n * sizeof *from);
    } else if (type == HK_BF16) {
        for (; i < n; i++) halves[i] = bf16_of(from[i]);
    } else {
        for (; i + VW <= n; i += VW) v_store_f16(halves + i, v_load(from + i));
        for (; i < n; i++) halves[i] = hk_f16_from_f32(from[i]);
    }
}

/* At most VW vectors that are dense along k: transposed by VW x VW tiles. The lanes past width are stored as well; the
   next row, or the next call, overwrites them. */
INLINED void pack_dense_inner(float *target, int64_t pitch, const void *source, enum hk_dtype type, int64_t width,
                              int64_t k, int64_t outer) {
    for (int64_t p = 0; p < k; p += VW) {
        vf x[VW];
        for (int i = 0; i < VW; i++)
            x[i] = load_up_to(type, gemm_at(source, type, HK_MIN(i, width - 1) * outer + p), k - p);
        v_transpose(x);
        for (int i = 0; i < VW; i++) v_store(target + (p + i) * pitch, x[i]);
    }
}

INLINED void pack_dense_outer(float *target, int64_t pitch, const void *source, enum hk_dtype type, int64_t width,
                              int64_t k, int64_t inner) {
    for (int64_t i = 0; i < width; i += VW)
        for (int64_t p = 0; p < k; p++)
            v_store(target + p * pitch + i, load_up_to(type, gemm_at(source, type, p * inner + i), width - i));
}

INLINED void pack(float *target, int64_t pitch, const void *source, enum hk_dtype type, int64_t width, int64_t k,
                  int64_t outer, int64_t inner) {
    if (outer == 1) {
        pack_dense_outer(target, pitch, source, type, width, k, inner);
        return;
    }
    for (int64_t i = 0; i < width; i += VW)
        pack_dense_inner(target + i, pitch, gemm_at(source, type, i * outer), type, HK_MIN(width - i, VW), k, outer);
}

void gemm_pack(float *target, int64_t pitch, const float *source, int64_t width, int64_t k, int64_t outer,
               int64_t inner) {
    pack(target, pitch, source, HK_F32, width, k, outer, inner);
}

void gemm_pack_any(float *target, int64_t pitch, const void *source, enum hk_dtype type, int64_t width, int64_t k,
                     int64_t outer, int64_t inner) {
    if (type == HK_F16) pack(target, pitch, source, HK_F16, width, k, outer, inner);
    else if (type == HK_BF16) pack(target, pitch, source, HK_BF16, width, k, outer, inner);
    else gemm_pack(target, pitch, source, width, k, outer, inner);
}

/* ---- The register tile ---- */

struct tile_out {
    float *c;
    int64_t c_row, width;
    const float *bias;
    enum gemm_start start;
};

/* One sum of a tile that is VW * vectors wide. */
static inline __attribute__((always_inline)) void store_sum(vf sum, const struct tile_out *out, int i, int column) {
    float *c = out->c + i * out->c_row + column;
    if (out->start == GEMM_ADD) sum += v_load(c);
    else if (out->bias) sum += v_load(out->bias + column);
    v_store(c, sum);
}

/* A tile that is narrower, from sums [rows, pitch]. */
static __attribute__((noinline)) void store_narrow(const float *sums, int64_t pitch, int rows,
                                                   const struct tile_out *out) {
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < out->width; j++) {
            float *c = out->c + i * out->c_row + j;
            const float start = out->start == GEMM_ADD ? *c : out->bias ? out->bias[j] : 0.0f;
            *c = sums[i * pitch + j] + start;
        }
}

static inline __attribute__((always_inline)) void tile(int rows, int vectors, int64_t k, const float *restrict a,
                                                       int64_t a_row, int64_t a_step, const float *restrict b,
                                                       const struct tile_out *out) {
    vf sum[GEMM_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < vectors; j++) __builtin_prefetch(out->c + i * out->c_row + j * VW, 1);
        sum[i][0] = sum[i][1] = (vf){0};
    }
    for (int64_t p = 0; p < k; p++) {
        const vf b0 = v_load(b), b1 = vectors > 1 ? v_load(b + VW) : b0;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vf x = v_set(a[i * a_row]);
            sum[i][0] += x * b0;
            if (vectors > 1) sum[i][1] += x * b1;
        }
        a += a_step;
        b += vectors * VW;
    }
    if (out->width == vectors * VW) {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors; j++) store_sum(sum[i][j], out, i, j * VW);
        return;
    }
    float sums[GEMM_ROWS * 2 * VW];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) v_store(sums + (i * vectors + j) * VW, sum[i][j]);
    store_narrow(sums, vectors * VW, rows, out);
}

typedef void tile_fn(int64_t k, const float *a, const float *b, const struct tile_out *out);
#define TILE(rows, vectors, left, a_row, a_step)                                                                       \
    static void tile_##left##_##rows##_##vectors(int64_t k, const float *a, const float *b,                            \
                                                 const struct tile_out *out) {                                         \
        tile(rows, vectors, k, a, a_row, a_step, b, out);                                                              \
    }
#define TILES(rows)                                                                                                    \
    TILE(rows, 1, packed, 1, rows)                                                                                     \
    TILE(rows, 2, packed, 1, rows)                                                                                     \
    TILE(rows, 1, across, 1, GEMM_COLUMNS)                                                                             \
    TILE(rows, 2, across, 1, GEMM_COLUMNS)                                                                             \
    TILE(rows, 1, along, GEMM_COLUMNS, 1)                                                                              \
    TILE(rows, 2, along, GEMM_COLUMNS, 1)
#define TILE_NAMES(rows)                                                                                               \
    {                                                                                                                  \
        [GEMM_PACKED] = {tile_packed_##rows##_1, tile_packed_##rows##_2},                                              \
        [GEMM_ACROSS] = {tile_across_##rows##_1, tile_across_##rows##_2},                                              \
        [GEMM_ALONG] = {tile_along_##rows##_1, tile_along_##rows##_2},                                                 \
    },
GEMM_EACH_ROWS(TILES)
static tile_fn *const tiles[GEMM_ROWS][3][2] = {GEMM_EACH_ROWS(TILE_NAMES)};

void gemm_tile(int rows, int64_t width, int64_t k, const float *a, enum gemm_left left, const float *b, float *c,
               int64_t c_row, enum gemm_start start, const float *bias) {
    const struct tile_out out = {c, c_row, width, bias, start};
    tiles[rows - 1][left][gemm_vectors(width) - 1](k, a, b, &out);
}

/* ---- The blocked product ---- */

/* Where vectors lie side by side they are packed a few at a time for all strips: memory is read as it lies, in whole
   cache lines, which strips of their own would share with their neighbours. */
static int64_t piece(int64_t stride, int64_t depth) { return stride == 1 ? 8 : depth; }

/* B's columns [column, column + width) at depth [first, first + depth), strip after strip. */
static void pack_b(const struct gemm *g, float *packed, int64_t column, int64_t width, int64_t first, int64_t depth) {
    const int64_t step = piece(g->b_column, depth);
    for (int64_t p = 0; p < depth; p += step)
        for (int64_t j = 0; j < width; j += GEMM_COLUMNS) {
            const int64_t strip = HK_MIN(width - j, GEMM_COLUMNS), pitch = gemm_vectors(strip) * VW;
            gemm_pack_any(packed + j * depth + p * pitch, pitch,
                     gemm_at(g->b, g->b_type, (column + j) * g->b_column + (first + p) * g->b_row), g->b_type, strip,
                     HK_MIN(depth - p, step), g->b_column, g->b_row);
        }
}

/* A's rows in strips of about equal height, so that no small strip remains. */
struct strips {
    int64_t m, count;
};
static int64_t first_row(const struct strips *s, int64_t strip) { return strip * s->m / s->count; }

/* Strips [from, to) at depth [first, first + depth). */
static void pack_a(const struct gemm *g, float *packed, const struct strips *strips, int64_t from, int64_t to,
                   int64_t first, int64_t depth) {
    const int64_t step = piece(g->a_row, depth);
    for (int64_t p = 0; p < depth; p += step)
        for (int64_t s = from; s < to; s++) {
            const int64_t row = first_row(strips, s), rows = first_row(strips, s + 1) - row;
            gemm_pack_any(packed + (s - from) * GEMM_STRIP + p * rows, rows,
                     gemm_at(g->a, g->a_type, row * g->a_row + (first + p) * g->a_column), g->a_type, rows,
                     HK_MIN(depth - p, step), g->a_row, g->a_column);
        }
}

/* One block of B against all rows. */
static void multiply_block(const struct gemm *g, const float *b, float *a, int64_t column, int64_t width, int64_t first,
                           int64_t depth) {
    const struct strips strips = {g->m, (g->m + GEMM_ROWS - 1) / GEMM_ROWS};
    const enum gemm_start start = first ? GEMM_ADD : GEMM_SET;
    for (int64_t s = 0; s < strips.count; s++) {
        const int64_t row = first_row(&strips, s), rows = first_row(&strips, s + 1) - row, ready = s % GEMM_STRIPS;
        if (ready == 0) pack_a(g, a, &strips, s, HK_MIN(s + GEMM_STRIPS, strips.count), first, depth);
        for (int64_t j = 0; j < width; j += GEMM_COLUMNS)
            gemm_tile((int)rows, HK_MIN(width - j, GEMM_COLUMNS), depth, a + ready * GEMM_STRIP, GEMM_PACKED,
                      b + j * depth, g->c + row * g->c_row + column + j, g->c_row, start,
                      g->bias ? g->bias + column + j : NULL);
    }
}

static void fill_bias(const struct gemm *g) {
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) g->c[i * g->c_row + j] = g->bias ? g->bias[j] : 0.0f;
}

void gemm_block(const struct gemm *g, float *workspace) {
    if (g->k == 0) {
        fill_bias(g);
        return;
    }
    if (g->a_type == HK_I8) {
        gemm_block_i8(g, workspace);
        return;
    }
#if defined(GEMM_BF16)
    if (g->a_type == HK_BF16 && g->b_type == HK_BF16) {
        gemm_block_bf16(g, workspace);
        return;
    }
#endif
    const int64_t blocks = (g->k + GEMM_DEPTH - 1) / GEMM_DEPTH;
    const int64_t depth = (((g->k + blocks - 1) / blocks) + VW - 1) / VW * VW; /* <= GEMM_DEPTH, a multiple of VW */
    float *const b = workspace, *const a = workspace + GEMM_DEPTH * (GEMM_WIDTH + GEMM_COLUMNS) + GEMM_SLACK;
    for (int64_t j = 0; j < g->n; j += GEMM_WIDTH) {
        const int64_t width = HK_MIN(g->n - j, GEMM_WIDTH);
        for (int64_t p = 0; p < g->k; p += depth) {
            const int64_t d = HK_MIN(g->k - p, depth);
            pack_b(g, b, j, width, p, d);
            multiply_block(g, b, a, j, width, p, d);
        }
    }
}

/* ---- Few rows ----
   B comes from memory at the rate of memory: what the next round reads is asked for in this one, as its rows are too
   short for processors to see by themselves where they lead; into the second cache, which waits for more at a time than
   the first one can. */

#define FEW_DEPTH 8

/* c [m, 0 .. n) += a [m, depth] b [depth, 0 .. n), b's rows dense: each piece of C is touched once per FEW_DEPTH rows
 * of B. */
INLINED void few_rows_of_b(const struct gemm *g, enum hk_dtype type, int64_t p, int depth) {
    for (int64_t j = 0; j < g->n; j += VW) {
        const int64_t n = HK_MIN(g->n - j, VW);
        vf b[FEW_DEPTH];
#pragma GCC unroll 8
        for (int u = 0; u < depth; u++) {
            b[u] = load(type, gemm_at(g->b, type, (p + u) * g->b_row + j));
            __builtin_prefetch(gemm_at(g->b, type, (p + depth + u) * g->b_row + j), 0, 2);
        }
        for (int64_t i = 0; i < g->m; i++) {
            float *c = g->c + i * g->c_row + j;
            const float *a = (const float *)g->a + i * g->a_row + p;
            vf sum = n == VW ? v_load(c) : v_load_part(c, n, 0.0f);
#pragma GCC unroll 8
            for (int u = 0; u < depth; u++) sum += v_set(a[u]) * b[u];
            if (n == VW) v_store(c, sum);
            else v_store_part(c, sum, n);
        }
    }
}

INLINED void few_by_rows(const struct gemm *g, enum hk_dtype type) {
    fill_bias(g);
    int64_t p = 0;
    for (; p + FEW_DEPTH <= g->k; p += FEW_DEPTH) few_rows_of_b(g, type, p, FEW_DEPTH);
    for (; p < g->k; p++) few_rows_of_b(g, type, p, 1);
}

/* m x count dot products along dense k. */
INLINED void few_dots(const struct gemm *g, enum hk_dtype type, int m, int count, int64_t column) {
    vf sum[GEMM_FEW][4];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < count; j++) sum[i][j] = (vf){0};
    const float *a = g->a;
    const void *b = gemm_at(g->b, type, column * g->b_column);
    int64_t p = 0;
    for (; p + VW <= g->k; p += VW)
#pragma GCC unroll 4
        for (int j = 0; j < count; j++) {
            const vf y = load(type, gemm_at(b, type, j * g->b_column + p));
            __builtin_prefetch(gemm_at(b, type, (count + j) * g->b_column + p), 0, 2);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) sum[i][j] += v_load(a + i * g->a_row + p) * y;
        }
    for (int j = 0; j < count; j++)
        for (int i = 0; i < m; i++) {
            if (p < g->k) {
                const vf y = load_up_to(type, gemm_at(b, type, j * g->b_column + p), g->k - p);
                sum[i][j] += v_load_part(a + i * g->a_row + p, g->k - p, 0.0f) * y;
            }
            g->c[i * g->c_row + column + j] = v_sum(sum[i][j]) + (g->bias ? g->bias[column + j] : 0.0f);
        }
}

INLINED void few_by_columns(const struct gemm *g, enum hk_dtype type, int m) {
    int64_t j = 0;
    for (; j + 4 <= g->n; j += 4) few_dots(g, type, m, 4, j);
    for (; j < g->n; j++) few_dots(g, type, m, 1, j);
}

INLINED void few(const struct gemm *g, enum hk_dtype type) {
    if (g->b_column == 1) few_by_rows(g, type);
    else if (g->m == 1) few_by_columns(g, type, 1);
    else if (g->m == 2) few_by_columns(g, type, 2);
    else if (g->m == 3) few_by_columns(g, type, 3);
    else few_by_columns(g, type, 4);
}

static void few_f16(const struct gemm *g) { few(g, HK_F16); }
static void few_bf16(const struct gemm *g) { few(g, HK_BF16); }

void gemm_few(const struct gemm *g) {
    if (g->b_type == HK_F16) few_f16(g);
    else if (g->b_type == HK_BF16) few_bf16(g);
    else few(g, HK_F32);
}
#endif
