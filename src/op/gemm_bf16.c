/* Products of bf16 by instructions that multiply pairs along k and add to f32: vdpbf16ps, or AMX's tdpbf16ps. Both pack
   pairs as words of 32 bits, with zeros beyond k. */
#if defined(HK_ISA_NAME) && defined(__AVX512BF16__)
#include "op/gemm.h"

/* Blocks of the product: B is packed WIDTH columns wide and PANEL deep, for the second cache or the third, and meets
   one strip of A (ROWS x PANEL) after the other, in parts of DEPTH, of which A's stays in the first cache and C's in
   the second. STEP: what is packed is a multiple of it deep. */
enum { COLUMNS = 32, STEP = 32 };
#if defined(__AMX_BF16__)
enum { ROWS = 32, DEPTH = 384, PANEL = 3 * DEPTH, WIDTH = 384 };
#define PACKED_ROWS(rows) ROWS
#else
enum { ROWS = GEMM_ROWS, DEPTH = 768, PANEL = DEPTH, WIDTH = 2048 };
#define PACKED_ROWS(rows) (rows)
#endif
_Static_assert(((WIDTH + ROWS) * (PANEL / 2) + VW) * sizeof(uint32_t) <= CPU_WORKSPACE_BYTES, "workspace");

/* ---- Packing ---- */

static __mmask16 first_lanes(int64_t n) { return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1); }

/* The first 16 pairs of a vector that is dense along k. */
static __m512i pairs_along(const uint16_t *x, int64_t k) {
    return _mm512_maskz_loadu_epi16(k >= STEP ? UINT32_MAX : (1u << k) - 1, x);
}

/* The first pair of each of 16 vectors that lie side by side. */
static __m512i pairs_across(const uint16_t *x, int64_t width, int64_t k, int64_t inner) {
    const __mmask16 lanes = first_lanes(width);
    const __m512i first = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x));
    if (k == 1) return first;
    return _mm512_or_epi32(first,
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x + inner)), 16));
}

/* `width` (<= 16) vectors of length k, element (i, p) at source[i * outer + p * inner]; outer or inner is 1. For each
   16 pairs along k, `step` words apart: 16 rows of 16 words, `pitch` apart. `along`: rows are vectors, else pairs. */
INLINED void pack_layout(uint32_t *target, int64_t pitch, int64_t step, const uint16_t *source, int64_t width,
                         int64_t k, int64_t outer, int64_t inner, bool along, bool dense_outer) {
    for (; k > 0; k -= STEP, source += STEP * inner, target += step) {
        vf x[16];
        for (int i = 0; i < 16; i++)
            x[i] = (vf)(dense_outer ? (2 * i < k ? pairs_across(source + 2 * i * inner, width, k - 2 * i, inner)
                                                 : _mm512_setzero_si512())
                                    : (i < width ? pairs_along(source + i * outer, k) : _mm512_setzero_si512()));
        if (along == dense_outer) v_transpose(x);
        for (int i = 0; i < 16; i++) _mm512_storeu_ps(target + i * pitch, (__m512)x[i]);
    }
}

INLINED void pack(uint32_t *target, int64_t pitch, int64_t step, const uint16_t *source, int64_t width, int64_t k,
                  int64_t outer, int64_t inner, bool along) {
    if (outer == 1) pack_layout(target, pitch, step, source, width, k, outer, inner, along, true);
    else pack_layout(target, pitch, step, source, width, k, outer, inner, along, false);
}

/* How much of its depth to pack at a time: vectors that lie side by side share cache lines. */
static int64_t piece(int64_t outer, int64_t depth) { return outer == 1 ? STEP : depth; }

/* A block of B, strip after strip of COLUMNS: [depth / 2, COLUMNS] pairs each. */
static void pack_b(const struct gemm *g, uint32_t *packed, int64_t column, int64_t width, int64_t first,
                   int64_t depth) {
    const int64_t padded = (depth + STEP - 1) / STEP * STEP, step = piece(g->b_column, depth);
    for (int64_t p = 0; p < depth; p += step)
        for (int64_t j = 0; j < width; j += 16)
            pack(packed + j / COLUMNS * COLUMNS * (padded / 2) + p / 2 * COLUMNS + j % COLUMNS, COLUMNS,
                 COLUMNS * STEP / 2, (const uint16_t *)g->b + (column + j) * g->b_column + (first + p) * g->b_row,
                 HK_MIN(width - j, 16), HK_MIN(depth - p, step), g->b_column, g->b_row, false);
}

