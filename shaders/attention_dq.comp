// The gradient of attention's queries: ds = p * (dout v^T - delta) * scale, dq = ds k, the probabilities p computed again from
// lse. One workgroup of 256 per 64 queries of a head; see attention_tile.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"
#include "attention_tile.glsl"

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
OPERAND(3, g)
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
RESULT(6, dq)

shared vec4 stage_q[CHUNK * PITCH], stage_g[CHUNK * PITCH];
shared float stage_k[CHUNK * (COLUMNS + 1)], stage_v[CHUNK * (COLUMNS + 1)];
shared float slice_k[SLICE * ELEMENTS * 16];

uint row_of(uint t) { return out_at(6, batch, head, t); }

void main() {
    if (group() >= p.groups) return;
    const uint t0 = group() % p.tiles * ROWS;
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, p.keys);
    const uint tx = tile_x(), ty = tile_y(), t = t0 + ty * 4;
    uvec4 seen;
    vec4 l, delta_t;
    [[unroll]] for (uint r = 0; r < 4; r++) {
        const uint at = lse_at(batch, head, min(t + r, p.queries - 1));
        seen[r] = seen_by(t + r, p.keys);
        l[r] = lse[p.base[4] + at];
        delta_t[r] = delta[p.base[5] + at];
    }
    vec4 sum[ELEMENTS];
    [[unroll]] for (uint i = 0; i < ELEMENTS; i++) sum[i] = vec4(0);

    for (uint s0 = 0; s0 < end; s0 += COLUMNS) {
        vec4 score[2] = {vec4(0), vec4(0)}, dp[2] = {vec4(0), vec4(0)};
        for (uint d0 = 0; d0 < D; d0 += CHUNK) {
            STAGE_ROWS(stage_q, q, t0, p.queries, d0)
            STAGE_ROWS(stage_g, g, t0, p.queries, d0)
            STAGE_COLUMNS(stage_k, k, s0, end, d0)
            STAGE_COLUMNS(stage_v, v, s0, end, d0)
            barrier();
            [[unroll]] for (uint d = 0; d < CHUNK; d++)
                [[unroll]] for (uint i = 0; i < 2; i++) {
                    const uint c = d * (COLUMNS + 1) + tx + i * 16;
                    score[i] = fma(stage_q[d * PITCH + ty], vec4(stage_k[c]), score[i]);
                    dp[i] = fma(stage_g[d * PITCH + ty], vec4(stage_v[c]), dp[i]);
                }
            barrier();
        }
        [[unroll]] for (uint i = 0; i < 2; i++) {
            const vec4 ds = exp(score[i] * p.scale - l) * (dp[i] - delta_t) * p.scale;
            scores[(tx + i * 16) * PITCH + ty] = mix(vec4(0), ds, lessThan(uvec4(s0 + tx + i * 16), seen));
        }
        for (uint c0 = 0; c0 < COLUMNS && s0 + c0 < end; c0 += SLICE) {
            STAGE_SLICE(slice_k, k, (s0 + c0), end)
            barrier();
            ADD_SLICE(sum, slice_k, c0)
            barrier();
        }
    }
    STORE_TILE(dq, sum, t0, p.queries, row_of)
}
