// y = a where condition is not 0, else b; words of strided operands. src/op/where.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 4
#define EXTRA
#include "strided.glsl"

WORDS_AND_FOURS(0, y)
WORDS_AND_FOURS(1, condition)
WORDS_AND_FOURS(2, a)
WORDS_AND_FOURS(3, b)

// Both are there to be read, so no branch.
uint made(uint c, uint u, uint v) { return c != 0u ? u : v; }

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[4] = locate_words(i);
    if (FOURS) {
        const uvec4 c = condition_fours[at[1]];
        const uvec4 u = a_fours[at[2]];
        const uvec4 v = b_fours[at[3]];
        y_fours[at[0]] = uvec4(made(c.x, u.x, v.x), made(c.y, u.y, v.y), made(c.z, u.z, v.z), made(c.w, u.w, v.w));
    } else {
        y[at[0]] = made(condition[at[1]], a[at[2]], b[at[3]]);
    }
}
