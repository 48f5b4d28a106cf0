// dx = f'(x) dy elementwise on strided operands, where x is the op's input, or its output for exp, sqrt, rsqrt, tanh,
// sigmoid and relu. src/op/unary.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 3
#define EXTRA float a, b;
#include "strided.glsl"
#include "math.glsl"
#include "unary.glsl"

layout(constant_id = 2) const uint KIND = 0;

FLOATS(0, dx);
FLOATS(1, x);
FLOATS(2, dy);

float differentiate(float x, float dy) {
    float gauss, s;
    switch (KIND) {
    case NEG: return -dy;
    case EXP: return dy * x;
    case LOG: return dy / x;
    case SQRT: return 0.5 * dy / x;
    case RSQRT: return -0.5 * dy * x * x * x;
    case SQUARE: return 2.0 * dy * x;
    case ABS: return x > 0.0 ? dy : x < 0.0 ? -dy : 0.0;
    case SIN: return dy * cos_accurate(x);
    case COS: return -dy * sin_accurate(x);
    case TANH: return dy * (1.0 - x * x);
    case SIGMOID: return dy * x * (1.0 - x);
    case RELU: return x > 0.0 ? dy : 0.0;
    case LEAKY_RELU: return x > 0.0 ? dy : p.a * dy;
    case ELU: return x > 0.0 ? dy : p.a * dy * exp(x);
    case SILU: s = sigmoid(x); return dy * s * (1.0 + x * (1.0 - s));
    case GELU: s = normal_cdf(x, gauss); return dy * (s + x * 0.39894228 * gauss);
    case GELU_TANH:
        s = sigmoid(gelu_argument(x));
        return dy * (s + x * s * (1.0 - s) * 1.59576912 * (1.0 + 0.134145 * x * x));
    case SOFTPLUS: return dy * sigmoid(x);
    default: return dy * p.a;
    }
}

void main() {
    const uint i = item();
    if (i >= p.count) return;
    const uint at[3] = locate_words(i);
    dx[at[0]] = differentiate(x[at[1]], dy[at[2]]);
}
