/* Random cases of ops on rows and of reductions. */
#include "shapes.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

/* ---- Softmax ---- */

/* A value's gradient is p (dy - sum(p dy)): of rows of one it is 0, and else cancels to about p. */
static void make_softmax(struct shapes *s, int count, int rank) {
    shapes_known(s, count);
    s->c.inputs[0].shape = shapes_any(s, rank, HK_MAX_RANK);
    s->gradient_size[0] = 0.3;
}
void hk_shapes_softmax(struct shapes *s) { make_softmax(s, 0, 1); }
void hk_shapes_softmax_backward(struct shapes *s) { make_softmax(s, 0, 1); }
void hk_shapes_log_softmax(struct shapes *s) { make_softmax(s, 0, 2); }
void hk_shapes_log_softmax_backward(struct shapes *s) { make_softmax(s, 0, 2); }

/* ---- Cross entropy: the cases on logits and targets ---- */

static void make_cross_entropy(struct shapes *s, int count) {
    shapes_known(s, count);
    struct hk_shape shape = shapes_any(s, 1, HK_MAX_RANK), rows = shape;
    for (int i = 0; i < shape.rank; i++) rows.size[i] = shape.size[i] = shape.size[i] ? shape.size[i] : 1;
    rows.rank--;
    s->c.inputs[0].shape = shape, s->c.inputs[1].shape = rows;
    s->c.inputs[1].high = (float)shape.size[shape.rank - 1];
    s->gradient_size[0] = 1 / (double)test_elements(rows); /* p - 1 of the target may be near 0 */
    s->size = 0.1;                                         /* and so may the loss of few classes */
    /* of one class there is no slope; where all rows may be ignored, the loss may be NaN */
    s->no_differences = shape.size[shape.rank - 1] == 1 || (s->c.inputs[1].low < 0 && test_elements(rows) < 16);
}
void hk_shapes_cross_entropy(struct shapes *s) { make_cross_entropy(s, 6); }
void hk_shapes_cross_entropy_backward(struct shapes *s) { make_cross_entropy(s, 0); }

/* ---- Norms ---- */

/* Of rows of few elements, or of equal ones, the deviation may be all but nothing, and 1 / deviation up to 316:
   rounding is magnified by it, and the slope changes within 0.003. test_range.c has such rows. */
static void make_norm(struct shapes *s) {
    shapes_known(s, 0);
    struct hk_shape shape = shapes_any(s, 1, HK_MAX_RANK);
    const int64_t width = shape.size[shape.rank - 1], rows = width ? test_elements(shape) / width : 0;
    s->c.inputs[0].shape = shape;
    for (int k = 1; k < s->c.n_inputs; k++) {
        s->c.inputs[k].shape = HK_SHAPE(width);
        s->gradient_size[k] = sqrt((double)rows);
    }
    s->size = s->gradient_size[0] = 1;
    if (width < 8) s->c.tolerance = 300;
    s->no_differences = width < 8;
    s->no_repeats = true;
}
void hk_shapes_layer_norm(struct shapes *s) { make_norm(s); }
void hk_shapes_layer_norm_backward(struct shapes *s) { make_norm(s); }
void hk_shapes_rms_norm(struct shapes *s) { make_norm(s); }
void hk_shapes_rms_norm_backward(struct shapes *s) { make_norm(s); }

/* ---- Embedding ---- */

static void make_embedding(struct shapes *s, int count) {
    shapes_known(s, count);
    const int64_t rows = shapes_size(s, s->most / 2 + 1), width = shapes_size(s, s->most / rows);
    const int64_t most = s->most;
    s->most = s->most / width + 1;
    s->c.inputs[0].shape = HK_SHAPE(rows, width);
    s->c.inputs[1].shape = shapes_any(s, 0, 3);
    s->c.inputs[1].high = (float)rows;
    s->most = most;
    s->gradient_size[0] = 1;
}
void hk_shapes_embedding(struct shapes *s) { make_embedding(s, 0); }
void hk_shapes_embedding_backward(struct shapes *s) { make_embedding(s, 4); }

/* ---- Reductions ---- */

enum kind { SUM, MEAN, MAX, ARGMAX };
static enum kind kind;
static struct hk_axes axes;
static bool keepdims;

static struct hk_value *build_reduction(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    switch (kind) {
    case SUM: return hk_sum(in[0], axes, keepdims);
    case MEAN: return hk_mean(in[0], axes, keepdims);
    case MAX: return hk_max(in[0], axes, keepdims);
    default: return hk_argmax(in[0], axes, keepdims);
    }
}

/* The shape with the size 1 along the axes that are reduced (or, if not `along`, along the others). */
static struct hk_shape part_of(struct hk_shape shape, bool along) {
    bool reduced[HK_MAX_RANK] = {false};
    for (int i = 0; i < shape.rank; i++) reduced[i] = axes.count == 0;
    for (int i = 0; i < axes.count; i++) reduced[(axes.axis[i] + shape.rank) % shape.rank] = true;
    for (int i = 0; i < shape.rank; i++)
        if (reduced[i] == along) shape.size[i] = 1;
    return shape;
}

static void reduction_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = c->inputs[0].shape, kept = part_of(shape, true), terms = part_of(shape, false);
    const int64_t n = test_elements(terms);
    for (int64_t r = 0; r < test_elements(kept); r++) {
        int64_t first[HK_MAX_RANK], at[HK_MAX_RANK], best = 0;
        double sum = 0, most = -INFINITY;
        shapes_coordinates(kept, r, first);
        for (int64_t t = 0; t < n; t++) {
            shapes_coordinates(terms, t, at);
            for (int i = 0; i < shape.rank; i++) at[i] += first[i];
            const double x = in[0][shapes_element(shape, at)];
            sum += x;
            if (x > most) most = x, best = t;
        }
        out[r] = kind == SUM ? sum : kind == MEAN ? sum / (double)n : kind == MAX ? most : (double)best;
    }
}

static void make_reduction(struct shapes *s, enum kind which) {
    struct hk_shape shape = shapes_any(s, 1, HK_MAX_RANK);
    kind = which, keepdims = shapes_one_in(s, 2);
    if (which >= MAX)
        for (int i = 0; i < shape.rank; i++) shape.size[i] = shape.size[i] ? shape.size[i] : 1;
    axes = (struct hk_axes){0};
    for (int i = 0; i < shape.rank; i++)
        if (shapes_one_in(s, 2)) axes.axis[axes.count++] = shapes_one_in(s, 2) ? i : i - shape.rank;
    for (int i = 0; i < axes.count; i++) shapes_note(s, "axis %d ", axes.axis[i]);
    shapes_input(s, HK_F32, shape, 0, 0);
    const double terms = (double)test_elements(part_of(shape, false));
    if (which == SUM) s->size = sqrt(terms);
    if (which == MEAN && terms > 0) s->size = 1 / sqrt(terms);
    s->c.build = build_reduction, s->c.reference = reduction_of;
    s->c.gradient = which != ARGMAX, s->c.exact = which >= MAX;
}
void hk_shapes_sum(struct shapes *s) { make_reduction(s, SUM); }
void hk_shapes_mean(struct shapes *s) { make_reduction(s, MEAN); }
void hk_shapes_max(struct shapes *s) { make_reduction(s, MAX); }
void hk_shapes_argmax(struct shapes *s) { make_reduction(s, ARGMAX); }
