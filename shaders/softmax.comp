// Softmax y = exp(x - m) / s or its logarithm y = x - m - log(s) over rows [rows, width], with m the row's maximum and s the
// sum of exp(x - m), both found in one pass. One workgroup per row; y may lie over x.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool LOG = false;

layout(push_constant) uniform Push {
    uint base_x, base_y;
    uint rows, width;
} p;

FLOATS(0, x);
FLOATS(1, y);

void main() {
    const uint row = group(), me = gl_LocalInvocationID.x;
    if (row >= p.rows) return;
    const uint from = p.base_x + row * p.width, to = p.base_y + row * p.width;

    vec2 ms = LOGSUM_EMPTY;
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) ms = logsum_add(ms, x[from + i]);
    ms = group_logsum(ms);
    const float scale = LOG ? log_accurate(ms.y) : 1.0 / ms.y;
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float d = x[from + i] - ms.x;
        y[to + i] = LOG ? d - scale : exp_or_nan(d) * scale;
    }
}
