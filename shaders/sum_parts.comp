// y[s][c] = sum over k of parts[k][s][c], where parts are [count, sums, width]: the second half of sums over rows in fixed parts.
// An invocation adds every LANES-th part of a column, and the first of them what they found, in order.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const uint LANES = 1;
const uint ACROSS = 32; // columns of a workgroup

layout(push_constant) uniform Push {
    uint base_parts, base_y, base_z;
    uint width, sums, count; // one or two sums
} p;

READ_FLOATS(0, parts);
FLOATS(1, y);
FLOATS(2, z); // the second sum

shared float lanes[ACROSS * LANES];

void main() {
    const uint me = gl_LocalInvocationID.x, lane = me / ACROSS, c = group() * ACROSS + me % ACROSS, stride = p.sums * p.width;
    float sum = 0;
    for (uint k = lane; k < p.count && c < stride; k += LANES) sum += parts[p.base_parts + k * stride + c];
    lanes[me] = sum;
    if (LANES > 1) barrier();
    if (lane > 0 || c >= stride) return;
    for (uint i = 1; i < LANES; i++) sum += lanes[i * ACROSS + me];
    if (c < p.width) y[p.base_y + c] = sum;
    else z[p.base_z + c - p.width] = sum;
}
