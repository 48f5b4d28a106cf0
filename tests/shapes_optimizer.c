/* Random cases of optimizer steps, of which the parameters and moments after one step are the result, and of the global
   norm. */
#include "op/op.h"
#include "shapes.h"
#include "support.h"
#include <math.h>

static enum hk_optimizer_kind kind;
static bool plain, clips;
static int64_t decayed;

enum { PARAMETERS, GRADIENTS, MOMENT1, MOMENT2, HYPER, NORM };

static struct hk_tensor tensor_of(const struct hk_value *leaf) {
    return (struct hk_tensor){leaf->storage, leaf->storage_offset, HK_F32, hk_value_shape(leaf)};
}

static struct hk_value *build_step(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_tensor t[4];
    struct hk_value *after[3];
    static const int result[3] = {PARAMETERS, MOMENT1, MOMENT2};
    for (int i = 0; i < 4; i++) t[i] = tensor_of(in[i]);
    const struct hk_optimizer_slab slab = {.parameters = &t[PARAMETERS],
                                           .gradients = &t[GRADIENTS],
                                           .moment1 = plain ? NULL : &t[MOMENT1],
                                           .moment2 = &t[MOMENT2],
                                           .decayed = decayed};
    hk_optimizer_update(kind, &slab, in[HYPER], clips ? in[NORM] : NULL);
    for (int i = 0; i < 3; i++) after[i] = hk_leaf(graph, &t[result[i]]);
    return hk_concat(after, 3, 0);
}

/* As PyTorch's documentation has them; hyper[HK_HYPER_BIAS1] 0 is the first step of SGD. */
static void update(const double *hyper, double decay, double g, double *p, double *m, double *v) {
    const double lr = hyper[HK_HYPER_LR], b1 = hyper[HK_HYPER_BETA1], b2 = hyper[HK_HYPER_BETA2];
    if (kind != HK_ADAMW) g += decay * *p;
    if (kind == HK_ADAMW) *p -= lr * decay * *p;
    if (plain) {
        *p -= lr * g;
    } else if (kind == HK_SGD || kind == HK_NESTEROV) {
        *m = hyper[HK_HYPER_BIAS1] > 0 ? b1 * *m + g : g;
        *p -= lr * (kind == HK_NESTEROV ? g + b1 * *m : *m);
    } else {
        *m = b1 * *m + (1 - b1) * g, *v = b2 * *v + (1 - b2) * g * g;
        *p -= lr * (*m / hyper[HK_HYPER_BIAS1]) / (sqrt(*v / hyper[HK_HYPER_BIAS2]) + hyper[HK_HYPER_EPSILON]);
    }
}

static void step_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t n = test_elements(c->inputs[0].shape);
    const double *hyper = in[HYPER], limit = hyper[HK_HYPER_CLIP];
    const double factor = hyper[HK_HYPER_UNSCALE] * (clips && limit > 0 ? fmin(1, limit / (in[NORM][0] + 1e-6)) : 1);
    for (int64_t i = 0; i < n; i++) {
        double *p = out + i, *m = out + n + i, *v = out + 2 * n + i;
        *p = in[PARAMETERS][i], *m = in[MOMENT1][i], *v = in[MOMENT2][i];
        if (hyper[HK_HYPER_SKIP] > 0.5) continue;
        update(hyper, i < decayed ? hyper[HK_HYPER_DECAY] : 0, in[GRADIENTS][i] * factor, p, m, v);
    }
}

static void make_step(struct shapes *s, enum hk_optimizer_kind which, bool without_moment) {
    const struct hk_shape shape = HK_SHAPE(shapes_size(s, s->most));
    kind = which, plain = without_moment, clips = shapes_one_in(s, 2);
    decayed = shapes_number(s, 0, shape.size[0]);
    for (int i = 0; i < 4; i++) shapes_input(s, HK_F32, shape, i == MOMENT2 ? 0.01 : -1, 1);
    shapes_input(s, HK_F32, HK_SHAPE(HK_HYPER_COUNT), 0.1, 0.9);
    shapes_input(s, HK_F32, HK_SHAPE(1), 0, 2);
    shapes_note(s, "kind %d%s%s, %lld decay ", (int)kind, plain ? " plain" : "", clips ? " clipped" : "",
                (long long)decayed);
    s->c.build = build_step, s->c.reference = step_of, s->c.no_strided = true;
}
void hk_shapes_sgd(struct shapes *s) { make_step(s, HK_SGD, true); }
void hk_shapes_momentum(struct shapes *s) { make_step(s, shapes_one_in(s, 2) ? HK_SGD : HK_NESTEROV, false); }
void hk_shapes_adam(struct shapes *s) { make_step(s, shapes_one_in(s, 2) ? HK_ADAM : HK_ADAMW, false); }

