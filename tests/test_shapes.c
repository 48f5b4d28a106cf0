/* Every op with random sizes, attributes, strides and offsets (shapes.h): on the CPU, by turns with each instruction
   set, against the double reference, and with strided inputs against dense ones; some gradients against finite
   differences; on each Vulkan device against the CPU.

       test_shapes [OP...]

   The line that a failure prints repeats that case alone. HEKLA_TEST_LONG=1 runs many more. HEKLA_TEST_DEVICES chooses
   the devices. */
#include "differences.h"
#include "shapes.h"
#include "support.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HK_OP(name) extern const struct hk_case_set hk_cases_##name;
#include "op/ops.def"
#undef HK_OP

static const struct row {
    const char *op;
    const struct hk_case_set *known;
    shapes_make *make;
} rows[] = {
#define HK_OP(name) {#name, &hk_cases_##name, hk_shapes_##name},
#include "op/ops.def"
#undef HK_OP
};

enum { ISAS = 5, DIFFERENCES_EVERY = 8, DIFFERENCES_MOST = 600 };

struct state {
    struct hk_device *devices[TEST_MAX_DEVICES], *cpu[ISAS];
    int n_devices;
    bool check_cpu; /* else it only says what others must give */
    const char *op;
    uint64_t seed; /* of the case */
    const struct shapes *s;
    int failures, cases, differences;
};

static void describe(const struct hk_case *c) {
    for (int i = 0; i < c->n_inputs; i++) {
        fprintf(stderr, "%s %s [", i ? "," : "", hk_dtype_name(c->inputs[i].dtype));
        for (int d = 0; d < c->inputs[i].shape.rank; d++)
            fprintf(stderr, "%s%lld", d ? ", " : "", (long long)c->inputs[i].shape.size[d]);
        fprintf(stderr, "]");
    }
}

static void __attribute__((format(printf, 2, 3))) fail(struct state *t, const char *format, ...) {
    va_list args;
    fprintf(stderr, "FAILED %s (%s;", t->op, t->s->note);
    describe(&t->s->c);
    fprintf(stderr, "): ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    const char *devices = getenv("HEKLA_TEST_DEVICES"); /* sizes depend on whether the CPU is one */
    fprintf(stderr, "\n    HEKLA_TEST_DEVICES=%s HEKLA_TEST_SEED=%llu test_shapes %s\n",
            devices ? devices : "cpu,vulkan", (unsigned long long)t->seed, t->op);
    t->failures++;
}

/* As test_error, but where the largest is less than `size`, that counts. */
static double error_of(const double *x, const double *ref, int64_t n, double size, int64_t *at) {
    const double plain = test_error(x, ref, n, at);
    if (!(plain > 1) || isinf(plain)) return plain;
    double error = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(ref[i])) size = fmax(size, fabs(ref[i]));
    for (int64_t i = 0; i < n; i++) {
        const double e = fabs(x[i] - ref[i]) / (1e-5 * size + 1e-4 * fabs(ref[i]));
        if (e > error) error = e, *at = i;
    }
    return error;
}

static void compare(struct state *t, const char *where, const char *what, const double *x, const double *ref, int64_t n,
                    double size) {
    const double tolerance = t->s->c.tolerance > 0 ? t->s->c.tolerance : 1;
    int64_t at = 0;
    const double error = error_of(x, ref, n, size, &at) / tolerance;
    if (error > 1)
        fail(t, "%s, %s: element %lld of %lld is %.9g, not %.9g (%.3g times the tolerance)", where, what, (long long)at,
             (long long)n, x[at], ref[at], error);
}

static void compare_results(struct state *t, const char *where, const struct case_results *results,
                            const struct case_results *base) {
    const struct hk_case *c = &t->s->c;
    compare(t, where, "result", results->result, base->result, base->elements, t->s->size);
    if (c->exact && results->result_bits != base->result_bits) fail(t, "%s: the bits are not the CPU's", where);
    for (int i = 0; i < c->n_inputs; i++) {
        char what[32];
        snprintf(what, sizeof what, "gradient of input %d", i);
        if (base->grads[i])
            compare(t, where, what, results->grads[i], base->grads[i], test_elements(c->inputs[i].shape),
                    t->s->gradient_size[i]);
    }
}

static void compare_reference(struct state *t, const struct case_inputs *inputs, const struct case_results *base) {
    const struct hk_case *c = &t->s->c;
    double *in[HK_CASE_MAX_INPUTS] = {0}, *out = calloc((size_t)base->elements + 1, sizeof *out);
    for (int i = 0; i < c->n_inputs; i++) {
        const int64_t n = test_elements(c->inputs[i].shape);
        in[i] = malloc((size_t)(n + 1) * sizeof **in);
        if (!in[i]) abort();
        test_to_doubles(in[i], c->inputs[i].dtype, inputs->data[i], n);
    }
    if (!out) abort();
    c->reference(c, (const double *const *)in, out);
    compare(t, "reference", "result", base->result, out, base->elements, t->s->size);
    for (int i = 0; i < c->n_inputs; i++) free(in[i]);
    free(out);
}

static void check_differences(struct state *t, struct case_run *run) {
    const struct hk_case *c = &t->s->c;
    for (int i = 0; i < c->n_inputs; i++) {
        const int64_t n = test_elements(c->inputs[i].shape);
        if (c->inputs[i].dtype != HK_F32 || n > DIFFERENCES_MOST) continue;
        const struct differences d = differences_check(run, c, i, t->seed);
        if (d.broken) fail(t, "finite differences: %s", hk_error_message());
        if (2 * d.failed >= d.checked && d.failed)
            fail(t, "finite differences of input %d: %d of %d trials, in one of them %.7g, but by the gradient %.7g", i,
                 d.failed, d.checked, d.found, d.expected);
        t->differences += d.checked > 0;
    }
}

