/* Optimizer steps and the global norm do what PyTorch's do: several steps against the same formulas in double, on every
   device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5003, DECAYED = 2001, STEPS = 6 };

struct rule {
    const char *name;
    enum hk_optimizer_kind kind;
    int moments;
    float beta1, beta2, decay, clip;
};

static const struct rule rules[] = {
    {"SGD", HK_SGD, 0, 0, 0, 0.1f, 0},
    {"SGD with momentum", HK_SGD, 1, 0.9f, 0, 0.1f, 0.5f},
    {"Nesterov", HK_NESTEROV, 1, 0.9f, 0, 0.1f, 0.5f},
    {"Adam", HK_ADAM, 2, 0.9f, 0.999f, 0.1f, 0},
    {"AdamW", HK_ADAMW, 2, 0.9f, 0.95f, 0.1f, 0.5f},
    {"AdamW with a clip that is never reached", HK_ADAMW, 2, 0.9f, 0.95f, 0.1f, 1e6f},
};

static float noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* ---- The reference ---- */

struct state {
    double x[N], m[N], v[N];
};

static double clip_factor(const struct rule *r, const float *g) {
    double squares = 0;
    for (int i = 0; i < N; i++) squares += (double)g[i] * (double)g[i];
    return r->clip > 0 ? fmin(1, (double)r->clip / (sqrt(squares) + 1e-6)) : 1;
}

static void reference_step(const struct rule *r, struct state *s, const float *grads, int step, double lr) {
    const double clip = clip_factor(r, grads), b1 = r->beta1, b2 = r->beta2;
    for (int i = 0; i < N; i++) {
        const double decay = i < DECAYED ? (double)r->decay : 0;
        double g = (double)grads[i] * clip;
        if (r->kind == HK_ADAMW)
            s->x[i] *= 1 - lr * decay;
        else
            g += decay * s->x[i];
        if (r->moments < 2) {
            if (r->moments) s->m[i] = step == 1 ? g : b1 * s->m[i] + g;
            if (r->moments) g = r->kind == HK_NESTEROV ? g + b1 * s->m[i] : s->m[i];
            s->x[i] -= lr * g;
            continue;
        }
        s->m[i] = b1 * s->m[i] + (1 - b1) * g;
        s->v[i] = b2 * s->v[i] + (1 - b2) * g * g;
        const double bias1 = 1 - pow(b1, step), bias2 = 1 - pow(b2, step);
        s->x[i] -= lr / bias1 * s->m[i] / (sqrt(s->v[i]) / sqrt(bias2) + 1e-8);
    }
}

/* ---- The device ---- */

struct slabs {
    struct hk_tensor *x, *g, *m, *v, *hyper;
    struct hk_program *program;
};

static struct hk_tensor *tensor(struct hk_device *device, int64_t n) {
    struct hk_tensor *t = hk_tensor_create(device, HK_F32, HK_SHAPE(n));
    assert_non_null(t);
    return t;
}

static struct slabs make_slabs(struct hk_device *device, const struct rule *r) {
    struct slabs s = {tensor(device, N), tensor(device, N), r->moments > 0 ? tensor(device, N) : NULL,
                      r->moments > 1 ? tensor(device, N) : NULL, tensor(device, HK_HYPER_COUNT), NULL};
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *norm = r->clip > 0 ? hk_global_norm(graph, &s.g, 1) : NULL;
    const struct hk_optimizer_slab slab = {
        .parameters = s.x, .gradients = s.g, .moment1 = s.m, .moment2 = s.v, .decayed = DECAYED};
    hk_optimizer_update(r->kind, &slab, hk_leaf(graph, s.hyper), norm);
    s.program = hk_compile(device, graph, NULL);
    if (!s.program) fail_msg("%s", hk_error_message());
    hk_graph_destroy(&graph);
    return s;
}

static void destroy_slabs(struct slabs *s) {
    hk_program_destroy(&s->program);
    hk_tensor_destroy(&s->x), hk_tensor_destroy(&s->g), hk_tensor_destroy(&s->hyper);
    if (s->m) hk_tensor_destroy(&s->m);
    if (s->v) hk_tensor_destroy(&s->v);
}

static void device_step(struct slabs *s, const struct rule *r, const float *grads, int step, float lr) {
    float hyper[HK_HYPER_COUNT] = {[HK_HYPER_LR] = lr, [HK_HYPER_BETA1] = r->beta1, [HK_HYPER_BETA2] = r->beta2,
                                   [HK_HYPER_EPSILON] = 1e-8f, [HK_HYPER_DECAY] = r->decay, [HK_HYPER_CLIP] = r->clip,
                                   [HK_HYPER_BIAS1] = step > 1, [HK_HYPER_BIAS2] = 1};
    if (r->moments == 2) {
        hyper[HK_HYPER_BIAS1] = (float)(1 - pow(r->beta1, step));
        hyper[HK_HYPER_BIAS2] = (float)(1 - pow(r->beta2, step));
    }
    assert_int_equal(hk_tensor_write(s->hyper, hyper, sizeof hyper), HK_OK);
    assert_int_equal(hk_tensor_write(s->g, grads, N * sizeof *grads), HK_OK);
    assert_int_equal(hk_program_run(s->program), HK_OK);
}

