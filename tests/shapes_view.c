/* Random cases of ops that move elements: where each goes is found by its coordinates. */
#include "shapes.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The attributes of the case that was made last. */
static struct hk_shape from, to;
static struct hk_axes axes;
static int64_t begin[HK_MAX_RANK], step[HK_MAX_RANK], after[HK_MAX_RANK];
static float value;
static int axis, n_parts;
static enum hk_dtype dtype;

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return expression;                                                                                             \
    }

static void same_of(const struct hk_case *c, const double *const *in, double *out) {
    memcpy(out, in[0], (size_t)test_elements(c->inputs[0].shape) * sizeof *out);
}

static void make(struct shapes *s, struct hk_value *(*build)(struct hk_graph *, struct hk_value *const *),
                 void (*reference)(const struct hk_case *, const double *const *, double *)) {
    from = shapes_any(s, 1, HK_MAX_RANK);
    shapes_input(s, HK_F32, from, 0, 0);
    s->c.build = build, s->c.reference = reference;
    s->c.exact = s->c.gradient = true;
}

/* ---- reshape: the same elements in another shape, of a transposed value too ---- */

BUILD(build_reshape, hk_reshape(in[0], to))
static void draw_factors(struct shapes *s, int64_t n) {
    to = (struct hk_shape){.rank = (int)shapes_number(s, 1, HK_MAX_RANK)};
    for (int i = 0; i < to.rank; i++) to.size[i] = 1;
    for (int64_t p = 2; n > 1 && n; p = p * p > n ? n : p + 1)
        while (n % p == 0) to.size[shapes_number(s, 0, to.rank - 1)] *= p, n /= p;
    if (n == 0) to.size[shapes_number(s, 0, to.rank - 1)] = 0;
    else if (shapes_one_in(s, 2)) to.size[shapes_number(s, 0, to.rank - 1)] = -1;
}
void hk_shapes_reshape(struct shapes *s) {
    make(s, build_reshape, same_of);
    draw_factors(s, test_elements(from));
}

/* ---- permute, and copies of what it gives ---- */

BUILD(build_permute, hk_permute(in[0], axes))
BUILD(build_copy, hk_cast(hk_contiguous(hk_permute(hk_cast(in[0], dtype), axes)), HK_F32))
static void permute_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = c->inputs[0].shape;
    struct hk_shape result = shape;
    for (int i = 0; i < shape.rank; i++) result.size[i] = shape.size[axes.axis[i]];
    for (int64_t e = 0; e < test_elements(shape); e++) {
        int64_t at[HK_MAX_RANK], source[HK_MAX_RANK];
        shapes_coordinates(result, e, at);
        for (int i = 0; i < shape.rank; i++) source[axes.axis[i]] = at[i];
        out[e] = in[0][shapes_element(shape, source)];
    }
}
static void draw_order(struct shapes *s) {
    axes = (struct hk_axes){.count = from.rank};
    for (int i = 0; i < from.rank; i++) {
        const int k = (int)shapes_number(s, 0, i);
        axes.axis[i] = axes.axis[k], axes.axis[k] = i;
    }
    for (int i = 0; i < from.rank; i++) shapes_note(s, "axis %d ", axes.axis[i]);
}
void hk_shapes_permute(struct shapes *s) {
    make(s, build_permute, permute_of);
    draw_order(s);
}
void hk_shapes_copy(struct shapes *s) {
    static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16, HK_I32, HK_U8, HK_I8};
    make(s, build_copy, permute_of);
    dtype = dtypes[shapes_number(s, 0, COUNT(dtypes) - 1)];
    shapes_note(s, "%s ", hk_dtype_name(dtype));
    s->c.gradient = dtype == HK_F32;
    if (dtype != HK_F32) s->c.inputs[0] = (struct hk_case_input){HK_I32, from, 0, 127}; /* what all of them hold */
    draw_order(s);
}

/* ---- store: into a tensor (of the test), what a view of a sum is ---- */

BUILD(build_store, hk_permute(hk_affine(in[0], 2, 1), axes))
static void store_of(const struct hk_case *c, const double *const *in, double *out) {
    permute_of(c, in, out);
    for (int64_t e = 0; e < test_elements(c->inputs[0].shape); e++) out[e] = 2 * out[e] + 1;
}
void hk_shapes_store(struct shapes *s) {
    make(s, build_store, store_of);
    s->c.exact = false;
    draw_order(s);
}

/* ---- broadcast_to ---- */

BUILD(build_broadcast, hk_broadcast_to(in[0], to))
static void broadcast_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = c->inputs[0].shape;
    for (int64_t e = 0; e < test_elements(to); e++) {
        int64_t at[HK_MAX_RANK], source[HK_MAX_RANK];
        shapes_coordinates(to, e, at);
        for (int i = 0; i < shape.rank; i++) source[i] = shape.size[i] == 1 ? 0 : at[i + to.rank - shape.rank];
        out[e] = in[0][shapes_element(shape, source)];
    }
}
void hk_shapes_broadcast_to(struct shapes *s) {
    make(s, build_broadcast, broadcast_of);
    to = from;
    from = s->c.inputs[0].shape = shapes_broadcastable(s, to);
    shapes_note(s, "to %lld elements ", (long long)test_elements(to));
    if (test_elements(from)) s->gradient_size[0] = (double)test_elements(to) / (double)test_elements(from);
}

