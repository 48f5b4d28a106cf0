/* Vectors of the instruction set that this file is compiled for: VW floats wide, by GCC's and Clang's vector
   extensions, so that one source serves SSE2, NEON, AVX2 and AVX-512. Included by the kernel part of op files alone. */
#ifndef HK_CPU_SIMD_H
#define HK_CPU_SIMD_H

#include "cpu/cpu.h"
#include <math.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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
#if defined(__AVX512F__)
    return (vf)_mm512_mask_loadu_ps((__m512)v_set(fill), (__mmask16)((1u << n) - 1), p);
#else
    vf x = v_set(fill);
    memcpy(&x, p, (size_t)n * sizeof(float));
    return x;
#endif
}
/* The first n < VW elements of 16 bits, the rest 0. */
static inline void v_copy_part16(uint16_t to[VW], const uint16_t *p, int64_t n) {
#if defined(__AVX512BW__)
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
#else
    memset(to, 0, VW * sizeof *to);
    memcpy(to, p, (size_t)n * sizeof *to);
#endif
}
/* VW numbers as f16, rounded to nearest even. */
static inline vf v_load_f16(const uint16_t *p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(__aarch64__)
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    vf x;
    for (int i = 0; i < VW; i++) x[i] = hk_f32_from_f16(p[i]);
    return x;
#endif
}
/* VW numbers as bf16. */
static inline vf v_load_bf16(const uint16_t *p) {
    typedef uint16_t halves __attribute__((vector_size(VW * 2), aligned(2), may_alias));
    typedef uint32_t words __attribute__((vector_size(VW * 4)));
    return (vf)(__builtin_convertvector(*(const halves *)p, words) << 16);
}
static inline void v_store_f16(uint16_t *p, vf x) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x)));
#else
    for (int i = 0; i < VW; i++) p[i] = hk_f16_from_f32(x[i]);
#endif
}
/* As hk_f32_from_bf16 and hk_bf16_from_f32, in a form that the compiler makes vectors of. */
static inline float f32_of_bf16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}
static inline uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
    return (uint16_t)(x != x ? quiet : rounded);
}

/* The first n < VW elements. */
static inline void v_store_part(float *p, vf x, int64_t n) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
#else
    memcpy(p, &x, (size_t)n * sizeof(float));
#endif
}

static inline vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
#if defined(__AVX512F__)
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); } /* b where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#else
static inline vf v_max(vf a, vf b) { return v_select(a > b, a, b); } /* b where either is NaN */
static inline vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
#endif
/* One step of the perfect shuffle of 2 * VW floats; log2(VW) of them on VW vectors transpose. */
#if VW == 16
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b)                                                                                          \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VW == 8
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

static inline void v_transpose(vf *x) {
    vf y[VW];
#pragma GCC unroll 4
    for (int step = 1; step < VW; step *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < VW / 2; i++) {
            y[2 * i] = INTERLEAVE_LOW(x[i], x[i + VW / 2]);
            y[2 * i + 1] = INTERLEAVE_HIGH(x[i], x[i + VW / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VW; i++) x[i] = y[i];
    }
}

static inline bool v_any(vi mask) {
    int64_t part[VW / 2], any = 0;
    memcpy(part, &mask, sizeof mask);
    for (int i = 0; i < VW / 2; i++) any |= part[i];
    return any != 0;
}
/* Step by step lane i and lane i + VW / 2, VW / 4, ... 1 come together, in a fixed order. */
#if VW == 16
#define V_TURNED_8(x) __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define V_TURNED_4(x) __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define V_TURNED_2(x) __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define V_TURNED_1(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#elif VW == 8
#define V_TURNED_4(x) __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3)
#define V_TURNED_2(x) __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5)
#define V_TURNED_1(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#else
#define V_TURNED_2(x) __builtin_shufflevector(x, x, 2, 3, 0, 1)
#define V_TURNED_1(x) __builtin_shufflevector(x, x, 1, 0, 3, 2)
#endif
static inline float v_sum(vf x) {
#if VW > 8
    x += V_TURNED_8(x);
#endif
#if VW > 4
    x += V_TURNED_4(x);
#endif
    x += V_TURNED_2(x);
    x += V_TURNED_1(x);
    return x[0];
}
static inline float v_max_of(vf x) {
#if VW > 8
    x = v_max(x, V_TURNED_8(x));
#endif
#if VW > 4
    x = v_max(x, V_TURNED_4(x));
#endif
    x = v_max(x, V_TURNED_2(x));
    x = v_max(x, V_TURNED_1(x));
    return x[0];
}

/* e^x to 1 ulp or so: 2^n e^r with |r| <= ln 2 / 2, e^r by a polynomial of degree 6 (Cody and Waite's reduction).
   Infinity above 88.7, 0 below -103.9, NaN for NaN. */
/* e^r for |r| <= ln 2 / 2. */
static inline vf v_exp_of_rest(vf r) {
    vf p = v_set(1.9875691500e-4f);
    p = p * r + v_set(1.3981999507e-3f);
    p = p * r + v_set(8.3334519073e-3f);
    p = p * r + v_set(4.1665795894e-2f);
    p = p * r + v_set(1.6666665459e-1f);
    p = p * r + v_set(5.0000001201e-1f);
    return p * r * r + r + v_set(1.0f);
}
static inline vf v_exp(vf x) {
#if defined(__AVX512F__)
    /* Of a maximum or a minimum with NaN the second operand comes out; scaling overflows and rounds as it should, but is
       slow where it rounds to 0, which masked scores would. */
    const vf lo = v_set(-104.0f), c = (vf)_mm512_min_ps((__m512)v_set(89.0f), _mm512_max_ps((__m512)lo, (__m512)x));
    const __mmask16 some = _mm512_cmp_ps_mask((__m512)x, (__m512)lo, _CMP_NLT_UQ);
    const vf n = (vf)_mm512_roundscale_ps((__m512)(c * v_set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    const vf r = c - n * v_set(0.693359375f) + n * v_set(2.12194440e-4f);
    return (vf)_mm512_maskz_scalef_ps(some, (__m512)v_exp_of_rest(r), (__m512)n);
#else
    const vf hi = v_set(88.72284f), lo = v_set(-103.98f);
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: rounds to an integer */
    const vi none = x < lo; /* 0 at once: rounding to it takes 70 ns a vector, and masked scores would */
    vf c = v_select(x > hi, hi, v_select(none, v_set(0.0f), x));
    vf shifted = c * v_set(1.44269504f) + magic;
    vf n = shifted - magic;
    vi k = (vi)shifted - (vi)magic;
    vf p = v_exp_of_rest(c - n * v_set(0.693359375f) + n * v_set(2.12194440e-4f));
    vi half = k >> 1; /* in two factors, so that 2^-126 and below, and 2^128, come out right */
    vf scale1 = (vf)((half + 127) << 23), scale2 = (vf)((k - half + 127) << 23);
    vf y = p * scale1 * scale2;
    y = v_select(x > hi, v_set(INFINITY), y);
    return v_select(x != x, x, v_select(none, v_set(0.0f), y));
#endif
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
    typedef uint32_t words __attribute__((vector_size(VW * 4)));
    const vf smallest = v_set(1.17549435e-38f);
    vi subnormal = x < smallest;
    vf y = v_select(subnormal, x * v_set(8388608.0f), x);
    vi k = (vi)((words)y - 0x3f3504f3u) >> 23; /* of negative numbers anything: it wraps around */
    vf m = (vf)((words)y - ((words)k << 23)) - v_set(1.0f);
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
