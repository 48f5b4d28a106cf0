// c [batch, m, n] = a [batch, m, k] b [batch, k, n], i8 to i32, with any element strides: one workgroup per BM x BN tile of c,
// tiles of a and b in shared memory as words of four elements of k, TM x TN sums per invocation. The workgroup has
// (BM / TM) * (BN / TN) invocations, and a tile of a or b a multiple of four times as many words.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_spirv_intrinsics : require
#include "common.glsl"
#include "matmul_i8.glsl"

layout(constant_id = 7) const uint BM = 64; // multiples of 4, as all below
layout(constant_id = 8) const uint BN = 64;
layout(constant_id = 9) const uint BK = 8; // words
layout(constant_id = 10) const uint TM = 8;
layout(constant_id = 11) const uint TN = 4;

const uint INVOCATIONS = (BM / TM) * (BN / TN);
const uint QM = TM / 4, QN = TN / 4;                   // an invocation's quads, which lie BM / QM and BN / QN apart
const uint PITCH_A = BM / 4 + 1, PITCH_B = BN / 4 + 1; // in uvec4; the odd pitch spreads the banks
const uint COUNT_A = BM / 4 * BK / INVOCATIONS, COUNT_B = BN / 4 * BK / INVOCATIONS; // quads that an invocation reads

shared uvec4 tile_a[BK * PITCH_A]; // [BK, BM]
shared uvec4 tile_b[BK * PITCH_B]; // [BK, BN]

uvec4 next_a[COUNT_A], next_b[COUNT_B];

// The place of an invocation's i-th quad in a tile, as quad and word of k: neighbours read neighbours.
uvec2 place_of(uint i, uint quads, bool along_k) {
    const uint number = gl_LocalInvocationID.x + i * INVOCATIONS;
    return along_k ? uvec2(number / BK, number % BK) : uvec2(number % quads, number / quads);
}

// The tiles from element k on, of which all are there, or perhaps not.
void fetch(uint from_a, uint row0, uint from_b, uint column0, uint k, bool whole) {
    [[unroll]] for (uint i = 0; i < COUNT_A; i++) {
        const uvec2 at = place_of(i, BM / 4, A_ALONG_K);
        next_a[i] = quad_of_a(from_a, row0 + 4 * at.x, k + 4 * at.y, whole);
    }
    [[unroll]] for (uint i = 0; i < COUNT_B; i++) {
        const uvec2 at = place_of(i, BN / 4, B_ALONG_K);
        next_b[i] = quad_of_b(from_b, column0 + 4 * at.x, k + 4 * at.y, whole);
    }
}

void put() {
    [[unroll]] for (uint i = 0; i < COUNT_A; i++) {
        const uvec2 at = place_of(i, BM / 4, A_ALONG_K);
        tile_a[at.y * PITCH_A + at.x] = next_a[i];
    }
    [[unroll]] for (uint i = 0; i < COUNT_B; i++) {
        const uvec2 at = place_of(i, BN / 4, B_ALONG_K);
        tile_b[at.y * PITCH_B + at.x] = next_b[i];
    }
}

ivec4 sum[TM * QN];

void multiply(uint quad_m, uint quad_n) {
    [[unroll]] for (uint k = 0; k < BK; k++) {
        uvec4 x[QM], y[QN];
        [[unroll]] for (uint q = 0; q < QM; q++) x[q] = tile_a[k * PITCH_A + q * (BM / 4 / QM) + quad_m];
        [[unroll]] for (uint q = 0; q < QN; q++) y[q] = tile_b[k * PITCH_B + q * (BN / 4 / QN) + quad_n];
        [[unroll]] for (uint i = 0; i < TM; i++)
            [[unroll]] for (uint q = 0; q < QN; q++)
                [[unroll]] for (uint e = 0; e < 4; e++) sum[i * QN + q][e] += dot_four(x[i / 4][i % 4], y[q][e]);
    }
}

void main() {
    if (group() >= p.groups) return;
    const uint batch = group() / (p.tiles_m * p.tiles_n);
    const uvec2 tile = tile_of(group() % (p.tiles_m * p.tiles_n));
    const uint row0 = tile.x * BM, column0 = tile.y * BN, from_a = a_of(batch), from_b = b_of(batch);
    const uint quad_m = gl_LocalInvocationID.x / (BN / TN), quad_n = gl_LocalInvocationID.x % (BN / TN);
    [[unroll]] for (uint i = 0; i < TM * QN; i++) sum[i] = ivec4(0);

    uint k = 0;
    fetch(from_a, row0, from_b, column0, k, false);
    while (true) {
        const uint next = k + 4 * BK;
        put();
        barrier();
        if (next + 4 * BK <= p.k) fetch(from_a, row0, from_b, column0, next, true);
        else if (next < p.k) fetch(from_a, row0, from_b, column0, next, false);
        multiply(quad_m, quad_n);
        if (next >= p.k) break;
        barrier();
        k = next;
    }

    const uint to = c_of(batch);
    [[unroll]] for (uint e = 0; e < TM * QN; e++) {
        const uint i = e / QN, row = row0 + i / 4 * (BM / QM) + quad_m * 4 + i % 4;
        if (row < p.m) store_quad(to, row, column0 + e % QN * (BN / QN) + quad_n * 4, sum[e]);
    }
}
