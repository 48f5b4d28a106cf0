/* Functions of one number over all of f32, and their derivatives, against the C library in double; and casts. Bounds
   are what the kernels' formulas are good for, or, on GPUs, what Vulkan promises of exp (3 + 2 |x| units in the last
   place), division and square roots. A GPU may take numbers below 2^-126 as 0, before and after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "range.h"
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ULP 0x1p-23
#define SLOPE 0.01f
#define ALPHA 1.5f

/* ---- The numbers ---- */

enum { PER_EXPONENT = 24, SPECIALS = 10, COUNT_X = 2 * 256 * PER_EXPONENT + SPECIALS };

/* Every exponent with random fractions, subnormals and NaN among them, and what is special. */
static const float *all_numbers(void) {
    static float x[COUNT_X];
    static const float specials[SPECIALS] = {0.0f,      -0.0f,   1.0f,     -1.0f, INFINITY,
                                             -INFINITY, FLT_MAX, -FLT_MAX, NAN,   FLT_MIN};
    uint64_t random = 12;
    for (int i = 0; i < COUNT_X - SPECIALS; i++) {
        const uint32_t bits =
            (uint32_t)i << 31 | (uint32_t)(i / 2 % 256) << 23 | (uint32_t)(test_random(&random) >> 41);
        memcpy(&x[i], &bits, sizeof bits);
    }
    memcpy(x + COUNT_X - SPECIALS, specials, sizeof specials);
    return x;
}

/* ---- The functions ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double gauss(double x) { return exp(-x * x / 2) / sqrt(2 * M_PI); }
static double gelu_argument(double x) { return 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); }
static double slope_of_gelu_tanh(double x) {
    const double s = sigmoid(gelu_argument(x));
    return fabs(x) > 1e3 ? x > 0 : s + x * s * (1 - s) * 2 * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

struct function {
    const char *name;
    range_build *build, *build_slope;
    double (*value)(double x), (*units)(double x), (*slope)(double x);
};

static struct hk_value *slope_of(struct hk_value *y, struct hk_value *x) {
    struct hk_value *grad = NULL;
    hk_gradients(hk_sum(y, HK_ALL_AXES, false), &x, 1, &grad);
    return grad;
}

/* The op on a value x; and in a double x its value, the units in the last place that it may be off by, and its slope.
 */
#define FUNCTION(op, call, y, off, dy)                                                                                 \
    static struct hk_value *build_##op(struct hk_graph *graph, struct hk_value *const *in) {                           \
        struct hk_value *x = in[0];                                                                                    \
        (void)graph;                                                                                                   \
        return call;                                                                                                   \
    }                                                                                                                  \
    static struct hk_value *build_slope_##op(struct hk_graph *graph, struct hk_value *const *in) {                     \
        return slope_of(build_##op(graph, in), in[0]);                                                                 \
    }                                                                                                                  \
    static double op##_value(double x) { return y; }                                                                   \
    static double op##_units(double x) { return (void)x, off; }                                                        \
    static double op##_slope(double x) { return (void)x, dy; }
