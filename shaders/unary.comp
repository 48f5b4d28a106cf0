// y = f(x) elementwise on strided operands; f32, and i32 for neg, abs and square. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool INTEGERS = false;

RESULT(0, y)
OPERAND(1, x)

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[2] = locate(i), v[4] = x_load(at[1]);
    uint r[4];
    [[unroll]] for (uint k = 0; k < EACH; k++)
        r[k] = INTEGERS ? uint(unary_integer(KIND, int(v[k])))
                        : floatBitsToUint(unary(KIND, uintBitsToFloat(v[k]), p.a, p.b));
    y_store(at[0], r);
}
