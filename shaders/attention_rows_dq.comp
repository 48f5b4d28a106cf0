// The gradient of attention's queries, one invocation per query: ds = p * (dout v^T - delta) * scale, dq = ds k, the
// probabilities p computed again from lse. Without shared memory; see attention_rows.comp.
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
RESULT(6, dq)

DOT(k)
DOT(v)

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint first = tile * gl_WorkGroupSize.x, t = min(first + gl_LocalInvocationID.x, p.queries - 1);
    const uint seen = seen_by(t, p.keys), end = seen_by(min(first + gl_WorkGroupSize.x, p.queries) - 1, p.keys);
    const float l = lse[p.base[4] + lse_at(b, h, t)], delta_t = delta[p.base[5] + lse_at(b, h, t)];

    vec2 query[PAIRS], dout[PAIRS], sum[PAIRS];
    const uint at_q = q_at(b, h, t), at_g = g_at(b, h, t);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        query[i] = load_q(at_q, 2 * i) * p.scale;
        dout[i] = load_g(at_g, 2 * i);
        sum[i] = vec2(0);
    }
    for (uint s = 0; s < end; s++) {
        const uint at_k = k_at(b, h, s);
        const float score = dot_k(query, at_k), dp = dot_v(dout, v_at(b, h, s));
        const float ds = s < seen ? exp(score - l) * (dp - delta_t) * p.scale : 0.0;
        [[unroll]] for (uint i = 0; i < PAIRS; i++) sum[i] = fma(vec2(ds), load_k(at_k, 2 * i), sum[i]);
    }
    if (first + gl_LocalInvocationID.x >= p.queries) return;
    const uint to = out_at(6, b, h, t);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) store_dq(to, 2 * i, sum[i]);
}
