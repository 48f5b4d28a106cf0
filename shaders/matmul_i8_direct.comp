// matmul_i8 without shared memory, for drivers on which it is slow: each invocation has TM rows and TN columns, in quads, and
// reads a and b where they are. All invocations of a workgroup read the same elements of a.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_spirv_intrinsics : require
#include "common.glsl"
#include "matmul_i8.glsl"

layout(constant_id = 7) const uint TM = 8; // 1, or a multiple of 4
layout(constant_id = 8) const uint TN = 4; // a multiple of 4

const uint QM = (TM + 3) / 4, QN = TN / 4;

ivec4 sum[TM * QN];

void add(uint from_a, uint row0, uint from_b, uint column0, uint k, bool whole) {
    uvec4 y[QN];
    [[unroll]] for (uint j = 0; j < QN; j++) y[j] = quad_of_b(from_b, column0 + j * gl_WorkGroupSize.x * 4, k, whole);
    [[unroll]] for (uint q = 0; q < QM; q++) {
        const uvec4 x = quad_of_a(from_a, row0 + 4 * q, k, whole);
        [[unroll]] for (uint i = 0; i < min(TM, 4); i++)
            [[unroll]] for (uint j = 0; j < QN; j++)
                [[unroll]] for (uint e = 0; e < 4; e++) sum[(4 * q + i) * QN + j][e] += dot_four(x[i], y[j][e]);
    }
}

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % (p.tiles_m * p.tiles_n), batch = group() / (p.tiles_m * p.tiles_n);
    const uint row0 = tile / p.tiles_n * TM;
    const uint column0 = (tile % p.tiles_n * gl_WorkGroupSize.x * QN + gl_LocalInvocationID.x) * 4;
    const uint from_a = a_of(batch), from_b = b_of(batch), to = c_of(batch);

    [[unroll]] for (uint i = 0; i < TM * QN; i++) sum[i] = ivec4(0);
    uint k = 0;
    for (; k + 4 <= p.k; k += 4) add(from_a, row0, from_b, column0, k, true);
    if (k < p.k) add(from_a, row0, from_b, column0, k, false);

    [[unroll]] for (uint e = 0; e < TM * QN; e++) {
        const uint row = row0 + e / QN;
        if (row < p.m) store_quad(to, row, column0 + e % QN * gl_WorkGroupSize.x * 4, sum[e]);
    }
}
