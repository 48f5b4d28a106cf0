// dx = f'(x) dy elementwise on strided operands, where x is the op's input, or its output for exp, sqrt, rsqrt, tanh,
// sigmoid and relu. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA float a, b;
#include "strided.glsl"
#include "unary.glsl"

layout(constant_id = 3) const uint KIND = 0;

RESULT(0, dx)
OPERAND(1, x)
OPERAND(2, dy)

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate(i), v[4] = x_load(at[1]), g[4] = dy_load(at[2]);
    uint r[4];
    [[unroll]] for (uint k = 0; k < EACH; k++)
        r[k] = floatBitsToUint(unary_backward(KIND, uintBitsToFloat(v[k]), uintBitsToFloat(g[k]), p.a));
    dx_store(at[0], r);
}
