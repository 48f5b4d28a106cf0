// Cross entropy of rows of logits [rows, width] with integer targets [rows], one workgroup per row: m = max(x),
// log(sum(exp(x - m))), whose sum is lse, and
//     loss = (1 - smoothing) * (lse - x[target]) + smoothing * (lse - average(x))   (label smoothing: Szegedy et al., 2015),
// NaN for a target out of range; a row with the ignored target has loss 0 and kept 0. cross_entropy_mean.comp does the rest.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool IGNORE = false;
layout(constant_id = 2) const bool SMOOTH = false;

layout(push_constant) uniform Push {
    uint base_x, base_target, base_max, base_log_sum, base_loss, base_kept;
    uint rows, width;
    int ignore_index;
    float smoothing;
} p;

FLOATS(0, x);
INTS(1, targets);
FLOATS(2, maxima);
FLOATS(3, log_sums);
FLOATS(4, losses);
FLOATS(5, kepts);

void main() {
    const uint row = group(), me = gl_LocalInvocationID.x;
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width;
    const int target = targets[p.base_target + row];
    const bool kept = !(IGNORE && target == p.ignore_index);

    vec2 ms = LOGSUM_EMPTY;
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) ms = logsum_add(ms, x[from + i]);
    ms = group_logsum(ms);
    const float log_sum = log_accurate(ms.y);
    float below = 0; // the sum of x - m
    if (SMOOTH) {
        for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) below += x[from + i] - ms.x;
        below = group_sum(below);
    }
    if (me != 0) return;
    float loss = 0;
    if (kept) {
        const bool inside = uint(target) < p.width;
        loss = inside ? log_sum - (x[from + uint(target)] - ms.x) : uintBitsToFloat(0x7fc00000u);
        if (SMOOTH) loss += p.smoothing * (log_sum - below / float(p.width) - loss);
    }
    maxima[p.base_max + row] = ms.x;
    log_sums[p.base_log_sum + row] = log_sum;
    losses[p.base_loss + row] = loss;
    kepts[p.base_kept + row] = kept ? 1 : 0;
}
