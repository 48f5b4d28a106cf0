// y = a op b on two strided operands of f32 or i32; comparisons give i32. src/op/binary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA
#include "strided.glsl"
#include "binary.glsl"

layout(constant_id = 2) const uint KIND = 0; // enum binary_kind
layout(constant_id = 3) const bool INTEGERS = false;

WORDS(0, y);
WORDS(1, a);
WORDS(2, b);

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    const uint u = a[at[1]], v = b[at[2]];
    y[at[0]] = INTEGERS ? binary_integers(KIND, int(u), int(v))
                        : binary_floats(KIND, uintBitsToFloat(u), uintBitsToFloat(v));
}
