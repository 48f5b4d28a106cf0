// matmul of two f16 or two bf16 operands by cooperative matrices, which a subgroup multiplies at once: a [MM, MK] b [MK, MN],
// sums in f32. One workgroup per BM x BN tile of c, of which each subgroup makes WM x WN; tiles of a and b go through shared
// memory, where they lie along the dimension that is dense in the operand, and the next ones are read while these are multiplied.
// The workgroup has (BM / WM) * (BN / WN) subgroups.
//@ requires GL_KHR_cooperative_matrix
//@ variant bf16 requires GL_EXT_bfloat16: -DBF16_ELEMENTS
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef BF16_ELEMENTS
#extension GL_EXT_bfloat16 : require
#define ELEMENT bfloat16_t
#else
#define ELEMENT float16_t
#endif
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint BM = 128;
layout(constant_id = 8) const uint BN = 128;
layout(constant_id = 9) const uint BK = 32;
layout(constant_id = 10) const uint WM = 64;
layout(constant_id = 11) const uint WN = 32;
layout(constant_id = 12) const uint MM = 16; // multiples of 8, as all sizes above
layout(constant_id = 13) const uint MN = 16;
layout(constant_id = 14) const uint MK = 16;
// How an operand is read: 8 elements at once where all its rows begin and end at multiples of 16 bytes, else by words: 2 where
// they begin and end at those, else 1.
layout(constant_id = 15) const uint A_WIDTH = 1;
layout(constant_id = 16) const uint B_WIDTH = 1;
layout(constant_id = 17) const bool WHOLE = false; // c can be stored by whole matrices: aligned, and nothing to add or to follow
layout(constant_id = 18) const bool C_FOUR = false; // else by fours: all rows begin and end at multiples of four

layout(set = 0, binding = 0, std430) restrict readonly buffer Eights_a { uvec4 a8[]; };
layout(set = 0, binding = 1, std430) restrict readonly buffer Eights_b { uvec4 b8[]; };

const uint SUBGROUPS = (BM / WM) * (BN / WN), LANES = gl_WorkGroupSize.x / SUBGROUPS;

// Elements i .. i + 7 of a buffer, of which there are `left`; 0 for the others. Where they begin within a word, they lie in five.
#define CHUNK(name, words, eights, WIDTH)                                                            \
    uvec4 name(uint i, uint left) {                                                                  \
        if (WIDTH == 8) return eights[i / 8];                                                        \
        const uint odd = WIDTH == 1 ? i % 2 : 0, end = min(left, 8) + odd;                           \
        uint word[5];                                                                                \
        [[unroll]] for (uint e = 0; e < 5; e++) word[e] = 2 * e < end ? words[i / 2 + e] : 0;        \
        uvec4 chunk = uvec4(word[0], word[1], word[2], word[3]);                                     \
        if (odd == 1) chunk = chunk >> 16 | uvec4(word[1], word[2], word[3], word[4]) << 16;         \
        const uvec4 first = uvec4(0, 2, 4, 6);                                                       \
        chunk &= mix(uvec4(0xffffu), uvec4(0xffffffffu), lessThan(first + 1, uvec4(left)));          \
        return mix(uvec4(0), chunk, lessThan(first, uvec4(left)));                                   \
    }
CHUNK(chunk_of_a, a, a8, A_WIDTH)
CHUNK(chunk_of_b, b, b8, B_WIDTH)

