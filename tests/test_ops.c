/* Every op of ops.def by its cases (cases.h): on the CPU against the double reference and finite differences, and with
   strided inputs; on each Vulkan device against the CPU; each twice, for the same bits; and everything that must be refused.

       test_ops [OP or OP:PART OF A CASE'S NAME...]

   HEKLA_TEST_DEVICES chooses the devices, HEKLA_TEST_SEED other random inputs. The numbers printed are the largest errors
   as a share of what is allowed. */
#include "case_run.h"
#include "differences.h"
#include "support.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HK_OP(name) extern const struct hk_case_set hk_cases_##name;
#include "op/ops.def"
#undef HK_OP

struct row {
    const char *op;
    const struct hk_case_set *cases;
};
static const struct row rows[] = {
#define HK_OP(name) {#name, &hk_cases_##name},
#include "op/ops.def"
#undef HK_OP
};

/* Where the test is, for messages, and what it has seen. */
struct state {
    struct hk_device *devices[TEST_MAX_DEVICES], *cpu;
    int n_devices;
    bool check_cpu; /* the CPU is one of the devices asked for */
    uint64_t seed;
    const char *op, *name;
    const struct hk_case *c;
    double largest_reference, largest_strided, largest_device;
    int failures, cases, differences, undecided, left_out;
};

static void __attribute__((format(printf, 2, 3))) fail(struct state *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED %s, %s: ", s->op, s->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (HEKLA_TEST_SEED=%llu)\n", (unsigned long long)s->seed);
    va_end(args);
    s->failures++;
}

/* Kernels that bind whole rows, which no real device is too small for but HEKLA_MAX_BINDING may be. */
static bool binds_rows(const char *op) {
    static const char *const ops[] = {"attention", "attention_backward", "cross_entropy", "cross_entropy_backward",
                                      "layer_norm", "layer_norm_backward", "rms_norm_backward"};
    for (int i = 0; i < COUNT(ops); i++)
        if (!strcmp(op, ops[i])) return true;
    return false;
}

static void leave_out(struct state *s) {
    printf("left out: %s, %s: %s\n", s->op, s->name, hk_error_message());
    s->left_out++;
}

/* Compares and notes the largest error, as a share of the case's tolerance. */
static void compare(struct state *s, double *largest, const char *where, const char *what, const double *x, const double *ref,
                    int64_t n) {
    int64_t at;
    const double error = test_error(x, ref, n, &at) / (s->c->tolerance > 0 ? s->c->tolerance : 1);
    *largest = fmax(*largest, error);
    if (error > 1)
        fail(s, "%s, %s: element %lld of %lld is %.9g, not %.9g (%.3g times the tolerance)", where, what, (long long)at,
             (long long)n, x[at], ref[at], error);
}

/* Result and gradients against the CPU's on dense inputs. */
static void compare_results(struct state *s, double *largest, const char *where, const struct case_results *results,
                            const struct case_results *base) {
    compare(s, largest, where, "result", results->result, base->result, base->elements);
    if (s->c->exact && results->result_bits != base->result_bits) fail(s, "%s: the bits are not the CPU's", where);
    for (int i = 0; i < s->c->n_inputs; i++) {
        char what[32];
        snprintf(what, sizeof what, "gradient of input %d", i);
        if (base->grads[i])
            compare(s, largest, where, what, results->grads[i], base->grads[i], test_elements(s->c->inputs[i].shape));
    }
}

static void compare_reference(struct state *s, const struct case_inputs *inputs, const struct case_results *base) {
    const struct hk_case *c = s->c;
    double *in[HK_CASE_MAX_INPUTS] = {0};
    double *out = calloc((size_t)base->elements + 1, sizeof *out);
    for (int i = 0; i < c->n_inputs; i++) {
        const int64_t n = test_elements(c->inputs[i].shape);
        in[i] = malloc((size_t)(n + 1) * sizeof **in);
        if (!in[i]) abort();
        test_to_doubles(in[i], c->inputs[i].dtype, inputs->data[i], n);
    }
    if (!out) abort();
    c->reference(c, (const double *const *)in, out);
    compare(s, &s->largest_reference, "reference", "result", base->result, out, base->elements);
    for (int i = 0; i < c->n_inputs; i++) free(in[i]);
    free(out);
}

static void check_differences(struct state *s, struct case_run *run) {
    for (int i = 0; i < s->c->n_inputs; i++) {
        if (s->c->inputs[i].dtype != HK_F32) continue;
        const struct differences d = differences_check(run, s->c, i, s->seed + (uint64_t)i);
        if (d.broken) fail(s, "finite differences: %s", hk_error_message());
        if (2 * d.failed >= d.checked && d.failed)
            fail(s, "finite differences of input %d: %d of %d trials, in one of them %.7g, but by the gradient %.7g", i, d.failed,
                 d.checked, d.found, d.expected);
        s->differences += d.checked > 0;
        s->undecided += d.checked == 0 && test_elements(s->c->inputs[i].shape) > 0;
    }
}

/* Runs the case on a device in one layout, twice. False where there are no results. */
static bool run_layout(struct state *s, struct hk_device *device, enum layout layout, const struct case_inputs *inputs,
                       struct case_results *results) {
    struct case_results again = {0};
    struct case_run *run = case_run_create(device, s->c, layout);
    const bool ok = run && case_run_evaluate(run, inputs, results) && case_run_evaluate(run, inputs, &again);
    if (!ok && binds_rows(s->op) && getenv("HEKLA_MAX_BINDING") && hk_error_status() == HK_ERROR_UNSUPPORTED)
        leave_out(s);
    else if (!ok)
        fail(s, "%s, %s: %s", test_device_name(device), layout_names[layout], hk_error_message());
    else if (again.bits != results->bits)
        fail(s, "%s, %s: the second run gave other bits", test_device_name(device), layout_names[layout]);
    if (ok && device == s->cpu && layout == LAYOUT_DENSE && s->check_cpu && s->c->gradient) check_differences(s, run);
    case_results_free(&again);
    case_run_destroy(&run);
    return ok;
}

