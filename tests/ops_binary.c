/* Cases of the elementwise ops on two and three values, with broadcasting. */
#include "cases.h"
#include "support.h"
#include <math.h>

static struct hk_shape broadcast_shape(const struct hk_case *c) {
    struct hk_shape shape = {0};
    for (int k = 0; k < c->n_inputs; k++)
        shape.rank = c->inputs[k].shape.rank > shape.rank ? c->inputs[k].shape.rank : shape.rank;
    for (int i = 0; i < shape.rank; i++) {
        shape.size[i] = 1;
        for (int k = 0; k < c->n_inputs; k++) {
            const struct hk_shape *s = &c->inputs[k].shape;
            const int at = i - (shape.rank - s->rank);
            if (at >= 0 && s->size[at] != 1) shape.size[i] = s->size[at];
        }
    }
    return shape;
}

/* Element e of the broadcast shape, in input k. */
static double element(const struct hk_case *c, const double *const *in, int k, struct hk_shape shape, int64_t e) {
    const struct hk_shape *s = &c->inputs[k].shape;
    int64_t at = 0, stride = 1;
    for (int i = shape.rank - 1, j = s->rank - 1; i >= 0; i--, j--) {
        const int64_t coordinate = e % shape.size[i];
        e /= shape.size[i];
        if (j < 0) continue;
        at += s->size[j] == 1 ? 0 : coordinate * stride;
        stride *= s->size[j];
    }
    return in[k][at];
}

#define DEFINE(name, expression)                                                                                       \
    static struct hk_value *build_##name(struct hk_graph *graph, struct hk_value *const *in) {                         \
        (void)graph;                                                                                                   \
        return hk_##name(in[0], in[1]);                                                                                \
    }                                                                                                                  \
    static void name##_of(const struct hk_case *c, const double *const *in, double *out) {                             \
        const struct hk_shape shape = broadcast_shape(c);                                                              \
        const int64_t n = test_elements(shape);                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const double a = element(c, in, 0, shape, i), b = element(c, in, 1, shape, i);                             \
            out[i] = expression;                                                                                       \
        }                                                                                                              \
    }

#define A(...)                                                                                                         \
    { .shape = __VA_ARGS__, .low = 0.3f, .high = 1.2f }
#define B(...)                                                                                                         \
    { .shape = __VA_ARGS__, .low = 1.3f, .high = 2.2f }
#define RUN(op) .n_inputs = 2, .build = build_##op, .reference = op##_of
/* a lies below b, so that nothing has a kink there; the second half of the cases turns that around. */
#define COMMON(op, g)                                                                                                  \
    {.name = "odd sizes", .inputs = {A(HK_SHAPE(3, 5, 37)), B(HK_SHAPE(3, 5, 37))}, RUN(op), .gradient = g},           \
        {.name = "a row", .inputs = {B(HK_SHAPE(3, 5, 67)), A(HK_SHAPE(67))}, RUN(op), .gradient = g},                 \
        {.name = "a row of whole fours", .inputs = {B(HK_SHAPE(7, 64)), A(HK_SHAPE(64))}, RUN(op)},                    \
        {.name = "a column", .inputs = {A(HK_SHAPE(9, 70)), B(HK_SHAPE(9, 1))}, RUN(op), .gradient = g},               \
        {.name = "both stretch",                                                                                       \
         .inputs = {B(HK_SHAPE(2, 1, 33)), A(HK_SHAPE(1, 5, 1))},                                                      \
         RUN(op),                                                                                                      \
         .gradient = g}, /* the scalar's gradient is one sum of 132 random signs, which may come out near 0 */         \
        {.name = "a scalar", .inputs = {A(HK_SHAPE(4, 33)), B({0})}, RUN(op), .gradient = g, .tolerance = 10},         \
        {.name = "two scalars", .inputs = {B({0}), A({0})}, RUN(op), .gradient = g},                                   \
        {.name = "rank 6",                                                                                             \
         .inputs = {A(HK_SHAPE(2, 1, 3, 1, 2, 5)), B(HK_SHAPE(1, 3, 1, 2, 1, 5))},                                     \
         RUN(op),                                                                                                      \
         .gradient = g},                                                                                               \
        {.name = "rank 6 by turns",                                                                                    \
         .inputs = {A(HK_SHAPE(2, 1, 2, 1, 3, 1)), B(HK_SHAPE(1, 3, 1, 2, 1, 3))},                                     \
         RUN(op),                                                                                                      \
         .gradient = g},                                                                                               \
        {.name = "many workgroups", .inputs = {A(HK_SHAPE(3, 2063)), B(HK_SHAPE(2063))}, RUN(op)}, {                   \
        .name = "no elements", .inputs = {A(HK_SHAPE(4, 0)), B(HK_SHAPE(1, 1))}, RUN(op), .gradient = g                \
    }
