// matmul of two f16 or two bf16 operands by cooperative matrices, which a subgroup multiplies at once: a [MM, MK] b [MK, MN],
// sums in f32. One workgroup per BM x BN tile of c, of which each subgroup makes WM x WN; tiles of a and b go through shared
// memory, where they lie along the dimension that is dense in the operand. The workgroup has (BM / WM) * (BN / WN) subgroups.
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
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#define ELEMENT bfloat16_t
#define ELEMENT4 bf16vec4
#else
#define ELEMENT float16_t
#define ELEMENT4 f16vec4
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
// How an operand is read: 8 elements at once where all its rows begin and end at multiples of 16 bytes, 2 where at those of a
// word, else 1.
layout(constant_id = 15) const uint A_WIDTH = 1;
layout(constant_id = 16) const uint B_WIDTH = 1;
layout(constant_id = 17) const bool WHOLE = false; // c can be stored by whole matrices: aligned, and nothing to add

layout(set = 0, binding = 0, std430) restrict readonly buffer Eights_a { uvec4 a8[]; };
layout(set = 0, binding = 1, std430) restrict readonly buffer Eights_b { uvec4 b8[]; };

// Rows of a tile are 16 bytes longer than they need be, which spreads the banks.
const uint ROW_A = (A_ALONG_K ? BK : BM) + 8, ROWS_A = A_ALONG_K ? BM : BK;
const uint ROW_B = (B_ALONG_N ? BN : BK) + 8, ROWS_B = B_ALONG_N ? BK : BN;
const uint CHUNKS_A = BM * BK / 8, CHUNKS_B = BN * BK / 8;
const uint SUBGROUPS = (BM / WM) * (BN / WN), LANES = gl_WorkGroupSize.x / SUBGROUPS;

shared ELEMENT4 tile_a[ROWS_A * ROW_A / 4];
shared ELEMENT4 tile_b[ROWS_B * ROW_B / 4];
shared float stage[SUBGROUPS * MM * MN]; // a matrix of c for each subgroup

#ifdef BF16_ELEMENTS
ELEMENT4 elements(uint x, uint y) {
    return uintBitsToBFloat16EXT(u16vec4(x & 0xffffu, x >> 16, y & 0xffffu, y >> 16));
}
#else
ELEMENT4 elements(uint x, uint y) { return f16vec4(unpackFloat2x16(x), unpackFloat2x16(y)); }
#endif

uint half_of(uint word, uint i) { return i % 2 == 0 ? word & 0xffffu : word >> 16; }

// Elements i .. i + 7 of a buffer, of which there are `left`; 0 for the others.
#define CHUNK(name, words, eights, WIDTH)                                                                     \
    uvec4 name(uint i, uint left) {                                                                           \
        if (WIDTH == 8) return eights[i / 8];                                                                 \
        uvec4 chunk = uvec4(0);                                                                               \
        [[unroll]] for (uint e = 0; e < 8; e += 2) {                                                          \
            if (e >= left) break;                                                                             \
            if (WIDTH == 2) chunk[e / 2] = words[(i + e) / 2];                                                \
            else chunk[e / 2] = half_of(words[(i + e) / 2], i + e);                                           \
            if (WIDTH == 1 && e + 1 < left) chunk[e / 2] |= half_of(words[(i + e + 1) / 2], i + e + 1) << 16; \
        }                                                                                                     \
        return chunk;                                                                                         \
    }
CHUNK(chunk_of_a, a, a8, A_WIDTH)
CHUNK(chunk_of_b, b, b8, B_WIDTH)