/* ---- The register tile ---- */

/* C [rows, width] of a tile, rows <= ROWS and width <= COLUMNS. */
struct tile_out {
    float *c;
    int64_t c_row;
    int rows;
    int64_t width;
    const float *bias;
    enum gemm_start start;
};

#if defined(__AMX_BF16__)
/* Strips of A: for each STEP along k two tiles [16 rows, 16 pairs]. */
static void pack_a(uint32_t *packed, const uint16_t *a, int rows, int64_t depth, int64_t a_row, int64_t a_column) {
    const int64_t step = piece(a_row, depth);
    for (int64_t p = 0; p < depth; p += step)
        for (int i = 0; i < rows; i += 16)
            pack(packed + p / 2 * ROWS + i * 16, 16, ROWS * STEP / 2, a + i * a_row + p * a_column,
                 HK_MIN(rows - i, 16), HK_MIN(depth - p, step), a_row, a_column, true);
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void begin_tiles(void) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("" : : "m"(config));
    _tile_loadconfig(&config);
}
static void end_tiles(void) { _tile_release(); }

INLINED void start_tiles(const float *c, int64_t c_row, enum gemm_start start, const float *bias, bool second,
                         bool right) {
    const int64_t stride = start == GEMM_ADD ? c_row * 4 : 0;
    const float *from = start == GEMM_ADD ? c : bias;
    if (!from) {
        _tile_zero(0);
        if (right) _tile_zero(1);
        if (second) _tile_zero(2);
        if (second && right) _tile_zero(3);
        return;
    }
    _tile_loadd(0, from, stride);
    if (right) _tile_loadd(1, from + 16, stride);
    if (second) _tile_loadd(2, from + 4 * stride, stride);
    if (second && right) _tile_loadd(3, from + 4 * stride + 16, stride);
}

/* C [32 or 16, 32 or 16], as `second` and `right` say. */
INLINED void whole_tile(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out, bool second,
                        bool right) {
    __asm__ volatile("" : : : "memory"); /* GCC's tile loads do not say that they read memory */
    start_tiles(out->c, out->c_row, out->start, out->bias, second, right);
    for (int64_t p = 0; p < k; p += STEP, a += ROWS * STEP / 2, b += COLUMNS * STEP / 2) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 4 * COLUMNS);
        _tile_dpbf16ps(0, 4, 6);
        if (right) {
            _tile_loadd(7, b + 16, 4 * COLUMNS);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (second) {
            _tile_loadd(5, a + 256, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (second && right) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out->c, out->c_row * 4);
    if (right) _tile_stored(1, out->c + 16, out->c_row * 4);
    if (second) _tile_stored(2, out->c + 16 * out->c_row, out->c_row * 4);
    if (second && right) _tile_stored(3, out->c + 16 * out->c_row + 16, out->c_row * 4);
}

static void copy_part(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * to_row, from + i * from_row, (size_t)width * sizeof *to);
}

/* By way of a whole tile on the stack. */
static void part_tile(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out) {
    float sums[ROWS * COLUMNS], bias[COLUMNS];
    struct tile_out whole = *out;
    whole.c = sums, whole.c_row = COLUMNS;
    if (out->start == GEMM_ADD) copy_part(sums, COLUMNS, out->c, out->c_row, out->rows, out->width);
    if (out->bias) copy_part(bias, 0, out->bias, 0, 1, out->width), whole.bias = bias;
    if (out->rows > 16 && out->width > 16) whole_tile(k, a, b, &whole, true, true);
    else if (out->rows > 16) whole_tile(k, a, b, &whole, true, false);
    else if (out->width > 16) whole_tile(k, a, b, &whole, false, true);
    else whole_tile(k, a, b, &whole, false, false);
    copy_part(out->c, out->c_row, sums, COLUMNS, out->rows, out->width);
}

static void multiply_tile(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out) {
    if (out->rows == ROWS && out->width == COLUMNS) whole_tile(k, a, b, out, true, true);
    else part_tile(k, a, b, out);
}