#define INTEGERS(op, lowest)                                                                                           \
    {                                                                                                                  \
        .name = "integers", .inputs = {{HK_I32, HK_SHAPE(5, 33), -9000, 9000}, {HK_I32, HK_SHAPE(33), lowest, 5}},     \
        RUN(op), .exact = true                                                                                         \
    }

#define REFUSALS(op)                                                                                                   \
    static const struct hk_refusal op##_refusals[] = {                                                                 \
        {"shapes",                                                                                                     \
         {A(HK_SHAPE(3, 4)), A(HK_SHAPE(3))},                                                                          \
         2,                                                                                                            \
         build_##op,                                                                                                   \
         #op ": shapes do not broadcast: a is [3, 4], b is [3]"},                                                      \
        {"dtypes", {A(HK_SHAPE(3)), {HK_I32, HK_SHAPE(3), 0, 9}}, 2, build_##op, "a is f32, b is i32"},                \
    };
#define SET(op, g, ...)                                                                                                \
    REFUSALS(op)                                                                                                       \
    static const struct hk_case op##_cases[] = {COMMON(op, g), __VA_ARGS__};                                           \
    const struct hk_case_set hk_cases_##op = {op##_cases, COUNT(op##_cases), op##_refusals, COUNT(op##_refusals)};

DEFINE(add, a + b)
SET(add, true, INTEGERS(add, -5))
DEFINE(sub, a - b)
SET(sub, true, INTEGERS(sub, -5))
DEFINE(mul, a *b)
SET(mul, true, INTEGERS(mul, -5))
DEFINE(div, c->inputs[0].dtype == HK_I32 ? (b == 0 ? 0 : trunc(a / b)) : a / b)
SET(div, true, INTEGERS(div, -5))
DEFINE(maximum, fmax(a, b))
SET(maximum, true, INTEGERS(maximum, -5))
DEFINE(minimum, fmin(a, b))
SET(minimum, true, INTEGERS(minimum, -5))

#define MIXED(op)                                                                                                      \
    {.name = "integers, often equal",                                                                                  \
     .inputs = {{HK_I32, HK_SHAPE(9, 33), -3, 4}, {HK_I32, HK_SHAPE(33), -3, 4}},                                      \
     RUN(op),                                                                                                          \
     .exact = true},                                                                                                   \
    {                                                                                                                  \
        .name = "floats, often equal", .inputs = {{HK_I32, HK_SHAPE(9, 33), -3, 4}, {HK_I32, HK_SHAPE(33), -3, 4}},    \
        .n_inputs = 2, .build = build_floats_##op, .reference = op##_of, .exact = true                                 \
    }
#define COMPARISON(op, sign)                                                                                           \
    DEFINE(op, a sign b)                                                                                               \
    static struct hk_value *build_floats_##op(struct hk_graph *graph, struct hk_value *const *in) {                    \
        (void)graph;                                                                                                   \
        return hk_##op(hk_cast(in[0], HK_F32), hk_cast(in[1], HK_F32));                                                \
    }                                                                                                                  \
    SET(op, false, MIXED(op))

COMPARISON(equal, ==)
COMPARISON(not_equal, !=)
COMPARISON(less, <)
COMPARISON(less_equal, <=)
COMPARISON(greater, >)
COMPARISON(greater_equal, >=)

/* ---- pow: also where the base is below zero ---- */