static int n_tensors;
static struct hk_value *build_norm(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_tensor t[HK_CASE_MAX_INPUTS], *pointers[HK_CASE_MAX_INPUTS];
    for (int i = 0; i < n_tensors; i++) t[i] = tensor_of(in[i]), pointers[i] = &t[i];
    return hk_global_norm(graph, pointers, n_tensors);
}
static void norm_of(const struct hk_case *c, const double *const *in, double *out) {
    double sum = 0;
    for (int k = 0; k < c->n_inputs; k++)
        for (int64_t i = 0; i < test_elements(c->inputs[k].shape); i++) sum += in[k][i] * in[k][i];
    out[0] = sqrt(sum);
}
void hk_shapes_global_norm(struct shapes *s) {
    n_tensors = (int)shapes_number(s, 1, HK_CASE_MAX_INPUTS);
    for (int i = 0; i < n_tensors; i++) shapes_input(s, HK_F32, shapes_any(s, 0, HK_MAX_RANK), 0, 0);
    s->c.build = build_norm, s->c.reference = norm_of, s->c.no_strided = true;
}

/* ---- Loss scaling: the state, hyper and the norm after it, one behind the other ---- */

enum { SCALING, GIVEN, SCALED_NORM };
static double grow_after;

static struct hk_value *build_scale(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_tensor scaling = tensor_of(in[SCALING]);
    struct hk_value *after[3];
    after[1] = hk_loss_scale(kind, &scaling, in[GIVEN], in[SCALED_NORM], (int64_t)grow_after, &after[2]);
    after[0] = hk_leaf(graph, &scaling);
    return hk_concat(after, 3, 0);
}

static void scale_of(const struct hk_case *c, const double *const *in, double *out) {
    double *s = out, *hyper = out + HK_SCALING_COUNT;
    const double norm = in[SCALED_NORM][0], scale = in[SCALING][HK_SCALING_SCALE];
    (void)c;
    for (int i = 0; i < HK_SCALING_COUNT; i++) s[i] = in[SCALING][i];
    for (int i = 0; i < HK_HYPER_COUNT; i++) hyper[i] = in[GIVEN][i];
    hyper[HK_HYPER_UNSCALE] = 1 / scale, hyper[HK_HYPER_SKIP] = 0;
    hyper[HK_HYPER_COUNT] = norm / scale;
    s[HK_SCALING_POWER1] *= hyper[HK_HYPER_BETA1], s[HK_SCALING_POWER2] *= hyper[HK_HYPER_BETA2];
    const bool adaptive = kind == HK_ADAM || kind == HK_ADAMW;
    hyper[HK_HYPER_BIAS1] = adaptive ? 1 - s[HK_SCALING_POWER1] : s[HK_SCALING_UPDATES] > 0;
    hyper[HK_HYPER_BIAS2] = 1 - s[HK_SCALING_POWER2];
    s[HK_SCALING_UPDATES]++, s[HK_SCALING_GOOD]++;
    if (s[HK_SCALING_GOOD] < grow_after) return;
    s[HK_SCALING_SCALE] *= 2, s[HK_SCALING_GOOD] = 0;
}

/* Norms are finite: test_mixed.c has those that are not. */
void hk_shapes_loss_scale(struct shapes *s) {
    kind = (enum hk_optimizer_kind)shapes_number(s, HK_SGD, HK_ADAMW);
    grow_after = (double)shapes_number(s, 1, 3);
    shapes_input(s, HK_F32, HK_SHAPE(HK_SCALING_COUNT), 0.1, 2);
    shapes_input(s, HK_F32, HK_SHAPE(HK_HYPER_COUNT), 0.1, 0.9);
    shapes_input(s, HK_F32, HK_SHAPE(1), 0, 2);
    shapes_note(s, "kind %d, grows after %g ", (int)kind, grow_after);
    s->c.build = build_scale, s->c.reference = scale_of, s->c.no_strided = true;
}
