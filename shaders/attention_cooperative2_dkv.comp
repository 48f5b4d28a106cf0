// dk and dv of attention, of f16 or bf16 by matrices of whole workgroups: one workgroup per ROWS keys of a head of keys, over all
// heads of queries that share it; see attention_cooperative2.glsl. Probabilities and gradients of scores, transposed here, are
// rounded to the operands' dtype for the products.
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
TENSOR_BUFFER(6, dk)
TENSOR_BUFFER(7, dv)

uint column_at(uint column) { return lse_at(batch, head, min(t0 + column, p.queries - 1)); }

float probability(const in uint row, const in uint column, const in float x) {
    return exp2((x * p.scale - lse[p.base[4] + column_at(column)]) * LOG2_E);
}
float visible(const in uint row, const in uint column, const in float x) {
    return sees(t0 + column, s0 + row) ? x : 0.0;
}
float slope(const in uint row, const in uint column, const in float x, const in float probability) {
    return probability * (x - delta[p.base[5] + column_at(column)]) * p.scale;
}

void main() {
    if (group() >= p.groups) return;
    const uint kv_heads = p.heads / p.shared_by, h0 = group() / p.tiles % kv_heads * p.shared_by;
    s0 = group() % p.tiles * ROWS;
    head = h0;
    batch = group() / p.tiles / kv_heads;
    keys = p.keys;

    LEFT(ROWS, DP) k, v;
    LOAD(k, k, k_at(batch, head, 0), p.keys, p.k_row, s0, ROWS)
    LOAD(v, v, v_at(batch, head, 0), p.keys, p.v_row, s0, ROWS)
    SUM(ROWS, DP) sum_k = SUM(ROWS, DP)(0.0), sum_v = SUM(ROWS, DP)(0.0);
    for (; head < h0 + p.shared_by; head++) {
        const uint from_q = q_at(batch, head, 0), from_g = g_at(batch, head, 0);
        [[dont_unroll]] for (t0 = first_to_see(s0) / COLUMNS * COLUMNS; t0 < p.queries; t0 += COLUMNS) {
            RIGHT(DP, COLUMNS) q, g;
            RIGHT(COLUMNS, DP) q_rows, g_rows;
            SUM(ROWS, COLUMNS) x, weights;
            LOAD_TRANSPOSED(q, q, from_q, p.queries, p.q_row, t0, COLUMNS)
            LOAD_TRANSPOSED(g, g, from_g, p.queries, p.g_row, t0, COLUMNS)
            coopMatPerElementNV(weights, coopMatMulAdd(k, q, SUM(ROWS, COLUMNS)(0.0)), probability);
            if (!all_seen(COLUMNS, ROWS)) coopMatPerElementNV(weights, weights, visible);
            coopMatPerElementNV(x, coopMatMulAdd(v, g, SUM(ROWS, COLUMNS)(0.0)), slope, weights);
            LOAD(g_rows, g, from_g, p.queries, p.g_row, t0, COLUMNS)
            LOAD(q_rows, q, from_q, p.queries, p.q_row, t0, COLUMNS)
            ROUND(weights)
            ROUND(x)
            sum_v = coopMatMulAdd(LEFT(ROWS, COLUMNS)(weights), g_rows, sum_v);
            sum_k = coopMatMulAdd(LEFT(ROWS, COLUMNS)(x), q_rows, sum_k);
        }
    }
    head = h0;
    ROUND(sum_k)
    ROUND(sum_v)
    coopMatStoreTensorNV(LEFT(ROWS, DP)(sum_k), dk16, kv_out_at(6, batch, head, 0),
                         sliceTensorLayoutNV(tensor_of(p.keys, kv_heads * D), s0, ROWS, 0, DP));
    coopMatStoreTensorNV(LEFT(ROWS, DP)(sum_v), dv16, kv_out_at(7, batch, head, 0),
                         sliceTensorLayoutNV(tensor_of(p.keys, kv_heads * D), s0, ROWS, 0, DP));
}
