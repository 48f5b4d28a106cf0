// Elements of each dtype (enum hk_dtype) as bits, and from one dtype to another; f16, bf16, u8 and i8 lie in 32-bit words.
// Roundings as src/base/numbers.c has them.
const uint F32 = 0, F16 = 1, BF16 = 2, I32 = 3, U8 = 4, I8 = 5;

uint elements_per_word(uint dtype) { return dtype == F16 || dtype == BF16 ? 2 : dtype == U8 || dtype == I8 ? 4 : 1; }

// The lane-th element of a word.
uint element_of(uint word, uint lane, uint dtype) {
    const uint per_word = elements_per_word(dtype);
    if (per_word == 1) return word;
    const uint bits = 32 / per_word;
    return bitfieldExtract(word, int(lane * bits), int(bits));
}

uint f16_from_f32(float x) {
    const uint bits = floatBitsToUint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7e00u;
    if (magnitude >= 0x47800000u) return sign | 0x7c00u; // 65536 and more
    if (magnitude < 0x38800000u) { // below 2^-14: adding 0.5 puts the subnormal's bits at the end, rounded
        precise const float sum = uintBitsToFloat(magnitude) + 0.5;
        return sign | (floatBitsToUint(sum) - 0x3f000000u);
    }
    return sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13);
}

float f32_from_f16(uint x) {
    const uint sign = (x & 0x8000u) << 16, exponent = x >> 10 & 0x1fu, fraction = x & 0x3ffu;
    if (exponent == 0x1fu) return uintBitsToFloat(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0u) return uintBitsToFloat(sign | floatBitsToUint(float(fraction) * (1.0 / 16777216.0)));
    return uintBitsToFloat(sign | (exponent + 112u) << 23 | fraction << 13);
}

uint bf16_from_f32(float x) {
    const uint bits = floatBitsToUint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

float f32_from(uint bits, uint dtype) {
    if (dtype == F16) return f32_from_f16(bits);
    if (dtype == BF16) return uintBitsToFloat(bits << 16);
    if (dtype == I32) return float(int(bits));
    if (dtype == U8) return float(bits);
    if (dtype == I8) return float(bitfieldExtract(int(bits), 0, 8));
    return uintBitsToFloat(bits);
}

// Toward zero, clamped; NaN gives 0.
int i32_from_f32(float x) {
    if (x >= 2147483648.0) return 2147483647;
    if (x <= -2147483648.0) return -2147483647 - 1;
    return isnan(x) ? 0 : int(x);
}

// To the nearest, even where two are as near, clamped; NaN gives 0.
int i8_from_f32(float x) { return isnan(x) ? 0 : int(roundEven(clamp(x, -128.0, 127.0))); }

uint convert(uint bits, uint from, uint to) {
    if (from == to) return bits;
    const bool whole = from == I32 || from == U8 || from == I8;
    if (to == I8 && !whole) return uint(i8_from_f32(f32_from(bits, from))) & 0xffu;
    if (to == I32 || to == U8 || to == I8) {
        const int x = !whole ? i32_from_f32(f32_from(bits, from)) : from == I8 ? bitfieldExtract(int(bits), 0, 8) : int(bits);
        return to == I8 ? uint(clamp(x, -128, 127)) & 0xffu : uint(to == U8 ? clamp(x, 0, 255) : x);
    }
    const float x = f32_from(bits, from);
    return to == F16 ? f16_from_f32(x) : to == BF16 ? bf16_from_f32(x) : floatBitsToUint(x);
}
