// What the kernels of products of floats share: constants 1 to 6, buffers, batches and what becomes of the sums. a and b are f32,
// f16 or bf16, indexed in elements; two of 16 bits lie in a word of their buffers, so that no 16-bit feature is needed.
#include "convert.glsl"

layout(constant_id = 1) const bool A_ALONG_K = true;   // a's columns are dense, else its rows
layout(constant_id = 2) const bool B_ALONG_N = true;   // b's columns are dense, else its rows
layout(constant_id = 3) const bool BIAS = false;
layout(constant_id = 4) const bool ACCUMULATE = false; // add to what c holds: a window of k after the first
layout(constant_id = 5) const uint A_TYPE = 0;         // enum hk_dtype
layout(constant_id = 6) const uint B_TYPE = 0;

#include "matmul_push.glsl"

READ_WORDS(0, a);
READ_WORDS(1, b);
layout(set = 0, binding = 0, std430) restrict readonly buffer Pairs_a { uvec2 a2[]; };
layout(set = 0, binding = 0, std430) restrict readonly buffer Fours_a { uvec4 a4[]; };
layout(set = 0, binding = 1, std430) restrict readonly buffer Pairs_b { uvec2 b2[]; };
layout(set = 0, binding = 1, std430) restrict readonly buffer Fours_b { uvec4 b4[]; };
FLOATS(2, c);
layout(set = 0, binding = 2, std430) buffer Fours_c { vec4 c4[]; };
READ_FLOATS(3, bias);

uint word_of(uint i, uint type) { return type == F32 ? i : i / 2; }

float float_of(uint word, uint i, uint type) {
    if (type == F16) return unpackHalf2x16(word >> 16 * (i % 2)).x;
    return uintBitsToFloat(type == F32 ? word : i % 2 == 0 ? word << 16 : word & 0xffff0000u);
}

float a_at(uint i) { return float_of(a[word_of(i, A_TYPE)], i, A_TYPE); }
float b_at(uint i) { return float_of(b[word_of(i, B_TYPE)], i, B_TYPE); }

vec4 four_halves(uvec2 words, uint type) {
    return vec4(float_of(words.x, 0, type), float_of(words.x, 1, type), float_of(words.y, 0, type),
                float_of(words.y, 1, type));
}

// Elements 4 i .. 4 i + 3, which must lie aligned.
vec4 vector_of_a(uint i) { return A_TYPE == F32 ? uintBitsToFloat(a4[i]) : four_halves(a2[i], A_TYPE); }
vec4 vector_of_b(uint i) { return B_TYPE == F32 ? uintBitsToFloat(b4[i]) : four_halves(b2[i], B_TYPE); }

// Where a batch item begins.
uint a_of(uint batch) {
    const uint base = A_TYPE == F32 ? p.base_a : 2 * p.base_a + p.rest_a;
    return base + batch / p.inner * p.a_outer + batch % p.inner * p.a_inner;
}
uint b_of(uint batch) {
    const uint base = B_TYPE == F32 ? p.base_b : 2 * p.base_b + p.rest_b;
    return base + batch / p.inner * p.b_outer + batch % p.inner * p.b_inner;
}

// What becomes of element i of c, in this column, or of four that begin there, all of them aligned: it is stored. A kernel that is
// written for a product and ops on it ends in other functions of these names (src/op/fused_matmul.c).
#ifdef FOLLOWED
void finish(uint i, uint column, float x);
void finish_four(uint i, uint column, vec4 x);
#else
void finish(uint i, uint column, float x) { c[p.base_c + i] = ACCUMULATE ? c[p.base_c + i] + x : x; }
void finish_four(uint i, uint column, vec4 x) {
    const uint four = (p.base_c + i) / 4;
    c4[four] = ACCUMULATE ? c4[four] + x : x;
}
#endif

// to: where the batch item begins in c. Columns past the end are left out.
void store(uint to, uint row, uint column, float x) {
    if (column >= p.n) return;
    if (BIAS) x += bias[p.base_bias + column];
    finish(to + row * p.c_row + column, column, x);
}

// Four columns, which are there or not, and all rows begin at multiples of four.
void store_four(uint to, uint row, uint column, vec4 x) {
    if (column >= p.n) return;
    const uint from = p.base_bias + column;
    if (BIAS) x += vec4(bias[from], bias[from + 1], bias[from + 2], bias[from + 3]);
    finish_four(to + row * p.c_row + column, column, x);
}