#define ROW(op)                                                                                                        \
    { #op, build_##op, build_slope_##op, op##_value, op##_units, op##_slope }

/* exp(-|x|) is at best 2^-126, from 88 on nothing. */
static double in_exp(double x) { return 2 * fmin(fabs(x), 104); }

FUNCTION(neg, hk_neg(x), -x, 0, -1)
FUNCTION(exp, hk_exp(x), exp(x), 4 + in_exp(x), exp(x))
FUNCTION(log, hk_log(x), log(x), 4, 1 / x)
FUNCTION(sqrt, hk_sqrt(x), sqrt(x), 5, 0.5 / sqrt(x))
FUNCTION(rsqrt, hk_rsqrt(x), 1 / sqrt(x), 5, -0.5 / sqrt(x) / x)
FUNCTION(square, hk_square(x), x *x, 1, 2 * x)
FUNCTION(abs, hk_abs(x), fabs(x), 0, (x > 0) - (x < 0))
FUNCTION(tanh, hk_tanh(x), tanh(x), 8, 1 - tanh(x) * tanh(x))
FUNCTION(sigmoid, hk_sigmoid(x), sigmoid(x), 8 + in_exp(x), sigmoid(x) * sigmoid(-x))
FUNCTION(relu, hk_relu(x), x<0 ? 0 : x, 0, x> 0)
FUNCTION(leaky_relu, hk_leaky_relu(x, SLOPE), x<0 ? (double)SLOPE * x : x, 1, x> 0 ? 1 : (double)SLOPE)
FUNCTION(elu, hk_elu(x, ALPHA), x > 0 ? x : (double)ALPHA * expm1(x), 8, x > 0 ? 1 : (double)ALPHA * exp(x))
FUNCTION(silu, hk_silu(x), x *sigmoid(x), 8 + in_exp(x), sigmoid(x) * (1 + x * sigmoid(-x)))
FUNCTION(gelu, hk_gelu(x), x *normal_cdf(x), 16 + 4 * fmin(x * x, 250),
         normal_cdf(x) + (fabs(x) > 1e3 ? 0 : x * gauss(x)))
FUNCTION(gelu_tanh, hk_gelu_tanh(x), x *sigmoid(gelu_argument(x)), 16 + 4 * in_exp(gelu_argument(x)),
         slope_of_gelu_tanh(x))
FUNCTION(softplus, hk_softplus(x), (x < 0 ? 0 : x) + log1p(exp(-fabs(x))), 8 + in_exp(x), sigmoid(x))

static const struct function functions[] = {
    ROW(neg),     ROW(exp),  ROW(log),        ROW(sqrt), ROW(rsqrt), ROW(square), ROW(abs),       ROW(tanh),
    ROW(sigmoid), ROW(relu), ROW(leaky_relu), ROW(elu),  ROW(silu),  ROW(gelu),   ROW(gelu_tanh), ROW(softplus),
};

/* ---- Comparing ---- */

/* As what x counts: a subnormal may be 0. */
static bool is_close(double got, double ref, double relative, double absolute) {
    const double rounded = (double)(float)ref;
    if (isnan(ref)) return isnan(got);
    if (isinf(rounded) || fabs(ref) * (1 + relative) > (double)FLT_MAX)
        return got == rounded || (isfinite(ref) && fabs(ref) * (1 - relative) < (double)FLT_MAX && fabs(got) > 1e38);
    return fabs(got - ref) <= relative * fabs(ref) + absolute;
}

static void check_value(const struct function *f, bool is_cpu, double x, double got) {
    const double tiny = 4 * 0x1p-126 * fmax(1, isfinite(x) ? fabs(x) : 1), relative = f->units(x) * ULP + ULP;
    if (is_close(got, f->value(x), relative, tiny)) return;
    if (!is_cpu && fabs(x) < 0x1p-126 && is_close(got, f->value(copysign(0, x)), relative, tiny)) return;
    if (x == 0 && f->value == rsqrt_value && got > 0) return; /* of -0: -inf by IEEE, which few GPUs give */
    fail_msg("%s(%.9g) is %.9g, not %.9g", f->name, x, got, f->value(x));
}

/* Where x is finite and no corner. */
static void check_slope(const struct function *f, double x, double got) {
    const double ref = f->slope(x);
    if (!isfinite(x) || fabs(x) < 0x1p-126 || (isnan(ref) && !isnan(got))) return;
    if (is_close(got, ref, 1e-4 + f->units(x) * ULP, 1e-6)) return;
    fail_msg("the slope of %s(%.9g) is %.9g, not %.9g", f->name, x, got, ref);
}

static void check_functions(struct hk_device *device) {
    const struct range_input in = {HK_F32, HK_SHAPE(COUNT_X), all_numbers()};
    const float *x = in.data;
    for (int k = 0; k < COUNT(functions); k++) {
        const struct function *f = &functions[k];
        double *y = range_run(device, f->build, &in, 1), *slope = range_run(device, f->build_slope, &in, 1);
        for (int i = 0; i < COUNT_X; i++) check_value(f, test_is_cpu(device), (double)x[i], y[i]);
        for (int i = 0; i < COUNT_X; i++) check_slope(f, (double)x[i], slope[i]);
        free(y), free(slope);
    }
}
static void functions_over_all_floats(void **unused) {
    (void)unused;
    range_each_device(check_functions);
}

/* ---- Sine and cosine: absolute, on GPUs up to 8192 ---- */

static struct hk_value *build_sin(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_sin(in[0]);
}
static struct hk_value *build_cos(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cos(in[0]);
}
static void check_waves(struct hk_device *device) {
    const struct range_input in = {HK_F32, HK_SHAPE(COUNT_X), all_numbers()};
    const float *x = in.data;
    double *s = range_run(device, build_sin, &in, 1), *c = range_run(device, build_cos, &in, 1);
    for (int i = 0; i < COUNT_X; i++) {
        if (!test_is_cpu(device) && !(fabsf(x[i]) < 8192)) continue;
        range_expect("sin", i, s[i], sin((double)x[i]), 4e-7);
        range_expect("cos", i, c[i], cos((double)x[i]), 4e-7);
    }
    free(s), free(c);
}
static void sine_and_cosine(void **unused) {
    (void)unused;
    range_each_device(check_waves);
}

/* ---- Casts: what lies between each two neighbours, the middle, and the floats beside it ---- */

static struct hk_value *build_f16(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cast(hk_cast(in[0], HK_F16), HK_F32);
}
static struct hk_value *build_bf16(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cast(hk_cast(in[0], HK_BF16), HK_F32);
}

/* x to a multiple of the last place of numbers with that many bits whose least exponent is low; to even where between
 * two. */
static double rounded(double x, int bits, int low, double largest) {
    int exponent;
    if (!isfinite(x) || x == 0) return x;
    frexp(x, &exponent);
    const double unit = ldexp(1, (exponent - 1 > low ? exponent - 1 : low) - bits + 1), y = nearbyint(x / unit) * unit;
    return fabs(y) > largest ? copysign(INFINITY, x) : y;
}

static int64_t add_middles(double a, double b, float *x) {
    const float middle = (float)((a + b) / 2);
    int64_t n = 0;
    x[n++] = middle, x[n++] = nextafterf(middle, 0), x[n++] = nextafterf(middle, INFINITY), x[n++] = (float)a;
    for (int k = 0; k < 4; k++, n++) x[n] = -x[k];
    return n;
}

static void check_cast(struct hk_device *device, const char *name, range_build *build, int bits, int low,
                       double largest) {
    enum { MOST = 8 * 32768 + COUNT_X };
    float *x = malloc(MOST * sizeof *x);
    int64_t n = 0;
    if (!x) abort();
    for (double a = 0; a <= largest;) {
        const double unit = a > 0 ? ldexp(1, (ilogb(a) > low ? ilogb(a) : low) - bits + 1) : ldexp(1, low - bits + 1);
        n += add_middles(a, fmin(a + unit, (double)FLT_MAX), x + n);
        a += unit;
    }
    memcpy(x + n, all_numbers(), COUNT_X * sizeof *x);
    n += COUNT_X;
    double *got = range_run(device, build, &(struct range_input){HK_F32, HK_SHAPE(n), x}, 1);
    for (int64_t i = 0; i < n; i++) {
        const double ref = rounded((double)x[i], bits, low, largest);
        if (!test_is_cpu(device) && fabs((double)x[i]) < 0x1p-125 && fabs(got[i]) <= 0x1p-125) continue;
        range_expect(name, i, got[i], ref, 0);
    }
    free(x), free(got);
}
static void check_casts(struct hk_device *device) {
    check_cast(device, "f16", build_f16, 11, -14, 65504);
    check_cast(device, "bf16", build_bf16, 8, -126, 0x1.fep127);
}
static void casts_round_to_nearest_even(void **unused) {
    (void)unused;
    range_each_device(check_casts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_over_all_floats),
        cmocka_unit_test(sine_and_cosine),
        cmocka_unit_test(casts_round_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