// Outside is 0.
void load_a(uint from, uint row0, uint k0) {
    const uint chunks = A_ALONG_K ? BK / 8 : BM / 8; // of a row of the tile
    [[unroll]] for (uint e = 0; e < CHUNKS_A; e += gl_WorkGroupSize.x) {
        const uint i = e + gl_LocalInvocationID.x, outer = i / chunks, inner = i % chunks * 8;
        if (CHUNKS_A % gl_WorkGroupSize.x != 0 && i >= CHUNKS_A) break;
        const uint row = row0 + (A_ALONG_K ? outer : inner), k = k0 + (A_ALONG_K ? inner : outer);
        uvec4 chunk = uvec4(0);
        if (row < p.m && k < p.k) chunk = chunk_of_a(from + row * p.a_row + k * p.a_column, A_ALONG_K ? p.k - k : p.m - row);
        tile_a[(outer * ROW_A + inner) / 4] = elements(chunk.x, chunk.y);
        tile_a[(outer * ROW_A + inner) / 4 + 1] = elements(chunk.z, chunk.w);
    }
}

void load_b(uint from, uint column0, uint k0) {
    const uint chunks = B_ALONG_N ? BN / 8 : BK / 8;
    [[unroll]] for (uint e = 0; e < CHUNKS_B; e += gl_WorkGroupSize.x) {
        const uint i = e + gl_LocalInvocationID.x, outer = i / chunks, inner = i % chunks * 8;
        if (CHUNKS_B % gl_WorkGroupSize.x != 0 && i >= CHUNKS_B) break;
        const uint column = column0 + (B_ALONG_N ? inner : outer), k = k0 + (B_ALONG_N ? outer : inner);
        uvec4 chunk = uvec4(0);
        if (column < p.n && k < p.k)
            chunk = chunk_of_b(from + column * p.b_column + k * p.b_row, B_ALONG_N ? p.n - column : p.k - k);
        tile_b[(outer * ROW_B + inner) / 4] = elements(chunk.x, chunk.y);
        tile_b[(outer * ROW_B + inner) / 4 + 1] = elements(chunk.z, chunk.w);
    }
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
            if (A_ALONG_K) coopMatLoad(x[i], tile_a, (row * ROW_A + k) / 4, ROW_A / 4, gl_CooperativeMatrixLayoutRowMajor);
            else coopMatLoad(x[i], tile_a, (k * ROW_A + row) / 4, ROW_A / 4, gl_CooperativeMatrixLayoutColumnMajor);
        }
        [[unroll]] for (uint j = 0; j < SUMS_N; j++) {
            const uint column = n + j * MN;
            coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB> y;
            if (B_ALONG_N) coopMatLoad(y, tile_b, (k * ROW_B + column) / 4, ROW_B / 4, gl_CooperativeMatrixLayoutRowMajor);
            else coopMatLoad(y, tile_b, (column * ROW_B + k) / 4, ROW_B / 4, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0; i < SUMS_M; i++)
                sum[i * SUMS_N + j] = coopMatMulAdd(x[i], y, sum[i * SUMS_N + j]);
        }
    }
}

// A matrix that reaches over c's end, or to which something is added, by way of shared memory. The loop is unrolled because
// drivers do not unroll those around it otherwise, and then keep the sums in memory.
void store_staged(SUM x, uint to, uint row, uint column) {
    const uint mine = gl_SubgroupID * MM * MN;
    coopMatStore(x, stage, mine, MN, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    [[unroll]] for (uint i = 0; i < MM * MN; i += LANES) {
        const uint e = i + gl_SubgroupInvocationID;
        if (row + e / MN < p.m) store(to, row + e / MN, column + e % MN, stage[mine + e]);
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
    for (uint k0 = 0; k0 < p.k; k0 += BK) {
        load_a(from_a, row0, k0);
        load_b(from_b, column0, k0);
        barrier();
        multiply(m, n);
        barrier();
    }

    const bool whole = WHOLE && row0 + BM <= p.m && column0 + BN <= p.n; // the same for all of the workgroup
    [[unroll]] for (uint i = 0; i < SUMS_M; i++)
        [[unroll]] for (uint j = 0; j < SUMS_N; j++) {
            const uint row = row0 + m + i * MM, column = column0 + n + j * MN;
            if (whole) coopMatStore(sum[i * SUMS_N + j], c, to_c + row * p.c_row + column, p.c_row,
                                    gl_CooperativeMatrixLayoutRowMajor);
            else store_staged(sum[i * SUMS_N + j], to_c, row, column);
        }
}