/* ---- slice, and its gradient where slices overlap ---- */

static struct hk_value *sliced(struct hk_value *x) {
    for (int i = 0; i < from.rank; i++)
        if (begin[i] || step[i] > 1 || after[i] != from.size[i])
            x = hk_slice(x, i - from.rank, begin[i], after[i], step[i]);
    return x;
}
BUILD(build_slice, sliced(in[0]))
BUILD(build_overlap, hk_add(hk_sum(hk_square(sliced(in[0])), HK_ALL_AXES, false), hk_mul(in[0], in[0])))
static struct hk_shape slice_shape(void) {
    struct hk_shape shape = {.rank = from.rank};
    for (int i = 0; i < from.rank; i++) shape.size[i] = (after[i] - begin[i] + step[i] - 1) / step[i];
    return shape;
}
static void slice_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = slice_shape();
    for (int64_t e = 0; e < test_elements(shape); e++) {
        int64_t at[HK_MAX_RANK];
        shapes_coordinates(shape, e, at);
        for (int i = 0; i < shape.rank; i++) at[i] = begin[i] + at[i] * step[i];
        out[e] = in[0][shapes_element(c->inputs[0].shape, at)];
    }
}
static void overlap_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t n = test_elements(slice_shape());
    double *part = malloc((size_t)(n + 1) * sizeof *part), sum = 0;
    if (!part) abort();
    slice_of(c, in, part);
    for (int64_t e = 0; e < n; e++) sum += part[e] * part[e];
    for (int64_t e = 0; e < test_elements(c->inputs[0].shape); e++) out[e] = sum + in[0][e] * in[0][e];
    free(part);
}
static void draw_slice(struct shapes *s) {
    for (int i = 0; i < from.rank; i++) {
        const bool whole = shapes_one_in(s, 3);
        begin[i] = whole ? 0 : shapes_number(s, 0, from.size[i]);
        after[i] = whole ? from.size[i] : shapes_number(s, begin[i], from.size[i]);
        step[i] = whole ? 1 : shapes_number(s, 1, 4);
        shapes_note(s, "%lld:%lld:%lld ", (long long)begin[i], (long long)after[i], (long long)step[i]);
    }
}
void hk_shapes_slice(struct shapes *s) {
    make(s, build_slice, slice_of);
    draw_slice(s);
}
void hk_shapes_slice_backward(struct shapes *s) {
    make(s, build_overlap, overlap_of);
    s->c.exact = false;
    s->gradient_size[0] = sqrt((double)test_elements(from)); /* 2 x times the sum of all weights */
    draw_slice(s);
}

/* ---- concat ---- */

BUILD(build_concat, hk_concat(in, n_parts, axis))
static void concat_of(const struct hk_case *c, const double *const *in, double *out) {
    int64_t outer = 1, inner = 1;
    for (int i = 0; i < axis; i++) outer *= c->inputs[0].shape.size[i];
    for (int i = axis + 1; i < c->inputs[0].shape.rank; i++) inner *= c->inputs[0].shape.size[i];
    for (int64_t o = 0; o < outer; o++)
        for (int k = 0; k < n_parts; k++) {
            const int64_t n = c->inputs[k].shape.size[axis] * inner;
            memcpy(out, in[k] + o * n, (size_t)n * sizeof *out);
            out += n;
        }
}
void hk_shapes_concat(struct shapes *s) {
    make(s, build_concat, concat_of);
    axis = (int)shapes_number(s, 0, from.rank - 1), n_parts = (int)shapes_number(s, 1, HK_CASE_MAX_INPUTS);
    for (int k = 1; k < n_parts; k++) {
        struct hk_shape own = from;
        own.size[axis] = shapes_one_in(s, 8) ? 0 : shapes_size(s, from.size[axis] + 9);
        shapes_input(s, HK_F32, own, 0, 0);
    }
    shapes_note(s, "axis %d ", axis);
}

/* ---- pad ---- */

BUILD(build_pad, hk_pad(in[0], begin, after, value))
static void pad_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = c->inputs[0].shape;
    struct hk_shape result = shape;
    for (int i = 0; i < shape.rank; i++) result.size[i] += begin[i] + after[i];
    for (int64_t e = 0; e < test_elements(result); e++) {
        int64_t at[HK_MAX_RANK];
        bool inside = true;
        shapes_coordinates(result, e, at);
        for (int i = 0; i < shape.rank; i++) {
            at[i] -= begin[i];
            inside = inside && at[i] >= 0 && at[i] < shape.size[i];
        }
        out[e] = inside ? in[0][shapes_element(shape, at)] : (double)value;
    }
}
void hk_shapes_pad(struct shapes *s) {
    make(s, build_pad, pad_of);
    value = (float)shapes_number(s, -3, 3);
    for (int i = 0; i < from.rank; i++) {
        begin[i] = shapes_one_in(s, 2) ? 0 : shapes_number(s, 0, 5);
        after[i] = shapes_one_in(s, 2) ? 0 : shapes_number(s, 0, 5);
        shapes_note(s, "%lld+%lld ", (long long)begin[i], (long long)after[i]);
    }
}
