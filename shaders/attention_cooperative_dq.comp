// The gradient of attention's queries, of f16 or bf16 by cooperative matrices: as attention_dq.comp. One workgroup per ROWS queries
// of a head; see attention_cooperative.glsl.
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
RESULT(6, dq)
EIGHTS(0, q)
EIGHTS(1, k)
EIGHTS(2, v)
EIGHTS(3, g)

shared ELEMENT4 stage_q[ROWS * PITCH], stage_g[ROWS * PITCH], stage_k[BC * PITCH], stage_v[BC * PITCH];

SUM sum[OUT_M * OUT_N];
vec4 x[TRIPS * FOURS]; // probabilities

uint row_of(uint t) { return out_at(6, batch, head, t); }

void main() {
    if (group() >= p.groups) return;
    const uint t0 = group() % p.tiles * ROWS;
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, p.keys);
    float l[TRIPS], delta_t[TRIPS];
    [[unroll]] for (uint i = 0; i < TRIPS; i++) {
        const uint at = lse_at(batch, head, min(t0 + own_rows() + row_of_trip(i), p.queries - 1));
        l[i] = lse[p.base[4] + at];
        delta_t[i] = delta[p.base[5] + at];
    }
    [[unroll]] for (uint i = 0; i < OUT_M * OUT_N; i++) sum[i] = SUM(0.0);
    STAGE(stage_q, q, t0, ROWS, p.queries)
    STAGE(stage_g, g, t0, ROWS, p.queries)
    for (uint s0 = 0; s0 < end; s0 += BC) {
        STAGE(stage_k, k, s0, BC, end)
        STAGE(stage_v, v, s0, BC, end)
        barrier();
        MULTIPLY_SCORES(stage_q, stage_k)
        subgroupBarrier();
        [[unroll]] for (uint i = 0; i < TRIPS; i++) {
            const uint row = own_rows() + row_of_trip(i), seen = seen_by(t0 + row, p.keys);
            [[unroll]] for (uint c = 0; c < FOURS; c++) {
                const uint four = first_four() + c * PER_ROW, s = s0 + four * 4;
                const bvec4 visible = lessThan(uvec4(s, s + 1, s + 2, s + 3), uvec4(seen));
                x[i * FOURS + c] = mix(vec4(0), exp(scores[row * PITCH_S + four] * p.scale - l[i]), visible);
            }
        }
        subgroupBarrier();
        MULTIPLY_SCORES(stage_g, stage_v)
        subgroupBarrier();
        [[unroll]] for (uint i = 0; i < TRIPS; i++) {
            const uint row = own_rows() + row_of_trip(i);
            [[unroll]] for (uint c = 0; c < FOURS; c++) {
                const uint four = first_four() + c * PER_ROW;
                const vec4 ds = x[i * FOURS + c] * (scores[row * PITCH_S + four] - delta_t[i]) * p.scale;
                weights[row * PITCH_W + four] = ELEMENT4(ds);
            }
        }
        subgroupBarrier();
        ADD_WEIGHTED(sum, stage_k)
        barrier();
    }
    STORE_MATRICES(dq, sum, (t0 + own_rows()), p.queries, row_of)
}
