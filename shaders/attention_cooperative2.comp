// Attention with a running softmax (Dao et al., 2022) of f16 or bf16 by matrices of whole workgroups: one workgroup per ROWS
// queries of a head; see attention_cooperative2.glsl. Probabilities are rounded to the operands' dtype for the product with the
// values. Exponentials are of base 2.
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

layout(constant_id = 3) const bool POSITION = false;

TENSOR_BUFFER(0, q)
TENSOR_BUFFER(1, k)
TENSOR_BUFFER(2, v)
INTS(3, position);
TENSOR_BUFFER(4, y)
FLOATS(5, lse);

const float NOTHING = LOWEST / 2; // the largest score of a query that sees no key: above LOWEST, so that its weights are 0

float visible(const in uint row, const in uint column, const in float x) {
    return sees(t0 + row, s0 + column) ? x : LOWEST;
}
float larger(const in float x, const in float y) { return max(x, y); }
float plus(const in float x, const in float y) { return x + y; }
float first(const in float x, const in float y) { return x; } // of equal ones
float maximum(const in uint row, const in uint column, const in float x, const in float y) { return max(x, y); }
float power(const in uint row, const in uint column, const in float x, const in float most) { return exp2(x - most); }
float inverse(const in uint row, const in uint column, const in float total) { return total != 0 ? 1 / total : 0.0; }
// Stores a row's logarithm of the sum of exponentials, which all columns have.
float store_lse(const in uint row, const in uint column, const in float most, const in float total) {
    if (column == 0 && t0 + row < p.queries)
        lse[p.base[5] + lse_at(batch, head, t0 + row)] = total != 0 ? (most + log2(total)) / LOG2_E : 0.0;
    return most;
}

void main() {
    if (group() >= p.groups) return;
    t0 = (p.tiles - 1 - group() % p.tiles) * ROWS; // those that see the most keys first
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, keys);
    const uint from_k = k_at(batch, head, 0), from_v = v_at(batch, head, 0);

    LEFT(ROWS, DP) queries;
    LOAD(queries, q, q_at(batch, head, 0), p.queries, p.q_row, t0, ROWS)
    SUM(ROWS, DP) sum = SUM(ROWS, DP)(0.0);
    SUM(ROWS, COLUMNS) most = SUM(ROWS, COLUMNS)(NOTHING), total = SUM(ROWS, COLUMNS)(0.0);
    [[dont_unroll]] for (s0 = 0; s0 < end; s0 += COLUMNS) {
        RIGHT(DP, COLUMNS) k;
        LOAD_TRANSPOSED(k, k, from_k, keys, p.k_row, s0, COLUMNS)
        SUM(ROWS, COLUMNS) x = coopMatMulAdd(queries, k, SUM(ROWS, COLUMNS)(0.0)) * (p.scale * LOG2_E);
        if (!all_seen(ROWS, COLUMNS)) coopMatPerElementNV(x, x, visible);

        SUM(ROWS, COLUMNS) next, weights, factor, here;
        coopMatReduceNV(next, x, gl_CooperativeMatrixReduceRowNV, larger);
        coopMatPerElementNV(next, next, maximum, most);
        coopMatPerElementNV(weights, x, power, next);
        coopMatPerElementNV(factor, most, power, next);
        coopMatReduceNV(here, weights, gl_CooperativeMatrixReduceRowNV, plus);
        most = next;
        total = total * factor + here;

        SUM(ROWS, DP) factors;
        RIGHT(COLUMNS, DP) v;
        coopMatReduceNV(factors, factor, gl_CooperativeMatrixReduceRowNV, first);
        LOAD(v, v, from_v, keys, p.v_row, s0, COLUMNS)
        ROUND(weights)
        sum = coopMatMulAdd(LEFT(ROWS, COLUMNS)(weights), v, sum * factors);
    }
    SUM(ROWS, COLUMNS) by;
    SUM(ROWS, DP) factors;
    coopMatPerElementNV(most, most, store_lse, total);
    coopMatPerElementNV(by, total, inverse);
    coopMatReduceNV(factors, by, gl_CooperativeMatrixReduceRowNV, first);
    sum = sum * factors;
    ROUND(sum)
    coopMatStoreTensorNV(LEFT(ROWS, DP)(sum), y16, out_at(4, batch, head, 0),
                         sliceTensorLayoutNV(tensor_of(p.queries, p.heads * D), t0, ROWS, 0, DP));
}
