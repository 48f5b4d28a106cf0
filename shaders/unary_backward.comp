// dx = f'(x) dy elementwise on strided operands, where x is the op's input, or its output for exp, sqrt, rsqrt, tanh,
// sigmoid and relu. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 2) const uint KIND = 0;

FLOATS(0, dx);
FLOATS(1, x);
FLOATS(2, dy);

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    dx[at[0]] = unary_backward(KIND, x[at[1]], dy[at[2]], p.a);
}
