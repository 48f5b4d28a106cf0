// Arithmetic and comparisons of two values, f32 or i32: bits of the result. Kinds: enum binary_kind in src/op/binary.c.
const uint ADD = 0, SUB = 1, MUL = 2, DIV = 3, MAXIMUM = 4, MINIMUM = 5, POW = 6, EQUAL = 7, NOT_EQUAL = 8, LESS = 9,
           LESS_EQUAL = 10, GREATER = 11, GREATER_EQUAL = 12;

// GLSL's pow knows no a <= 0.
float power(float a, float b) {
    const float size = a == 0.0 ? (b > 0.0 ? 0.0 : uintBitsToFloat(0x7f800000u)) : pow(abs(a), b);
    const bool whole = floor(b) == b, odd = whole && floor(b * 0.5) * 2.0 != b;
    if (b == 0.0 || a == 1.0) return 1.0;
    if (a < 0.0 && !whole) return uintBitsToFloat(0x7fc00000u);
    return (floatBitsToUint(a) >> 31) == 1u && odd ? -size : size;
}

uint binary_floats(uint kind, float a, float b) {
    switch (kind) {
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

uint binary_integers(uint kind, int a, int b) {
    switch (kind) {
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
