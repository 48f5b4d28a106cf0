// y = f(x) elementwise on strided operands; f32, and i32 for neg, abs and square. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool INTEGERS = false;

WORDS_AND_FOURS(0, y)
WORDS_AND_FOURS(1, x)

uint made(uint v) {
    return INTEGERS ? uint(unary_integer(KIND, int(v))) : floatBitsToUint(unary(KIND, uintBitsToFloat(v), p.a, p.b));
}

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[2] = locate_words(i);
    if (FOURS) {
        const uvec4 v = x_fours[at[1]];
        y_fours[at[0]] = uvec4(made(v.x), made(v.y), made(v.z), made(v.w));
    } else {
        y[at[0]] = made(x[at[1]]);
    }
}
