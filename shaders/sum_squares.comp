// parts[k] = the sum of squares of x[k * BLOCK .. (k + 1) * BLOCK), one workgroup per block. global_norm.comp adds the parts.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(constant_id = 1) const uint BLOCK = 16384;

layout(push_constant) uniform Push {
    uint base_x, base_parts;
    uint count, blocks;
} p;

FLOATS(0, x);
FLOATS(1, parts);

void main() {
    if (group() >= p.blocks) return;
    const uint end = min((group() + 1) * BLOCK, p.count);
    float sum = 0;
    for (uint i = group() * BLOCK + gl_LocalInvocationID.x; i < end; i += gl_WorkGroupSize.x) {
        const float v = x[p.base_x + i];
        sum += v * v;
    }
    sum = group_sum(sum);
    if (gl_LocalInvocationID.x == 0) parts[p.base_parts + group()] = sum;
}
