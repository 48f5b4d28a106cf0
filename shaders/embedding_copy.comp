// y = x: what embedding_backward.comp adds to, where the gradient does not lie in that memory already.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base_x, base_y;
    uint count;
} p;

FLOATS(0, x);
FLOATS(1, y);

void main() {
    if (item() < p.count) y[p.base_y + item()] = x[p.base_x + item()];
}
