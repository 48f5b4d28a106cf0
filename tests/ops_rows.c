/* Cases of ops on rows: softmax, log_softmax, cross_entropy. */
#include "cases.h"
#include <math.h>

#define F32(...) {.dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__)}
#define SET(list, wrong) {list, sizeof(list) / sizeof *(list), wrong, sizeof(wrong) / sizeof *(wrong)}

/* ---- Softmax ---- */

static struct hk_value *build_softmax(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_softmax(in[0], -1);
}
static struct hk_value *build_log_softmax(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_log_softmax(in[0], -1);
}
static struct hk_value *build_softmax_first(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_softmax(in[0], 0);
}
static struct hk_value *build_log_softmax_middle(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_log_softmax(in[0], -2);
}

/* x seen as [outer, n, inner], along n. */
static void softmax_along(const double *x, double *y, int64_t outer, int64_t n, int64_t inner, bool logarithm) {
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < inner; k++) {
            const int64_t at = o * n * inner + k;
            double max = -INFINITY, sum = 0;
            for (int64_t i = 0; i < n; i++) max = fmax(max, x[at + i * inner]);
            for (int64_t i = 0; i < n; i++) sum += exp(x[at + i * inner] - max);
            for (int64_t i = 0; i < n; i++) {
                const double d = x[at + i * inner] - max - log(sum);
                y[at + i * inner] = logarithm ? d : exp(d);
            }
        }
}

static void along_axis(const struct hk_case *c, const double *x, double *y, int axis, bool logarithm) {
    const struct hk_shape *shape = &c->inputs[0].shape;
    int64_t outer = 1, inner = 1;
    for (int i = 0; i < axis; i++) outer *= shape->size[i];
    for (int i = axis + 1; i < shape->rank; i++) inner *= shape->size[i];
    softmax_along(x, y, outer, shape->size[axis], inner, logarithm);
}

static void softmax_last(const struct hk_case *c, const double *const *in, double *out) {
    along_axis(c, in[0], out, c->inputs[0].shape.rank - 1, false);
}
static void softmax_first(const struct hk_case *c, const double *const *in, double *out) {
    along_axis(c, in[0], out, 0, false);
}
static void log_softmax_last(const struct hk_case *c, const double *const *in, double *out) {
    along_axis(c, in[0], out, c->inputs[0].shape.rank - 1, true);
}
static void log_softmax_middle(const struct hk_case *c, const double *const *in, double *out) {
    along_axis(c, in[0], out, c->inputs[0].shape.rank - 2, true);
}

static const struct hk_case softmax_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37)}, .n_inputs = 1, .build = build_softmax, .reference = softmax_last},
    {.name = "rows longer than a workgroup", .inputs = {F32(2, 1029)}, .n_inputs = 1, .build = build_softmax,
     .reference = softmax_last},
    {.name = "rows of one", .inputs = {F32(7, 1)}, .n_inputs = 1, .build = build_softmax, .reference = softmax_last},
    {.name = "no rows", .inputs = {F32(0, 5)}, .n_inputs = 1, .build = build_softmax},
    {.name = "rows of none", .inputs = {F32(5, 0)}, .n_inputs = 1, .build = build_softmax},
    {.name = "large numbers", .inputs = {{.shape = HK_SHAPE(9, 65), .low = -3000, .high = 3000}}, .n_inputs = 1,
     .build = build_softmax, .reference = softmax_last},
    {.name = "first axis", .inputs = {F32(19, 3, 5)}, .n_inputs = 1, .build = build_softmax_first, .reference = softmax_first},
};
static const struct hk_case softmax_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 2, 37)}, .n_inputs = 1, .build = build_softmax, .gradient = true},
    {.name = "rows longer than a workgroup", .inputs = {F32(1, 1029)}, .n_inputs = 1, .build = build_softmax, .gradient = true},
    {.name = "first axis", .inputs = {F32(19, 3)}, .n_inputs = 1, .build = build_softmax_first, .gradient = true},
};
static const struct hk_case log_softmax_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37)}, .n_inputs = 1, .build = build_log_softmax, .reference = log_softmax_last},
    {.name = "rows longer than a workgroup", .inputs = {F32(2, 1029)}, .n_inputs = 1, .build = build_log_softmax,
     .reference = log_softmax_last},
    {.name = "middle axis", .inputs = {F32(3, 19, 5)}, .n_inputs = 1, .build = build_log_softmax_middle,
     .reference = log_softmax_middle},
};
static const struct hk_case log_softmax_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 2, 37)}, .n_inputs = 1, .build = build_log_softmax, .gradient = true},
    {.name = "rows longer than a workgroup", .inputs = {F32(1, 515)}, .n_inputs = 1, .build = build_log_softmax, .gradient = true},
    {.name = "middle axis", .inputs = {F32(2, 9, 3)}, .n_inputs = 1, .build = build_log_softmax_middle, .gradient = true},
};

