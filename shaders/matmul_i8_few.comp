// matmul_i8 with few rows (m <= ROWS <= 4), where reading b once is all the work: a workgroup has some quads of columns and
// SLICES invocations for each, which share k and add up in shared memory. Up to 256 invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_spirv_intrinsics : require
#include "common.glsl"
#include "matmul_i8.glsl"

layout(constant_id = 7) const uint ROWS = 4;
layout(constant_id = 8) const uint SLICES = 16; // a power of two

shared ivec4 part[256];

ivec4 sum[ROWS];

void add(uint from_a, uint from_b, uint column, uint k, bool whole) {
    const uvec4 x = quad_of_a(from_a, 0, k, whole), y = quad_of_b(from_b, column, k, whole);
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        [[unroll]] for (uint e = 0; e < 4; e++) sum[i][e] += dot_four(x[i], y[e]);
}

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles_n, batch = group() / p.tiles_n;
    const uint quads = gl_WorkGroupSize.x / SLICES, me = gl_LocalInvocationID.x;
    // neighbours read neighbours: along k, or along n
    const uint slice = B_ALONG_K ? me % SLICES : me / quads, quad = B_ALONG_K ? me / SLICES : me % quads;
    const uint apart = B_ALONG_K ? 1 : quads; // from one slice to the next
    const uint column = (tile * quads + quad) * 4, from_a = a_of(batch), from_b = b_of(batch);

    [[unroll]] for (uint i = 0; i < ROWS; i++) sum[i] = ivec4(0);
    uint k = slice * 4;
    for (; k + 4 <= p.k; k += SLICES * 4) add(from_a, from_b, column, k, true);
    if (k < p.k) add(from_a, from_b, column, k, false);
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        part[me] = sum[i];
        barrier();
        for (uint half_ = SLICES / 2; half_ > 0; half_ /= 2) {
            if (slice < half_) part[me] += part[me + half_ * apart];
            barrier();
        }
        if (slice == 0 && i < p.m) store_quad(c_of(batch), i, column, part[me]);
        barrier();
    }
}
