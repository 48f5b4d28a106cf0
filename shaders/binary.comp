// y = a op b on two strided operands of f32 or i32; comparisons give i32. src/op/binary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA
#include "strided.glsl"

layout(constant_id = 2) const uint KIND = 0; // enum binary_kind
layout(constant_id = 3) const bool INTEGERS = false;
const uint ADD = 0, SUB = 1, MUL = 2, DIV = 3, MAXIMUM = 4, MINIMUM = 5, POW = 6, EQUAL = 7, NOT_EQUAL = 8, LESS = 9,
           LESS_EQUAL = 10, GREATER = 11, GREATER_EQUAL = 12;

WORDS(0, y);
WORDS(1, a);
WORDS(2, b);

// GLSL's pow knows no a <= 0.
float power(float a, float b) {
    const float size = a == 0.0 ? (b > 0.0 ? 0.0 : uintBitsToFloat(0x7f800000u)) : pow(abs(a), b);
    const bool whole = floor(b) == b, odd = whole && floor(b * 0.5) * 2.0 != b;
    if (b == 0.0 || a == 1.0) return 1.0;
    if (a < 0.0 && !whole) return uintBitsToFloat(0x7fc00000u);
    return (floatBitsToUint(a) >> 31) == 1u && odd ? -size : size;
}

uint on_floats(float a, float b) {
    switch (KIND) {
    case ADD: return floatBitsToUint(a + b);
    case SUB: return floatBitsToUint(a - b);
    case MUL: return floatBitsToUint(a * b);
    case DIV: return floatBitsToUint(a / b);
    case MAXIMUM: return floatBitsToUint(a > b || isnan(a) ? a : b);
    case MINIMUM: return floatBitsToUint(a < b || isnan(a) ? a : b);
    case POW: return floatBitsToUint(power(a, b));
    case EQUAL: return uint(a == b);
    case NOT_EQUAL: return uint(a != b);
    case LESS: return uint(a < b);
    case LESS_EQUAL: return uint(a <= b);
    case GREATER: return uint(a > b);
    default: return uint(a >= b);
    }
}

// Toward zero; x / 0 is 0, and -2^31 / -1 wraps.
int divide(int a, int b) { return b == 0 ? 0 : b == -1 ? -a : a / b; }

uint on_integers(int a, int b) {
    switch (KIND) {
    case ADD: return uint(a + b);
    case SUB: return uint(a - b);
    case MUL: return uint(a * b);
    case DIV: return uint(divide(a, b));
    case MAXIMUM: return uint(max(a, b));
    case MINIMUM: return uint(min(a, b));
    case EQUAL: return uint(a == b);
    case NOT_EQUAL: return uint(a != b);
    case LESS: return uint(a < b);
    case LESS_EQUAL: return uint(a <= b);
    case GREATER: return uint(a > b);
    default: return uint(a >= b);
    }
}

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    const uint u = a[at[1]], v = b[at[2]];
    y[at[0]] = INTEGERS ? on_integers(int(u), int(v)) : on_floats(uintBitsToFloat(u), uintBitsToFloat(v));
}
