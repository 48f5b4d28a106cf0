// y = f(x) elementwise on strided operands; f32, and i32 for neg, abs and square. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 2) const uint KIND = 0;
layout(constant_id = 3) const bool INTEGERS = false;

WORDS(0, y);
WORDS(1, x);

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[2] = locate_words(i);
    const uint v = x[at[1]];
    y[at[0]] = INTEGERS ? uint(unary_integer(KIND, int(v)))
                        : floatBitsToUint(unary(KIND, uintBitsToFloat(v), p.a, p.b));
}
