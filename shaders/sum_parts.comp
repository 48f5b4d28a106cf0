// y[c] = sum over k of parts[k * stride + c], k = 0 .. count in order: the second half of sums over rows in fixed parts.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base_parts, base_y;
    uint width, count, stride;
} p;

FLOATS(0, parts);
FLOATS(1, y);

void main() {
    const uint c = item();
    if (c >= p.width) return;
    float sum = 0;
    for (uint k = 0; k < p.count; k++) sum += parts[p.base_parts + k * p.stride + c];
    y[p.base_y + c] = sum;
}
