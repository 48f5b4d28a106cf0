/* How far a derivative by differences can be from the true one, in f32:

   L(x) = sum(result * weights) is summed in double, so its error is that of the results: a few units in the last place
   each, of random sign, together about 8 * 2^-24 * |terms of L|. It is divided by 2h, so small steps lose in noise what
   they gain in the h^2 L''' of the central difference. Which step is best depends on the function: several are tried,
   the noise is allowed for at each, and steps at which it would hide a tenth of the derivative's size do not count.
   Besides, 0.2 % of the size are allowed. As size serves the root of the sum of (g_k d_k)^2: what a sum of random signs
   comes to. The step that counts is the one really taken after rounding x + hd to f32. */
#include "differences.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DENSE_TRIALS = 4, SINGLE_TRIALS = 4 };

/* A point, and the derivative there that the gradient promises for a step taken. */
struct trial {
    struct case_run *run;
    struct case_inputs point;
    int input;
    int64_t elements;
    const double *grad;
    double *direction;
    double noise_unit; /* of L, one evaluation */
};

/* Moves the input to point + h * direction. */
static void move(const struct trial *t, const float *from, double h) {
    float *x = t->point.data[t->input];
    for (int64_t k = 0; k < t->elements; k++) x[k] = (float)((double)from[k] + h * t->direction[k]);
}

/* The change of L, and what the gradient says it is, between the points on both sides. */
static bool measure(struct trial *t, const float *from, double h, double *found, double *expected, double *size) {
    struct case_results results;
    const float *x = t->point.data[t->input];
    double squares = 0, unused;
    *found = *expected = 0;
    for (int side = -1; side <= 1; side += 2) {
        move(t, from, side * h);
        const bool ok = case_run_evaluate(t->run, &t->point, &results);
        if (ok) *found += side * case_run_weighted(t->run, &results, &unused);
        case_results_free(&results);
        if (!ok) return false;
        for (int64_t k = 0; k < t->elements; k++) {
            const double step = side * ((double)x[k] - (double)from[k]);
            *expected += t->grad[k] * step;
            squares += t->grad[k] * step * t->grad[k] * step;
        }
    }
    *size = sqrt(squares);
    return true;
}

enum verdict { PASSED, FAILED, UNDECIDED, BROKEN };

static enum verdict try_steps(struct trial *t, const float *from, struct differences *d) {
    static const double steps[] = {0x1p-7, 0x1p-9, 0x1p-5, 0x1p-11};
    enum verdict verdict = UNDECIDED;
    for (int s = 0; s < COUNT(steps); s++) {
        double found, expected, size;
        if (!measure(t, from, steps[s], &found, &expected, &size)) return BROKEN;
        if (isnan(found) || isnan(expected)) {
            d->expected = expected / steps[s] / 2, d->found = found / steps[s] / 2;
            return FAILED;
        }
        const double error = fabs(found - expected), noise = 2 * t->noise_unit;
        if (size > 0 && noise > 0.1 * size) continue;
        if (error <= 2e-3 * size + noise) return PASSED;
        if (verdict == FAILED && error >= d->error) continue;
        verdict = FAILED;
        d->error = error, d->expected = expected / steps[s] / 2, d->found = found / steps[s] / 2;
    }
    return verdict;
}

static void choose_direction(struct trial *t, uint64_t *random, bool single) {
    memset(t->direction, 0, (size_t)t->elements * sizeof *t->direction);
    if (single) {
        t->direction[test_random(random) % (uint64_t)t->elements] = 1;
        return;
    }
    for (int64_t k = 0; k < t->elements; k++)
        t->direction[k] = (test_random(random) & 1 ? 1 : -1) * test_uniform(random, 0.5, 1);
}

static enum verdict run_trial(struct case_run *run, const struct hk_case *c, int i, uint64_t *random, bool single,
                              struct differences *d) {
    struct trial t = {.run = run, .input = i, .elements = test_elements(c->inputs[i].shape)};
    struct case_results at_point;
    enum verdict verdict = BROKEN;
    if (!case_inputs_make(c, random, &t.point)) abort();
    const size_t bytes = (size_t)t.elements * sizeof(float);
    float *from = malloc(bytes);
    t.direction = malloc((size_t)t.elements * sizeof *t.direction);
    if (!from || !t.direction) abort();
    memcpy(from, t.point.data[i], bytes);
    if (case_run_evaluate(run, &t.point, &at_point)) {
        t.grad = at_point.grads[i];
        case_run_weighted(run, &at_point, &t.noise_unit);
        t.noise_unit *= 8 * 0x1p-24 * (c->tolerance > 0 ? c->tolerance : 1);
        choose_direction(&t, random, single);
        verdict = try_steps(&t, from, d);
    }
    case_results_free(&at_point);
    case_inputs_free(&t.point);
    free(from);
    free(t.direction);
    return verdict;
}

struct differences differences_check(struct case_run *run, const struct hk_case *c, int i, uint64_t seed) {
    struct differences d = {0};
    uint64_t random = seed;
    if (test_elements(c->inputs[i].shape) == 0) return d;
    for (int n = 0; n < DENSE_TRIALS + SINGLE_TRIALS && !d.broken; n++) {
        const enum verdict verdict = run_trial(run, c, i, &random, n >= DENSE_TRIALS, &d);
        d.broken = verdict == BROKEN;
        d.checked += verdict == PASSED || verdict == FAILED;
        d.failed += verdict == FAILED;
    }
    return d;
}
