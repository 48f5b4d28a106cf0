// dx = f'(x) dy elementwise on strided operands, where x is the op's input, or its output for exp, sqrt, rsqrt, tanh,
// sigmoid and relu. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 3) const uint KIND = 0;

WORDS_AND_FOURS(0, dx)
WORDS_AND_FOURS(1, x)
WORDS_AND_FOURS(2, dy)

uint made(uint v, uint g) {
    return floatBitsToUint(unary_backward(KIND, uintBitsToFloat(v), uintBitsToFloat(g), p.a));
}

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    if (FOURS) {
        const uvec4 v = x_fours[at[1]];
        const uvec4 g = dy_fours[at[2]];
        dx_fours[at[0]] = uvec4(made(v.x, g.x), made(v.y, g.y), made(v.z, g.z), made(v.w, g.w));
    } else {
        dx[at[0]] = made(x[at[1]], dy[at[2]]);
    }
}
