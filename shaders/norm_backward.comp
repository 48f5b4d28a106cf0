// Gradient of layer norm and RMS norm with respect to x, over rows [rows, width]: with g = dy * w and n = (x - mean) * rstd,
//     layer: dx = rstd * (g - average(g) - n * average(g * n))        RMS (mean = 0): dx = rstd * (g - n * average(g * n)).
// One workgroup per row, which it reads once and keeps in registers where they are enough; dx may lie over dy.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm
layout(constant_id = 2) const bool FOURS = false;
layout(constant_id = 3) const uint KEPT = 0; // fours of the row that an invocation keeps; 0: it reads them again

layout(push_constant) uniform Push {
    uint base_dy, base_x, base_w, base_mean, base_rstd, base_dx;
    uint rows, width;
} p;

#include "fours.glsl"

FOURS_OF(0, dy)
FOURS_OF(1, x)
FOURS_OF(2, w)
FLOATS(3, means);
FLOATS(4, rstds);
SET_FOURS_OF(5, dx)

void keep_row(uint at_x, uint at_dy, uint at_dx, float mean, float rstd) {
    vec4 g[KEPT > 0 ? KEPT : 1], n[KEPT > 0 ? KEPT : 1];
    const uint first = gl_LocalInvocationID.x * 4, step = gl_WorkGroupSize.x * 4;
    vec4 sum_g = vec4(0), sum_gn = vec4(0);
    [[unroll]] for (uint k = 0; k < KEPT; k++) {
        const uint c = first + k * step;
        g[k] = dy_four(at_dy + c, c) * w_four(p.base_w + c, c); // 0 past the row's end
        n[k] = (x_four(at_x + c, c) - mean) * rstd;
    }
    [[unroll]] for (uint k = 0; k < KEPT; k++) {
        sum_g += g[k];
        sum_gn += g[k] * n[k];
    }
    const vec2 sums = vec2((sum_g.x + sum_g.y) + (sum_g.z + sum_g.w), (sum_gn.x + sum_gn.y) + (sum_gn.z + sum_gn.w));
    const vec2 average = group_sum(sums) / float(p.width);
    [[unroll]] for (uint k = 0; k < KEPT; k++) {
        const uint c = first + k * step;
        const vec4 centered = CENTERED ? g[k] - average.x : g[k];
        dx_set(at_dx + c, c, rstd * (centered - n[k] * average.y));
    }
}

void read_row(uint at_x, uint at_dy, uint at_dx, float mean, float rstd) {
    const uint me = gl_LocalInvocationID.x;
    vec2 sums = vec2(0); // of g, and of g * n
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float g = dy[at_dy + i] * w[p.base_w + i];
        sums += vec2(g, g * (x[at_x + i] - mean) * rstd);
    }
    const vec2 average = group_sum(sums) / float(p.width);
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        float g = dy[at_dy + i] * w[p.base_w + i];
        if (CENTERED) g -= average.x;
        dx[at_dx + i] = rstd * (g - (x[at_x + i] - mean) * rstd * average.y);
    }
}

void main() {
    const uint row = group();
    if (row >= p.rows) return;
    const uint at_x = p.base_x + row * p.width, at_dy = p.base_dy + row * p.width, at_dx = p.base_dx + row * p.width;
    const float rstd = rstds[p.base_rstd + row];
    float mean = 0;
    if (CENTERED) mean = means[p.base_mean + row];
    if (KEPT > 0) keep_row(at_x, at_dy, at_dx, mean, rstd);
    else read_row(at_x, at_dy, at_dx, mean, rstd);
}
