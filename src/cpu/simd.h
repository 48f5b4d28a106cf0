/* Vectors of the instruction set that this file is compiled for: VW floats wide, by GCC's and Clang's vector
   extensions, so that one source serves SSE2, NEON, AVX2 and AVX-512. Included by the kernel part of op files alone. */
#ifndef HK_CPU_SIMD_H
#define HK_CPU_SIMD_H

#include "cpu/cpu.h"
#include <math.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VW 16
#elif defined(__AVX2__)
#define VW 8
#else
#define VW 4
#endif

typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi __attribute__((vector_size(VW * 4)));
typedef float vf_unaligned __attribute__((vector_size(VW * 4), aligned(4), may_alias));

static inline vf v_load(const float *p) { return *(const vf_unaligned *)p; }
static inline void v_store(float *p, vf x) { *(vf_unaligned *)p = x; }
static inline vf v_set(float x) { return x - (vf){0}; } /* x - 0 is x, also for -0: one broadcast, no addition */
/* The first n < VW elements, the rest filled. */
static inline vf v_load_part(const float *p, int64_t n, float fill) {
    vf x = v_set(fill);
    memcpy(&x, p, (size_t)n * sizeof(float));
    return x;
}
/* VW numbers as f16, rounded to nearest even. */
static inline vf v_load_f16(const uint16_t *p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    vf x;
    for (int i = 0; i < VW; i++) x[i] = hk_f32_from_f16(p[i]);
    return x;
#endif
}
static inline void v_store_f16(uint16_t *p, vf x) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < VW; i++) p[i] = hk_f16_from_f32(x[i]);
#endif
}
static inline void v_store_part(float *p, vf x, int64_t n) { memcpy(p, &x, (size_t)n * sizeof(float)); }

static inline vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
static inline vf v_max(vf a, vf b) { return v_select(a > b, a, b); } /* b where either is NaN */
static inline vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
static inline bool v_any(vi mask) {
    int64_t part[VW / 2], any = 0;
    memcpy(part, &mask, sizeof mask);
    for (int i = 0; i < VW / 2; i++) any |= part[i];
    return any != 0;
}
static inline float v_sum(vf x) { /* in a fixed order: halves are added */
    float lane[VW];
    memcpy(lane, &x, sizeof x);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; i++) lane[i] += lane[i + n];
    return lane[0];
}
static inline float v_max_of(vf x) {
    float lane[VW];
    memcpy(lane, &x, sizeof x);
    for (int n = VW / 2; n; n /= 2)
        for (int i = 0; i < n; i++) lane[i] = lane[i] > lane[i + n] ? lane[i] : lane[i + n];
    return lane[0];
}

/* e^x to 1 ulp or so: 2^n e^r with |r| <= ln 2 / 2, e^r by a polynomial of degree 6 (Cody and Waite's reduction).
   Infinity above 88.7, 0 below -103.9, NaN for NaN. */
static inline vf v_exp(vf x) {
    const vf hi = v_set(88.72284f), lo = v_set(-103.98f);
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: rounds to an integer */
    vf c = v_select(x > hi, hi, v_select(x < lo, lo, x));
    vf shifted = c * v_set(1.44269504f) + magic;
    vf n = shifted - magic;
    vi k = (vi)shifted - (vi)magic;
    vf r = c - n * v_set(0.693359375f) + n * v_set(2.12194440e-4f);
    vf p = v_set(1.9875691500e-4f);
    p = p * r + v_set(1.3981999507e-3f);
    p = p * r + v_set(8.3334519073e-3f);
    p = p * r + v_set(4.1665795894e-2f);
    p = p * r + v_set(1.6666665459e-1f);
    p = p * r + v_set(5.0000001201e-1f);
    p = p * r * r + r + v_set(1.0f);
    vi half = k >> 1; /* in two factors, so that 2^-126 and below, and 2^128, come out right */
    vf scale1 = (vf)((half + 127) << 23), scale2 = (vf)((k - half + 127) << 23);
    vf y = p * scale1 * scale2;
    y = v_select(x > hi, v_set(INFINITY), y);
    return v_select(x != x, x, y);
}

/* 1 / (1 + e^-x). */
static inline vf v_sigmoid(vf x) { return v_set(1.0f) / (v_set(1.0f) + v_exp(-x)); }

/* tanh: near 0 by its odd polynomial (Cephes), elsewhere by e^2x. */
static inline vf v_tanh(vf x) {
    vf a = (vf)((vi)x & 0x7fffffff);
    vf z = x * x;
    vf p = v_set(-5.70498872745e-3f);
    p = p * z + v_set(2.06390887954e-2f);
    p = p * z + v_set(-5.37397155531e-2f);
    p = p * z + v_set(1.33314422036e-1f);
    p = p * z + v_set(-3.33332819422e-1f);
    vf small = p * z * x + x;
    vf t = v_set(1.0f) - v_set(2.0f) / (v_exp(a + a) + v_set(1.0f));
    t = (vf)((vi)t | ((vi)x & (int32_t)0x80000000));
    return v_select(a < v_set(0.625f), small, t);
}

/* log(x) to 1 ulp or so: x = 2^k m with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh(s) with s = (m - 1) / (m + 1). -inf
   for 0, NaN below, infinity for infinity. */
