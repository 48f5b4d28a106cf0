// The gradients of attention's keys and values: dv = p^T dout, dk = ds^T q, summed over the queries of all heads that share the
// key; ds as in attention_dq.comp. PARTS workgroups of 256 per 64 keys of a head; the rows of attention_tile.glsl are keys here.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"
#include "attention_tile.glsl"

READ_FLOATS(0, q);
READ_FLOATS(1, k);
READ_FLOATS(2, v);
READ_FLOATS(3, g);
READ_FLOATS(4, lse);
READ_FLOATS(5, delta);
FLOATS(6, dk);
FLOATS(7, dv);

shared vec4 stage_k[CHUNK * PITCH], stage_v[CHUNK * PITCH];
shared float stage_q[CHUNK * (COLUMNS + 1)], stage_g[CHUNK * (COLUMNS + 1)];
shared float slice[SLICE * ELEMENTS * 16];
shared vec4 scores[COLUMNS * PITCH]; // p, then ds [query, key]

uint head, batch;
uint address_q(uint t) { return p.base[0] + q_at(batch, head, t); }
uint address_k(uint s) { return p.base[1] + k_at(batch, head, s); }
uint address_v(uint s) { return p.base[2] + v_at(batch, head, s); }
uint address_g(uint t) { return p.base[3] + g_at(batch, head, t); }

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
                STAGE_ROWS(stage_k, k, address_k, s0, p.keys, d0)
                STAGE_ROWS(stage_v, v, address_v, s0, p.keys, d0)
                STAGE_COLUMNS(stage_q, q, address_q, t0, p.queries, d0)
                STAGE_COLUMNS(stage_g, g, address_g, t0, p.queries, d0)
                barrier();
                [[unroll]] for (uint d = 0; d < CHUNK; d++)
                    [[unroll]] for (uint i = 0; i < 2; i++) {
                        const uint c = d * (COLUMNS + 1) + tx + i * 16;
                        score[i] = fma(stage_k[d * PITCH + ty], vec4(stage_q[c]), score[i]);
                        ds[i] = fma(stage_v[d * PITCH + ty], vec4(stage_g[c]), ds[i]);
                    }
                barrier();
            }
            for (uint i = 0; i < 2; i++) {
                const uint t = t0 + tx + i * 16, at = lse_at(batch, head, min(t, p.queries - 1));
                const uint seen = t < p.queries ? seen_by(t, p.keys) : 0;
                const bvec4 visible = lessThan(uvec4(s, s + 1, s + 2, s + 3), uvec4(seen));
                score[i] = mix(vec4(0), exp(score[i] * p.scale - lse[p.base[4] + at]), visible);
                ds[i] = score[i] * (ds[i] - delta[p.base[5] + at]) * p.scale;
                scores[(tx + i * 16) * PITCH + ty] = score[i];
            }
            for (uint c0 = 0; c0 < COLUMNS && t0 + c0 < p.queries; c0 += SLICE) {
                STAGE_SLICE(slice, g, address_g, (t0 + c0), p.queries)
                barrier();
                ADD_SLICE(sum_v, scores, slice, c0)
                barrier();
            }
            for (uint i = 0; i < 2; i++) scores[(tx + i * 16) * PITCH + ty] = ds[i];
            for (uint c0 = 0; c0 < COLUMNS && t0 + c0 < p.queries; c0 += SLICE) {
                STAGE_SLICE(slice, q, address_q, (t0 + c0), p.queries)
                barrier();
                ADD_SLICE(sum_k, scores, slice, c0)
                barrier();
            }
        }
    }
    for (uint r = 0; r < 4 && s + r < p.keys; r++) {
        const uint to = ((batch * p.keys + s + r) * kv_heads + kv_head) * D;
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) {
            const uint d = first_element + tx + i * 16;
            if (d >= D) continue;
            dk[p.base[6] + to + d] = sum_k[i][r];
            dv[p.base[7] + to + d] = sum_v[i][r];
        }
    }
}
