// y = sqrt(sum of parts [count]): one workgroup, a fixed order.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(push_constant) uniform Push {
    uint base_parts, base_y;
    uint count;
} p;

FLOATS(0, parts);
FLOATS(1, y);

void main() {
    float sum = 0;
    for (uint i = gl_LocalInvocationID.x; i < p.count; i += gl_WorkGroupSize.x) sum += parts[p.base_parts + i];
    sum = group_sum(sum);
    if (gl_LocalInvocationID.x == 0) y[p.base_y] = sqrt(sum);
}
