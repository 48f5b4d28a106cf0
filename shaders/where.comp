// y = a where condition is not 0, else b; words of strided operands. src/op/where.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define OPERANDS 4
#define EXTRA
#include "strided.glsl"

RESULT(0, y)
OPERAND(1, condition)
OPERAND(2, a)
OPERAND(3, b)

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[4] = locate(i), c[4] = condition_load(at[1]);
    // both are there to be read, so no branch
    const uint u[4] = a_load(at[2]), v[4] = b_load(at[3]);
    uint r[4];
    [[unroll]] for (uint k = 0; k < EACH; k++) r[k] = c[k] != 0u ? u[k] : v[k];
    y_store(at[0], r);
}
