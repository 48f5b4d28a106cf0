/* Cases of layer_norm and rms_norm. */
#include "cases.h"
#include <math.h>

#define F32(...) {.dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__)}
#define EPSILON 1e-5f

static struct hk_value *build_layer_norm(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_layer_norm(in[0], in[1], in[2], EPSILON);
}
static struct hk_value *build_without_bias(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_layer_norm(in[0], in[1], NULL, EPSILON);
}
static struct hk_value *build_rms_norm(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rms_norm(in[0], in[1], EPSILON);
}

static void normalize(const struct hk_case *c, const double *const *in, double *out, bool centered) {
    const struct hk_shape *shape = &c->inputs[0].shape;
    const int64_t n = shape->size[shape->rank - 1];
    int64_t rows = 1;
    for (int i = 0; i + 1 < shape->rank; i++) rows *= shape->size[i];
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in[0] + r * n;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < n && centered; i++) mean += x[i] / (double)n;
        for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++)
            out[r * n + i] = (x[i] - mean) / sqrt(variance + EPSILON) * in[1][i] + (c->n_inputs > 2 ? in[2][i] : 0);
    }
}
static void layer_norm_of(const struct hk_case *c, const double *const *in, double *out) { normalize(c, in, out, true); }
static void rms_norm_of(const struct hk_case *c, const double *const *in, double *out) { normalize(c, in, out, false); }

static const struct hk_case layer_norm_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), F32(37), F32(37)}, .n_inputs = 3, .build = build_layer_norm,
     .reference = layer_norm_of},
    {.name = "rows longer than a workgroup", .inputs = {F32(2, 1029), F32(1029), F32(1029)}, .n_inputs = 3,
     .build = build_layer_norm, .reference = layer_norm_of},
    {.name = "without bias", .inputs = {F32(6, 64), F32(64)}, .n_inputs = 2, .build = build_without_bias,
     .reference = layer_norm_of},
    {.name = "far from zero", .inputs = {{.shape = HK_SHAPE(4, 768), .low = 99, .high = 101}, F32(768), F32(768)}, .n_inputs = 3,
     .build = build_layer_norm, .reference = layer_norm_of,
     .tolerance = 3}, /* floats near 100 lie 8e-6 apart: so well is the mean known, and x - mean is about 1 */
    {.name = "one dimension", .inputs = {F32(9), F32(9), F32(9)}, .n_inputs = 3, .build = build_layer_norm,
     .reference = layer_norm_of},
    {.name = "rows of one", .inputs = {F32(4, 1), F32(1), F32(1)}, .n_inputs = 3, .build = build_layer_norm,
     .reference = layer_norm_of},
    {.name = "no rows", .inputs = {F32(0, 5), F32(5), F32(5)}, .n_inputs = 3, .build = build_layer_norm},
    {.name = "rows of whole fours", .inputs = {F32(3, 768), F32(768), F32(768)}, .n_inputs = 3, .build = build_layer_norm,
     .reference = layer_norm_of},
    {.name = "rows as long as can be kept", .inputs = {F32(2, 8000), F32(8000), F32(8000)}, .n_inputs = 3,
     .build = build_layer_norm, .reference = layer_norm_of},
    {.name = "rows too long to keep", .inputs = {F32(2, 8200), F32(8200), F32(8200)}, .n_inputs = 3, .build = build_layer_norm,
     .reference = layer_norm_of},
};
static const struct hk_case layer_norm_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), F32(37), F32(37)}, .n_inputs = 3, .build = build_layer_norm, .gradient = true},
    {.name = "rows of whole fours", .inputs = {F32(131, 132), F32(132), F32(132)}, .n_inputs = 3, .build = build_layer_norm,
     .gradient = true},
    {.name = "rows too long to keep", .inputs = {F32(2, 8200), F32(8200), F32(8200)}, .n_inputs = 3,
     .build = build_layer_norm, .gradient = true},
    {.name = "long parts", .inputs = {F32(2500, 12), F32(12), F32(12)}, .n_inputs = 3, .build = build_layer_norm,
     .gradient = true},
    {.name = "several parts of rows", .inputs = {F32(67, 9), F32(9), F32(9)}, .n_inputs = 3, .build = build_layer_norm,
     .gradient = true},
    {.name = "rows longer than a workgroup", .inputs = {F32(1, 515), F32(515), F32(515)}, .n_inputs = 3,
     .build = build_layer_norm, .gradient = true},
    {.name = "without bias", .inputs = {F32(6, 64), F32(64)}, .n_inputs = 2, .build = build_without_bias, .gradient = true},
};
static const struct hk_case rms_norm_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), F32(37)}, .n_inputs = 2, .build = build_rms_norm, .reference = rms_norm_of},
    {.name = "rows longer than a workgroup", .inputs = {F32(2, 1029), F32(1029)}, .n_inputs = 2, .build = build_rms_norm,
     .reference = rms_norm_of},
    {.name = "no rows", .inputs = {F32(0, 5), F32(5)}, .n_inputs = 2, .build = build_rms_norm},
};
static const struct hk_case rms_norm_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(3, 5, 37), F32(37)}, .n_inputs = 2, .build = build_rms_norm, .gradient = true},
    {.name = "rows of whole fours", .inputs = {F32(67, 132), F32(132)}, .n_inputs = 2, .build = build_rms_norm, .gradient = true},
    {.name = "several parts of rows", .inputs = {F32(67, 9), F32(9)}, .n_inputs = 2, .build = build_rms_norm, .gradient = true},
    {.name = "rows longer than a workgroup", .inputs = {F32(1, 515), F32(515)}, .n_inputs = 2, .build = build_rms_norm,
     .gradient = true},
};
static const struct hk_refusal layer_norm_refusals[] = {
    {"weight too short", {F32(3, 4), F32(3), F32(4)}, 3, build_layer_norm,
     "layer_norm: weight must be as wide as x's last dimension: x is [3, 4], weight is [3]"},
    {"bias of two dimensions", {F32(3, 4), F32(4), F32(1, 4)}, 3, build_layer_norm, "bias is [1, 4]"},
    {"a scalar", {{.shape = {0, {0}}}, F32(4)}, 2, build_without_bias, "layer_norm: x must have a dimension"},
};
static const struct hk_refusal rms_norm_refusals[] = {
    {"weight too short", {F32(3, 4), F32(3)}, 2, build_rms_norm,
     "rms_norm: weight must be as wide as x's last dimension: x is [3, 4], weight is [3]"},
};

const struct hk_case_set hk_cases_layer_norm = {layer_norm_cases, 10, layer_norm_refusals, 3};
const struct hk_case_set hk_cases_layer_norm_backward = {layer_norm_backward_cases, 7, NULL, 0};
const struct hk_case_set hk_cases_rms_norm = {rms_norm_cases, 3, rms_norm_refusals, 1};
const struct hk_case_set hk_cases_rms_norm_backward = {rms_norm_backward_cases, 4, NULL, 0};
