/* Cases of the elementwise ops on one value. */
#include "cases.h"
#include "support.h"
#include <math.h>

#define SLOPE 0.01f
#define ALPHA 1.5f
#define SCALE -2.5f
#define OFFSET 0.75f

/* build_NAME calls hk_NAME(in[0] ...); NAME_of is the expression in x. */
#define DEFINE(name, expression, ...)                                                                                  \
    static struct hk_value *build_##name(struct hk_graph *graph, struct hk_value *const *in) {                         \
        (void)graph;                                                                                                   \
        return hk_##name(in[0] __VA_ARGS__);                                                                           \
    }                                                                                                                  \
    static void name##_of(const struct hk_case *c, const double *const *in, double *out) {                             \
        const int64_t n = test_elements(c->inputs[0].shape);                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const double x = in[0][i];                                                                                 \
            out[i] = expression;                                                                                       \
        }                                                                                                              \
    }

/* Sizes that every op gets, from the range where its gradient is smooth. */
#define ON(op, from, to, ...)                                                                                          \
    .inputs = {{.shape = __VA_ARGS__, .low = from, .high = to}}, .n_inputs = 1, .build = build_##op,                   \
    .reference = op##_of
#define COMMON(op, from, to)                                                                                           \
    {.name = "odd sizes", ON(op, from, to, HK_SHAPE(3, 5, 37)), .gradient = true},                                     \
        {.name = "one element", ON(op, from, to, HK_SHAPE(1)), .gradient = true},                                      \
        {.name = "a scalar", ON(op, from, to, {0}), .gradient = true},                                                 \
        {.name = "rank 6", ON(op, from, to, HK_SHAPE(2, 1, 3, 2, 5, 3))},                                              \
        {.name = "many workgroups", ON(op, from, to, HK_SHAPE(3, 1031))}, {                                            \
        .name = "no elements", ON(op, from, to, HK_SHAPE(4, 0)), .gradient = true                                      \
    }
#define SET(op, from, to, ...)                                                                                         \
    static const struct hk_case op##_cases[] = {COMMON(op, from, to), __VA_ARGS__};                                    \
    const struct hk_case_set hk_cases_##op = {op##_cases, COUNT(op##_cases), op##_refusals, COUNT(op##_refusals)};
#define REFUSALS(op, text)                                                                                             \
    static const struct hk_refusal op##_refusals[] = {{"integers", {{HK_I32, HK_SHAPE(3), 0, 9}}, 1, build_##op, text}};
#define FLOATS_ONLY(op) REFUSALS(op, #op ": the dtype must be f32, x is i32")
#define EXTRA(text, op, from, to)                                                                                      \
    { .name = text, ON(op, from, to, HK_SHAPE(7, 33)) }
#define EXTRA_GRADIENT(text, op, from, to)                                                                             \
    { .name = text, ON(op, from, to, HK_SHAPE(7, 33)), .gradient = true }
#define INTEGERS(op)                                                                                                   \
    {                                                                                                                  \
        .name = "integers", .inputs = {{HK_I32, HK_SHAPE(5, 67), -40000, 40000}}, .n_inputs = 1, .build = build_##op,  \
        .reference = op##_of, .exact = true                                                                            \
    }

static struct hk_value *build_bytes_neg(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_neg(hk_cast(in[0], HK_U8));
}
#define INTEGERS_REFUSALS(op)                                                                                          \
    static const struct hk_refusal op##_refusals[] = {                                                                 \
        {"bytes", {{HK_I32, HK_SHAPE(3), 0, 9}}, 1, build_bytes_neg, "neg: the dtype must be f32 or i32, x is u8"}};

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

DEFINE(neg, -x)
INTEGERS_REFUSALS(neg)
SET(neg, 0, 0, INTEGERS(neg))

DEFINE(exp, exp(x))
FLOATS_ONLY(exp)
/* e^80 by a GPU: the promise is 3 + 2 |x| ulp, 2e-5 of the value */
SET(exp, 0, 0, EXTRA("large", exp, 70, 88), EXTRA("tiny", exp, -87, -40))

DEFINE(log, log(x))
FLOATS_ONLY(log)
SET(log, 0.2f, 4, EXTRA("near one", log, 0.999f, 1.001f), EXTRA("large", log, 1e20f, 1e30f),
    EXTRA("small", log, 1e-30f, 1e-20f))

DEFINE(sqrt, sqrt(x))
FLOATS_ONLY(sqrt)
SET(sqrt, 0.2f, 4, EXTRA("large", sqrt, 1e20f, 1e30f))

DEFINE(rsqrt, 1 / sqrt(x))
FLOATS_ONLY(rsqrt)
SET(rsqrt, 0.2f, 4, EXTRA("large", rsqrt, 1e20f, 1e30f))

