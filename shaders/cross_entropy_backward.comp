// dx = (exp(x - max - log_sum) - (1 - smoothing) * [column is target] - smoothing / width) * dloss / count, over logits
// [rows, width]; 0 in ignored rows, NaN in rows whose target is out of range. A workgroup does a stretch of a row; dx may lie
// over x. Rows begin anywhere: x is read by fours that begin at multiples of four words, of which a row's first and last may
// reach over its ends.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "math.glsl"

layout(constant_id = 1) const bool IGNORE = false;
layout(constant_id = 2) const uint FOURS = 4; // per invocation

layout(push_constant) uniform Push {
    uint base_x, base_target, base_max, base_log_sum, base_count, base_dloss, base_dx;
    uint rows, width;
    uint tiles; // workgroups per row
    int ignore_index;
    float smoothing;
} p;

FLOATS(0, x);
INTS(1, targets);
FLOATS(2, maxima);
FLOATS(3, log_sums);
FLOATS(4, count);
FLOATS(5, dloss);
FLOATS(6, dx);
layout(set = 0, binding = 0, std430) buffer Fours_x { vec4 x4[]; };
layout(set = 0, binding = 6, std430) buffer Fours_dx { vec4 dx4[]; };

uvec4 columns_from(uint i) { return uvec4(i, i + 1, i + 2, i + 3); }

// Whether columns i to i + 3 are the row's; one before its first is a large number.
bool is_whole(uint i) { return i < p.width && i + 3 < p.width; }

vec4 load(uint at, uint i) {
    if (is_whole(i)) return x4[at / 4];
    const bvec4 inside = lessThan(columns_from(i), uvec4(p.width));
    return vec4(inside.x ? x[at] : 0, inside.y ? x[at + 1] : 0, inside.z ? x[at + 2] : 0, inside.w ? x[at + 3] : 0);
}

void store(uint at, uint i, vec4 d) {
    if (is_whole(i) && at % 4 == 0) {
        dx4[at / 4] = d;
        return;
    }
    const bvec4 inside = lessThan(columns_from(i), uvec4(p.width));
    if (inside.x) dx[at] = d.x;
    if (inside.y) dx[at + 1] = d.y;
    if (inside.z) dx[at + 2] = d.z;
    if (inside.w) dx[at + 3] = d.w;
}

void main() {
    const uint row = group() / p.tiles, tile = gl_WorkGroupSize.x * FOURS * 4;
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width, to = p.base_dx + row * p.width;
    const uint first = group() % p.tiles * tile - from % 4, column = first + gl_LocalInvocationID.x * 4;
    // Most workgroups have only whole fours, and know it: their loads wait for nothing.
    const bool all_whole = is_whole(first) && first + tile <= p.width;
    vec4 d[FOURS];
    [[unroll]] for (uint k = 0; k < FOURS; k++) {
        const uint i = column + k * gl_WorkGroupSize.x * 4;
        if (all_whole) d[k] = x4[(from + i) / 4];
        else d[k] = load(from + i, i);
    }

    const int target = targets[p.base_target + row];
    const bool ignored = IGNORE && target == p.ignore_index;
    const float max_x = maxima[p.base_max + row], log_sum = log_sums[p.base_log_sum + row];
    const float uniform_share = p.smoothing / float(p.width);
    float scale = dloss[p.base_dloss] / count[p.base_count];
    if (uint(target) >= p.width) scale = uintBitsToFloat(0x7fc00000u);
    [[unroll]] for (uint k = 0; k < FOURS; k++) {
        const uint i = column + k * gl_WorkGroupSize.x * 4;
        const vec4 v = d[k] - max_x - log_sum, is_target = vec4(equal(columns_from(i), uvec4(target)));
        const vec4 e = mix(exp(v), v, isnan(v)) - uniform_share - is_target * (1 - p.smoothing);
        const vec4 r = ignored ? vec4(0) : e * scale;
        if (all_whole && (to - from) % 4 == 0) dx4[(to + i) / 4] = r;
        else store(to + i, i, r);
    }
}
