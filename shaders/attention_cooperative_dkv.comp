// The gradients of attention's keys and values, of f16 or bf16 by cooperative matrices: as attention_dkv.comp. PARTS workgroups per
// ROWS keys of a head, whose columns are queries; see attention_cooperative.glsl.
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
#endif
#include "common.glsl"
#include "attention.glsl"
#include "attention_cooperative.glsl"

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
OPERAND(3, g)
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
RESULT(6, dk)
RESULT(7, dv)
EIGHTS(0, q)
EIGHTS(1, k)
EIGHTS(2, v)
EIGHTS(3, g)

shared ELEMENT4 stage_q[BC * PITCH], stage_g[BC * PITCH], stage_k[ROWS * PITCH], stage_v[ROWS * PITCH];
shared vec4 stage_lse[BC / 4], stage_delta[BC / 4];

SUM sum_k[OUT_M * OUT_N], sum_v[OUT_M * OUT_N];
vec4 x[TRIPS * FOURS]; // probabilities

uint row_of_dk(uint s) { return kv_out_at(6, batch, head, s); }
uint row_of_dv(uint s) { return kv_out_at(7, batch, head, s); }

void add_queries(uint s0, uint t0) {
    STAGE(stage_q, q, t0, BC, p.queries)
    STAGE(stage_g, g, t0, BC, p.queries)
    for (uint i = gl_LocalInvocationID.x; i < BC; i += gl_WorkGroupSize.x) {
        const uint at = lse_at(batch, head, min(t0 + i, p.queries - 1));
        stage_lse[i / 4][i % 4] = lse[p.base[4] + at];
        stage_delta[i / 4][i % 4] = delta[p.base[5] + at];
    }
    barrier();
    MULTIPLY_SCORES(stage_k, stage_q)
    subgroupBarrier();
    [[unroll]] for (uint i = 0; i < TRIPS; i++) {
        const uint row = own_rows() + row_of_trip(i);
        [[unroll]] for (uint c = 0; c < FOURS; c++) {
            const uint four = first_four() + c * PER_ROW;
            const vec4 e = exp(scores[row * PITCH_S + four] * p.scale - stage_lse[four]);
            [[unroll]] for (uint l = 0; l < 4; l++) {
                const uint t = t0 + four * 4 + l;
                x[i * FOURS + c][l] = t < p.queries && s0 + row < seen_by(t, p.keys) ? e[l] : 0.0;
            }
            weights[row * PITCH_W + four] = ELEMENT4(x[i * FOURS + c]);
        }
    }
    subgroupBarrier();
    ADD_WEIGHTED(sum_v, stage_g)
    MULTIPLY_SCORES(stage_v, stage_g)
    subgroupBarrier();
    [[unroll]] for (uint i = 0; i < TRIPS; i++) {
        const uint row = own_rows() + row_of_trip(i);
        [[unroll]] for (uint c = 0; c < FOURS; c++) {
            const uint four = first_four() + c * PER_ROW;
            const vec4 ds = x[i * FOURS + c] * (scores[row * PITCH_S + four] - stage_delta[four]) * p.scale;
            weights[row * PITCH_W + four] = ELEMENT4(ds);
        }
    }
    subgroupBarrier();
    ADD_WEIGHTED(sum_k, stage_q)
    barrier();
}

void main() {
    if (group() >= p.groups) return;
    const uint kv_heads = p.heads / p.shared_by, tile = group() / PARTS;
    const uint s0 = tile % p.tiles * ROWS, h0 = tile / p.tiles % kv_heads * p.shared_by;
    head = h0;
    batch = tile / p.tiles / kv_heads;
    first_element = group() % PARTS * (DP / PARTS);
    [[unroll]] for (uint i = 0; i < OUT_M * OUT_N; i++) sum_k[i] = sum_v[i] = SUM(0.0);
    STAGE(stage_k, k, s0, ROWS, p.keys)
    STAGE(stage_v, v, s0, ROWS, p.keys)
    for (; head < h0 + p.shared_by; head++)
        for (uint t0 = first_to_see(s0) / BC * BC; t0 < p.queries; t0 += BC) add_queries(s0, t0);
    head = h0;
    STORE_MATRICES(dk, sum_k, (s0 + own_rows()), p.keys, row_of_dk)
    STORE_MATRICES(dv, sum_v, (s0 + own_rows()), p.keys, row_of_dv)
}
