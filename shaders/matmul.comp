// c [batch, m, n] = a [batch, m, k] b [batch, k, n] (+ bias [n]) with any element strides: one workgroup per BM x BN tile of c,
// tiles of a and b in shared memory, TM x TN sums per invocation. The workgroup has (BM / TM) * (BN / TN) invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint BM = 64;
layout(constant_id = 8) const uint BN = 64;
layout(constant_id = 9) const uint BK = 16;
layout(constant_id = 10) const uint TM = 4; // multiples of 4
layout(constant_id = 11) const uint TN = 4;

const uint INVOCATIONS = (BM / TM) * (BN / TN);
const uint QM = TM / 4, QN = TN / 4;                    // an invocation's quads, which lie BM / QM and BN / QN apart
const uint PITCH_A = BM / 4 + 1, PITCH_B = BN / 4 + 1;  // in vec4; the odd pitch spreads the banks

shared vec4 tile_a[BK * PITCH_A]; // [BK, BM]
shared vec4 tile_b[BK * PITCH_B]; // [BK, BN]

// Loads keep to the dense dimension of the operand, so that neighbours read neighbours. Outside is 0.
void load_a(uint from, uint row0, uint k0) {
    [[unroll]] for (uint e = 0; e < BM * BK; e += INVOCATIONS) {
        const uint i = e + gl_LocalInvocationID.x;
        const uint r = A_ALONG_K ? i / BK : i % BM, k = A_ALONG_K ? i % BK : i / BM;
        if (BM * BK % INVOCATIONS != 0 && k >= BK) break;
        const bool inside = row0 + r < p.m && k0 + k < p.k;
        tile_a[k * PITCH_A + r / 4][r % 4] = inside ? a_at(from + (row0 + r) * p.a_row + (k0 + k) * p.a_column) : 0.0;
    }
}

void load_b(uint from, uint column0, uint k0) {
    [[unroll]] for (uint e = 0; e < BN * BK; e += INVOCATIONS) {
        const uint i = e + gl_LocalInvocationID.x;
        const uint c = B_ALONG_N ? i % BN : i / BK, k = B_ALONG_N ? i / BN : i % BK;
        if (BN * BK % INVOCATIONS != 0 && (k >= BK || c >= BN)) break;
        const bool inside = column0 + c < p.n && k0 + k < p.k;
        tile_b[k * PITCH_B + c / 4][c % 4] = inside ? b_at(from + (column0 + c) * p.b_column + (k0 + k) * p.b_row) : 0.0;
    }
}

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % (p.tiles_m * p.tiles_n), batch = group() / (p.tiles_m * p.tiles_n);
    const uint row0 = tile % p.tiles_m * BM, column0 = tile / p.tiles_m * BN;
    const uint from_a = a_of(batch), from_b = b_of(batch), to_c = c_of(batch);
    const uint quad_m = gl_LocalInvocationID.x / (BN / TN), quad_n = gl_LocalInvocationID.x % (BN / TN);

    vec4 sum[TM * QN];
    [[unroll]] for (uint i = 0; i < TM * QN; i++) sum[i] = vec4(0);

    for (uint k0 = 0; k0 < p.k; k0 += BK) {
        load_a(from_a, row0, k0);
        load_b(from_b, column0, k0);
        barrier();
        [[unroll]] for (uint k = 0; k < BK; k++) {
            vec4 x[QM], y[QN];
            [[unroll]] for (uint q = 0; q < QM; q++) x[q] = tile_a[k * PITCH_A + q * (BM / 4 / QM) + quad_m];
            [[unroll]] for (uint q = 0; q < QN; q++) y[q] = tile_b[k * PITCH_B + q * (BN / 4 / QN) + quad_n];
            [[unroll]] for (uint i = 0; i < TM; i++)
                [[unroll]] for (uint q = 0; q < QN; q++)
                    sum[i * QN + q] = fma(vec4(x[i / 4][i % 4]), y[q], sum[i * QN + q]);
        }
        barrier();
    }

    [[unroll]] for (uint i = 0; i < TM; i++) {
        const uint row = row0 + i / 4 * (BM / QM) + quad_m * 4 + i % 4;
        if (row >= p.m) continue;
        [[unroll]] for (uint q = 0; q < QN; q++)
            [[unroll]] for (uint e = 0; e < 4; e++)
                store(to_c, row, column0 + q * (BN / QN) + quad_n * 4 + e, sum[i * QN + q][e]);
    }
}
