// y = f(x) elementwise on strided operands; f32, and i32 for neg, abs and square. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA float a, b;
#include "strided.glsl"
#include "math.glsl"
#include "unary.glsl"

layout(constant_id = 2) const uint KIND = 0;
layout(constant_id = 3) const bool INTEGERS = false;

WORDS(0, y);
WORDS(1, x);

float on_float(float x) {
    float gauss;
    switch (KIND) {
    case NEG: return -x;
    case EXP: return exp(x);
    case LOG: return log_accurate(x);
    case SQRT: return sqrt(x);
    case RSQRT: return inversesqrt(x);
    case SQUARE: return x * x;
    case ABS: return abs(x);
    case SIN: return sin_accurate(x);
    case COS: return cos_accurate(x);
    case TANH: return tanh_accurate(x);
    case SIGMOID: return sigmoid(x);
    case RELU: return x < 0.0 ? 0.0 : x;
    case LEAKY_RELU: return x < 0.0 ? p.a * x : x;
    case ELU: return x > 0.0 ? x : p.a * expm1(x);
    case SILU: return x * sigmoid(x);
    case GELU: return x * normal_cdf(x, gauss);
    case GELU_TANH: return x * sigmoid(gelu_argument(x));
    case SOFTPLUS: return softplus(x);
    default: return p.a * x + p.b;
    }
}

int on_integer(int x) { return KIND == NEG ? -x : KIND == ABS ? (x < 0 ? -x : x) : x * x; }

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[2] = locate_words(i);
    const uint v = x[at[1]];
    y[at[0]] = INTEGERS ? uint(on_integer(int(v))) : floatBitsToUint(on_float(uintBitsToFloat(v)));
}
