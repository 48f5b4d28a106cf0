#ifdef HK_ISA_NAME
#include "op/gemm.h"

/* ---- Packing ---- */

/* One step of the perfect shuffle of 2 * VW floats; log2(VW) of them on VW vectors transpose. */
#if VW == 16
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b)                                                                                          \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VW == 8
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

static inline void transpose(vf *x) {
    vf y[VW];
#pragma GCC unroll 4
    for (int step = 1; step < VW; step *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < VW / 2; i++) {
            y[2 * i] = INTERLEAVE_LOW(x[i], x[i + VW / 2]);
            y[2 * i + 1] = INTERLEAVE_HIGH(x[i], x[i + VW / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VW; i++) x[i] = y[i];
    }
}

/* The next n floats, at most a vector of them: what lies beyond may be another thread's. */
static inline vf load_up_to(const float *p, int64_t n) { return n >= VW ? v_load(p) : v_load_part(p, n, 0); }

/* At most VW vectors that are dense along k: transposed by VW x VW tiles. The lanes past width are stored as well; the
   next row, or the next call, overwrites them. */
static void pack_dense_inner(float *target, int64_t pitch, const float *source, int64_t width, int64_t k,
                             int64_t outer) {
    for (int64_t p = 0; p < k; p += VW) {
        vf x[VW];
        for (int i = 0; i < VW; i++) x[i] = load_up_to(source + HK_MIN(i, width - 1) * outer + p, k - p);
        transpose(x);
        for (int i = 0; i < VW; i++) v_store(target + (p + i) * pitch, x[i]);
    }
}

static void pack_dense_outer(float *target, int64_t pitch, const float *source, int64_t width, int64_t k,
                             int64_t inner) {
    for (int64_t i = 0; i < width; i += VW)
        for (int64_t p = 0; p < k; p++)
            v_store(target + p * pitch + i, load_up_to(source + p * inner + i, width - i));
}

void gemm_pack(float *target, int64_t pitch, const float *source, int64_t width, int64_t k, int64_t outer,
               int64_t inner) {
    if (outer == 1) {
        pack_dense_outer(target, pitch, source, width, k, inner);
        return;
    }
    for (int64_t i = 0; i < width; i += VW)
        pack_dense_inner(target + i, pitch, source + i * outer, HK_MIN(width - i, VW), k, outer);
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
                                                       const float *restrict b, const struct tile_out *out) {
    vf sum[GEMM_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(out->c + i * out->c_row, 1);
        sum[i][0] = sum[i][1] = (vf){0};
    }
    for (int64_t p = 0; p < k; p++) {
        const vf b0 = v_load(b), b1 = vectors > 1 ? v_load(b + VW) : b0;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vf x = v_set(a[i]);
            sum[i][0] += x * b0;
            if (vectors > 1) sum[i][1] += x * b1;
        }
        a += rows;
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
#define TILE(rows, vectors)                                                                                            \
    static void tile_##rows##_##vectors(int64_t k, const float *a, const float *b, const struct tile_out *out) {       \
        tile(rows, vectors, k, a, b, out);                                                                             \
    }
#define TILE_PAIR(rows)                                                                                                \
    TILE(rows, 1)                                                                                                      \
    TILE(rows, 2)                                                                                                      \
    _Static_assert(rows <= GEMM_ROWS, "tile")
#define TILE_NAMES(rows)                                                                                               \
    { tile_##rows##_1, tile_##rows##_2 }

TILE_PAIR(1);
TILE_PAIR(2);
TILE_PAIR(3);
TILE_PAIR(4);
#if GEMM_ROWS > 4
TILE_PAIR(5);
TILE_PAIR(6);
#endif
#if GEMM_ROWS > 6
TILE_PAIR(7);
TILE_PAIR(8);
TILE_PAIR(9);
TILE_PAIR(10);
TILE_PAIR(11);
TILE_PAIR(12);
TILE_PAIR(13);
TILE_PAIR(14);
#endif

static tile_fn *const tiles[GEMM_ROWS][2] = {
    TILE_NAMES(1),  TILE_NAMES(2),  TILE_NAMES(3),  TILE_NAMES(4),
#if GEMM_ROWS > 4
    TILE_NAMES(5),  TILE_NAMES(6),
#endif
#if GEMM_ROWS > 6
    TILE_NAMES(7),  TILE_NAMES(8),  TILE_NAMES(9),  TILE_NAMES(10),
    TILE_NAMES(11), TILE_NAMES(12), TILE_NAMES(13), TILE_NAMES(14),
#endif
};

void gemm_tile(int rows, int64_t width, int64_t k, const float *a, const float *b, float *c, int64_t c_row,
               enum gemm_start start, const float *bias) {
    const struct tile_out out = {c, c_row, width, bias, start};
    tiles[rows - 1][gemm_vectors(width) - 1](k, a, b, &out);
}

/* ---- The blocked product ---- */

/* B's columns [0, width) at depth [first, first + depth), strip after strip. */
static void pack_b(const struct gemm *g, float *packed, int64_t column, int64_t width, int64_t first, int64_t depth) {
    for (int64_t j = 0; j < width; j += GEMM_COLUMNS) {
        const int64_t strip = HK_MIN(width - j, GEMM_COLUMNS);
        gemm_pack(packed + j * depth, gemm_vectors(strip) * VW, g->b + (column + j) * g->b_column + first * g->b_row,
                  strip, depth, g->b_column, g->b_row);
    }
}

/* One block of B against all rows, in strips of rows of about equal height, so that no small strip remains. */
static void multiply_block(const struct gemm *g, const float *b, float *a, int64_t column, int64_t width, int64_t first,
                           int64_t depth) {
    const int64_t strips = (g->m + GEMM_ROWS - 1) / GEMM_ROWS;
    const enum gemm_start start = first ? GEMM_ADD : GEMM_SET;
    for (int64_t s = 0; s < strips; s++) {
        const int64_t row = s * g->m / strips, rows = (s + 1) * g->m / strips - row;
        gemm_pack(a, rows, g->a + row * g->a_row + first * g->a_column, rows, depth, g->a_row, g->a_column);
        for (int64_t j = 0; j < width; j += GEMM_COLUMNS)
            gemm_tile((int)rows, HK_MIN(width - j, GEMM_COLUMNS), depth, a, b + j * depth,
                      g->c + row * g->c_row + column + j, g->c_row, start, g->bias ? g->bias + column + j : NULL);
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

/* ---- Few rows ---- */

#define FEW_DEPTH 8

/* c [m, 0 .. n) += a [m, depth] b [depth, 0 .. n), b's rows dense: each piece of C is touched once per FEW_DEPTH rows
 * of B. */
static inline __attribute__((always_inline)) void few_rows_of_b(const struct gemm *g, int64_t p, int depth) {
    for (int64_t j = 0; j < g->n; j += VW) {
        const int64_t n = HK_MIN(g->n - j, VW);
        vf b[FEW_DEPTH];
#pragma GCC unroll 8
        for (int u = 0; u < depth; u++) b[u] = v_load(g->b + (p + u) * g->b_row + j);
        for (int64_t i = 0; i < g->m; i++) {
            float *c = g->c + i * g->c_row + j;
            const float *a = g->a + i * g->a_row + p;
            vf sum = n == VW ? v_load(c) : v_load_part(c, n, 0.0f);
#pragma GCC unroll 8
            for (int u = 0; u < depth; u++) sum += v_set(a[u]) * b[u];
            if (n == VW) v_store(c, sum);
            else v_store_part(c, sum, n);
        }
    }
}

static void few_by_rows(const struct gemm *g) {
    fill_bias(g);
    int64_t p = 0;
    for (; p + FEW_DEPTH <= g->k; p += FEW_DEPTH) few_rows_of_b(g, p, FEW_DEPTH);
    for (; p < g->k; p++) few_rows_of_b(g, p, 1);
}

/* m x count dot products along dense k. */
static inline __attribute__((always_inline)) void few_dots(const struct gemm *g, int m, int count, int64_t column) {
    vf sum[GEMM_FEW][4];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < count; j++) sum[i][j] = (vf){0};
    const float *b = g->b + column * g->b_column;
    int64_t p = 0;
    for (; p + VW <= g->k; p += VW)
#pragma GCC unroll 4
        for (int j = 0; j < count; j++) {
            const vf y = v_load(b + j * g->b_column + p);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) sum[i][j] += v_load(g->a + i * g->a_row + p) * y;
        }
    for (int j = 0; j < count; j++)
        for (int i = 0; i < m; i++) {
            if (p < g->k) {
                const vf y = v_load_part(b + j * g->b_column + p, g->k - p, 0.0f);
                sum[i][j] += v_load_part(g->a + i * g->a_row + p, g->k - p, 0.0f) * y;
            }
            g->c[i * g->c_row + column + j] = v_sum(sum[i][j]) + (g->bias ? g->bias[column + j] : 0.0f);
        }
}

static inline __attribute__((always_inline)) void few_by_columns(const struct gemm *g, int m) {
    int64_t j = 0;
    for (; j + 4 <= g->n; j += 4) few_dots(g, m, 4, j);
    for (; j < g->n; j++) few_dots(g, m, 1, j);
}

void gemm_few(const struct gemm *g) {
    if (g->b_column == 1) few_by_rows(g);
    else if (g->m == 1) few_by_columns(g, 1);
    else if (g->m == 2) few_by_columns(g, 2);
    else if (g->m == 3) few_by_columns(g, 3);
    else few_by_columns(g, 4);
}
#endif
