// Combines what attention_few made of parts of the keys, by the logarithms of their sums of exponentials: an invocation per two
// elements of a row (Dao, Haziza, Massa and Sizov, 2023: Flash-Decoding for long-context inference).
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "attention.glsl"

READ_FLOATS(0, part);     // [B, parts, H, T, D]
READ_FLOATS(1, part_lse); // [B, parts, H, T]; LOWEST where a part has no key
RESULT(2, y)
FLOATS(3, lse);

void main() {
    if (group() >= p.groups) return;
    const uint i = group() % p.tiles * gl_WorkGroupSize.x + gl_LocalInvocationID.x, t = i / PAIRS, d = i % PAIRS * 2;
    const uint h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    if (t >= p.queries) return;
    const uint first = (b * p.key_parts * p.heads + h) * p.queries + t, apart = p.heads * p.queries;

    float most = LOWEST, total = 0;
    for (uint s = 0; s < p.key_parts; s++) most = max(most, part_lse[p.base[1] + first + s * apart]);
    vec2 sum = vec2(0);
    for (uint s = 0; s < p.key_parts; s++) {
        const uint row = first + s * apart, at = p.base[0] + row * D + d;
        const float logarithm = part_lse[p.base[1] + row], weight = logarithm == LOWEST ? 0.0 : exp(logarithm - most);
        total += weight;
        sum = fma(vec2(weight), vec2(part[at], d + 1 < D ? part[at + 1] : 0.0), sum);
    }
    store_y(out_at(2, b, h, t), d, total != 0 ? sum / total : vec2(0));
    if (d == 0) lse[p.base[3] + lse_at(b, h, t)] = total != 0 ? most + log(total) : 0.0;
}