static void check_device(struct state *s, struct hk_device *device, const struct case_inputs *inputs,
                         const struct case_results *base) {
    const bool is_cpu = device == s->cpu;
    for (int layout = is_cpu ? LAYOUT_PADDED : LAYOUT_DENSE; layout < LAYOUT_COUNT; layout++) {
        struct case_results results = {0};
        char where[300];
        if (layout != LAYOUT_DENSE && s->c->no_strided) break;
        snprintf(where, sizeof where, "%s, %s", test_device_name(device), layout_names[layout]);
        if (run_layout(s, device, (enum layout)layout, inputs, &results))
            compare_results(s, is_cpu ? &s->largest_strided : &s->largest_device, where, &results, base);
        case_results_free(&results);
    }
}

static void check_case(struct state *s, const struct hk_case *c) {
    struct case_inputs inputs;
    struct case_results base = {0};
    uint64_t random = test_hash(c->name, test_hash(s->op, s->seed));
    s->c = c, s->name = c->name;
    s->cases++;
    if (!case_inputs_make(c, &random, &inputs)) abort();
    if (run_layout(s, s->cpu, LAYOUT_DENSE, &inputs, &base)) {
        if (c->reference && s->check_cpu) compare_reference(s, &inputs, &base);
        for (int i = 0; i < s->n_devices; i++) check_device(s, s->devices[i], &inputs, &base);
    }
    case_results_free(&base);
    case_inputs_free(&inputs);
}

/* Builds what must be refused, and sees that it is, with the right words. */
static void check_refusal(struct state *s, const struct hk_refusal *r) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_tensor *tensors[HK_CASE_MAX_INPUTS] = {0}, *out = NULL;
    struct hk_value *in[HK_CASE_MAX_INPUTS] = {0};
    s->name = r->name;
    for (int i = 0; i < r->n_inputs; i++) {
        tensors[i] = hk_tensor_create(s->cpu, r->inputs[i].dtype, r->inputs[i].shape);
        in[i] = hk_leaf(graph, tensors[i]);
    }
    struct hk_value *result = r->build(graph, in);
    if (result) {
        out = hk_tensor_create(s->cpu, hk_value_dtype(result), hk_value_shape(result));
        hk_store(out, result);
    }
    struct hk_program *program = hk_compile(s->cpu, graph, NULL);
    if (program) fail(s, "was not refused");
    else if (!strstr(hk_error_message(), r->message)) fail(s, "refused with \"%s\", not \"%s\"", hk_error_message(), r->message);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    for (int i = 0; i < r->n_inputs; i++) hk_tensor_destroy(&tensors[i]);
    hk_tensor_destroy(&out);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* An argument is an op, or OP:TEXT: those of its cases that have the text in their name. */
static bool is_wanted(const char *op, const char *name, int argc, char **argv) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc && !wanted; i++) {
        const size_t length = strcspn(argv[i], ":");
        const char *text = argv[i][length] && name ? argv[i] + length + 1 : "";
        wanted = strlen(op) == length && !strncmp(argv[i], op, length) && (!name || strstr(name, text));
    }
    return wanted;
}

static void check_op(struct state *s, const struct row *row, int argc, char **argv) {
    const double begin = seconds();
    const int before = s->cases;
    s->op = row->op;
    s->largest_reference = s->largest_strided = s->largest_device = 0;
    for (int i = 0; i < row->cases->n_cases; i++)
        if (is_wanted(row->op, row->cases->cases[i].name, argc, argv)) check_case(s, &row->cases->cases[i]);
    for (int i = 0; s->check_cpu && i < row->cases->n_refusals; i++)
        if (is_wanted(row->op, row->cases->refusals[i].name, argc, argv)) check_refusal(s, &row->cases->refusals[i]);
    printf("%-24s %3d cases   reference %.3f   strided %.3f   devices %.3f   %6.1f s\n", row->op,
           s->cases - before, s->largest_reference, s->largest_strided, s->largest_device, seconds() - begin);
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *seed = getenv("HEKLA_TEST_SEED");
    struct state s = {.seed = seed ? strtoull(seed, NULL, 10) : 1};
    struct hk_device *own_cpu = NULL;
    s.n_devices = test_devices_open(s.devices);
    if (s.n_devices == 0) {
        printf("skipped: no Vulkan device on this machine\n");
        return TEST_SKIPPED;
    }
    for (int i = 0; i < s.n_devices; i++)
        if (test_is_cpu(s.devices[i])) s.cpu = s.devices[i];
    s.check_cpu = s.cpu != NULL;
    if (!s.cpu) s.cpu = own_cpu = test_device_open("cpu");
    for (int i = 0; i < COUNT(rows); i++)
        if (is_wanted(rows[i].op, NULL, argc, argv)) check_op(&s, &rows[i], argc, argv);
    printf("%d cases, %d gradients by finite differences (rounding hides %d more), %d failures; devices:", s.cases,
           s.differences, s.undecided, s.failures);
    for (int i = 0; i < s.n_devices; i++) printf(" %s%s", test_device_name(s.devices[i]), i + 1 < s.n_devices ? "," : "\n");
    if (s.left_out) printf("%d runs left out: the bindings asked for are too small\n", s.left_out);
    const bool silent = test_devices_close(s.devices, s.n_devices);
    hk_device_destroy(&own_cpu);
    return s.failures || !silent;
}
