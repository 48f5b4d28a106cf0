/* Vectors of the instruction set that this file is compiled for: VW floats wide, by GCC's and Clang's vector extensions,
   so that one source serves SSE2, NEON, AVX2 and AVX-512. Included by the kernel part of op files alone. */
#ifndef HK_CPU_SIMD_H
#define HK_CPU_SIMD_H

#include "cpu/cpu.h"
#include <math.h>
#include <string.h>

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
static inline void v_store_part(float *p, vf x, int64_t n) { memcpy(p, &x, (size_t)n * sizeof(float)); }

static inline vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
static inline vf v_max(vf a, vf b) { return v_select(a > b, a, b); } /* b where either is NaN */
static inline vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
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

/* e^x to 1 ulp or so: 2^n e^r with |r| <= ln 2 / 2, e^r by a polynomial of degree 6 (Cody and Waite's reduction). Infinity
   above 88.7, 0 below -103.9, NaN for NaN. */
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

#endif
