/* hekla bench step, hekla bench op: one JSON line each. */
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TIMES 100000

static int compare_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *times, int64_t count) {
    qsort(times, (size_t)count, sizeof *times, compare_times);
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

static void add_device(cJSON *object, struct hk_device *device) {
    const struct hk_device_info *info = hk_device_get_info(device);
    char name[300];
    if (info->kind == HK_DEVICE_CPU) snprintf(name, sizeof name, "cpu");
    else snprintf(name, sizeof name, "vulkan:%d %s", info->index, info->name);
    cJSON_AddStringToObject(object, "device", name);
}

/* ---- hekla bench step ---- */

struct step_options {
    const char *model, *device, *profile;
    int64_t steps, warmup;
};

struct step_bench {
    struct hk_trainer_params params;
    struct hk_device *device;
    struct hk_trainer *trainer;
    int32_t *tokens;
    double *times; /* seconds, one per step */
    float loss;
    struct hk_stats before, after; /* around the steps timed */
};

static void random_tokens(struct step_bench *b, int64_t step) {
    const int64_t count = b->params.batch * (b->params.length + 1);
    uint64_t x = 88172645463325252u + (uint64_t)step;
    for (int64_t i = 0; i < count; i++) { /* xorshift64 (Marsaglia, 2003) */
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        b->tokens[i] = (int32_t)((x >> 33) % (uint64_t)b->params.model.vocab);
    }
}

static int time_steps(struct step_bench *b, const struct step_options *o) {
    for (int64_t i = 0; i < o->warmup + o->steps; i++) {
        float norm;
        random_tokens(b, i);
        if (i == o->warmup) hk_device_get_stats(b->device, &b->before);
        const double start = now_seconds();
        if (hk_trainer_step(b->trainer, b->tokens, 1e-3f) != HK_OK ||
            hk_trainer_result(b->trainer, &b->loss, &norm) != HK_OK)
            return fail_library();
        if (i >= o->warmup) b->times[i - o->warmup] = now_seconds() - start;
    }
    hk_device_get_stats(b->device, &b->after);
    return EXIT_OK;
}

static void print_steps(struct step_bench *b, const struct step_options *o) {
    const double seconds = median(b->times, o->steps);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", o->model);
    add_device(object, b->device);
    cJSON_AddStringToObject(object, "dtype", "f32");
    cJSON_AddNumberToObject(object, "params", (double)hk_params_elements(hk_trainer_model(b->trainer)));
    cJSON_AddNumberToObject(object, "ms_per_step", rounded(seconds * 1e3, 3));
    cJSON_AddNumberToObject(object, "tokens_per_s", round((double)(b->params.batch * b->params.length) / seconds));
    cJSON_AddNumberToObject(object, "loss", rounded((double)b->loss, 6));
    cJSON_AddNumberToObject(object, "peak_bytes", (double)b->after.peak_bytes);
    cJSON_AddNumberToObject(object, "submits",
                            rounded((double)(b->after.submits - b->before.submits) / (double)o->steps, 2));
    cJSON_AddNumberToObject(object, "dispatches",
                            rounded((double)(b->after.dispatches - b->before.dispatches) / (double)o->steps, 2));
    cJSON_AddNumberToObject(object, "fallbacks", (double)b->after.fallbacks);
    json_print_line(object);
}

static int make_trainer(struct step_bench *b, const struct step_options *o) {
    b->params.optimizer = (struct hk_optimizer_params){.kind = HK_ADAMW, .weight_decay = 0.01f, .clip = 1};
    b->params.seed = 1;
    b->params.length = b->params.model.context;
    b->tokens = malloc((size_t)(b->params.batch * (b->params.length + 1)) * sizeof *b->tokens);
    b->times = malloc((size_t)o->steps * sizeof *b->times);
    if (!b->tokens || !b->times) return fail_with("no memory for a batch");
    b->device = open_device(o->device, o->profile != NULL);
    if (!b->device) return EXIT_FAILED;
    b->trainer = hk_trainer_create(b->device, &b->params);
    return b->trainer ? EXIT_OK : fail_library();
}

static int bench_step(int argc, char **argv) {
    struct step_options o = {.steps = 10, .warmup = 3};
    struct option_row rows[] = {
        {.name = "model",
         .kind = OPTION_TEXT,
         .value = &o.model,
         .argument = "NAME",
         .help = "gpt-tiny, gpt-char, gpt2-124m, llama-2 or llama-12"},
        {.name = "steps",
         .kind = OPTION_WHOLE,
         .value = &o.steps,
         .low = 1,
         .high = MAX_TIMES,
         .argument = "N",
         .help = "steps to time (default 10)"},
        {.name = "warmup",
         .kind = OPTION_WHOLE,
         .value = &o.warmup,
         .high = MAX_TIMES,
         .argument = "N",
         .help = "steps before those (default 3)"},
        OPTION_DEVICE(&o.device),
        OPTION_PROFILE(&o.profile),
    };
    const struct command_line line = {
        .command = "bench step",
        .usage = "--model NAME [options]",
        .about = "Times whole training steps (forward, backward, clip, AdamW) on random tokens. ms_per_step is "
                 "the median;\nsubmits and dispatches are per step.",
        .rows = rows,
        .n_rows = COUNT_OF(rows)};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (!o.model) return fail_usage("bench step", "--model NAME is missing");
    struct step_bench bench = {0};
    if (hk_model_preset(o.model, &bench.params.model, &bench.params.batch) != HK_OK)
        return fail_usage("bench step", "%s", hk_error_message());
    status = make_trainer(&bench, &o);
    if (status == EXIT_OK) status = time_steps(&bench, &o);
    if (status == EXIT_OK) print_steps(&bench, &o);
    if (status == EXIT_OK) status = write_profile(bench.device, o.profile);
    hk_trainer_destroy(&bench.trainer);
    hk_device_destroy(&bench.device);
    free(bench.tokens);
    free(bench.times);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}

/* ---- hekla bench op ---- */

struct op_options {
    const char *op, *shape, *dtype, *transpose, *device;
};

struct op_bench {
    int64_t m, n, k;
    struct hk_device *device;
    struct hk_tensor *a, *b, *out; /* [M, K] and [K, N], or as the transposition says; [M, N] */
    struct hk_program *program;
};

/* a leaf, transposed where asked for, so that the product sees [rows, columns] */
static struct hk_value *operand(struct hk_graph *graph, struct hk_tensor *tensor, bool transposed) {
    struct hk_value *x = hk_leaf(graph, tensor);
    return transposed ? hk_transpose(x) : x;
}

static struct hk_tensor *random_matrix(struct hk_device *device, int64_t rows, int64_t columns, bool transposed) {
    const size_t count = (size_t)(rows * columns);
    struct hk_tensor *tensor =
        hk_tensor_create(device, HK_F32, transposed ? HK_SHAPE(columns, rows) : HK_SHAPE(rows, columns));
    float *data = tensor ? malloc((count + 1) * sizeof *data) : NULL;
    for (size_t i = 0; data && i < count; i++) data[i] = (float)((i * 2654435761u >> 7) & 0xffff) / 32768.0f - 1.0f;
    if (!data || hk_tensor_write(tensor, data, count * sizeof *data) != HK_OK) hk_tensor_destroy(&tensor);
    free(data);
    return tensor;
}

static int make_matmul(struct op_bench *b, const char *transpose) {
    const bool ta = transpose[0] == 't', tb = transpose[1] == 't';
    b->a = random_matrix(b->device, b->m, b->k, ta);
    b->b = b->a ? random_matrix(b->device, b->k, b->n, tb) : NULL;
    b->out = b->b ? hk_tensor_create(b->device, HK_F32, HK_SHAPE(b->m, b->n)) : NULL;
    if (!b->out) return fail_library();
    struct hk_graph *graph = hk_graph_create();
    if (!graph) return fail_library();
    hk_store(b->out, hk_matmul(operand(graph, b->a, ta), operand(graph, b->b, tb)));
    b->program = hk_compile(b->device, graph, &(struct hk_compile_params){.name = "matmul"});
    hk_graph_destroy(&graph);
    return b->program ? EXIT_OK : fail_library();
}

/* Seconds that repeats runs take, until the device is done; negative: failed. */
static double time_runs(struct op_bench *b, int repeats) {
    const double start = now_seconds();
    for (int i = 0; i < repeats; i++)
        if (hk_program_run(b->program) != HK_OK) return -1;
    return hk_device_wait(b->device) == HK_OK ? now_seconds() - start : -1;
}

/* Runs for about a second, in portions long enough that submitting them does not count. */
static int time_op(struct op_bench *b, double *seconds, int64_t *runs) {
    static double times[MAX_TIMES];
    double once = time_runs(b, 1); /* the first run makes pipelines */
    if (once >= 0) once = time_runs(b, 1);
    if (once < 0) return fail_library();
    const int repeats = once < 0.01 ? (int)(0.01 / fmax(once, 1e-7)) + 1 : 1;
    const double end = now_seconds() + 1;
    int count = 0;
    do {
        const double time = time_runs(b, repeats);
        if (time < 0) return fail_library();
        times[count++] = time / repeats;
    } while (count < MAX_TIMES && (now_seconds() < end || count < 3));
    *seconds = median(times, count);
    *runs = (int64_t)count * repeats;
    return EXIT_OK;
}

static int run_op(struct op_bench *b, const struct op_options *o) {
    double seconds = 0;
    int64_t runs = 0;
    int status = make_matmul(b, o->transpose);
    if (status == EXIT_OK) status = time_op(b, &seconds, &runs);
    if (status != EXIT_OK) return status;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "op", o->op);
    cJSON_AddStringToObject(object, "shape", o->shape);
    cJSON_AddStringToObject(object, "dtype", o->dtype);
    cJSON_AddStringToObject(object, "transpose", o->transpose);
    add_device(object, b->device);
    cJSON_AddNumberToObject(object, "runs", (double)runs);
    cJSON_AddNumberToObject(object, "ms", rounded(seconds * 1e3, 4));
    cJSON_AddNumberToObject(object, "gflops",
                            rounded(2.0 * (double)b->m * (double)b->n * (double)b->k / seconds / 1e9, 2));
    json_print_line(object);
    return output_ok() ? EXIT_OK : EXIT_FAILED;
}