#else
/* Strips of A: [depth / 2, rows] pairs. */
static void pack_a(uint32_t *packed, const uint16_t *a, int rows, int64_t depth, int64_t a_row, int64_t a_column) {
    pack(packed, rows, rows * STEP / 2, a, rows, depth, a_row, a_column, false);
}

static void begin_tiles(void) {}
static void end_tiles(void) {}

static inline void store_sum(__m512 sum, float *c, __mmask16 lanes, const float *bias, enum gemm_start start) {
    if (start == GEMM_ADD) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, c));
    else if (bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, bias));
    _mm512_mask_storeu_ps(c, lanes, sum);
}

INLINED void tile(int rows, int64_t k, const uint32_t *restrict a, const uint32_t *restrict b,
                  const struct tile_out *out) {
    __m512 sum[ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t p = 0; p < k; p += 2, a += rows, b += COLUMNS) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(b), right = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, left);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, right);
        }
    }
    const __mmask16 left = first_lanes(out->width), right = first_lanes(HK_MAX(out->width - 16, 0));
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *c = out->c + i * out->c_row;
        store_sum(sum[i][0], c, left, out->bias, out->start);
        if (right) store_sum(sum[i][1], c + 16, right, out->bias ? out->bias + 16 : NULL, out->start);
    }
}

typedef void tile_fn(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out);
#define TILE(rows)                                                                                                     \
    static void tile_##rows(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out) {             \
        tile(rows, k, a, b, out);                                                                                      \
    }
#define TILE_NAME(rows) tile_##rows,
GEMM_EACH_ROWS(TILE)
static tile_fn *const tiles[ROWS] = {GEMM_EACH_ROWS(TILE_NAME)};

static void multiply_tile(int64_t k, const uint32_t *a, const uint32_t *b, const struct tile_out *out) {
    tiles[out->rows - 1](k, a, b, out);
}
#endif

/* ---- The blocked product ---- */

/* A strip of A against a panel of B, c and bias at its first row and column. */
static void multiply_strip(const uint32_t *a, const uint32_t *b, int64_t width, int64_t depth, struct tile_out out) {
    float *const c = out.c;
    const float *const bias = out.bias;
    const int64_t padded = (depth + STEP - 1) / STEP * STEP, a_pitch = PACKED_ROWS(out.rows);
    for (int64_t p = 0; p < depth; p += DEPTH, out.start = GEMM_ADD)
        for (int64_t j = 0; j < width; j += COLUMNS) {
            out.c = c + j;
            out.width = HK_MIN(width - j, COLUMNS);
            out.bias = bias ? bias + j : NULL;
            multiply_tile(HK_MIN(depth - p, DEPTH), a + p / 2 * a_pitch, b + j * (padded / 2) + p / 2 * COLUMNS, &out);
        }
}

static void multiply_panel(const struct gemm *g, const uint32_t *b, uint32_t *a, int64_t column, int64_t width,
                           int64_t first, int64_t depth) {
    const uint16_t *source = (const uint16_t *)g->a + first * g->a_column;
    for (int64_t row = 0; row < g->m; row += ROWS) {
        const struct tile_out out = {.c = g->c + row * g->c_row + column,
                                     .c_row = g->c_row,
                                     .rows = (int)HK_MIN(g->m - row, ROWS),
                                     .bias = g->bias ? g->bias + column : NULL,
                                     .start = first ? GEMM_ADD : GEMM_SET};
        pack_a(a, source + row * g->a_row, out.rows, depth, g->a_row, g->a_column);
        multiply_strip(a, b, width, depth, out);
    }
}

void gemm_block_bf16(const struct gemm *g, float *workspace) {
    uint32_t *const b = (void *)workspace, *const a = b + WIDTH * (PANEL / 2);
    begin_tiles();
    for (int64_t j = 0; j < g->n; j += WIDTH) {
        const int64_t width = HK_MIN(g->n - j, WIDTH);
        for (int64_t p = 0; p < g->k; p += PANEL) {
            const int64_t depth = HK_MIN(g->k - p, PANEL);
            pack_b(g, b, j, width, p, depth);
            multiply_panel(g, b, a, j, width, p, depth);
        }
    }
    end_tiles();
}
#endif
