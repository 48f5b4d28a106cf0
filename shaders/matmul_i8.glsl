// What the kernels of products of i8 share: constants 1 to 6, buffers, batches, words of four elements along k,
// and the epilogue. a and b are indexed in bytes, of which four lie in a word of their buffers; c is i32.
layout(constant_id = 1) const bool A_ALONG_K = true; // a's columns are dense, else its rows
layout(constant_id = 2) const bool B_ALONG_K = true; // b's rows are dense, else its columns
layout(constant_id = 3) const bool A_WORDS = false;  // all that is dense begins with a word
layout(constant_id = 4) const bool B_WORDS = false;
layout(constant_id = 5) const bool C_FOURS = false;  // and in c with four words, which end where the row does
layout(constant_id = 6) const bool ACCUMULATE = false; // add to what c holds: a window of k after the first

#include "matmul_push.glsl"

READ_WORDS(0, a);
READ_WORDS(1, b);
INTS(2, c);
layout(set = 0, binding = 2, std430) buffer Fours_c { ivec4 c4[]; };

// OpSDot of four bytes each (SPIR-V 1.6), which Vulkan 1.3 always has, and glslc knows no name for.
spirv_instruction(capabilities = [6018, 6019], id = 4450) int packed_dot(uint x, uint y, spirv_literal int format);
int dot_four(uint x, uint y) { return packed_dot(x, y, 0); }

// Where a batch item begins.
uint a_of(uint batch) { return 4 * p.base_a + p.rest_a + batch / p.inner * p.a_outer + batch % p.inner * p.a_inner; }
uint b_of(uint batch) { return 4 * p.base_b + p.rest_b + batch / p.inner * p.b_outer + batch % p.inner * p.b_inner; }

// Four words whose bytes are the columns of four words.
uvec4 turned(uvec4 x) {
    const uint even = 0x00ff00ffu;
    const uint a0 = x.x & even | (x.y & even) << 8, a1 = x.x >> 8 & even | x.y & ~even; // bytes 0 and 2, 1 and 3
    const uint b0 = x.z & even | (x.w & even) << 8, b1 = x.z >> 8 & even | x.w & ~even;
    return uvec4(a0 & 0xffffu | b0 << 16, a1 & 0xffffu | b1 << 16, a0 >> 16 | b0 & 0xffff0000u, a1 >> 16 | b1 & 0xffff0000u);
}

// Of a side:
//   word   four bytes from byte i on
//   part   `count` of them, then 0
//   some   what is there of four bytes of which the first is element `begin`, before element `end`
//   quad   of four rows of a, or columns of b, from `edge` on of `size`, the word of elements k .. k + 3. What is past the end
//          of k is 0, and what is past the last row or column gives what is not stored. whole: all of k is there
#define SIDE(side, ALONG_K, WORDS)                                                                                         \
    uint word_##side(uint i) {                                                                                             \
        if (WORDS) return side[i / 4];                                                                                     \
        const uint shift = i % 4 * 8;                                                                                      \
        return side[i / 4] >> shift | side[(i + 3) / 4] << (24 - shift) << 8;                                              \
    }                                                                                                                      \
    uint part_##side(uint i, uint count) {                                                                                 \
        uint word = 0;                                                                                                     \
        [[unroll]] for (uint e = 0; e < 4; e++) /* all kernels' loops together have few rounds on llvmpipe */              \
            if (e < count) word |= bitfieldExtract(side[(i + e) / 4], int((i + e) % 4 * 8), 8) << e * 8;                   \
        return word;                                                                                                       \
    }                                                                                                                      \
    uint some_##side(uint i, uint begin, uint end) {                                                                       \
        return begin + 4 <= end ? word_##side(i) : begin < end ? part_##side(i, end - begin) : 0;                          \
    }                                                                                                                      \
    uvec4 quad_##side(uint from, uint edge, uint size, uint edge_stride, uint k, uint k_stride, bool whole) {              \
        uvec4 x = uvec4(0);                                                                                                \
        if (ALONG_K) {                                                                                                     \
            [[unroll]] for (uint i = 0; i < 4; i++) {                                                                      \
                const uint at = from + min(edge + i, size - 1) * edge_stride + k;                                          \
                x[i] = whole ? word_##side(at) : some_##side(at, k, p.k);                                                  \
            }                                                                                                              \
            return x;                                                                                                      \
        }                                                                                                                  \
        [[unroll]] for (uint e = 0; e < 4; e++)                                                                            \
            if (whole || k + e < p.k) x[e] = some_##side(from + (k + e) * k_stride + edge, edge, size);                    \
        return turned(x);                                                                                                  \
    }
SIDE(a, A_ALONG_K, A_WORDS)
SIDE(b, B_ALONG_K, B_WORDS)

// Rows row .. row + 3, and columns column .. column + 3.
uvec4 quad_of_a(uint from, uint row, uint k, bool whole) { return quad_a(from, row, p.m, p.a_row, k, p.a_column, whole); }
uvec4 quad_of_b(uint from, uint column, uint k, bool whole) { return quad_b(from, column, p.n, p.b_column, k, p.b_row, whole); }

// Four columns of a row that is there.
void store_quad(uint to, uint row, uint column, ivec4 x) {
    const uint i = p.base_c + to + row * p.c_row + column;
    if (C_FOURS) {
        if (column < p.n) c4[i / 4] = ACCUMULATE ? c4[i / 4] + x : x;
        return;
    }
    [[unroll]] for (uint e = 0; e < 4; e++)
        if (column + e < p.n) c[i + e] = ACCUMULATE ? c[i + e] + x[e] : x[e];
}