// The tile of a side: lines along the dense dimension, of chunks of 8 elements; in shared memory a line is a chunk longer, which
// spreads the banks. An invocation has COUNT chunks.
//   begin   where they lie in the operand, of rows or columns from edge0 of size: those past its end are the last ones once
//           more, as what they give is not stored
//   fetch   them, of the tile from k0 on; past the end of k they are 0
//   put     them to shared memory
#define SIDE(side, ALONG_K, EDGE, WIDTH, tile)                                                                                \
    const uint LINE_##side = (ALONG_K ? BK : EDGE) / 8, CHUNKS_##side = EDGE * BK / 8, PITCH_##side = LINE_##side + 1;        \
    const uint COUNT_##side = (CHUNKS_##side + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;                                  \
    shared uvec4 tile[CHUNKS_##side / LINE_##side * PITCH_##side];                                                            \
    uint at_##side[COUNT_##side], left_##side[COUNT_##side]; /* elements; left: of the dense dimension, where it is no k */   \
    uvec4 next_##side[COUNT_##side];                                                                                          \
                                                                                                                              \
    uint line_##side(uint j) { return (j * gl_WorkGroupSize.x + gl_LocalInvocationID.x) / LINE_##side; }                      \
    uint place_##side(uint j) { return (j * gl_WorkGroupSize.x + gl_LocalInvocationID.x) % LINE_##side; }                     \
    bool is_chunk_##side(uint j) {                                                                                            \
        return CHUNKS_##side % gl_WorkGroupSize.x == 0 ||                                                                     \
               j * gl_WorkGroupSize.x + gl_LocalInvocationID.x < CHUNKS_##side;                                               \
    }                                                                                                                         \
                                                                                                                              \
    void begin_##side(uint from, uint edge0, uint size, uint edge_stride, uint k_stride) {                                    \
        [[unroll]] for (uint j = 0; j < COUNT_##side; j++) {                                                                  \
            const uint edge = min(edge0 + (ALONG_K ? line_##side(j) : place_##side(j) * 8), size - (ALONG_K ? 1 : WIDTH));    \
            at_##side[j] = from + edge * edge_stride + (ALONG_K ? place_##side(j) * 8 : line_##side(j)) * k_stride;           \
            left_##side[j] = size - edge;                                                                                     \
        }                                                                                                                     \
    }                                                                                                                         \
                                                                                                                              \
    void fetch_##side(uint k0, uint k_stride) {                                                                               \
        [[unroll]] for (uint j = 0; j < COUNT_##side; j++) {                                                                  \
            const uint k = k0 + (ALONG_K ? place_##side(j) * 8 : line_##side(j));                                             \
            next_##side[j] = uvec4(0);                                                                                        \
            if (is_chunk_##side(j) && k < p.k)                                                                                \
                next_##side[j] = chunk_of_##side(at_##side[j] + k0 * k_stride, ALONG_K ? p.k - k : left_##side[j]);           \
        }                                                                                                                     \
    }                                                                                                                         \
                                                                                                                              \
    void put_##side() {                                                                                                       \
        [[unroll]] for (uint j = 0; j < COUNT_##side; j++)                                                                    \
            if (is_chunk_##side(j)) tile[line_##side(j) * PITCH_##side + place_##side(j)] = next_##side[j];                   \
    }
SIDE(a, A_ALONG_K, BM, A_WIDTH, tile_a)
SIDE(b, !B_ALONG_N, BN, B_WIDTH, tile_b)
shared vec4 stage[SUBGROUPS * MM * MN / 4]; // a matrix of c for each subgroup

void fetch(uint k0) {
    fetch_a(k0, A_ALONG_K ? 1 : p.a_column);
    fetch_b(k0, B_ALONG_N ? p.b_row : 1);
}

#define SUM coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator>
const uint SUMS_M = WM / MM, SUMS_N = WN / MN;
SUM sum[SUMS_M * SUMS_N];

// Adds the product of the tiles, of which the subgroup has the rows from m and the columns from n.
void multiply(uint m, uint n) {
    [[unroll]] for (uint k = 0; k < BK; k += MK) {
        coopmat<ELEMENT, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA> x[SUMS_M];
        [[unroll]] for (uint i = 0; i < SUMS_M; i++) {
            const uint row = m + i * MM;
            if (A_ALONG_K) coopMatLoad(x[i], tile_a, row * PITCH_a + k / 8, PITCH_a, gl_CooperativeMatrixLayoutRowMajor);
            else coopMatLoad(x[i], tile_a, k * PITCH_a + row / 8, PITCH_a, gl_CooperativeMatrixLayoutColumnMajor);
        }
        [[unroll]] for (uint j = 0; j < SUMS_N; j++) {
            const uint column = n + j * MN;
            coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB> y;
            if (B_ALONG_N) coopMatLoad(y, tile_b, k * PITCH_b + column / 8, PITCH_b, gl_CooperativeMatrixLayoutRowMajor);
            else coopMatLoad(y, tile_b, column * PITCH_b + k / 8, PITCH_b, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0; i < SUMS_M; i++)
                sum[i * SUMS_N + j] = coopMatMulAdd(x[i], y, sum[i * SUMS_N + j]);
        }
    }
}

// A matrix that reaches over c's end, or to which something is added, by way of shared memory. The loop is unrolled because
// drivers do not unroll those around it otherwise, and then keep the sums in memory.
void store_staged(SUM x, uint to, uint row, uint column) {
    const uint mine = gl_SubgroupID * MM * MN;
    coopMatStore(x, stage, mine / 4, MN / 4, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    if (C_FOUR) {
        [[unroll]] for (uint i = 0; i < MM * MN; i += 4 * LANES) {
            const uint e = i + 4 * gl_SubgroupInvocationID;
            if (e < MM * MN && row + e / MN < p.m) store_four(to, row + e / MN, column + e % MN, stage[(mine + e) / 4]);
        }
    } else {
        [[unroll]] for (uint i = 0; i < MM * MN; i += LANES) {
            const uint e = i + gl_SubgroupInvocationID;
            if (row + e / MN < p.m) store(to, row + e / MN, column + e % MN, stage[(mine + e) / 4][e % 4]);
        }
    }
    barrier();
}

void main() {
    if (group() >= p.groups) return;
    const uint batch = group() / (p.tiles_m * p.tiles_n);
    const uvec2 tile = tile_of(group() % (p.tiles_m * p.tiles_n));
    const uint row0 = tile.x * BM, column0 = tile.y * BN;
    const uint from_a = a_of(batch), from_b = b_of(batch), to_c = c_of(batch);
    const uint m = gl_SubgroupID / (BN / WN) * WM, n = gl_SubgroupID % (BN / WN) * WN;

    [[unroll]] for (uint i = 0; i < SUMS_M * SUMS_N; i++) sum[i] = SUM(0.0);
    begin_a(from_a, row0, p.m, p.a_row, A_ALONG_K ? 1 : p.a_column);
    begin_b(from_b, column0, p.n, p.b_column, B_ALONG_N ? p.b_row : 1);
    fetch(0);
    for (uint k0 = 0; k0 < p.k;) {
        put_a();
        put_b();
        barrier();
        k0 += BK;
        if (k0 < p.k) fetch(k0);
        multiply(m, n);
        barrier();
    }

    const bool whole = WHOLE && row0 + BM <= p.m && column0 + BN <= p.n; // the same for all of the workgroup
    [[unroll]] for (uint i = 0; i < SUMS_M; i++)
        [[unroll]] for (uint j = 0; j < SUMS_N; j++) {
            const uint row = row0 + m + i * MM, column = column0 + n + j * MN;
            if (whole) coopMatStore(sum[i * SUMS_N + j], c, p.base_c + to_c + row * p.c_row + column, p.c_row,
                                    gl_CooperativeMatrixLayoutRowMajor);
            else store_staged(sum[i * SUMS_N + j], to_c, row, column);
        }
}