/* "512x384x128"; false for anything else. */
static bool parse_shape(const char *text, struct op_bench *b) {
    long long m, n, k;
    int end = 0;
    if (!text || sscanf(text, "%7lldx%7lldx%7lld%n", &m, &n, &k, &end) != 3 || text[end]) return false;
    b->m = m, b->n = n, b->k = k;
    return m > 0 && n > 0 && k > 0;
}

static int check_op(const struct op_options *o, struct op_bench *bench) {
    if (!o->op || strcmp(o->op, "matmul")) return fail_usage("bench op", "--op must be matmul, which is what there is");
    if (!parse_shape(o->shape, bench)) return fail_usage("bench op", "--shape must be MxNxK, like 512x512x512");
    if (strcmp(o->dtype, "f32")) return fail_usage("bench op", "--dtype must be f32, which is what matmul multiplies");
    if (strlen(o->transpose) != 2 || strspn(o->transpose, "nt") != 2)
        return fail_usage("bench op", "--transpose must be nn, nt, tn or tt, not \"%s\"", o->transpose);
    return EXIT_OK;
}

static int bench_op(int argc, char **argv) {
    struct op_options o = {.dtype = "f32", .transpose = "nn"};
    struct option_row rows[] = {
        {.name = "op", .kind = OPTION_TEXT, .value = &o.op, .argument = "NAME", .help = "matmul"},
        {.name = "shape", .kind = OPTION_TEXT, .value = &o.shape, .argument = "MxNxK", .help = "[M, K] times [K, N]"},
        {.name = "dtype", .kind = OPTION_TEXT, .value = &o.dtype, .argument = "f32", .help = "(default f32)"},
        {.name = "transpose",
         .kind = OPTION_TEXT,
         .value = &o.transpose,
         .argument = "nt",
         .help = "which operands lie transposed in memory: nn, nt, tn or tt (default nn)"},
        OPTION_DEVICE(&o.device),
    };
    const struct command_line line = {.command = "bench op",
                                      .usage = "--op matmul --shape MxNxK [options]",
                                      .about = "Times one op for about a second; gflops is the median.",
                                      .rows = rows,
                                      .n_rows = COUNT_OF(rows)};
    struct op_bench bench = {0};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    status = check_op(&o, &bench);
    if (status != EXIT_OK) return status;
    bench.device = open_device(o.device, false);
    status = bench.device ? run_op(&bench, &o) : EXIT_FAILED;
    hk_program_destroy(&bench.program);
    hk_tensor_destroy(&bench.a);
    hk_tensor_destroy(&bench.b);
    hk_tensor_destroy(&bench.out);
    hk_device_destroy(&bench.device);
    return status;
}

int command_bench(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "step")) return bench_step(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "op")) return bench_op(argc - 1, argv + 1);
    const bool help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    if (!help) return fail_usage("bench", "what to time is missing: step or op");
    printf(
        "Usage: hekla bench step --model NAME [options]\n       hekla bench op --op matmul --shape MxNxK [options]\n\n"
        "Times training steps and single ops, and prints one JSON line. --help after step or op lists the options.\n");
    return EXIT_OK;
}
