// Unary ops and their derivatives. Kinds: enum unary_kind in src/op/unary.c.
#include "math.glsl"

const uint NEG = 0, EXP = 1, LOG = 2, SQRT = 3, RSQRT = 4, SQUARE = 5, ABS = 6, SIN = 7, COS = 8, TANH = 9,
           SIGMOID = 10, RELU = 11, LEAKY_RELU = 12, ELU = 13, SILU = 14, GELU = 15, GELU_TANH = 16, SOFTPLUS = 17,
           AFFINE = 18;

// 2 sqrt(2 / pi) (x + 0.044715 x^3): gelu_tanh is x * sigmoid of it.
float gelu_argument(float x) { return 1.59576912 * (x + 0.044715 * x * x * x); }

// y = f(x)
float unary(uint kind, float x, float a, float b) {
    float gauss;
    switch (kind) {
    case NEG: return -x;
    case EXP: return exp_or_nan(x);
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
    case LEAKY_RELU: return x < 0.0 ? a * x : x;
    case ELU: return x > 0.0 ? x : a * expm1(x);
    case SILU: return x * sigmoid(x);
    case GELU: return x * normal_cdf(x, gauss);
    case GELU_TANH: return x * sigmoid(gelu_argument(x));
    case SOFTPLUS: return softplus(x);
    default: return a * x + b;
    }
}

int unary_integer(uint kind, int x) { return kind == NEG ? -x : kind == ABS ? (x < 0 ? -x : x) : x * x; }

// dx = f'(x) dy, where x is the op's input, or its output for exp, sqrt, rsqrt, tanh, sigmoid and relu
float unary_backward(uint kind, float x, float dy, float a) {
    float gauss, s;
    switch (kind) {
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
    case LEAKY_RELU: return x > 0.0 ? dy : a * dy;
    case ELU: return x > 0.0 ? dy : a * dy * exp_or_nan(x);
    case SILU: s = sigmoid(x); return dy * s * (1.0 + x * (1.0 - s));
    case GELU: s = normal_cdf(x, gauss); return dy * (s + x * 0.39894228 * gauss);
    case GELU_TANH:
        if (!isnan(x)) x = clamp(x, -16.0, 16.0); // where s is 0 or 1, and the square is finite
        s = sigmoid(gelu_argument(x));
        return dy * (s + x * s * (1.0 - s) * 1.59576912 * (1.0 + 0.134145 * x * x));
    case SOFTPLUS: return dy * sigmoid(x);
    default: return dy * a;
    }
}
