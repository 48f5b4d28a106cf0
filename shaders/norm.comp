// Layer norm (Ba et al., 2016): y = (x - mean) * rstd * w + b, and RMS norm (Zhang and Sennrich, 2019): y = x * rstd * w, over
// rows [rows, width]; keeps mean and rstd [rows] for the backward pass. One workgroup per row.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm
layout(constant_id = 2) const bool BIAS = true;

layout(push_constant) uniform Push {
    uint base_x, base_w, base_b, base_y, base_mean, base_rstd;
    uint rows, width;
    float epsilon;
} p;

FLOATS(0, x);
FLOATS(1, w);
FLOATS(2, b);
FLOATS(3, y);
FLOATS(4, means);
FLOATS(5, rstds);

void main() {
    const uint row = group(), me = gl_LocalInvocationID.x;
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width, to = p.base_y + row * p.width;

    float mean = 0;
    if (CENTERED) {
        float sum = 0;
        for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) sum += x[from + i];
        mean = group_sum(sum) / float(p.width);
    }
    float squares = 0;
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float d = x[from + i] - mean;
        squares += d * d;
    }
    const float rstd = 1.0 / sqrt(group_sum(squares) / float(p.width) + p.epsilon);
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float v = (x[from + i] - mean) * rstd * w[p.base_w + i];
        y[to + i] = BIAS ? v + b[p.base_b + i] : v;
    }
    if (me == 0) {
        if (CENTERED) means[p.base_mean + row] = mean;
        rstds[p.base_rstd + row] = rstd;
    }
}