DEFINE(pow, pow(a, b))
static struct hk_value *build_whole_pow(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_pow(in[0], hk_cast(in[1], HK_F32));
}
static struct hk_value *build_whole(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_pow(hk_cast(in[0], HK_F32), hk_cast(in[1], HK_F32));
}
static const struct hk_case pow_cases[] = {
    COMMON(pow, true),
    {.name = "whole exponents",
     .inputs = {{.shape = HK_SHAPE(9, 33), .low = -2, .high = 2}, {HK_I32, HK_SHAPE(33), -4, 5}},
     .n_inputs = 2,
     .build = build_whole_pow,
     .reference = pow_of,
     .tolerance = 3}, /* |x| near 0 to the fourth below: the exponent's error, 2^-21 on a GPU, counts 4 log2|x| times */
    {.name = "a base below zero gives NaN",
     .inputs = {{.shape = HK_SHAPE(33), .low = -2, .high = -0.1f}, A(HK_SHAPE(33))},
     RUN(pow)},
    {.name = "zero to a power",
     .inputs = {{HK_I32, HK_SHAPE(33), 0, 1}, {HK_I32, HK_SHAPE(33), 0, 4}},
     .n_inputs = 2,
     .build = build_whole,
     .reference = pow_of,
     .exact = true},
};
static const struct hk_refusal pow_refusals[] = {
    {"shapes",
     {A(HK_SHAPE(3, 4)), A(HK_SHAPE(3))},
     2,
     build_pow,
     "pow: shapes do not broadcast: a is [3, 4], b is [3]"},
    {"integers",
     {{HK_I32, HK_SHAPE(3), 0, 9}, {HK_I32, HK_SHAPE(3), 0, 9}},
     2,
     build_pow,
     "pow: dtypes must both be f32"},
};
const struct hk_case_set hk_cases_pow = {pow_cases, COUNT(pow_cases), pow_refusals, COUNT(pow_refusals)};

/* ---- where ---- */

static struct hk_value *build_where(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_where(in[0], in[1], in[2]);
}
static void where_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = broadcast_shape(c);
    const int64_t n = test_elements(shape);
    for (int64_t i = 0; i < n; i++) out[i] = element(c, in, element(c, in, 0, shape, i) != 0 ? 1 : 2, shape, i);
}
#define C(...)                                                                                                         \
    { HK_I32, __VA_ARGS__, -1, 2 }
#define WHERE .n_inputs = 3, .build = build_where, .reference = where_of, .exact = true
static const struct hk_case where_cases[] = {
    {.name = "odd sizes",
     .inputs = {C(HK_SHAPE(4, 33)), A(HK_SHAPE(4, 33)), B(HK_SHAPE(4, 33))},
     WHERE,
     .gradient = true},
    {.name = "each stretches",
     .inputs = {C(HK_SHAPE(2, 1, 33)), A(HK_SHAPE(5, 1)), B(HK_SHAPE(1, 5, 33))},
     WHERE,
     .gradient = true},
    {.name = "a scalar", .inputs = {C(HK_SHAPE(3, 1031)), A(HK_SHAPE(3, 1031)), B({0})}, WHERE, .gradient = true},
    {.name = "rank 6 by turns",
     .inputs = {C(HK_SHAPE(2, 1, 2, 1, 3, 1)), A(HK_SHAPE(1, 3, 1, 2, 1, 3)), B(HK_SHAPE(2, 3, 2, 2, 3, 3))},
     WHERE,
     .gradient = true},
    {.name = "integers",
     .inputs = {C(HK_SHAPE(67)), {HK_I32, HK_SHAPE(67), -99, 99}, {HK_I32, HK_SHAPE(1), 5, 6}},
     WHERE},
    {.name = "no elements", .inputs = {C(HK_SHAPE(0)), A(HK_SHAPE(1)), B(HK_SHAPE(0))}, WHERE, .gradient = true},
};
static const struct hk_refusal where_refusals[] = {
    {"a float condition",
     {A(HK_SHAPE(3)), A(HK_SHAPE(3)), B(HK_SHAPE(3))},
     3,
     build_where,
     "where: the condition must be i32"},
    {"shapes",
     {C(HK_SHAPE(4)), A(HK_SHAPE(3)), B(HK_SHAPE(3))},
     3,
     build_where,
     "where: shapes do not broadcast: condition is [4], a is [3], b is [3]"},
};
const struct hk_case_set hk_cases_where = {where_cases, COUNT(where_cases), where_refusals, COUNT(where_refusals)};
