// matmul without shared memory, for drivers on which it is slow: each invocation has TM rows and TN columns that lie a workgroup
// apart, and reads a and b where they are. All invocations of a workgroup read the same elements of a.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint TM = 8;
layout(constant_id = 8) const uint TN = 8;
// Elements of k in a turn of the loop, a multiple of 4. With one row, b's columns are all there is to read, and as a power of
// two lies between them they push each other out of the cache: then a turn uses up what a line of it holds.
layout(constant_id = 9) const uint STEP = 4;
// 16 bits each, and elements k and k + 1 share a word where k is even; of 32 bits, a has four elements of k in a vector.
layout(constant_id = 10) const bool A_WHOLE = false;
layout(constant_id = 11) const bool B_PAIRS = false;

// From the first element of a row of a, or a column of b, to element k. Where that is dense the driver should know.
uint along_a(uint k) { return A_ALONG_K ? k : k * p.a_column; }
uint along_b(uint k) { return B_ALONG_N ? k * p.b_row : k; }

vec2 pair_of(uint word, uint type) { return vec2(float_of(word, 0, type), float_of(word, 1, type)); }

// Elements k .. k + 3 of the row of a that begins at `at`.
vec4 four_of_a(uint at, uint k) {
    if (A_WHOLE && A_TYPE == F32) return uintBitsToFloat(a4[(at + k) / 4]);
    if (A_WHOLE) return vec4(pair_of(a[(at + k) / 2], A_TYPE), pair_of(a[(at + k) / 2 + 1], A_TYPE));
    return vec4(a_at(at + along_a(k)), a_at(at + along_a(k + 1)), a_at(at + along_a(k + 2)), a_at(at + along_a(k + 3)));
}

// The same of a column of b.
vec4 four_of_b(uint at, uint k) {
    if (B_PAIRS) return vec4(pair_of(b[(at + k) / 2], B_TYPE), pair_of(b[(at + k) / 2 + 1], B_TYPE));
    return vec4(b_at(at + along_b(k)), b_at(at + along_b(k + 1)), b_at(at + along_b(k + 2)), b_at(at + along_b(k + 3)));
}

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % (p.tiles_m * p.tiles_n), batch = group() / (p.tiles_m * p.tiles_n);
    const uint row0 = tile / p.tiles_n * TM, column0 = tile % p.tiles_n * gl_WorkGroupSize.x * TN + gl_LocalInvocationID.x;
    const uint to_c = c_of(batch);

    // outside c: the last row or column once more, not stored
    uint at_a[TM], at_b[TN];
    float sum[TM * TN];
    [[unroll]] for (uint i = 0; i < TM; i++) at_a[i] = a_of(batch) + min(row0 + i, p.m - 1) * p.a_row;
    [[unroll]] for (uint j = 0; j < TN; j++) at_b[j] = b_of(batch) + min(column0 + j * gl_WorkGroupSize.x, p.n - 1) * p.b_column;
    [[unroll]] for (uint i = 0; i < TM * TN; i++) sum[i] = 0;

    uint k = 0;
    for (; k + STEP <= p.k; k += STEP)
        [[unroll]] for (uint e = 0; e < STEP; e += 4) {
            vec4 y[TN];
            [[unroll]] for (uint j = 0; j < TN; j++) y[j] = four_of_b(at_b[j], k + e);
            [[unroll]] for (uint i = 0; i < TM; i++) {
                const vec4 x = four_of_a(at_a[i], k + e);
                [[unroll]] for (uint j = 0; j < TN; j++)
                    [[unroll]] for (uint f = 0; f < 4; f++) sum[i * TN + j] = fma(x[f], y[j][f], sum[i * TN + j]);
            }
        }
    for (; k < p.k; k++) {
        float y[TN];
        [[unroll]] for (uint j = 0; j < TN; j++) y[j] = b_at(at_b[j] + along_b(k));
        [[unroll]] for (uint i = 0; i < TM; i++) {
            const float x = a_at(at_a[i] + along_a(k));
            [[unroll]] for (uint j = 0; j < TN; j++) sum[i * TN + j] = fma(x, y[j], sum[i * TN + j]);
        }
    }

    [[unroll]] for (uint i = 0; i < TM; i++)
        if (row0 + i < p.m)
            [[unroll]] for (uint j = 0; j < TN; j++)
                store(to_c, row0 + i, column0 + j * gl_WorkGroupSize.x, sum[i * TN + j]);
}
