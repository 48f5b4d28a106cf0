// Words of memory = a value; of the first and last word only the bits that are the tensor's. src/op/strided.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base, words, head, tail, value;
} p;

WORDS(0, to);

void main() {
    const uint i = item();
    if (i >= p.words) return;
    uint mask = 0xffffffffu;
    if (i == 0) mask &= p.head;
    if (i + 1 == p.words) mask &= p.tail;
    to[p.base + i] = mask == 0xffffffffu ? p.value : (to[p.base + i] & ~mask) | (p.value & mask);
}
