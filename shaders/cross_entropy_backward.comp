// dx = (exp(x - max - log_sum) - (1 - smoothing) * [column is target] - smoothing / width) * dloss / count, over logits [rows, width]; 0
// in ignored rows, NaN in rows whose target is out of range. A workgroup does a stretch of a row; dx may lie over x.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "math.glsl"

layout(constant_id = 1) const bool IGNORE = false;
layout(constant_id = 2) const uint STRETCH = 4; // elements per invocation

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

void main() {
    const uint row = group() / p.tiles;
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width, to = p.base_dx + row * p.width;
    const int target = targets[p.base_target + row];
    const bool ignored = IGNORE && target == p.ignore_index;
    const float max_x = maxima[p.base_max + row], log_sum = log_sums[p.base_log_sum + row];
    const float uniform_share = p.smoothing / float(p.width);
    float scale = dloss[p.base_dloss] / count[p.base_count];
    if (uint(target) >= p.width) scale = uintBitsToFloat(0x7fc00000u);

    uint i = group() % p.tiles * gl_WorkGroupSize.x * STRETCH + gl_LocalInvocationID.x;
    for (uint k = 0; k < STRETCH && i < p.width; k++, i += gl_WorkGroupSize.x) {
        float d = exp_or_nan(x[from + i] - max_x - log_sum) - uniform_share;
        if (i == uint(target)) d -= 1 - p.smoothing;
        dx[to + i] = ignored ? 0 : d * scale;
    }
}