static struct hk_value *build_bad_axis(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_softmax(in[0], 2);
}
static struct hk_value *build_bad_log_axis(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_log_softmax(in[0], -3);
}
static const struct hk_refusal softmax_refusals[] = {
    {"axis out of range", {F32(3, 4)}, 1, build_bad_axis, "softmax: axis 2 is out of range for [3, 4]"},
    {"integers", {{.dtype = HK_I32, .shape = HK_SHAPE(3, 4), .high = 3}}, 1, build_softmax, "softmax: x must be f32, it is i32"},
};
static const struct hk_refusal log_softmax_refusals[] = {
    {"axis out of range", {F32(3, 4)}, 1, build_bad_log_axis, "log_softmax: axis -3 is out of range for [3, 4]"},
};

const struct hk_case_set hk_cases_softmax = SET(softmax_cases, softmax_refusals);
const struct hk_case_set hk_cases_log_softmax = SET(log_softmax_cases, log_softmax_refusals);
const struct hk_case_set hk_cases_softmax_backward = {softmax_backward_cases, 3, NULL, 0};
const struct hk_case_set hk_cases_log_softmax_backward = {log_softmax_backward_cases, 3, NULL, 0};

/* ---- Cross entropy ---- */

static struct hk_value *build_cross_entropy(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cross_entropy(in[0], in[1], NULL);
}
static struct hk_value *build_smooth(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_cross_entropy(in[0], in[1], &(struct hk_cross_entropy_params){.ignore = true, .ignore_index = -1,
                                                                            .label_smoothing = 0.1f});
}

static void cross_entropy_of(const struct hk_case *c, const double *const *in, double *out, bool ignore, double smoothing) {
    const struct hk_shape *shape = &c->inputs[0].shape;
    const int64_t n = shape->size[shape->rank - 1];
    int64_t rows = 1, kept = 0;
    for (int i = 0; i + 1 < shape->rank; i++) rows *= shape->size[i];
    double loss = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in[0] + r * n;
        const int64_t target = (int64_t)in[1][r];
        if (ignore && target == -1) continue;
        double max = -INFINITY, sum = 0, mean = 0;
        for (int64_t i = 0; i < n; i++) max = fmax(max, x[i]);
        for (int64_t i = 0; i < n; i++) sum += exp(x[i] - max), mean += x[i] / (double)n;
        const double lse = max + log(sum);
        loss += (1 - smoothing) * (lse - x[target]) + smoothing * (lse - mean);
        kept++;
    }
    out[0] = loss / (double)kept;
}
static void cross_entropy_plain(const struct hk_case *c, const double *const *in, double *out) {
    cross_entropy_of(c, in, out, false, 0);
}
static void cross_entropy_smooth(const struct hk_case *c, const double *const *in, double *out) {
    cross_entropy_of(c, in, out, true, 0.1f);
}

/* ---- Losses that are made of other ops have no row, and are tested here ---- */

static struct hk_value *build_mse(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_mse_loss(in[0], in[1]);
}
static struct hk_value *build_bce(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_bce_with_logits(in[0], in[1]);
}
static void mse_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t n = c->inputs[0].shape.size[0] * c->inputs[0].shape.size[1];
    out[0] = 0;
    for (int64_t i = 0; i < n; i++) out[0] += (in[0][i] - in[1][i]) * (in[0][i] - in[1][i]) / (double)n;
}
static void bce_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t n = c->inputs[0].shape.size[0] * c->inputs[0].shape.size[1];
    out[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const double log_p = -log1p(exp(-in[0][i])), log_q = -log1p(exp(in[0][i]));
        out[0] -= (in[1][i] * log_p + (1 - in[1][i]) * log_q) / (double)n;
    }
}

