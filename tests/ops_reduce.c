/* Cases of sum, mean, max and argmax. */
#include "cases.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

enum kind { SUM, MEAN, MAX, ARGMAX };

/* Which output element the e-th of x goes to, and its number among those that go there. */
static int64_t target(struct hk_shape shape, unsigned mask, int64_t e, int64_t *number) {
    int64_t at = 0, stride = 1, terms = 1;
    *number = 0;
    for (int i = shape.rank - 1; i >= 0; i--) {
        const int64_t coordinate = e % shape.size[i];
        e /= shape.size[i];
        if (mask >> i & 1) *number += coordinate * terms, terms *= shape.size[i];
        else at += coordinate * stride, stride *= shape.size[i];
    }
    return at;
}

static void reduce(const struct hk_case *c, const double *x, double *out, struct hk_axes axes, enum kind kind) {
    const struct hk_shape shape = c->inputs[0].shape;
    const int64_t n = test_elements(shape);
    unsigned mask = axes.count ? 0 : (1u << shape.rank) - 1;
    int64_t kept = 1, terms = 1, number;
    for (int i = 0; i < axes.count; i++) mask |= 1u << (axes.axis[i] < 0 ? axes.axis[i] + shape.rank : axes.axis[i]);
    for (int i = 0; i < shape.rank; i++) *(mask >> i & 1 ? &terms : &kept) *= shape.size[i];
    double *best = calloc((size_t)kept + 1, sizeof *best);
    if (!best) abort();
    for (int64_t i = 0; i < kept; i++) out[i] = 0, best[i] = -INFINITY;
    for (int64_t e = 0; e < n; e++) {
        const int64_t at = target(shape, mask, e, &number);
        if (kind == SUM || kind == MEAN) out[at] += x[e] / (kind == MEAN ? (double)terms : 1);
        /* e runs row-major, but the number of an element among its fellows does not depend on that */
        const bool better = x[e] > best[at];
        if (kind == MAX && better) out[at] = x[e];
        if (kind == ARGMAX && better) out[at] = (double)number;
        if (better) best[at] = x[e];
    }
    if (kind == MEAN && terms == 0)
        for (int64_t i = 0; i < kept; i++) out[i] = NAN;
    free(best);
}

/* Builders and references of all four ops over one set of axes. */
#define WAY(id, keepdims, ...)                                                                                         \
    WAY_OF(sum, SUM, id, keepdims, __VA_ARGS__)                                                                        \
    WAY_OF(mean, MEAN, id, keepdims, __VA_ARGS__)                                                                      \
    WAY_OF(max, MAX, id, keepdims, __VA_ARGS__)                                                                        \
    WAY_OF(argmax, ARGMAX, id, keepdims, __VA_ARGS__)
#define WAY_OF(op, kind, id, keepdims, ...)                                                                            \
    static struct hk_value *op##_##id(struct hk_graph *graph, struct hk_value *const *in) {                            \
        (void)graph;                                                                                                   \
        return hk_##op(in[0], __VA_ARGS__, keepdims);                                                                  \
    }                                                                                                                  \
    static void op##_##id##_of(const struct hk_case *c, const double *const *in, double *out) {                        \
        reduce(c, in[0], out, __VA_ARGS__, kind);                                                                      \
    }
WAY(last, false, HK_AXES(-1))
WAY(first, true, HK_AXES(0))
WAY(middle, false, HK_AXES(1))
WAY(outer, true, HK_AXES(0, 2))
WAY(all, false, HK_ALL_AXES)
WAY(three, true, HK_AXES(0, 2, -1))

#define CASE(text, op, id, g, ...)                                                                                     \
    {                                                                                                                  \
        .name = text, .inputs = {{.shape = __VA_ARGS__}}, .n_inputs = 1, .build = op##_##id,                           \
        .reference = op##_##id##_of, .gradient = g                                                                     \
    }
#define COMMON(op, g)                                                                                                  \
    CASE("last axis", op, last, g, HK_SHAPE(3, 5, 37)), CASE("first axis", op, first, g, HK_SHAPE(3, 5, 37)),          \
        CASE("middle axis", op, middle, g, HK_SHAPE(3, 5, 37)), CASE("axes apart", op, outer, g, HK_SHAPE(3, 5, 37)),  \
        CASE("all", op, all, g, HK_SHAPE(3, 5, 37)), CASE("a scalar", op, all, g, {0}),                                \
        CASE("rank 6", op, three, g, HK_SHAPE(2, 3, 2, 5, 1, 3)), CASE("one row", op, last, g, HK_SHAPE(1, 700)),      \
        CASE("many rows, a second pass", op, first, false, HK_SHAPE(1300, 70)),                                        \
        CASE("many narrow rows", op, first, false, HK_SHAPE(9000, 3)),                                                 \
        CASE("several, a second pass", op, middle, false, HK_SHAPE(2, 300, 70)),                                       \
        CASE("wide rows", op, first, false, HK_SHAPE(19, 6007)),                                                       \
        CASE("rows of whole fours", op, first, g, HK_SHAPE(19, 12)),                                                   \
        CASE("several of whole fours, a second pass", op, middle, false, HK_SHAPE(2, 300, 132)),                       \
        CASE("wide rows of several", op, middle, false, HK_SHAPE(2, 7, 6007)),                                         \
        CASE("long, a second pass", op, last, false, HK_SHAPE(2, 40007)),                                              \
        CASE("many short rows", op, last, false, HK_SHAPE(3001, 3)), CASE("size 1", op, middle, g, HK_SHAPE(4, 1, 5)), \
        CASE("no results", op, middle, g, HK_SHAPE(0, 4, 5))