static void check_rule(struct hk_device *device, const struct rule *r) {
    static struct state expected;
    static float x[N], grads[N];
    uint32_t seed = 7;
    struct slabs slabs = make_slabs(device, r);
    memset(&expected, 0, sizeof expected);
    for (int i = 0; i < N; i++) expected.x[i] = x[i] = noise(&seed);
    assert_int_equal(hk_tensor_write(slabs.x, x, sizeof x), HK_OK);
    for (int step = 1; step <= STEPS; step++) {
        const float lr = 0.01f * (float)step;
        for (int i = 0; i < N; i++) grads[i] = noise(&seed) * 0.1f;
        reference_step(r, &expected, grads, step, (double)lr);
        device_step(&slabs, r, grads, step, lr);
    }
    assert_int_equal(hk_tensor_read(slabs.x, x, sizeof x), HK_OK);
    double worst = 0;
    for (int i = 0; i < N; i++) worst = fmax(worst, fabs((double)x[i] - expected.x[i]));
    printf("  %s: error %.2g after %d steps\n", r->name, worst, STEPS);
    /* parameters up to 2, a few roundings of 6e-8 per step; Adam divides by small numbers: its step, 0.06, to 1e-5 */
    assert_true(worst < (r->moments == 2 ? 5e-6 : 2e-6));
    destroy_slabs(&slabs);
}

static void check_rules(struct hk_device *device) {
    for (int i = 0; i < COUNT(rules); i++) check_rule(device, &rules[i]);
}

static void steps_follow_the_formulas(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_rules));
}

/* ---- The norm ---- */

static void check_norm(struct hk_device *device) {
    const int64_t sizes[] = {100003, 1, 0, 16384, 77};
    enum { TENSORS = COUNT(sizes) };
    struct hk_tensor *tensors[TENSORS], *result = tensor(device, 1);
    double squares = 0;
    uint32_t seed = 3;
    for (int k = 0; k < TENSORS; k++) {
        tensors[k] = tensor(device, sizes[k]);
        float *data = malloc((size_t)sizes[k] * sizeof *data + 1);
        assert_non_null(data);
        for (int64_t i = 0; i < sizes[k]; i++) {
            data[i] = noise(&seed) * (k == 1 ? 100.0f : 1.0f);
            squares += (double)data[i] * (double)data[i];
        }
        assert_int_equal(hk_tensor_write(tensors[k], data, (size_t)sizes[k] * sizeof *data), HK_OK);
        free(data);
    }
    struct hk_graph *graph = hk_graph_create();
    hk_store(result, hk_global_norm(graph, tensors, TENSORS));
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    float norm[2];
    for (int run = 0; run < 2; run++) {
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_tensor_read(result, &norm[run], sizeof *norm), HK_OK);
    }
    printf("  norm %.9g, expected %.9g\n", (double)norm[0], sqrt(squares));
    assert_true(fabs((double)norm[0] - sqrt(squares)) < 1e-6 * sqrt(squares));
    assert_memory_equal(&norm[0], &norm[1], sizeof *norm);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    for (int k = 0; k < TENSORS; k++) hk_tensor_destroy(&tensors[k]);
    hk_tensor_destroy(&result);
}

static void norm_is_that_of_all_tensors(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_norm));
}

/* A gradient that is not a number must be seen, not clipped away. */
static void check_nan(struct hk_device *device) {
    const struct rule r = {"AdamW", HK_ADAMW, 2, 0.9f, 0.95f, 0, 1};
    static float grads[N], x[N];
    struct slabs slabs = make_slabs(device, &r);
    memset(grads, 0, sizeof grads);
    grads[N - 1] = NAN;
    device_step(&slabs, &r, grads, 1, 0.1f);
    assert_int_equal(hk_tensor_read(slabs.x, x, sizeof x), HK_OK);
    assert_true(isnan(x[0]) && isnan(x[N - 1]));
    destroy_slabs(&slabs);
}

static void nan_is_not_hidden_by_clipping(void **unused) {
    (void)unused;
    assert_true(test_on_each_device(check_nan));
}

/* ---- What is refused ---- */

static void refuse_update(struct hk_device *device, int64_t gradients, int64_t hyper, int64_t decayed, const char *message) {
    struct hk_tensor *x = tensor(device, 8), *g = tensor(device, gradients), *m = tensor(device, 8), *v = tensor(device, 8),
                     *h = tensor(device, hyper);
    struct hk_graph *graph = hk_graph_create();
    const struct hk_optimizer_slab slab = {
        .parameters = x, .gradients = g, .moment1 = m, .moment2 = v, .decayed = decayed};
    hk_optimizer_update(HK_ADAMW, &slab, hk_leaf(graph, h), NULL);
    assert_null(hk_compile(device, graph, NULL));
    if (!strstr(hk_error_message(), message)) fail_msg("\"%s\" is not in \"%s\"", message, hk_error_message());
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x), hk_tensor_destroy(&g), hk_tensor_destroy(&m), hk_tensor_destroy(&v), hk_tensor_destroy(&h);
}

static void wrong_operands_are_refused(void **unused) {
    (void)unused;
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    assert_non_null(device);
    refuse_update(device, 7, HK_HYPER_COUNT, 0, "optimizer_update: parameters are [8], but gradients, a moment or the copy are [7]");
    refuse_update(device, 8, 3, 0, "optimizer_update: hyper must be [10], it is [3]");
    refuse_update(device, 8, HK_HYPER_COUNT, 9, "optimizer_update: 9 elements decay, but there are 8");
    hk_device_destroy(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_the_formulas),
        cmocka_unit_test(norm_is_that_of_all_tensors),
        cmocka_unit_test(nan_is_not_hidden_by_clipping),
        cmocka_unit_test(wrong_operands_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
