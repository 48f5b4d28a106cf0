// y = a op b on two strided operands of f32 or i32; comparisons give i32. src/op/binary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA
#include "strided.glsl"
#include "binary.glsl"

layout(constant_id = 3) const uint KIND = 0; // enum binary_kind
layout(constant_id = 4) const bool INTEGERS = false;

WORDS_AND_FOURS(0, y)
WORDS_AND_FOURS(1, a)
WORDS_AND_FOURS(2, b)

uint made(uint u, uint v) {
    return INTEGERS ? binary_integers(KIND, int(u), int(v)) : binary_floats(KIND, uintBitsToFloat(u), uintBitsToFloat(v));
}

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    if (FOURS) {
        const uvec4 u = a_fours[at[1]];
        const uvec4 v = b_fours[at[2]];
        y_fours[at[0]] = uvec4(made(u.x, v.x), made(u.y, v.y), made(u.z, v.z), made(u.w, v.w));
    } else {
        y[at[0]] = made(a[at[1]], b[at[2]]);
    }
}
