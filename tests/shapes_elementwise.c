/* Random cases of elementwise ops: any shape, and for two or three values shapes that broadcast. */
#include "shapes.h"
#include "support.h"
#include <math.h>

/* ---- One value: every known case fits any shape ---- */

static void make_unary(struct shapes *s) {
    shapes_known(s, 0);
    s->c.inputs[0].shape = shapes_any(s, 0, HK_MAX_RANK);
}
#define UNARY(op)                                                                                                      \
    void hk_shapes_##op(struct shapes *s) { make_unary(s); }
UNARY(neg)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(square)
UNARY(abs)
UNARY(sin)
UNARY(cos)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(leaky_relu)
UNARY(elu)
UNARY(silu)
UNARY(gelu)
UNARY(gelu_tanh)
UNARY(softplus)
UNARY(affine)
UNARY(unary_backward)

/* ---- Two values and more ---- */

static void make_broadcast(struct shapes *s) {
    shapes_known(s, 0);
    const struct hk_shape shape = shapes_any(s, 0, HK_MAX_RANK);
    for (int k = 0; k < s->c.n_inputs; k++) {
        struct hk_shape *own = &s->c.inputs[k].shape;
        *own = k == 0 && shapes_one_in(s, 2) ? shape : shapes_broadcastable(s, shape);
    }
    const int64_t n = test_elements(shape);
    for (int k = 0; k < s->c.n_inputs; k++) {
        const int64_t own = test_elements(s->c.inputs[k].shape);
        if (own && n > own) s->gradient_size[k] = sqrt((double)(n / own)) / 2;
    }
}
#define BROADCAST(op)                                                                                                  \
    void hk_shapes_##op(struct shapes *s) { make_broadcast(s); }
BROADCAST(add)
BROADCAST(sub)
BROADCAST(mul)
BROADCAST(div)
BROADCAST(maximum)
BROADCAST(minimum)
BROADCAST(pow)
BROADCAST(equal)
BROADCAST(not_equal)
BROADCAST(less)
BROADCAST(less_equal)
BROADCAST(greater)
BROADCAST(greater_equal)
BROADCAST(where)

/* ---- Casts: by way of one dtype or two ---- */

static enum hk_dtype way[2];

static struct hk_value *build_cast(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cast(hk_cast(in[0], way[0]), way[1]);
}

static double cast(double x, enum hk_dtype dtype) {
    switch (dtype) {
    case HK_F16: return (double)hk_f32_from_f16(hk_f16_from_f32((float)x));
    case HK_BF16: return (double)hk_f32_from_bf16(hk_bf16_from_f32((float)x));
    case HK_I32: return fmin(fmax(trunc(x), INT32_MIN), INT32_MAX);
    case HK_U8: return fmin(fmax(trunc(x), 0), 255);
    case HK_I8: return fmin(fmax(rint(x), -128), 127);
    default: return (double)(float)x;
    }
}
static void cast_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t n = test_elements(c->inputs[0].shape);
    for (int64_t i = 0; i < n; i++) out[i] = cast(cast(in[0][i], way[0]), way[1]);
}
void hk_shapes_cast(struct shapes *s) {
    static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16, HK_I32, HK_U8, HK_I8};
    for (int i = 0; i < 2; i++) way[i] = dtypes[shapes_number(s, 0, COUNT(dtypes) - 1)];
    shapes_note(s, "to %s, to %s ", hk_dtype_name(way[0]), hk_dtype_name(way[1]));
    shapes_input(s, shapes_one_in(s, 2) ? HK_I32 : HK_F32, shapes_any(s, 0, HK_MAX_RANK), -300, 300);
    s->c.build = build_cast, s->c.reference = cast_of, s->c.exact = true;
}

/* ---- Sources: their shape is an attribute ---- */

static struct hk_shape source;
static enum hk_dtype source_dtype;
static double source_start, source_step;

static struct hk_value *build_fill(struct hk_graph *graph, struct hk_value *const *in) {
    (void)in;
    return hk_fill(graph, source_dtype, source, source_start);
}
static void fill_of(const struct hk_case *c, const double *const *in, double *out) {
    (void)c, (void)in;
    for (int64_t i = 0; i < test_elements(source); i++) out[i] = source_start;
}
void hk_shapes_fill(struct shapes *s) {
    static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16, HK_I32, HK_U8, HK_I8};
    source = shapes_any(s, 0, HK_MAX_RANK), source_start = (double)shapes_number(s, 0, 127);
    source_dtype = dtypes[shapes_number(s, 0, COUNT(dtypes) - 1)];
    shapes_note(s, "%lld of %s ", (long long)test_elements(source), hk_dtype_name(source_dtype));
    s->c.build = build_fill, s->c.reference = fill_of, s->c.exact = true;
}

static struct hk_value *build_arange(struct hk_graph *graph, struct hk_value *const *in) {
    (void)in;
    return hk_arange(graph, source_dtype, source.size[0], source_start, source_step);
}
static void arange_of(const struct hk_case *c, const double *const *in, double *out) {
    (void)c, (void)in;
    for (int64_t i = 0; i < source.size[0]; i++) out[i] = source_start + source_step * (double)i;
}
void hk_shapes_arange(struct shapes *s) {
    source = (struct hk_shape){1, {shapes_size(s, s->most)}};
    source_dtype = shapes_one_in(s, 2) ? HK_F32 : HK_I32;
    source_start = (double)shapes_number(s, -99, 99), source_step = (double)shapes_number(s, -5, 5);
    if (source_dtype == HK_F32) source_step /= 4;
    shapes_note(s, "%lld of %s from %g by %g ", (long long)source.size[0], hk_dtype_name(source_dtype), source_start,
                source_step);
    s->c.build = build_arange, s->c.reference = arange_of, s->c.exact = true;
}

/* ---- Random numbers: another shape has the same first numbers, which the op's own cases know ---- */

static struct hk_value *build_uniform(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_reshape(hk_random_uniform(in[0], source, -2, 3), HK_SHAPE(-1)); /* as in "in a range" */
}
static struct hk_value *build_normal(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_reshape(hk_random_normal(in[0], source, 1, 0.5f), HK_SHAPE(-1));
}

/* The first numbers of the op's case that makes 4099. */
static const struct hk_case *known_numbers;
static void numbers_of(const struct hk_case *c, const double *const *in, double *out) {
    static double all[4099];
    (void)c;
    known_numbers->reference(known_numbers, in, all);
    for (int64_t i = 0; i < test_elements(source); i++) out[i] = all[i];
}

static void make_random(struct shapes *s, int known,
                        struct hk_value *(*build)(struct hk_graph *, struct hk_value *const *)) {
    known_numbers = &s->known->cases[known];
    s->most = s->most < 4099 ? s->most : 4099;
    do source = shapes_any(s, 1, HK_MAX_RANK);
    while (test_elements(source) == 0);
    shapes_note(s, "%lld numbers ", (long long)test_elements(source));
    shapes_input(s, HK_I32, HK_SHAPE(4), -2e9, 2e9);
    s->c.build = build, s->c.reference = numbers_of;
}
void hk_shapes_random_uniform(struct shapes *s) { make_random(s, 1, build_uniform); }
void hk_shapes_random_normal(struct shapes *s) { make_random(s, 0, build_normal); }

void hk_shapes_dropout(struct shapes *s) {
    shapes_known(s, 3);
    s->c.inputs[0].shape = shapes_any(s, 0, HK_MAX_RANK);
}
