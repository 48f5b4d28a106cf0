// Attention of few queries, as in decoding: a workgroup has one query of a head and a part of its keys, with a running softmax
// over blocks of as many keys as there are invocations. LANES invocations share a key's score; then each invocation has some
// elements of the values and a slice of the block's keys. Of several parts the results are f32, and attention_parts combines
// them (Dao, Haziza, Massa and Sizov, 2023: Flash-Decoding for long-context inference).
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

layout(constant_id = 3) const bool POSITION = false;
layout(constant_id = 4) const uint LANES = 8; // divides the workgroup's size
layout(constant_id = 7) const uint BLOCK = 128; // the workgroup's size: a power of two

OPERAND(0, q)
OPERAND(1, k)
OPERAND(2, v)
INTS(3, position);
RESULT(4, y)
FLOATS(5, lse);

const uint SLICES = BLOCK > PAIRS ? BLOCK / PAIRS : 1;  // of a block's keys, for the sum of values
const uint OWN = (PAIRS + BLOCK - 1) / BLOCK;           // pairs of elements that an invocation has
const uint AHEAD = LANES > 1 ? 4 : 1;                   // keys at a time, so that hardware has their values on the way at once
const uint MAXIMA = BLOCK < 16 ? BLOCK : 16;

shared vec2 query[PAIRS];
shared float partial[BLOCK * (LANES + 1)]; // [key, lane]
shared float weights[BLOCK];               // scores, then their exponentials; in the end totals of slices
shared float maxima[MAXIMA];
shared vec2 sums[BLOCK];

void main() {
    if (group() >= p.groups) return;
    const uint part = group() % p.key_parts, t = group() / p.key_parts % p.tiles;
    const uint h = group() / p.key_parts / p.tiles % p.heads, b = group() / p.key_parts / p.tiles / p.heads;
    const uint keys = POSITION ? uint(clamp(position[p.base[3]] + int(p.queries), 0, int(p.keys))) : p.keys;
    const uint seen = seen_by(t, keys), blocks = (seen + BLOCK - 1) / BLOCK;
    const uint each = (blocks + p.key_parts - 1) / p.key_parts * BLOCK; // of all keys there are, which may be few of a cache
    const uint begin = min(part * each, seen), end = min(begin + each, seen);
    const uint me = gl_LocalInvocationID.x, lane = me % LANES;
    const uint slice = SLICES > 1 ? me / PAIRS : 0, first = SLICES > 1 ? me % PAIRS : me;

    for (uint i = me; i < PAIRS; i += BLOCK) query[i] = load_q(q_at(b, h, t), 2 * i) * p.scale;
    barrier();

    vec2 sum[OWN];
    [[unroll]] for (uint i = 0; i < OWN; i++) sum[i] = vec2(0);
    float most = LOWEST, total = 0; // total: of the slice
    for (uint s0 = begin; s0 < end; s0 += BLOCK) {
        [[unroll]] for (uint pass = 0; pass < LANES; pass++) {
            const uint key = pass * (BLOCK / LANES) + me / LANES, at = k_at(b, h, min(s0 + key, end - 1));
            vec2 score = vec2(0);
            [[unroll]] for (uint i = 0; i < PAIRS; i += LANES)
                if (i + lane < PAIRS) score = fma(query[i + lane], load_k(at, 2 * (i + lane)), score);
            partial[key * (LANES + 1) + lane] = score.x + score.y;
        }
        barrier();
        float score = 0;
        [[unroll]] for (uint i = 0; i < LANES; i++) score += partial[me * (LANES + 1) + i];
        weights[me] = s0 + me < end ? score : LOWEST;
        barrier();
        if (me < MAXIMA) {
            float highest = LOWEST;
            for (uint i = me; i < BLOCK; i += MAXIMA) highest = max(highest, weights[i]);
            maxima[me] = highest;
        }
        barrier();
        float next = most;
        [[unroll]] for (uint i = 0; i < MAXIMA; i++) next = max(next, maxima[i]);
        const float factor = exp(most - next);
        most = next;
        weights[me] = s0 + me < end ? exp(score - most) : 0.0;
        barrier();
        total *= factor;
        [[unroll]] for (uint i = 0; i < OWN; i++) sum[i] *= factor;
        if (slice < SLICES)
            for (uint c0 = slice; c0 < min(BLOCK, end - s0); c0 += AHEAD * SLICES)
                [[unroll]] for (uint j = 0; j < AHEAD; j++) {
                    const uint c = c0 + j * SLICES, at = v_at(b, h, min(s0 + c, end - 1));
                    const bool inside = c < BLOCK && s0 + c < end; // past the last key its value, too, is 0: it may be infinite
                    const float weight = inside ? weights[c] : 0.0;
                    total += weight;
                    [[unroll]] for (uint i = 0; i < OWN; i++) {
                        const vec2 x = load_v(at, 2 * min(first + i * BLOCK, PAIRS - 1));
                        sum[i] = fma(vec2(weight), inside ? x : vec2(0), sum[i]);
                    }
                }
    }

    if (SLICES > 1) {
        barrier();
        sums[me] = sum[0];
        if (first == 0 && slice < SLICES) weights[slice] = total;
        barrier();
        for (uint i = 1; i < SLICES && slice == 0; i++) {
            sum[0] += sums[i * PAIRS + first];
            total += weights[i];
        }
        if (slice > 0) return;
    }
    const float inverse = total != 0 ? 1.0 / total : 0.0; // a query that sees no key: 0
    const uint row = ((b * p.key_parts + part) * p.heads + h) * p.queries + t;
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        const uint d = 2 * (first + i * BLOCK);
        if (d >= D) continue;
        if (p.key_parts == 1) {
            store_y(out_at(4, b, h, t), d, sum[i] * inverse);
        } else {
            y[p.base[4] + row * D + d] = floatBitsToUint(sum[i].x * inverse);
            if (d + 1 < D) y[p.base[4] + row * D + d + 1] = floatBitsToUint(sum[i].y * inverse);
        }
    }
    if (me == 0) lse[p.base[5] + row] = total != 0 ? most + log(total) : p.key_parts == 1 ? 0.0 : LOWEST;
}
