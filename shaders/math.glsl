// Functions that GLSL lacks, or that Vulkan promises too little of (sin and cos to 2^-11, log near 1 to 2^-21). The
// same formulas as src/cpu/simd.h. NaN gives NaN.

#ifndef MATH_GLSL
#define MATH_GLSL

#define INFINITY uintBitsToFloat(0x7f800000u)
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000u)

// Vulkan promises nothing of exp(NaN): SwiftShader gives 0 or infinity.
float exp_or_nan(float x) { return isnan(x) ? x : exp(x); }

// log(1 + m) = m - s (m - z p) with s = m / (m + 2), z = s^2, for m in [sqrt(1/2) - 1, sqrt(2) - 1].
float log_near_one(float m) {
    precise const float s = m / (m + 2.0), z = s * s;
    const float p = 0.66666667 + z * (0.4 + z * (0.28571429 + z * 0.22222222));
    precise const float r = m - s * (m - z * p);
    return r;
}

float log_accurate(float x) {
    if (!(x >= 1.17549435e-38 && x < INFINITY)) {
        // subnormals may count as 0, as everywhere on a GPU
        return x >= 0.0 && x < 1.0 ? -INFINITY : x == INFINITY ? x : NOT_A_NUMBER;
    }
    const int k = (floatBitsToInt(x) - 0x3f3504f3) >> 23;
    const float m = intBitsToFloat(floatBitsToInt(x) - (k << 23)) - 1.0;
    precise const float r = float(k) * 0.693359375 + (log_near_one(m) - float(k) * 2.12194440e-4);
    return r;
}

// log(1 + x) for 0 <= x <= 1
float log1p_unit(float x) {
    const float s = x / (x + 2.0), z = s * s;
    const float p = 0.66666667 + z * (0.4 + z * (0.28571429 + z * (0.22222222 + z * (0.1818182 + z * 0.1538462))));
    return s * 2.0 + s * z * p;
}

// log(1 + e^x)
float softplus(float x) { return (x > 0.0 || isnan(x) ? x : 0.0) + log1p_unit(exp(-abs(x))); }

// e^x - 1
float expm1(float x) {
    if (abs(x) >= 0.3) return exp(x) - 1.0;
    return x + x * x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0 + x / 5040.0)))));
}

float sigmoid(float x) { return 1.0 / (1.0 + exp_or_nan(-x)); }

float tanh_accurate(float x) {
    const float a = abs(x);
    if (a < 0.625) {
        const float z = x * x;
        const float p = -5.37397155531e-2 + z * (2.06390887954e-2 - z * 5.70498872745e-3);
        return x + x * z * (-3.33332819422e-1 + z * (1.33314422036e-1 + z * p));
    }
    const float t = exp(-2.0 * a); // never overflows
    const float y = (1.0 - t) / (1.0 + t);
    return x < 0.0 ? -y : y;
}

// e^(z^2) erfc(z) for z >= 0, to 3e-8 relative on [0, 10]
float erfc_scaled(float z) {
    const float t = 1.0 / (1.0 + 0.4 * z);
    const float p = -0.3343118762 + t * (0.6093421803 + t * (-0.5465026178 + t * (0.2187853561 - t * 0.03350112687)));
    const float q = 0.216689386 + t * (0.1210599825 + t * (0.2979731946 + t * p));
    return t * (0.2257168574 + t * (0.2247486653 + t * q));
}

// The normal distribution function; gauss becomes e^(-x^2 / 2).
float normal_cdf(float x, out float gauss) {
    gauss = exp(-0.5 * x * x);
    const float tail = 0.5 * gauss * erfc_scaled(abs(x) * 0.70710678);
    return x > 0.0 ? 1.0 - tail : tail;
}

float erf(float x) {
    const float y = 1.0 - exp(-x * x) * erfc_scaled(abs(x));
    return x < 0.0 ? -y : y;
}

// sin(x + quarter * pi / 2), to 1e-7 or so where |x| < 8192
float sin_quarter(float x, int quarter) {
    precise const float n = floor(x * 0.63661977 + 0.5);
    precise const float r = ((x - n * 1.5703125) - n * 4.837512969970703125e-4) - n * 7.54978995489188216e-8;
    const int q = int(n) + quarter;
    const float z = r * r;
    const float s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
    const float p = 4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5);
    const float c = 1.0 - 0.5 * z + z * z * p;
    const float y = (q & 1) != 0 ? c : s;
    return (q & 2) != 0 ? -y : y;
}
float sin_accurate(float x) { return sin_quarter(x, 0); }
float cos_accurate(float x) { return sin_quarter(x, 1); }

#endif
