// Gradient of layer norm and RMS norm with respect to x, over rows [rows, width]: with g = dy * w and n = (x - mean) * rstd,
//     layer: dx = rstd * (g - average(g) - n * average(g * n))        RMS (mean = 0): dx = rstd * (g - n * average(g * n)).
// One workgroup per row; dx may lie over dy.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm

layout(push_constant) uniform Push {
    uint base_dy, base_x, base_w, base_mean, base_rstd, base_dx;
    uint rows, width;
} p;

FLOATS(0, dy);
FLOATS(1, x);
FLOATS(2, w);
FLOATS(3, means);
FLOATS(4, rstds);
FLOATS(5, dx);

void main() {
    const uint row = group(), me = gl_LocalInvocationID.x;
    if (row >= p.rows) return;
    const uint at_x = p.base_x + row * p.width, at_dy = p.base_dy + row * p.width, at_dx = p.base_dx + row * p.width;
    const float rstd = rstds[p.base_rstd + row];
    float mean = 0;
    if (CENTERED) mean = means[p.base_mean + row];

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
