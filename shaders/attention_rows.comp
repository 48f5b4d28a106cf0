// Attention with a running softmax (Dao et al., 2022), one invocation per query, without shared memory: for drivers on which it
// is slow. All invocations of a workgroup read the same keys and values.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

layout(constant_id = 3) const bool POSITION = false;

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
INTS(3, position);
RESULT(4, y)
FLOATS(5, lse);

const uint STEP = 4; // keys at a time, so that the sums are rescaled less often
DOT(k)

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint first = tile * gl_WorkGroupSize.x, t = min(first + gl_LocalInvocationID.x, p.queries - 1);
    const uint keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint seen = seen_by(t, keys), end = seen_by(min(first + gl_WorkGroupSize.x, p.queries) - 1, keys);

    vec2 query[PAIRS], sum[PAIRS];
    const uint at_q = q_at(b, h, t);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        query[i] = load_q(at_q, 2 * i) * p.scale;
        sum[i] = vec2(0);
    }
    float most = LOWEST, total = 0;
    for (uint s0 = 0; s0 < end; s0 += STEP) {
        float score[STEP];
        float next = most;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            score[i] = dot_k(query, k_at(b, h, min(s0 + i, end - 1)));
            if (s0 + i < seen) next = max(next, score[i]);
        }
        const float factor = exp(most - next);
        most = next;
        total *= factor;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            score[i] = s0 + i < seen ? exp(score[i] - most) : 0.0;
            total += score[i];
        }
        [[unroll]] for (uint i = 0; i < PAIRS; i++) sum[i] *= factor;
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            const uint at = v_at(b, h, min(s0 + i, end - 1));
            [[unroll]] for (uint j = 0; j < PAIRS; j++) sum[j] = fma(vec2(score[i]), load_v(at, 2 * j), sum[j]);
        }
    }
    if (first + gl_LocalInvocationID.x >= p.queries) return;
    const float inverse = total != 0 ? 1.0 / total : 0.0; // a query that sees no key: 0
    const uint to = out_at(4, b, h, t);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) store_y(to, 2 * i, sum[i] * inverse);
    lse[p.base[5] + lse_at(b, h, t)] = total != 0 ? most + log(total) : 0.0;
}