static inline vf v_log(vf x) {
    const vf smallest = v_set(1.17549435e-38f);
    vi subnormal = x < smallest;
    vf y = v_select(subnormal, x * v_set(8388608.0f), x);
    vi k = (((vi)y - 0x3f3504f3) >> 23);
    vf m = (vf)((vi)y - (k << 23)) - v_set(1.0f);
    vf n = __builtin_convertvector(k - (subnormal & 23), vf);
    vf s = m / (m + v_set(2.0f)), z = s * s;
    vf p = v_set(0.22222222f);
    p = p * z + v_set(0.28571429f);
    p = p * z + v_set(0.4f);
    p = p * z + v_set(0.66666667f);
    /* log(1 + m) = m - s (m - z p), whose leading term is exact */
    vf r = m - s * (m - z * p);
    r = n * v_set(0.693359375f) + (r - n * v_set(2.12194440e-4f));
    r = v_select(x == v_set(0.0f), v_set(-INFINITY), r);
    r = v_select(x < v_set(0.0f), v_set(NAN), r);
    return v_select((x == v_set(INFINITY)) | (x != x), x, r);
}

/* log(1 + x) for 0 <= x <= 1. */
static inline vf v_log1p_unit(vf x) {
    vf s = x / (x + v_set(2.0f)), z = s * s;
    vf p = v_set(0.1538462f);
    p = p * z + v_set(0.1818182f);
    p = p * z + v_set(0.22222222f);
    p = p * z + v_set(0.28571429f);
    p = p * z + v_set(0.4f);
    p = p * z + v_set(0.66666667f);
    return s * v_set(2.0f) + s * z * p;
}

/* log(1 + e^x) without overflow. */
static inline vf v_softplus(vf x) {
    vf a = (vf)((vi)x & 0x7fffffff);
    return v_select(x > v_set(0.0f), x, v_select(x != x, x, v_set(0.0f))) + v_log1p_unit(v_exp(-a));
}

/* e^x - 1 */
static inline vf v_expm1(vf x) {
    vf a = (vf)((vi)x & 0x7fffffff);
    vf p = v_set(1.0f / 5040);
    p = p * x + v_set(1.0f / 720);
    p = p * x + v_set(1.0f / 120);
    p = p * x + v_set(1.0f / 24);
    p = p * x + v_set(1.0f / 6);
    p = p * x + v_set(0.5f);
    return v_select(a < v_set(0.3f), x + x * x * p, v_exp(x) - v_set(1.0f));
}

/* e^(z^2) erfc(z) = t P(t), t = 1 / (1 + 0.4 z), for z >= 0: a Chebyshev fit on [0, 10] with a relative error below
   3e-8. The factor e^(-z^2) is the caller's to give, who may have it already. */
static inline vf v_erfc_scaled(vf z) {
    vf t = v_set(1.0f) / (v_set(1.0f) + v_set(0.4f) * z);
    vf p = v_set(-0.03350112687f);
    p = p * t + v_set(0.2187853561f);
    p = p * t + v_set(-0.5465026178f);
    p = p * t + v_set(0.6093421803f);
    p = p * t + v_set(-0.3343118762f);
    p = p * t + v_set(0.2979731946f);
    p = p * t + v_set(0.1210599825f);
    p = p * t + v_set(0.216689386f);
    p = p * t + v_set(0.2247486653f);
    p = p * t + v_set(0.2257168574f);
    return p * t;
}

/* The normal distribution function, and e^(-x^2 / 2) on the way. */
static inline vf v_normal_cdf(vf x, vf *gauss) {
    vf a = (vf)((vi)x & 0x7fffffff);
    *gauss = v_exp(x * x * v_set(-0.5f));
    vf tail = v_set(0.5f) * *gauss * v_erfc_scaled(a * v_set(0.70710678f));
    return v_select(x > v_set(0.0f), v_set(1.0f) - tail, tail);
}

static inline vf v_erf(vf x) {
    vf a = (vf)((vi)x & 0x7fffffff);
    vf y = v_set(1.0f) - v_exp(-x * x) * v_erfc_scaled(a);
    return (vf)((vi)y | ((vi)x & (int32_t)0x80000000));
}

/* sin(x + quarter * pi / 2) to 1e-7 or so where |x| < 8192, by three-part reduction to [-pi/4, pi/4] and the series
   there; lanes beyond by the C library. */
static inline vf v_sin_quarter(vf x, int quarter) {
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: rounds to an integer */
    vf shifted = x * v_set(0.63661977f) + magic, n = shifted - magic;
    vi q = (vi)shifted + quarter; /* its last two bits */
    vf r = x - n * v_set(1.5703125f) - n * v_set(4.837512969970703125e-4f) - n * v_set(7.54978995489188216e-8f);
    vf z = r * r;
    vf s = v_set(-1.9515295891e-4f);
    s = s * z + v_set(8.3321608736e-3f);
    s = s * z + v_set(-1.6666654611e-1f);
    s = s * z * r + r;
    vf c = v_set(2.443315711809948e-5f);
    c = c * z + v_set(-1.388731625493765e-3f);
    c = c * z + v_set(4.166664568298827e-2f);
    c = c * z * z - v_set(0.5f) * z + v_set(1.0f);
    vf y = (vf)((vi)v_select((q & 1) != 0, c, s) ^ ((q & 2) << 30));
    const vi far = ~((vf)((vi)x & 0x7fffffff) < v_set(8192.0f));
    for (int i = 0; v_any(far) && i < VW; i++)
        if (far[i]) y[i] = quarter ? cosf(x[i]) : sinf(x[i]);
    return y;
}
static inline vf v_sin(vf x) { return v_sin_quarter(x, 0); }
static inline vf v_cos(vf x) { return v_sin_quarter(x, 1); }

#endif