#define TARGETS(from, to, ...) {.dtype = HK_I32, .shape = HK_SHAPE(__VA_ARGS__), .low = from, .high = to}

static const struct hk_case cross_entropy_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), TARGETS(0, 37, 3, 5)}, .n_inputs = 2, .build = build_cross_entropy,
     .reference = cross_entropy_plain},
    {.name = "many classes", .inputs = {F32(3, 5003), TARGETS(0, 5003, 3)}, .n_inputs = 2, .build = build_cross_entropy,
     .reference = cross_entropy_plain},
    {.name = "many rows", .inputs = {F32(1025, 3), TARGETS(0, 3, 1025)}, .n_inputs = 2, .build = build_cross_entropy,
     .reference = cross_entropy_plain},
    {.name = "one row", .inputs = {F32(9), {.dtype = HK_I32, .shape = {0, {0}}, .high = 9}}, .n_inputs = 2,
     .build = build_cross_entropy, .reference = cross_entropy_plain},
    {.name = "rows ignored, labels smoothed", .inputs = {F32(65, 4), TARGETS(-1, 4, 65)}, .n_inputs = 2, .build = build_smooth,
     .reference = cross_entropy_smooth},
    {.name = "large numbers", .inputs = {{.shape = HK_SHAPE(9, 65), .low = -3000, .high = 3000}, TARGETS(0, 65, 9)},
     .n_inputs = 2, .build = build_cross_entropy, .reference = cross_entropy_plain},
    {.name = "mse_loss", .inputs = {F32(5, 13), F32(5, 13)}, .n_inputs = 2, .build = build_mse, .reference = mse_of,
     .gradient = true},
    {.name = "bce_with_logits", .inputs = {F32(5, 13), {.shape = HK_SHAPE(5, 13), .low = 0, .high = 1}}, .n_inputs = 2,
     .build = build_bce, .reference = bce_of, .gradient = true},
    {.name = "bce_with_logits of large numbers", .n_inputs = 2, .build = build_bce, .reference = bce_of,
     .inputs = {{.shape = HK_SHAPE(5, 13), .low = -200, .high = 200}, {.shape = HK_SHAPE(5, 13), .low = 0, .high = 1}}},
};
static const struct hk_case cross_entropy_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), TARGETS(0, 37, 3, 5)}, .n_inputs = 2, .build = build_cross_entropy,
     .gradient = true},
    {.name = "rows in windows", .inputs = {F32(9, 1301), TARGETS(0, 1301, 9)}, .n_inputs = 2, .build = build_cross_entropy,
     .gradient = true},
    {.name = "rows longer than a workgroup does", .inputs = {F32(3, 4095), TARGETS(0, 4095, 3)}, .n_inputs = 2,
     .build = build_cross_entropy, .gradient = true},
    {.name = "rows as long as two workgroups do", .inputs = {F32(5, 8193), TARGETS(0, 8193, 5)}, .n_inputs = 2,
     .build = build_cross_entropy, .gradient = true},
    {.name = "rows ignored, labels smoothed", .inputs = {F32(33, 4), TARGETS(-1, 4, 33)}, .n_inputs = 2, .build = build_smooth,
     .gradient = true},
};
static const struct hk_refusal cross_entropy_refusals[] = {
    {"a target too many", {F32(3, 4), TARGETS(0, 4, 4)}, 2, build_cross_entropy,
     "cross_entropy: there must be one target per row: logits are [3, 4], targets are [4]"},
    {"targets that are no integers", {F32(3, 4), F32(3)}, 2, build_cross_entropy, "targets i32, they are f32 and f32"},
    {"no classes", {F32(3, 0), TARGETS(0, 4, 3)}, 2, build_cross_entropy, "cross_entropy: there are no classes"},
    {"a loss of two shapes", {F32(3, 4), F32(4)}, 2, build_mse, "mse_loss: shapes differ: x is [3, 4], target is [4]"},
    {"a loss of integers", {F32(3), TARGETS(0, 2, 3)}, 2, build_bce, "bce_with_logits: x and target must be f32"},
};

const struct hk_case_set hk_cases_cross_entropy = SET(cross_entropy_cases, cross_entropy_refusals);
const struct hk_case_set hk_cases_cross_entropy_backward = {cross_entropy_backward_cases, 5, NULL, 0};