static const struct hk_case sum_cases[] = {
    COMMON(sum, true),
    CASE("of nothing", sum, middle, true, HK_SHAPE(3, 0, 5)),
    /* terms of one sign: 1e-4 of such a sum is 100 times what a plain loop would miss, so the tolerance is tightened */
    {.name = "a million terms",
     .inputs = {{.shape = HK_SHAPE(1000003), .low = 0.5f, .high = 1.5f}},
     .n_inputs = 1,
     .build = sum_all,
     .reference = sum_all_of,
     .tolerance = 0.01},
    {.name = "columns of a hundred thousand terms",
     .inputs = {{.shape = HK_SHAPE(100003, 5), .low = 0.5f, .high = 1.5f}},
     .n_inputs = 1,
     .build = sum_first,
     .reference = sum_first_of,
     .tolerance = 0.01},
};
static const struct hk_case mean_cases[] = {COMMON(mean, true),
                                            CASE("of nothing", mean, middle, false, HK_SHAPE(3, 0, 5))};

/* Equal maxima: no finite differences there, but the gradient of exactly tied inputs as torch.amax has it. */
static struct hk_value *max_tied_gradient(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *x = hk_cast(in[0], HK_F32), *dx = NULL;
    struct hk_value *loss =
        hk_sum(hk_mul(hk_max(x, HK_AXES(0, 2), false), hk_arange(graph, HK_F32, 3, 1, 1)), HK_ALL_AXES, false);
    hk_gradients(loss, &x, 1, &dx);
    return dx;
}
static void max_tied_gradient_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t *size = c->inputs[0].shape.size;
    for (int64_t j = 0; j < size[1]; j++) {
        double best = -INFINITY, ties = 0;
        for (int pass = 0; pass < 3; pass++)
            for (int64_t i = 0; i < size[0]; i++)
                for (int64_t k = 0; k < size[2]; k++) {
                    const int64_t e = (i * size[1] + j) * size[2] + k;
                    if (pass == 0) best = fmax(best, in[0][e]);
                    else if (pass == 1) ties += in[0][e] == best;
                    else out[e] = in[0][e] == best ? (double)(j + 1) / ties : 0;
                }
    }
}
static const struct hk_case max_cases[] = {
    COMMON(max, true),
    {.name = "gradient of ties",
     .inputs = {{HK_I32, HK_SHAPE(4, 3, 5), 0, 3}},
     .n_inputs = 1,
     .build = max_tied_gradient,
     .reference = max_tied_gradient_of},
};

static struct hk_value *argmax_tied(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_argmax(hk_cast(in[0], HK_F32), HK_AXES(1, 2), false);
}
static void argmax_tied_of(const struct hk_case *c, const double *const *in, double *out) {
    reduce(c, in[0], out, HK_AXES(1, 2), ARGMAX);
}
static const struct hk_case argmax_cases[] = {
    COMMON(argmax, false),
    {.name = "the first of equals",
     .inputs = {{HK_I32, HK_SHAPE(7, 5, 101), 0, 3}},
     .n_inputs = 1,
     .build = argmax_tied,
     .reference = argmax_tied_of,
     .exact = true},
    {.name = "the first of equals, far apart",
     .inputs = {{HK_I32, HK_SHAPE(5, 3, 7001), 0, 20000}},
     .n_inputs = 1,
     .build = argmax_tied,
     .reference = argmax_tied_of,
     .exact = true},
};

static struct hk_value *sum_far(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_sum(in[0], HK_AXES(2), false);
}
static struct hk_value *mean_twice(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_mean(in[0], HK_AXES(0, -2), false);
}
#define X(...) {{.shape = __VA_ARGS__}}, 1
static const struct hk_refusal sum_refusals[] = {
    {"an axis out of range", X(HK_SHAPE(3, 4)), sum_far, "sum: axis 2 is out of range for [3, 4]"},
    {"integers", {{HK_I32, HK_SHAPE(3), 0, 2}}, 1, sum_all, "sum: x must be f32, it is i32"},
};
static const struct hk_refusal mean_refusals[] = {
    {"an axis twice", X(HK_SHAPE(3, 4)), mean_twice, "mean: axis -2 is given twice"}};
static const struct hk_refusal max_refusals[] = {
    {"of nothing", X(HK_SHAPE(3, 0)), max_last, "max: no elements to take it of: x is [3, 0]"}};
static const struct hk_refusal argmax_refusals[] = {
    {"of nothing", X(HK_SHAPE(0)), argmax_all, "argmax: no elements to take it of"}};

#define SET(op)                                                                                                        \
    const struct hk_case_set hk_cases_##op = {op##_cases, COUNT(op##_cases), op##_refusals, COUNT(op##_refusals)};
SET(sum)
SET(mean)
SET(max)
SET(argmax)
