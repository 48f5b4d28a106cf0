// to[i] = start + step * i, f32 or i32, for the elements from `first` on. src/op/fill.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const bool INTEGERS = false;

layout(push_constant) uniform Push {
    uint base, count, first, start, step;
} p;

WORDS(0, to);

void main() {
    const uint i = item(), n = p.first + i;
    if (i >= p.count) return;
    to[p.base + i] = INTEGERS ? p.start + p.step * n
                              : floatBitsToUint(uintBitsToFloat(p.start) + uintBitsToFloat(p.step) * float(n));
}
