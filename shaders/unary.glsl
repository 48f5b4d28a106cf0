// Kinds of unary ops: enum unary_kind in src/op/unary.c.
const uint NEG = 0, EXP = 1, LOG = 2, SQRT = 3, RSQRT = 4, SQUARE = 5, ABS = 6, SIN = 7, COS = 8, TANH = 9,
           SIGMOID = 10, RELU = 11, LEAKY_RELU = 12, ELU = 13, SILU = 14, GELU = 15, GELU_TANH = 16, SOFTPLUS = 17,
           AFFINE = 18;

// 2 sqrt(2 / pi) (x + 0.044715 x^3): gelu_tanh is x * sigmoid of it.
float gelu_argument(float x) { return 1.59576912 * (x + 0.044715 * x * x * x); }
