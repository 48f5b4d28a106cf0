// Layer norm (Ba et al., 2016): y = (x - mean) * rstd * w + b, and RMS norm (Zhang and Sennrich, 2019): y = x * rstd * w, over
// rows [rows, width]; keeps mean and rstd [rows] for the backward pass. One workgroup per row, which it reads once and keeps in
// registers where they are enough.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm
layout(constant_id = 2) const bool BIAS = true;
layout(constant_id = 3) const bool FOURS = false;
layout(constant_id = 4) const uint KEPT = 0; // fours of the row that an invocation keeps; 0: it reads them again

layout(push_constant) uniform Push {
    uint base_x, base_w, base_b, base_y, base_mean, base_rstd;
    uint rows, width;
    float epsilon;
} p;

#include "fours.glsl"

FOURS_OF(0, x)
FOURS_OF(1, w)
FOURS_OF(2, b)
SET_FOURS_OF(3, y)
FLOATS(4, means);
FLOATS(5, rstds);

float rstd_of(float squares) { return 1.0 / sqrt(squares / float(p.width) + p.epsilon); }

// Mean and rstd of the row.
vec2 keep_row(uint from, uint to) {
    vec4 v[KEPT > 0 ? KEPT : 1];
    const uint first = gl_LocalInvocationID.x * 4, step = gl_WorkGroupSize.x * 4;
    [[unroll]] for (uint k = 0; k < KEPT; k++) v[k] = x_four(from + first + k * step, first + k * step);
    float mean = 0;
    if (CENTERED) {
        float sum = 0;
        [[unroll]] for (uint k = 0; k < KEPT; k++) sum += (v[k].x + v[k].y) + (v[k].z + v[k].w);
        mean = group_sum(sum) / float(p.width);
        [[unroll]] for (uint k = 0; k < KEPT; k++) v[k] = within_row(v[k] - mean, first + k * step);
    }
    vec4 squares = vec4(0);
    [[unroll]] for (uint k = 0; k < KEPT; k++) squares += v[k] * v[k];
    const float rstd = rstd_of(group_sum((squares.x + squares.y) + (squares.z + squares.w)));
    [[unroll]] for (uint k = 0; k < KEPT; k++) {
        const uint c = first + k * step;
        const vec4 r = v[k] * rstd * w_four(p.base_w + c, c);
        y_set(to + c, c, BIAS ? r + b_four(p.base_b + c, c) : r);
    }
    return vec2(mean, rstd);
}

vec2 read_row(uint from, uint to) {
    const uint me = gl_LocalInvocationID.x;
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
    const float rstd = rstd_of(group_sum(squares));
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float v = (x[from + i] - mean) * rstd * w[p.base_w + i];
        y[to + i] = BIAS ? v + b[p.base_b + i] : v;
    }
    return vec2(mean, rstd);
}

void main() {
    const uint row = group();
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width, to = p.base_y + row * p.width;
    vec2 level;
    if (KEPT > 0) level = keep_row(from, to);
    else level = read_row(from, to);
    if (gl_LocalInvocationID.x != 0) return;
    if (CENTERED) means[p.base_mean + row] = level.x;
    rstds[p.base_rstd + row] = level.y;
}
