// y = a where condition is not 0, else b; words of strided operands. src/op/where.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 4
#define EXTRA
#include "strided.glsl"

WORDS(0, y);
WORDS(1, condition);
WORDS(2, a);
WORDS(3, b);

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[4] = locate_words(i);
    // both are there to be read, so no branch
    const uint u = a[at[2]], v = b[at[3]];
    y[at[0]] = condition[at[1]] != 0u ? u : v;
}
