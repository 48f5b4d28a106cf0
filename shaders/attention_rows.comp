// Attention with a running softmax (Dao et al., 2022), one invocation per query, without shared memory: for drivers on which it
// is slow. All invocations of a workgroup read the same keys and values.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

layout(constant_id = 3) const bool POSITION = false;

READ_FLOATS(0, q);
READ_FLOATS(1, k);
READ_FLOATS(2, v);
INTS(3, position);
FLOATS(4, y);
FLOATS(5, lse);

const uint STEP = 4; // keys at a time, so that the sums are rescaled less often

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint first = tile * gl_WorkGroupSize.x, t = min(first + gl_LocalInvocationID.x, p.queries - 1);
    const uint keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint seen = seen_by(t, keys), end = seen_by(min(first + gl_WorkGroupSize.x, p.queries) - 1, keys);

    float query[D], sum[D];
    [[unroll]] for (uint d = 0; d < D; d++) {
        query[d] = q[p.base[0] + q_at(b, h, t) + d] * p.scale;
        sum[d] = 0;
    }
    float most = LOWEST, total = 0;
    for (uint s0 = 0; s0 < end; s0 += STEP) {
        float score[STEP];
        float next = most;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            const uint at = p.base[1] + k_at(b, h, min(s0 + i, end - 1));
            float x = 0;
            [[unroll]] for (uint d = 0; d < D; d++) x = fma(query[d], k[at + d], x);
            score[i] = x;
            if (s0 + i < seen) next = max(next, x);
        }
        const float factor = exp(most - next);
        most = next;
        total *= factor;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            score[i] = s0 + i < seen ? exp(score[i] - most) : 0.0;
            total += score[i];
        }
        [[unroll]] for (uint d = 0; d < D; d++) sum[d] *= factor;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            const uint at = p.base[2] + v_at(b, h, min(s0 + i, end - 1));
            [[unroll]] for (uint d = 0; d < D; d++) sum[d] = fma(score[i], v[at + d], sum[d]);
        }
    }
    if (first + gl_LocalInvocationID.x >= p.queries) return;
    const float inverse = total != 0 ? 1.0 / total : 0.0; // a query that sees no key: 0
    [[unroll]] for (uint d = 0; d < D; d++) y[p.base[4] + out_at(b, h, t) + d] = sum[d] * inverse;
    lse[p.base[5] + lse_at(b, h, t)] = total != 0 ? most + log(total) : 0.0;
}
