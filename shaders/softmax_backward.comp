// Gradients over rows [rows, width], from the result y: softmax, dx = y * (dy - sum(dy * y)); log-softmax,
// dx = dy - exp(y) * sum(dy). One workgroup per row; dx may lie over dy or y.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const bool LOG = false;

layout(push_constant) uniform Push {
    uint base_dy, base_y, base_dx;
    uint rows, width;
} p;

FLOATS(0, dy);
FLOATS(1, y);
FLOATS(2, dx);

void main() {
    const uint row = group(), me = gl_LocalInvocationID.x;
    if (row >= p.rows) return;
    const uint at_dy = p.base_dy + row * p.width, at_y = p.base_y + row * p.width, at_dx = p.base_dx + row * p.width;

    float sum = 0;
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) sum += LOG ? dy[at_dy + i] : dy[at_dy + i] * y[at_y + i];
    sum = group_sum(sum);
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) {
        const float d = dy[at_dy + i], v = y[at_y + i];
        dx[at_dx + i] = LOG ? d - exp(v) * sum : v * (d - sum);
    }
}
