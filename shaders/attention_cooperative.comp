// Attention with a running softmax (Dao et al., 2022) of f16 or bf16 by cooperative matrices: one workgroup per ROWS queries of a
// head; see attention_cooperative.glsl. Probabilities are rounded to the operands' dtype for the product with the values.
//@ requires GL_KHR_cooperative_matrix
//@ variant bf16 requires GL_EXT_bfloat16: -DBF16_ELEMENTS
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef BF16_ELEMENTS
#extension GL_EXT_bfloat16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#endif
#include "common.glsl"
#include "attention.glsl"
#include "attention_cooperative.glsl"

layout(constant_id = 3) const bool POSITION = false;

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
INTS(3, position);
RESULT(4, y)
FLOATS(5, lse);
EIGHTS(0, q)
EIGHTS(1, k)
EIGHTS(2, v)

shared ELEMENT4 stage_q[ROWS * PITCH], stage[BC * PITCH]; // stage: keys, then values

SUM sum[OUT_M * OUT_N];
float most[TRIPS], total[TRIPS]; // of this invocation's rows

uint row_of(uint t) { return out_at(4, batch, head, t); }

// Scores of keys s0 .. to weights; factors are what the sums so far shrink by.
void soften(uint t0, uint s0, uint keys) {
    [[unroll]] for (uint i = 0; i < TRIPS; i++) {
        const uint row = own_rows() + row_of_trip(i), seen = seen_by(t0 + row, keys);
        float next = most[i], here = 0;
        [[unroll]] for (uint c = 0; c < FOURS; c++) {
            const uint s = s0 + (first_four() + c * PER_ROW) * 4;
            const vec4 x = scores[row * PITCH_S + first_four() + c * PER_ROW] * p.scale;
            const vec4 visible = mix(vec4(LOWEST), x, lessThan(uvec4(s, s + 1, s + 2, s + 3), uvec4(seen)));
            next = max(max(max(visible.x, visible.y), max(visible.z, visible.w)), next);
        }
        for (uint other = 1; other < PER_ROW; other *= 2) next = max(next, subgroupShuffleXor(next, other));
        [[unroll]] for (uint c = 0; c < FOURS; c++) {
            const uint s = s0 + (first_four() + c * PER_ROW) * 4;
            const vec4 x = exp(scores[row * PITCH_S + first_four() + c * PER_ROW] * p.scale - next);
            const vec4 e = mix(vec4(0), x, lessThan(uvec4(s, s + 1, s + 2, s + 3), uvec4(seen)));
            weights[row * PITCH_W + first_four() + c * PER_ROW] = ELEMENT4(e);
            here += e.x + e.y + e.z + e.w;
        }
        for (uint other = 1; other < PER_ROW; other *= 2) here += subgroupShuffleXor(here, other);
        const float factor = exp(most[i] - next);
        most[i] = next;
        total[i] = total[i] * factor + here;
        if (first_four() == 0) factors[row] = factor;
    }
}

// Multiplies all rows by their factors: a matrix that has a row's factor in all of its columns lies in memory once.
void multiply_rows() {
    [[unroll]] for (uint i = 0; i < OUT_M; i++) {
        SUM factor;
        coopMatLoad(factor, factors, own_rows() + i * MM, 0, gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint j = 0; j < OUT_N; j++) sum[i * OUT_N + j] = sum[i * OUT_N + j] * factor;
    }
}

void main() {
    if (group() >= p.groups) return;
    const uint t0 = group() % p.tiles * ROWS;
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    const uint keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, keys);

    [[unroll]] for (uint i = 0; i < OUT_M * OUT_N; i++) sum[i] = SUM(0.0);
    [[unroll]] for (uint i = 0; i < TRIPS; i++) most[i] = LOWEST, total[i] = 0;
    STAGE(stage_q, q, t0, ROWS, p.queries)
    for (uint s0 = 0; s0 < end; s0 += BC) {
        STAGE(stage, k, s0, BC, end)
        barrier();
        MULTIPLY_SCORES(stage_q, stage)
        barrier();
        STAGE(stage, v, s0, BC, end)
        soften(t0, s0, keys);
        barrier();
        multiply_rows();
        ADD_WEIGHTED(sum, stage)
        barrier();
    }
    [[unroll]] for (uint i = 0; i < TRIPS; i++) {
        const uint row = own_rows() + row_of_trip(i), t = t0 + row;
        if (first_four() == 0) factors[row] = total[i] != 0 ? 1.0 / total[i] : 0.0; // a query that sees no key: 0
        if (first_four() == 0 && t < p.queries)
            lse[p.base[5] + lse_at(batch, head, t)] = total[i] != 0 ? most[i] + log(total[i]) : 0.0;
    }
    subgroupBarrier();
    multiply_rows();
    STORE_MATRICES(y, sum, (t0 + own_rows()), p.queries, row_of)
}
