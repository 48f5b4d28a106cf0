/* Matrix products in single precision for CPU kernels, on the thread that calls: packing, which widens 16-bit operands,
   the register tile, and a blocked product made of both (Goto and van de Geijn, 2008; Van Zee and van de Geijn, 2015). */
#ifndef HK_OP_GEMM_H
#define HK_OP_GEMM_H

#include "cpu/simd.h"
#include "op/op.h"

/* Functions of the instruction set that the including file is compiled for. */
#define gemm_pack CPU_NAME(gemm_pack)
#define gemm_pack_any CPU_NAME(gemm_pack_any)
#define gemm_widen CPU_NAME(gemm_widen)
#define gemm_narrow CPU_NAME(gemm_narrow)
#define gemm_tile CPU_NAME(gemm_tile)
#define gemm_block CPU_NAME(gemm_block)
#define gemm_few CPU_NAME(gemm_few)
#define gemm_block_bf16 CPU_NAME(gemm_block_bf16)
#define gemm_block_i8 CPU_NAME(gemm_block_i8)
#define gemm_few_i8 CPU_NAME(gemm_few_i8)

#define INLINED static inline __attribute__((always_inline)) /* with the dtype or the size known */

/* The register tile: GEMM_ROWS x GEMM_COLUMNS sums stay in registers. GEMM_EACH_ROWS(x): x(1) to x(GEMM_ROWS). */
#define GEMM_COLUMNS (2 * VW)
#if VW == 16
#define GEMM_ROWS 14
#define GEMM_EACH_ROWS(x) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14)
#elif VW == 8
#define GEMM_ROWS 6
#define GEMM_EACH_ROWS(x) x(1) x(2) x(3) x(4) x(5) x(6)
#else
#define GEMM_ROWS 4
#define GEMM_EACH_ROWS(x) x(1) x(2) x(3) x(4)
#endif

#define GEMM_ONE_MORE(row) +1
_Static_assert(0 GEMM_EACH_ROWS(GEMM_ONE_MORE) == GEMM_ROWS, "a register tile for every height");

/* Blocks of the product: a strip of A (GEMM_ROWS x GEMM_DEPTH) stays in the first cache, GEMM_STRIPS of them in the
   second, a block of B (GEMM_DEPTH x GEMM_WIDTH) in the second or the third. */
#define GEMM_DEPTH 384
#define GEMM_WIDTH (VW == 16 ? 2048 : 256)
#define GEMM_STRIPS 8

/* What packing may write past its end: a strip is stored by VW whole vectors at a time. */
#define GEMM_SLACK (VW * GEMM_COLUMNS)
#define GEMM_STRIP (GEMM_ROWS * GEMM_DEPTH + GEMM_SLACK)

/* Floats that gemm_block needs as its workspace. */
#define GEMM_WORKSPACE (GEMM_DEPTH * (GEMM_WIDTH + GEMM_COLUMNS) + GEMM_SLACK + GEMM_STRIPS * GEMM_STRIP)

/* C [m, n] = A [m, k] B [k, n] + bias [n] (NULL: none). a and b are f32, f16 or bf16; or both i8, then c is i32 and there is
   no bias. Strides in elements, of which a and b have one that is 1 each; C's rows are dense. */
struct gemm {
    int64_t m, n, k;
    const void *a, *b;
    enum hk_dtype a_type, b_type;
    const float *bias;
    int64_t a_row, a_column, b_row, b_column;
    float *c;
    int64_t c_row;
};

/* Packs a strip of `width` (<= GEMM_COLUMNS) vectors of length k, element (i, p) at source[i * outer + p * inner], as
   target[p * pitch + i]; pitch >= width, and what lies between is undefined. outer or inner is 1. Writes up to
   GEMM_SLACK floats past k * pitch. */
void gemm_pack(float *target, int64_t pitch, const float *source, int64_t width, int64_t k, int64_t outer,
               int64_t inner);
/* The same of elements of any of the three dtypes. */
void gemm_pack_any(float *target, int64_t pitch, const void *source, enum hk_dtype type, int64_t width, int64_t k,
                   int64_t outer, int64_t inner);

/* How many vectors wide a strip of B with this many columns is packed: its pitch is that times VW. */
static inline int gemm_vectors(int64_t width) { return width > VW ? 2 : 1; }

static inline const void *gemm_at(const void *data, enum hk_dtype type, int64_t element) {
    return (const char *)data + element * (type == HK_F32 ? 4 : type == HK_I8 ? 1 : 2);
}

/* n elements as f32. Reads no element past them. */
void gemm_widen(float *to, const void *from, enum hk_dtype type, int64_t n);
/* And back, rounded to nearest even. */
void gemm_narrow(void *to, const float *from, enum hk_dtype type, int64_t n);

enum gemm_start { GEMM_SET, GEMM_ADD };

/* How A lies: packed with pitch = rows; or, GEMM_COLUMNS apart, vectors across its rows, a packed right operand's; or its
   rows. */
enum gemm_left { GEMM_PACKED, GEMM_ACROSS, GEMM_ALONG };

/* C [rows, width] (+)= A B with rows <= GEMM_ROWS and B packed (pitch = VW * gemm_vectors(width)). GEMM_SET adds the bias
   [width], if any. */
void gemm_tile(int rows, int64_t width, int64_t k, const float *a, enum gemm_left left, const float *b, float *c,
               int64_t c_row, enum gemm_start start, const float *bias);

/* All of g, any m, n and k (0 too), with GEMM_WORKSPACE floats, 64-byte aligned. Each element of C is summed in an
   order that depends on k alone, so a product may be cut along m and n at will. */
void gemm_block(const struct gemm *g, float *workspace);

/* The same for operands that are both bf16, k > 0, by instructions that add products of pairs: gemm_bf16.c. It takes
   numbers below 2^-126 for 0. */
#if defined(__AVX512BF16__)
#define GEMM_BF16
void gemm_block_bf16(const struct gemm *g, float *workspace);
#endif

/* The same for operands that are both i8, k > 0: gemm_i8.c. */
void gemm_block_i8(const struct gemm *g, float *workspace);

/* For few rows (m <= GEMM_FEW), where reading B once is all the work: no packing. A is f32; its rows and either B's rows
   or its columns are dense. */
#define GEMM_FEW 4
void gemm_few(const struct gemm *g);
/* The same of i8, with 2 * m * k bytes of workspace and 256 more. */
void gemm_few_i8(const struct gemm *g, float *workspace);

#endif
