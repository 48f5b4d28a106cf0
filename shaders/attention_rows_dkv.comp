// The gradients of attention's keys and values, one invocation per key: dv = p^T dout, dk = ds^T q, summed over the queries of
// all heads that share the key. Without shared memory; see attention_rows.comp.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
OPERAND(3, g)
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
RESULT(6, dk)
RESULT(7, dv)

DOT(q)
DOT(g)

void main() {
    if (group() >= p.groups) return;
    const uint kv_heads = p.heads / p.shared_by;
    const uint tile = group() % p.tiles, head = group() / p.tiles % kv_heads, b = group() / p.tiles / kv_heads;
    const uint first = tile * gl_WorkGroupSize.x, s = min(first + gl_LocalInvocationID.x, p.keys - 1);
    const uint h0 = head * p.shared_by;

    vec2 key[PAIRS], value[PAIRS], sum_k[PAIRS], sum_v[PAIRS];
    const uint at_k = k_at(b, h0, s), at_v = v_at(b, h0, s);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        key[i] = load_k(at_k, 2 * i) * p.scale;
        value[i] = load_v(at_v, 2 * i);
        sum_k[i] = sum_v[i] = vec2(0);
    }
    for (uint h = h0; h < h0 + p.shared_by; h++)
        for (uint t = first_to_see(first); t < p.queries; t++) {
            const uint at_q = q_at(b, h, t), at_g = g_at(b, h, t), at = lse_at(b, h, t);
            const float score = dot_q(key, at_q), dp = dot_g(value, at_g);
            const float x = s < seen_by(t, p.keys) ? exp(score - lse[p.base[4] + at]) : 0.0;
            const float ds = x * (dp - delta[p.base[5] + at]) * p.scale;
            [[unroll]] for (uint i = 0; i < PAIRS; i++) sum_v[i] = fma(vec2(x), load_g(at_g, 2 * i), sum_v[i]);
            [[unroll]] for (uint i = 0; i < PAIRS; i++) sum_k[i] = fma(vec2(ds), load_q(at_q, 2 * i), sum_k[i]);
        }
    if (first + gl_LocalInvocationID.x >= p.keys) return;
    const uint to_k = kv_out_at(6, b, h0, s), to_v = kv_out_at(7, b, h0, s);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        store_dk(to_k, 2 * i, sum_k[i]);
        store_dv(to_v, 2 * i, sum_v[i]);
    }
}
