/* Products of i8, summed in i32. Both operands are packed as words of 32 bits that hold the next GROUP elements along k: four
   bytes where the set multiplies those (VNNI), else two of 16 bits, whose products and their sum i32 holds. Past the end of k
   there is 0. */
#ifdef HK_ISA_NAME
#include "op/gemm.h"
#if defined(__SSE2__) && !defined(__AVX2__)
#include <emmintrin.h>
#endif

typedef uint32_t words __attribute__((vector_size(VW * 4)));
typedef int32_t vi_unaligned __attribute__((vector_size(VW * 4), aligned(1), may_alias));

/* Anywhere: four elements of an operand are a word, too, and may begin at any byte. */
static inline vi load_words(const void *p) { return *(const vi_unaligned *)p; }
static inline void store_words(void *p, vi x) { *(vi_unaligned *)p = x; }
static inline vi set_word(uint32_t x) { return (vi){0} + (int32_t)x; }

/* ---- What the instruction set multiplies ----
   VNNI multiplies unsigned bytes by signed ones. So those of B become unsigned by 128 more, which adds 128 times a row's sum to
   each of its products: OFFSET is what the row's sum is multiplied by to make up for it. */

#if defined(__AVX512VNNI__)
#define GROUP_IS_PAIR 0
enum { GROUP = 4, OFFSET = -128 };
static inline vi dot(vi sum, vi a, vi b) { return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, (__m512i)a); }
static inline vi sum_of(vi a) { return dot((vi){0}, a, (vi){0} + 0x01010101); }
static inline vi as_right(vi b) { return b ^ (int32_t)0x80808080; }
#else
#define GROUP_IS_PAIR 1
enum { GROUP = 2, OFFSET = 0 };
static inline vi dot(vi sum, vi a, vi b) {
#if defined(__AVX512BW__)
    return sum + (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return sum + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return sum + (vi)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#else
    return sum + ((vi)((words)a << 16) >> 16) * ((vi)((words)b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
static inline vi sum_of(vi a) { return a & 0; } /* times OFFSET it is nothing */
static inline vi as_right(vi b) { return b; }
#endif

/* ---- Words ---- */

/* VW bytes as numbers of 32 bits, and 2 VW as numbers of 16: compilers take __builtin_convertvector apart. */
static inline vi widened(const int8_t *p) {
#if defined(__AVX512F__)
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(__AVX2__)
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#elif defined(__SSE2__)
    int32_t four;
    memcpy(&four, p, sizeof four);
    const __m128i bytes = _mm_cvtsi32_si128(four), pairs = _mm_unpacklo_epi8(bytes, bytes);
    return (vi)_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24);
#else
    vi x;
    for (int i = 0; i < VW; i++) x[i] = p[i];
    return x;
#endif
}
#if GROUP_IS_PAIR
static inline vi widened_pairs(const int8_t *p) {
#if defined(__AVX512BW__)
    return (vi)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__AVX2__)
    return (vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(__SSE2__)
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return (vi)_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
#elif defined(__aarch64__)
    return (vi)vmovl_s8(vld1_s8(p));
#else
    int16_t x[2 * VW];
    vi pairs;
    for (int i = 0; i < 2 * VW; i++) x[i] = p[i];
    memcpy(&pairs, x, sizeof pairs);
    return pairs;
#endif
}
#endif

/* The next VW words of a vector that is dense along k. */
static inline vi whole_words_along(const int8_t *x) {
#if GROUP_IS_PAIR
    return widened_pairs(x);
#else
    return load_words(x);
#endif
}

/* The same where k elements are there. */
INLINED vi words_along(const int8_t *x, int64_t k) {
    if (k >= VW * GROUP) return whole_words_along(x);
    int8_t part[VW * GROUP] = {0};
    if (k > 0) memcpy(part, x, (size_t)k);
    return whole_words_along(part);
}

/* A word of each of VW vectors that lie side by side. */
INLINED vi whole_words_across(const int8_t *x, int64_t inner) {
    words result = {0};
#pragma GCC unroll 4
    for (int e = 0; e < GROUP; e++)
        result |= ((words)widened(x + e * inner) & (GROUP == 4 ? 0xffu : 0xffffu)) << (unsigned)(e * (32 / GROUP));
    return (vi)result;
}

/* The same where `width` of the vectors are there, and k elements of each. */
INLINED vi words_across(const int8_t *x, int64_t width, int64_t k, int64_t inner) {
    if (width >= VW && k >= GROUP) return whole_words_across(x, inner);
    int8_t part[GROUP * VW] = {0};
    for (int64_t e = 0; e < HK_MIN(k, GROUP); e++) memcpy(part + e * VW, x + e * inner, (size_t)HK_MIN(width, VW));
    return whole_words_across(part, VW);
}

/* ---- Packing ---- */

/* Blocks of the product: DEPTH words along k, of which a strip of A and one of B stay in the first cache, and WIDTH columns of
   B in the second. */
enum { DEPTH = 256, WIDTH = VW == 16 ? 1024 : 512, BLOCK = DEPTH * GROUP };
_Static_assert((DEPTH * (WIDTH + GEMM_ROWS) + VW + GEMM_ROWS) * sizeof(uint32_t) <= CPU_WORKSPACE_BYTES, "workspace");

static int64_t count_words(int64_t k) { return (k + GROUP - 1) / GROUP; }

/* `width` (<= VW) vectors of length k, element (i, p) at source[i * outer + p * inner], as rows of words, pitch apart: the
   lanes past width are stored as well, and the next row overwrites them. */
INLINED void pack(uint32_t *target, int64_t pitch, const int8_t *source, int64_t width, int64_t k, int64_t outer,
                  int64_t inner, bool right) {
    if (outer == 1) {
        for (int64_t p = 0; p < k; p += GROUP, target += pitch) {
            const vi x = words_across(source + p * inner, width, k - p, inner);
            store_words(target, right ? as_right(x) : x);
        }
        return;
    }
    for (int64_t p = 0; p < k; p += VW * GROUP) {
        vf x[VW];
        for (int64_t i = 0; i < VW; i++) x[i] = (vf)words_along(source + HK_MIN(i, width - 1) * outer + p, k - p);
        v_transpose(x);
        const int64_t rows = HK_MIN(count_words(k - p), VW);
        for (int64_t i = 0; i < rows; i++, target += pitch) store_words(target, right ? as_right((vi)x[i]) : (vi)x[i]);
    }
}

/* B's columns [column, column + width) at depth [first, first + depth): strips of GEMM_COLUMNS, whatever is left of them. Where
   the columns lie side by side, they are read a few rows at a time for all strips, in whole cache lines. */
static void pack_b(const struct gemm *g, uint32_t *packed, int64_t column, int64_t width, int64_t first,
                   int64_t depth) {
    const int64_t step = g->b_column == 1 ? 4 * GROUP : depth, height = count_words(depth);
    const int8_t *const b = (const int8_t *)g->b + column * g->b_column + first * g->b_row;
    for (int64_t p = 0; p < depth; p += step)
        for (int64_t j = 0; j < width; j += VW)
            pack(packed + j / GEMM_COLUMNS * GEMM_COLUMNS * height + p / GROUP * GEMM_COLUMNS + j % GEMM_COLUMNS, GEMM_COLUMNS,
                 b + j * g->b_column + p * g->b_row, HK_MIN(width - j, VW), HK_MIN(depth - p, step), g->b_column, g->b_row,
                 true);
}

/* Some of A's rows, at most GEMM_ROWS, and what each row's sums start from. */
static void pack_a(uint32_t *packed, int32_t *start, const int8_t *a, int64_t rows, int64_t depth, int64_t a_row,
                   int64_t a_column) {
    pack(packed, rows, a, rows, depth, a_row, a_column, false);
    vi sum = {0};
    for (int64_t p = 0; OFFSET != 0 && p < count_words(depth); p++) sum += sum_of(load_words(packed + p * rows));
    sum *= OFFSET;
    memcpy(start, &sum, (size_t)rows * sizeof *start);
}

/* ---- The register tile ---- */

struct tile_out {
    int32_t *c; /* [rows, width], width <= GEMM_COLUMNS */
    int64_t c_row, width;
    const int32_t *start; /* [rows] */
    bool add;
};

/* The part of a row that a vector of sums is. */
INLINED void store_sum(vi sum, int32_t *c, int64_t width, bool add) {
    if (width >= VW) {
        if (add) sum += load_words(c);
        store_words(c, sum);
        return;
    }
    for (int64_t j = 0; j < width; j++) c[j] = sum[j] + (add ? c[j] : 0);
}

INLINED void tile(int rows, int64_t depth, const uint32_t *restrict a, const uint32_t *restrict b, const struct tile_out *out) {
    vi sum[GEMM_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = set_word((uint32_t)out->start[i]);
    for (int64_t p = 0; p < depth; p++, a += rows, b += GEMM_COLUMNS) {
        const vi b0 = load_words(b), b1 = load_words(b + VW);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vi x = set_word(a[i]);
            sum[i][0] = dot(sum[i][0], x, b0);
            sum[i][1] = dot(sum[i][1], x, b1);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        store_sum(sum[i][0], out->c + i * out->c_row, out->width, out->add);
        store_sum(sum[i][1], out->c + i * out->c_row + VW, out->width - VW, out->add);
    }
}

typedef void tile_fn(int64_t depth, const uint32_t *a, const uint32_t *b, const struct tile_out *out);
#define TILE(rows)                                                                                                         \
    static void tile_##rows(int64_t depth, const uint32_t *a, const uint32_t *b, const struct tile_out *out) {             \
        tile(rows, depth, a, b, out);                                                                                      \
    }
#define TILE_NAME(rows) tile_##rows,
GEMM_EACH_ROWS(TILE)
static tile_fn *const tiles[GEMM_ROWS] = {GEMM_EACH_ROWS(TILE_NAME)};

/* ---- The blocked product ---- */

/* One block of B against all rows, in strips of about equal height. */
static void multiply_block(const struct gemm *g, const uint32_t *b, uint32_t *a, int64_t column, int64_t width, int64_t first,
                           int64_t depth) {
    const int64_t strips = (g->m + GEMM_ROWS - 1) / GEMM_ROWS, height = count_words(depth);
    int32_t start[GEMM_ROWS];
    for (int64_t s = 0; s < strips; s++) {
        const int64_t row = s * g->m / strips, rows = (s + 1) * g->m / strips - row;
        pack_a(a, start, (const int8_t *)g->a + row * g->a_row + first * g->a_column, rows, depth, g->a_row, g->a_column);
        struct tile_out out = {.c_row = g->c_row, .start = start, .add = first > 0};
        for (int64_t j = 0; j < width; j += GEMM_COLUMNS) {
            out.c = (int32_t *)(void *)g->c + row * g->c_row + column + j;
            out.width = HK_MIN(width - j, GEMM_COLUMNS);
            tiles[rows - 1](height, a, b + j * height, &out);
        }
    }
}

void gemm_block_i8(const struct gemm *g, float *workspace) {
    uint32_t *const b = (void *)workspace, *const a = b + DEPTH * WIDTH;
    for (int64_t j = 0; j < g->n; j += WIDTH) {
        const int64_t width = HK_MIN(g->n - j, WIDTH);
        for (int64_t p = 0; p < g->k; p += BLOCK) {
            const int64_t depth = HK_MIN(g->k - p, BLOCK);
            pack_b(g, b, j, width, p, depth);
            multiply_block(g, b, a, j, width, p, depth);
        }
    }
}

/* ---- Few rows: B is read once, as it lies ---- */

/* A's rows as words, and what their sums start from. */
struct few {
    const uint32_t *row[GEMM_FEW];
    int32_t start[GEMM_FEW];
};

static struct few pack_few(const struct gemm *g, uint32_t *workspace) {
    const int64_t pitch = (count_words(g->k) + VW - 1) / VW * VW;
    struct few few = {0};
    for (int64_t i = 0; i < g->m; i++) {
        uint32_t *const row = workspace + i * pitch;
        vi sum = {0};
        for (int64_t p = 0; p < pitch; p += VW) {
            const vi x = words_along((const int8_t *)g->a + i * g->a_row + p * GROUP, g->k - p * GROUP);
            store_words(row + p, x);
            sum += sum_of(x);
        }
        for (int e = 0; e < VW; e++) few.start[i] += sum[e];
        few.start[i] *= OFFSET;
        few.row[i] = row;
    }
    return few;
}

/* c [m, 0 .. n) += the next `depth` words along k: each piece of C is touched once for several rows of B. */
enum { FEW_DEPTH = 4 };
INLINED void few_rows_of_b(const struct gemm *g, const struct few *few, int64_t p, int depth) {
    const int8_t *const b = (const int8_t *)g->b + p * GROUP * g->b_row;
    const int64_t k = g->k - p * GROUP;
    for (int64_t j = 0; j < g->n; j += VW) {
        vi y[FEW_DEPTH];
        for (int e = 0; j % 64 == 0 && e < depth * GROUP; e++)
            __builtin_prefetch(b + (depth * GROUP + e) * g->b_row + j, 0, 2);
#pragma GCC unroll 4
        for (int u = 0; u < depth; u++)
            y[u] = as_right(words_across(b + u * GROUP * g->b_row + j, g->n - j, k - u * GROUP, g->b_row));
        for (int64_t i = 0; i < g->m; i++) {
            vi sum = {0};
#pragma GCC unroll 4
            for (int u = 0; u < depth; u++) sum = dot(sum, set_word(few->row[i][p + u]), y[u]);
            store_sum(sum, (int32_t *)(void *)g->c + i * g->c_row + j, g->n - j, true);
        }
    }
}

static void few_by_rows(const struct gemm *g, const struct few *few) {
    int64_t p = 0;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) ((int32_t *)(void *)g->c)[i * g->c_row + j] = few->start[i];
    for (; (p + FEW_DEPTH) * GROUP <= g->k; p += FEW_DEPTH) few_rows_of_b(g, few, p, FEW_DEPTH);
    for (; p < count_words(g->k); p++) few_rows_of_b(g, few, p, 1);
}

INLINED void few_by_columns(const struct gemm *g, const struct few *few, int m) {
    for (int64_t j = 0; j < g->n; j++) {
        const int8_t *const b = (const int8_t *)g->b + j * g->b_column;
        vi sum[GEMM_FEW];
        for (int i = 0; i < m; i++) sum[i] = (vi){0};
        for (int64_t p = 0; p * GROUP < g->k; p += VW) {
            const vi y = as_right(words_along(b + p * GROUP, g->k - p * GROUP));
            if (m > 1) __builtin_prefetch(b + g->b_column + p * GROUP, 0, 2); /* one row alone is as fast as memory without */
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) sum[i] = dot(sum[i], load_words(few->row[i] + p), y);
        }
        for (int i = 0; i < m; i++) {
            int32_t total = few->start[i];
            for (int e = 0; e < VW; e++) total += sum[i][e];
            ((int32_t *)(void *)g->c)[i * g->c_row + j] = total;
        }
    }
}

void gemm_few_i8(const struct gemm *g, float *workspace) {
    const struct few few = pack_few(g, (void *)workspace);
    if (g->b_column == 1) few_by_rows(g, &few);
    else if (g->m == 1) few_by_columns(g, &few, 1);
    else if (g->m == 2) few_by_columns(g, &few, 2);
    else if (g->m == 3) few_by_columns(g, &few, 3);
    else few_by_columns(g, &few, 4);
}
#endif
