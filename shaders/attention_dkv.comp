// The gradients of attention's keys and values: dv = p^T dout, dk = ds^T q, summed over the queries of all heads that share the
// key; ds as in attention_dq.comp. PARTS workgroups of 256 per 64 keys of a head; the rows of attention_tile.glsl are keys here.
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
RESULT(6, dk)
RESULT(7, dv)

shared vec4 stage_k[CHUNK * PITCH], stage_v[CHUNK * PITCH];
shared float stage_q[CHUNK * (COLUMNS + 1)], stage_g[CHUNK * (COLUMNS + 1)];
shared float slice[SLICE * ELEMENTS * 16];

uint row_of_dk(uint s) { return kv_out_at(6, batch, head, s); }
uint row_of_dv(uint s) { return kv_out_at(7, batch, head, s); }

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() / PARTS;
    const uint kv_heads = p.heads / p.shared_by, s0 = tile % p.tiles * ROWS, kv_head = tile / p.tiles % kv_heads;
    batch = tile / p.tiles / kv_heads;
    first_element = group() % PARTS * ELEMENTS * 16;
    const uint tx = tile_x(), ty = tile_y(), s = s0 + ty * 4;
    vec4 sum_k[ELEMENTS], sum_v[ELEMENTS];
    [[unroll]] for (uint i = 0; i < ELEMENTS; i++) sum_k[i] = sum_v[i] = vec4(0);

    for (uint member = 0; member < p.shared_by; member++) {
        head = kv_head * p.shared_by + member;
        for (uint t0 = first_to_see(s0) / COLUMNS * COLUMNS; t0 < p.queries; t0 += COLUMNS) {
            vec4 score[2] = {vec4(0), vec4(0)}, ds[2] = {vec4(0), vec4(0)};
            for (uint d0 = 0; d0 < D; d0 += CHUNK) {
                STAGE_ROWS(stage_k, k, s0, p.keys, d0)
                STAGE_ROWS(stage_v, v, s0, p.keys, d0)
                STAGE_COLUMNS(stage_q, q, t0, p.queries, d0)
                STAGE_COLUMNS(stage_g, g, t0, p.queries, d0)
                barrier();
                [[unroll]] for (uint d = 0; d < CHUNK; d++)
                    [[unroll]] for (uint i = 0; i < 2; i++) {
                        const uint c = d * (COLUMNS + 1) + tx + i * 16;
                        score[i] = fma(stage_k[d * PITCH + ty], vec4(stage_q[c]), score[i]);
                        ds[i] = fma(stage_v[d * PITCH + ty], vec4(stage_g[c]), ds[i]);
                    }
                barrier();
            }
            [[unroll]] for (uint i = 0; i < 2; i++) {
                const uint t = t0 + tx + i * 16, at = lse_at(batch, head, min(t, p.queries - 1));
                const uint seen = t < p.queries ? seen_by(t, p.keys) : 0;
                const bvec4 visible = lessThan(uvec4(s, s + 1, s + 2, s + 3), uvec4(seen));
                score[i] = mix(vec4(0), exp(score[i] * p.scale - lse[p.base[4] + at]), visible);
                ds[i] = score[i] * (ds[i] - delta[p.base[5] + at]) * p.scale;
                scores[(tx + i * 16) * PITCH + ty] = score[i];
            }
            for (uint c0 = 0; c0 < COLUMNS && t0 + c0 < p.queries; c0 += SLICE) {
                STAGE_SLICE(slice, g, (t0 + c0), p.queries)
                barrier();
                ADD_SLICE(sum_v, slice, c0)
                barrier();
            }
            [[unroll]] for (uint i = 0; i < 2; i++) scores[(tx + i * 16) * PITCH + ty] = ds[i];
            for (uint c0 = 0; c0 < COLUMNS && t0 + c0 < p.queries; c0 += SLICE) {
                STAGE_SLICE(slice, q, (t0 + c0), p.queries)
                barrier();
                ADD_SLICE(sum_k, slice, c0)
                barrier();
            }
        }
    }
    STORE_TILE(dk, sum_k, s0, p.keys, row_of_dk)
    STORE_TILE(dv, sum_v, s0, p.keys, row_of_dv)
}
