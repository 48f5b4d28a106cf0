// matmul without shared memory, for drivers on which it is slow: each invocation has TM rows and TN columns that lie a workgroup
// apart, and reads a and b where they are. All invocations of a workgroup read the same elements of a.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 5) const uint TM = 8;
layout(constant_id = 6) const uint TN = 4;

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

    for (uint k = 0; k < p.k; k++) {
        float y[TN];
        [[unroll]] for (uint j = 0; j < TN; j++) y[j] = b[at_b[j] + k * p.b_row];
        [[unroll]] for (uint i = 0; i < TM; i++) {
            const float x = a[at_a[i] + k * p.a_column];
            [[unroll]] for (uint j = 0; j < TN; j++) sum[i * TN + j] = fma(x, y[j], sum[i * TN + j]);
        }
    }

    [[unroll]] for (uint i = 0; i < TM; i++)
        if (row0 + i < p.m)
            [[unroll]] for (uint j = 0; j < TN; j++)
                store(to_c, row0 + i, column0 + j * gl_WorkGroupSize.x, sum[i * TN + j]);
}