/* Runs the case, with finite differences if asked for; false where there are no results. */
static bool run_case(struct state *t, struct hk_device *device, const struct placement *places,
                     const struct case_inputs *inputs, struct case_results *results, bool differences) {
    const struct hk_case *c = &t->s->c;
    struct case_run *run =
        places ? case_run_create_placed(device, c, places) : case_run_create(device, c, LAYOUT_DENSE);
    const bool ok = run && case_run_evaluate(run, inputs, results);
    if (!ok) fail(t, "%s, %s: %s", test_device_name(device), places ? "strided" : "dense", hk_error_message());
    if (ok && differences) check_differences(t, run);
    case_run_destroy(&run);
    return ok;
}

static void check_device(struct state *t, struct hk_device *device, const struct placement *places,
                         const struct case_inputs *inputs, const struct case_results *base) {
    struct case_results results = {0};
    char where[300];
    snprintf(where, sizeof where, "%s, %s", test_device_name(device), places ? "strided" : "dense");
    if (run_case(t, device, places, inputs, &results, false)) compare_results(t, where, &results, base);
    case_results_free(&results);
}

static void check_case(struct state *t, const struct row *row, uint64_t seed, int64_t most) {
    struct shapes s = {.random = seed, .known = row->known, .most = most, .on_device = !t->check_cpu};
    struct placement places[HK_CASE_MAX_INPUTS] = {0};
    struct case_inputs inputs;
    struct case_results base = {0};
    t->op = row->op, t->seed = seed, t->s = &s;
    t->cases++;
    s.c.name = "random";
    if (shapes_one_in(&s, 8)) s.most *= 16;
    row->make(&s);
    const int first = (int)shapes_number(&s, 0, ISAS - 1), second = (int)shapes_number(&s, 0, ISAS - 1);
    const bool differences = t->check_cpu && s.c.gradient && !s.no_differences && shapes_one_in(&s, DIFFERENCES_EVERY);
    if (!case_inputs_make(&s.c, &s.random, &inputs)) abort();
    for (int i = 0; i < s.c.n_inputs; i++) places[i] = shapes_place(&s, s.c.inputs[i].shape, inputs.data[i]);
    const struct placement *strided = s.c.no_strided ? NULL : places;
    if (run_case(t, t->cpu[first], NULL, &inputs, &base, differences)) {
        if (t->check_cpu && s.c.reference) compare_reference(t, &inputs, &base);
        if (t->check_cpu) check_device(t, t->cpu[second], strided, &inputs, &base);
        for (int i = 0; i < t->n_devices; i++)
            if (!test_is_cpu(t->devices[i]))
                check_device(t, t->devices[i], shapes_one_in(&s, 3) ? NULL : strided, &inputs, &base);
    }
    case_results_free(&base);
    case_inputs_free(&inputs);
}

/* Each instruction set, or the best that the machine has below it; the one that HEKLA_ISA names where it does. */
static void open_cpus(struct state *t) {
    static const char *const names[ISAS] = {"base", "avx2", "avx512", "avx512bf16", "amx"};
    const bool chosen = getenv("HEKLA_ISA") != NULL;
    for (int i = 0; i < ISAS; i++) {
        if (!chosen) setenv("HEKLA_ISA", names[i], 1);
        t->cpu[i] = test_device_open("cpu");
        if (!t->cpu[i]) abort();
    }
    if (!chosen) unsetenv("HEKLA_ISA");
}

static bool is_wanted(const char *op, int argc, char **argv) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc && !wanted; i++) wanted = !strcmp(argv[i], op);
    return wanted;
}

static void check_op(struct state *t, const struct row *row, int count, const char *seed) {
    const clock_t begin = clock();
    const int64_t most = 1500;
    const int failures = t->failures;
    if (seed) check_case(t, row, strtoull(seed, NULL, 10), most);
    else
        for (int i = 0; i < count && t->failures < failures + 3; i++)
            check_case(t, row, test_hash(row->op, (uint64_t)i) >> 16, most);
    printf("%-24s %6.2f s\n", row->op, (double)(clock() - begin) / CLOCKS_PER_SEC);
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct state t = {0};
    const char *wanted = getenv("HEKLA_TEST_LONG");
    const bool is_long = wanted && !strcmp(wanted, "1");
    t.n_devices = test_devices_open(t.devices);
    if (t.n_devices == 0) {
        printf("skipped: no Vulkan device on this machine\n");
        return TEST_SKIPPED;
    }
    for (int i = 0; i < t.n_devices; i++) t.check_cpu |= test_is_cpu(t.devices[i]);
    open_cpus(&t);
    const int count = (t.check_cpu ? 200 : 20) * (is_long ? 20 : 1);
    for (int i = 0; i < COUNT(rows); i++)
        if (is_wanted(rows[i].op, argc, argv)) check_op(&t, &rows[i], count, getenv("HEKLA_TEST_SEED"));
    printf("%d cases, %d gradients by finite differences, %d failures; devices:", t.cases, t.differences, t.failures);
    for (int i = 0; i < t.n_devices; i++) printf(" %s", test_device_name(t.devices[i]));
    printf("\n");
    const bool silent = test_devices_close(t.devices, t.n_devices);
    for (int i = 0; i < ISAS; i++) hk_device_destroy(&t.cpu[i]);
    if (!t.cases) fprintf(stderr, "FAILED: no op of these names\n");
    return t.failures || !t.cases || !silent;
}
