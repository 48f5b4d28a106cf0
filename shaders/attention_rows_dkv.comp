// The gradients of attention's keys and values, one invocation per key: dv = p^T dout, dk = ds^T q, summed over the queries of
// all heads that share the key. Without shared memory; see attention_rows.comp.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

READ_FLOATS(0, q);
READ_FLOATS(1, k);
READ_FLOATS(2, v);
READ_FLOATS(3, g);
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
FLOATS(6, dk);
FLOATS(7, dv);

void main() {
    if (group() >= p.groups) return;
    const uint kv_heads = p.heads / p.shared_by;
    const uint tile = group() % p.tiles, head = group() / p.tiles % kv_heads, b = group() / p.tiles / kv_heads;
    const uint first = tile * gl_WorkGroupSize.x, s = min(first + gl_LocalInvocationID.x, p.keys - 1);
    const uint h0 = head * p.shared_by;

    float key[D], value[D], sum_k[D], sum_v[D];
    [[unroll]] for (uint d = 0; d < D; d++) {
        key[d] = k[p.base[1] + k_at(b, h0, s) + d] * p.scale;
        value[d] = v[p.base[2] + v_at(b, h0, s) + d];
        sum_k[d] = sum_v[d] = 0;
    }
    for (uint h = h0; h < h0 + p.shared_by; h++)
        for (uint t = first_to_see(first); t < p.queries; t++) {
            const uint at_q = p.base[0] + q_at(b, h, t), at_g = p.base[3] + g_at(b, h, t), at = lse_at(b, h, t);
            float score = 0, dp = 0;
            [[unroll]] for (uint d = 0; d < D; d++) score = fma(key[d], q[at_q + d], score);
            [[unroll]] for (uint d = 0; d < D; d++) dp = fma(value[d], g[at_g + d], dp);
            const float x = s < seen_by(t, p.keys) ? exp(score - lse[p.base[4] + at]) : 0.0;
            const float ds = x * (dp - delta[p.base[5] + at]) * p.scale;
            [[unroll]] for (uint d = 0; d < D; d++) sum_v[d] = fma(x, g[at_g + d], sum_v[d]);
            [[unroll]] for (uint d = 0; d < D; d++) sum_k[d] = fma(ds, q[at_q + d], sum_k[d]);
        }
    if (first + gl_LocalInvocationID.x >= p.keys) return;
    const uint to = ((b * p.keys + s) * kv_heads + head) * D;
    [[unroll]] for (uint d = 0; d < D; d++) {
        dk[p.base[6] + to + d] = sum_k[d];
        dv[p.base[7] + to + d] = sum_v[d];
    }
}
