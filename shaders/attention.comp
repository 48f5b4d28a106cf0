// Attention with a running softmax (Dao et al., 2022): one workgroup of 256 per 64 queries of a head; see attention_tile.glsl.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"
#include "attention_tile.glsl"

layout(constant_id = 3) const bool POSITION = false;

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
INTS(3, position);
RESULT(4, y)
FLOATS(5, lse);

shared vec4 stage_q[CHUNK * PITCH];
shared float stage_k[CHUNK * (COLUMNS + 1)];
shared float stage_v[SLICE * ELEMENTS * 16];
shared vec4 partial[16 * PITCH];      // [x, query]

uint row_of(uint t) { return out_at(4, batch, head, t); }

void main() {
    if (group() >= p.groups) return;
    const uint t0 = group() % p.tiles * ROWS;
    head = group() / p.tiles % p.heads;
    batch = group() / p.tiles / p.heads;
    const uint keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint end = seen_by(min(t0 + ROWS, p.queries) - 1, keys);
    const uint tx = tile_x(), ty = tile_y(), t = t0 + ty * 4;
    const uvec4 seen = uvec4(seen_by(t, keys), seen_by(t + 1, keys), seen_by(t + 2, keys), seen_by(t + 3, keys));

    vec4 sum[ELEMENTS], most = vec4(LOWEST), total = vec4(0); // total: of this invocation's keys
    [[unroll]] for (uint i = 0; i < ELEMENTS; i++) sum[i] = vec4(0);

    for (uint s0 = 0; s0 < end; s0 += COLUMNS) {
        vec4 score[2] = {vec4(0), vec4(0)};
        for (uint d0 = 0; d0 < D; d0 += CHUNK) {
            STAGE_ROWS(stage_q, q, t0, p.queries, d0)
            STAGE_COLUMNS(stage_k, k, s0, end, d0)
            barrier();
            [[unroll]] for (uint d = 0; d < CHUNK; d++) {
                const vec4 x = stage_q[d * PITCH + ty];
                score[0] = fma(x, vec4(stage_k[d * (COLUMNS + 1) + tx]), score[0]);
                score[1] = fma(x, vec4(stage_k[d * (COLUMNS + 1) + tx + 16]), score[1]);
            }
            barrier();
        }
        bvec4 visible[2];
        vec4 next = most;
        [[unroll]] for (uint i = 0; i < 2; i++) {
            visible[i] = lessThan(uvec4(s0 + tx + i * 16), seen);
            score[i] *= p.scale;
            next = mix(next, max(next, score[i]), visible[i]);
        }
        partial[tx * PITCH + ty] = next;
        barrier();
        for (uint i = 0; i < 16; i++) next = max(next, partial[i * PITCH + ty]);
        const vec4 factor = exp(most - next);
        most = next;
        total *= factor;
        [[unroll]] for (uint i = 0; i < 2; i++) {
            const vec4 e = mix(vec4(0), exp(score[i] - most), visible[i]);
            total += e;
            scores[(tx + i * 16) * PITCH + ty] = e;
        }
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) sum[i] *= factor;
        for (uint c0 = 0; c0 < COLUMNS && s0 + c0 < end; c0 += SLICE) {
            STAGE_SLICE(stage_v, v, (s0 + c0), end)
            barrier();
            ADD_SLICE(sum, stage_v, c0)
            barrier();
        }
    }

    partial[tx * PITCH + ty] = total;
    barrier();
    total = vec4(0);
    for (uint i = 0; i < 16; i++) total += partial[i * PITCH + ty];
    const vec4 inverse = mix(vec4(0), 1.0 / total, notEqual(total, vec4(0))); // a query that sees no key: 0
    [[unroll]] for (uint i = 0; i < ELEMENTS; i++) sum[i] *= inverse;
    STORE_TILE(y, sum, t0, p.queries, row_of)
    [[unroll]] for (uint r = 0; r < 4; r++)
        if (t + r < p.queries && tx == 0)
            lse[p.base[5] + lse_at(batch, head, t + r)] = total[r] != 0 ? most[r] + log(total[r]) : 0.0;
}