DEFINE(square, (double)(c->inputs[0].dtype == HK_I32 ? (double)(int32_t)(uint32_t)(int64_t)(x * x) : x * x))
INTEGERS_REFUSALS(square)
SET(square, 0, 0, INTEGERS(square))

DEFINE(abs, fabs(x))
INTEGERS_REFUSALS(abs)
SET(abs, 0.1f, 2, EXTRA_GRADIENT("below zero", abs, -2, -0.1f), INTEGERS(abs))

DEFINE(sin, sin(x))
FLOATS_ONLY(sin)
SET(sin, 0, 0, EXTRA("many turns", sin, -8000, 8000))

DEFINE(cos, cos(x))
FLOATS_ONLY(cos)
SET(cos, 0, 0, EXTRA("many turns", cos, -8000, 8000))

DEFINE(tanh, tanh(x))
FLOATS_ONLY(tanh)
SET(tanh, 0, 0, EXTRA("saturated", tanh, -200, 200), EXTRA_GRADIENT("small", tanh, -1e-3f, 1e-3f))

DEFINE(sigmoid, sigmoid(x))
FLOATS_ONLY(sigmoid)
SET(sigmoid, 0, 0, EXTRA("saturated", sigmoid, -200, 200), EXTRA("tiny", sigmoid, -80, -20))

DEFINE(relu, x > 0 ? x : 0)
FLOATS_ONLY(relu)
SET(relu, 0.1f, 2, EXTRA_GRADIENT("below zero", relu, -2, -0.1f), EXTRA("both", relu, -1, 1))

DEFINE(leaky_relu, x > 0 ? x : SLOPE * x, , SLOPE)
FLOATS_ONLY(leaky_relu)
SET(leaky_relu, 0.1f, 2, EXTRA_GRADIENT("below zero", leaky_relu, -2, -0.1f), EXTRA("both", leaky_relu, -1, 1))

DEFINE(elu, x > 0 ? x : ALPHA * expm1(x), , ALPHA)
FLOATS_ONLY(elu)
SET(elu, 0.1f, 2, EXTRA_GRADIENT("below zero", elu, -2, -0.1f), EXTRA("near zero", elu, -1e-3f, 1e-3f),
    EXTRA("far out", elu, -200, 200))

DEFINE(silu, x *sigmoid(x))
FLOATS_ONLY(silu)
SET(silu, 0, 0, EXTRA_GRADIENT("far out", silu, -30, 30), EXTRA("below zero", silu, -30, -8))

DEFINE(gelu, x *normal_cdf(x))
FLOATS_ONLY(gelu)
SET(gelu, 0, 0, EXTRA_GRADIENT("far out", gelu, -12, 12), EXTRA("below zero", gelu, -5, -2))

/* 0.5 x (1 + tanh(u)) is x sigmoid(2 u), which does not cancel below zero */
DEFINE(gelu_tanh, x *sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
FLOATS_ONLY(gelu_tanh)
SET(gelu_tanh, 0, 0, EXTRA_GRADIENT("far out", gelu_tanh, -12, 12), EXTRA("below zero", gelu_tanh, -4, -2))

DEFINE(softplus, fmax(x, 0) + log1p(exp(-fabs(x))))
FLOATS_ONLY(softplus)
SET(softplus, 0, 0, EXTRA_GRADIENT("far out", softplus, -100, 100), EXTRA("tiny", softplus, -80, -10))

DEFINE(affine, SCALE *x + OFFSET, , SCALE, OFFSET)
FLOATS_ONLY(affine)
SET(affine, 0, 0, EXTRA("above zero", affine, 0, 1))

/* Every kind reaches unary_backward by its own cases; here, far out and through a chain. */
static struct hk_value *build_chain(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_tanh(hk_exp(hk_sin(hk_gelu(hk_square(in[0])))));
}
static const struct hk_case unary_backward_cases[] = {
    {.name = "a chain", .inputs = {{.shape = HK_SHAPE(5, 33)}}, .n_inputs = 1, .build = build_chain, .gradient = true},
    {.name = "gelu beyond all",
     .inputs = {{.shape = HK_SHAPE(333), .low = -100, .high = 100}},
     .n_inputs = 1,
     .build = build_gelu,
     .gradient = true},
    {.name = "gelu_tanh beyond all",
     .inputs = {{.shape = HK_SHAPE(333), .low = -100, .high = 100}},
     .n_inputs = 1,
     .build = build_gelu_tanh,
     .gradient = true},
};
const struct hk_case_set hk_cases_unary_backward = {unary_backward_cases, COUNT(unary_backward_cases), NULL, 0};
