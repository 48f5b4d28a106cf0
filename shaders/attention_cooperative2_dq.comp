// dq of attention, of f16 or bf16 by matrices of whole workgroups: one workgroup per ROWS queries of a head; see
// attention_cooperative2.glsl. Gradients of scores are rounded to the operands' dtype for the product with the keys.
//@ requires GL_KHR_cooperative_matrix GL_NV_cooperative_matrix2
//@ variant bf16 requires GL_EXT_bfloat16: -DBF16_ELEMENTS
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_16bit_storage : require
#ifdef BF16_ELEMENTS
#extension GL_EXT_bfloat16 : require
#endif
#include "common.glsl"
#include "attention.glsl"
#include "attention_cooperative2.glsl"

TENSOR_BUFFER(0, q)
TENSOR_BUFFER(1, k)
TENSOR_BUFFER(2, v)
TENSOR_BUFFER(3, g)
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
TENSOR_BUFFER(6, dq)

uint row_at(uint row) { return lse_at(batch, head, min(t0 + row, p.queries - 1)); }

float probability(const in uint row, const in uint column, const in float x) {
    return exp2((x * p.scale - lse[p.base[4] + row_at(row)]) * LOG2_E);
}
float visible(const in uint row, const in uint column, const in float x) {
    return sees(t0 + row, s0 + column) ? x : 0.0;
}
float slope(const in uint row, const in uint column, const in float x, const in float probability) {
    return probability * (x - delta[p.base[5] + row_at(row)]) * p.scale;
}

void main() {
    if (group() >= p.groups) return;
    t0 = (p.tiles - 1 - group() % p.tiles) * ROWS; // those that see the most keys first
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    keys = p.keys;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, keys);
    const uint from_k = k_at(batch, head, 0), from_v = v_at(batch, head, 0);

    LEFT(ROWS, DP) queries, g;
    LOAD(queries, q, q_at(batch, head, 0), p.queries, p.q_row, t0, ROWS)
    LOAD(g, g, g_at(batch, head, 0), p.queries, p.g_row, t0, ROWS)
    SUM(ROWS, DP) sum = SUM(ROWS, DP)(0.0);
    [[dont_unroll]] for (s0 = 0; s0 < end; s0 += COLUMNS) {
        RIGHT(DP, COLUMNS) k, v;
        RIGHT(COLUMNS, DP) k_rows;
        SUM(ROWS, COLUMNS) x, weights;
        LOAD_TRANSPOSED(k, k, from_k, keys, p.k_row, s0, COLUMNS)
        LOAD_TRANSPOSED(v, v, from_v, keys, p.v_row, s0, COLUMNS)
        coopMatPerElementNV(weights, coopMatMulAdd(queries, k, SUM(ROWS, COLUMNS)(0.0)), probability);
        if (!all_seen(ROWS, COLUMNS)) coopMatPerElementNV(weights, weights, visible);
        coopMatPerElementNV(x, coopMatMulAdd(g, v, SUM(ROWS, COLUMNS)(0.0)), slope, weights);
        LOAD(k_rows, k, from_k, keys, p.k_row, s0, COLUMNS)
        ROUND(x)
        sum = coopMatMulAdd(LEFT(ROWS, COLUMNS)(x), k_rows, sum);
    }
    ROUND(sum)
    coopMatStoreTensorNV(LEFT(ROWS, DP)(sum), dq16, out_at(6, batch, head, 0),
                         sliceTensorLayoutNV(tensor_of(p.queries, p.heads * D), t0, ROWS, 0, DP));
}
