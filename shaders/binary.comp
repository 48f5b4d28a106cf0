// y = a op b on two strided operands of f32 or i32; comparisons give i32. src/op/binary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA
#include "strided.glsl"
#include "binary.glsl"

layout(constant_id = 3) const uint KIND = 0; // enum binary_kind
layout(constant_id = 4) const bool INTEGERS = false;

RESULT(0, y)
OPERAND(1, a)
OPERAND(2, b)

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate(i), u[4] = a_load(at[1]), v[4] = b_load(at[2]);
    uint r[4];
    [[unroll]] for (uint k = 0; k < EACH; k++)
        r[k] = INTEGERS ? binary_integers(KIND, int(u[k]), int(v[k]))
                        : binary_floats(KIND, uintBitsToFloat(u[k]), uintBitsToFloat(v[k]));
    y_store(at[0], r);
}
