// The gradient of attention's queries, one invocation per query: ds = p * (dout v^T - delta) * scale, dq = ds k, the
// probabilities p computed again from lse. Without shared memory; see attention_rows.comp.
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
FLOATS(6, dq);

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint first = tile * gl_WorkGroupSize.x, t = min(first + gl_LocalInvocationID.x, p.queries - 1);
    const uint seen = seen_by(t, p.keys), end = seen_by(min(first + gl_WorkGroupSize.x, p.queries) - 1, p.keys);
    const float l = lse[p.base[4] + lse_at(b, h, t)], delta_t = delta[p.base[5] + lse_at(b, h, t)];

    float query[D], dout[D], sum[D];
    [[unroll]] for (uint d = 0; d < D; d++) {
        query[d] = q[p.base[0] + q_at(b, h, t) + d] * p.scale;
        dout[d] = g[p.base[3] + g_at(b, h, t) + d];
        sum[d] = 0;
    }
    for (uint s = 0; s < end; s++) {
        const uint at_k = p.base[1] + k_at(b, h, s), at_v = p.base[2] + v_at(b, h, s);
        float score = 0, dp = 0;
        [[unroll]] for (uint d = 0; d < D; d++) score = fma(query[d], k[at_k + d], score);
        [[unroll]] for (uint d = 0; d < D; d++) dp = fma(dout[d], v[at_v + d], dp);
        const float ds = s < seen ? exp(score - l) * (dp - delta_t) * p.scale : 0.0;
        [[unroll]] for (uint d = 0; d < D; d++) sum[d] = fma(ds, k[at_k + d], sum[d]);
    }
    if (first + gl_LocalInvocationID.x >= p.queries) return;
    [[unroll]] for (uint d = 0; d < D; d++) dq[p.base[6] + out_at(b, h, t) + d] = sum[d];
}
