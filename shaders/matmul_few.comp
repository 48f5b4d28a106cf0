// matmul with few rows (m <= ROWS), where reading b once is all the work: a workgroup has some columns and SLICES invocations
// for each, which share k and add up in shared memory. Up to 256 invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint ROWS = 4;
layout(constant_id = 8) const uint SLICES = 16; // a power of two
layout(constant_id = 13) const bool A_FOUR = false; // as matmul.comp has them
layout(constant_id = 14) const bool B_FOUR = false;

const bool FOURS = A_FOUR && B_FOUR && A_ALONG_K && !B_ALONG_N; // four elements of k are a vector of both

shared float part[256];

float sum[ROWS];

void add_four(uint at_a, uint at_b, uint k) {
    const vec4 y = vector_of_b((at_b + k) / 4);
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        const vec4 x = vector_of_a((at_a + min(i, p.m - 1) * p.a_row + k) / 4);
        [[unroll]] for (uint e = 0; e < 4; e++) sum[i] = fma(x[e], y[e], sum[i]);
    }
}

void add(uint at_a, uint at_b, uint k) {
    const float y = b_at(at_b + k * p.b_row);
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        sum[i] = fma(a_at(at_a + min(i, p.m - 1) * p.a_row + k * p.a_column), y, sum[i]);
}

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles_n, batch = group() / p.tiles_n;
    const uint columns = gl_WorkGroupSize.x / SLICES, me = gl_LocalInvocationID.x;
    // neighbours read neighbours: along n, or along k
    const uint slice = B_ALONG_N ? me / columns : me % SLICES;
    const uint column = tile * columns + (B_ALONG_N ? me % columns : me / SLICES);
    const uint apart = B_ALONG_N ? columns : 1; // from one slice to the next
    const uint at_a = a_of(batch), at_b = b_of(batch) + min(column, p.n - 1) * p.b_column;

    [[unroll]] for (uint i = 0; i < ROWS; i++) sum[i] = 0;
    if (FOURS)
        for (uint k = slice * 4; k < p.k; k += SLICES * 4) add_four(at_a, at_b, k);
    else
        for (uint k = slice; k < p.k; k += SLICES) add(at_a, at_b, k);
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        part[me] = sum[i];
        barrier();
        for (uint half_ = SLICES / 2; half_ > 0; half_ /= 2) {
            if (slice < half_) part[me] += part[me + half_ * apart];
            barrier();
        }
        if (slice == 0 && i < p.m) store(c_of(batch), i, column, part[me]);
        barrier();
    }
}
