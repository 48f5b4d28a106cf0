/* hekla tune: measures which kernels are the fastest for what a model's programs do. */
#include "cli.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tune_options {
    const char *model, *run, *shape, *precision, *device, *file;
    int64_t batch, length;
    double seconds;
    bool json;
};

/* ---- What is compiled ---- */

/* Training, evaluation, and generation with a KV cache. */
static int compile_model(struct hk_device *device, const struct hk_trainer_params *how) {
    struct hk_trainer *trainer = hk_trainer_create(device, how);
    struct hk_generator *generator = trainer ? hk_generator_create(device, hk_trainer_model(trainer), &how->model) : NULL;
    const int status = generator ? EXIT_OK : fail_library();
    hk_generator_destroy(&generator);
    hk_trainer_destroy(&trainer);
    return status;
}

static int compile_matmul(struct hk_device *device, int64_t m, int64_t n, int64_t k) {
    struct hk_tensor *a = hk_tensor_create(device, HK_F32, HK_SHAPE(m, k));
    struct hk_tensor *b = a ? hk_tensor_create(device, HK_F32, HK_SHAPE(k, n)) : NULL;
    struct hk_tensor *c = b ? hk_tensor_create(device, HK_F32, HK_SHAPE(m, n)) : NULL;
    struct hk_graph *graph = c ? hk_graph_create() : NULL;
    if (graph) hk_store(c, hk_matmul(hk_leaf(graph, a), hk_leaf(graph, b)));
    struct hk_program *program = graph ? hk_compile(device, graph, NULL) : NULL;
    const int status = program ? EXIT_OK : fail_library();
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&a);
    hk_tensor_destroy(&b);
    hk_tensor_destroy(&c);
    return status;
}

/* The model and its batch: of a preset, or as a run's folder says. */
static int describe_training(const struct tune_options *o, struct hk_trainer_params *how) {
    *how = (struct hk_trainer_params){.optimizer = {.kind = HK_ADAMW, .weight_decay = 0.01f, .clip = 1}, .seed = 1};
    struct hk_run_state state;
    if (o->model && hk_model_preset(o->model, &how->model, &how->batch) != HK_OK)
        return fail_usage("tune", "%s", hk_error_message());
    if (o->run && (hk_run_load_config(o->run, &how->model) != HK_OK || hk_run_load_state(o->run, &state) != HK_OK))
        return fail_library();
    if (o->run) {
        how->batch = state.batch, how->length = state.length, how->accumulate = state.accumulate;
        how->precision = state.precision;
    }
    if (o->precision) how->precision = (enum hk_dtype)precision_of(o->precision);
    if (o->batch) how->batch = o->batch;
    if (o->length || !how->length) how->length = o->length ? o->length : how->model.context;
    return EXIT_OK;
}

/* ---- What is printed ---- */

static int compare_tunings(const void *a, const void *b) {
    return strcmp(((const struct hk_tuning *)a)->work, ((const struct hk_tuning *)b)->work);
}

static void print_line(const struct hk_tuning *t) {
    printf("%-56s %9.1f %9.1f %6.2f  %s%s%s\n", t->work, t->standard_seconds * 1e6, t->seconds * 1e6,
           t->standard_seconds / t->seconds, t->kernel, strcmp(t->kernel, t->standard) ? ", not " : "",
           strcmp(t->kernel, t->standard) ? t->standard : "");
}

static void print_json(const struct hk_tuning *t) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "work", t->work);
    cJSON_AddStringToObject(object, "kernel", t->kernel);
    cJSON_AddStringToObject(object, "standard", t->standard);
    cJSON_AddNumberToObject(object, "kernels", t->kernels);
    cJSON_AddNumberToObject(object, "us", rounded(t->seconds * 1e6, 2));
    cJSON_AddNumberToObject(object, "standard_us", rounded(t->standard_seconds * 1e6, 2));
    cJSON_AddNumberToObject(object, "uses", t->uses);
    json_print_line(object);
}

/* What the programs compiled here asked for; says how much of it is not measured. */
static void print_tunings(struct hk_tuning *tunings, int count, bool json) {
    int left = 0;
    qsort(tunings, (size_t)count, sizeof *tunings, compare_tunings);
    if (!json) printf("%-56s %9s %9s %6s  %s\n", "work", "untuned", "tuned us", "gain", "kernel");
    for (int i = 0; i < count; i++) {
        left += tunings[i].uses && !(tunings[i].seconds > 0);
        if (!tunings[i].uses || !(tunings[i].seconds > 0)) continue;
        if (json) print_json(&tunings[i]);
        else print_line(&tunings[i]);
    }
    if (left) note("%d shapes are not measured: the time was over; the same command goes on where it stopped", left);
}

static int report(struct hk_device *device, bool json) {
    int count = 0;
    if (hk_device_tunings(device, NULL, 0, &count) != HK_OK) return fail_library();
    struct hk_tuning *tunings = calloc((size_t)count + 1, sizeof *tunings);
    if (!tunings) return fail_with("no memory for what was measured");
    const int capacity = count;
    const hk_status status = hk_device_tunings(device, tunings, capacity, &count);
    if (status == HK_OK) print_tunings(tunings, count < capacity ? count : capacity, json);
    free(tunings);
    return status == HK_OK ? EXIT_OK : fail_library();
}

/* ---- The command ---- */

static int tune(const struct tune_options *o) {
    struct hk_trainer_params how = {.seed = 0};
    long long m = 0, n = 0, k = 0;
    int end = 0, status = EXIT_OK;
    if (!o->model + !o->run + !o->shape != 2) return fail_usage("tune", "one of --model, --run and --shape must be given");
    if (o->shape && (sscanf(o->shape, "%7lldx%7lldx%7lld%n", &m, &n, &k, &end) != 3 || o->shape[end] || m < 1 ||
                     n < 1 || k < 1))
        return fail_usage("tune", "--shape must be MxNxK, like 512x512x512");
    if (o->shape && o->precision) return fail_usage("tune", "--shape is of f32: --precision is for models");
    if (o->precision && precision_of(o->precision) < 0) return fail_precision("tune", o->precision);
    if (!o->shape) status = describe_training(o, &how);
    if (status != EXIT_OK) return status;
    struct hk_device *device =
        open_device_as(&(struct hk_device_params){.name = o->device, .tune = o->seconds, .tuning = o->file});
    if (!device) return EXIT_FAILED;
    if (hk_device_get_info(device)->kind == HK_DEVICE_CPU) note("the CPU's kernels leave no choice: nothing to measure");
    else status = o->shape ? compile_matmul(device, m, n, k) : compile_model(device, &how);
    if (status == EXIT_OK) status = report(device, o->json);
    if (hk_device_save_tunings(device) != HK_OK && status == EXIT_OK) status = fail_library();
    hk_device_destroy(&device);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}

int command_tune(int argc, char **argv) {
    struct tune_options o = {.seconds = 60};
    struct option_row rows[] = {
        {.name = "model",
         .kind = OPTION_TEXT,
         .value = &o.model,
         .argument = "NAME",
         .help = "gpt-tiny, gpt-char, gpt2-124m, llama-2 or llama-12"},
        {.name = "run", .kind = OPTION_TEXT, .value = &o.run, .argument = "FOLDER", .help = "the model that was trained there"},
        {.name = "shape", .kind = OPTION_TEXT, .value = &o.shape, .argument = "MxNxK", .help = "a matrix product in f32"},
        {.name = "batch",
         .kind = OPTION_WHOLE,
         .value = &o.batch,
         .low = 1,
         .high = 1e6,
         .argument = "N",
         .help = "sequences in a batch (default: the model's or the run's)"},
        {.name = "length",
         .kind = OPTION_WHOLE,
         .value = &o.length,
         .low = 1,
         .high = 1e6,
         .argument = "N",
         .help = "tokens in a sequence (default: the model's context or the run's)"},
        {.name = "seconds",
         .kind = OPTION_NUMBER,
         .value = &o.seconds,
         .low = 1e-9,
         .high = 1e6,
         .argument = "N",
         .help = "begin no other measurement after (default 60)"},
        {.name = "file",
         .kind = OPTION_TEXT,
         .value = &o.file,
         .argument = "FILE",
         .help = "keep it there (default: in the user's cache folder)"},
        OPTION_PRECISION(&o.precision),
        OPTION_DEVICE(&o.device),
        OPTION_JSON(&o.json),
    };
    const struct command_line line = {
        .command = "tune",
        .usage = "--model NAME [options]",
        .about = "Measures which kernels are the fastest for a model's training and generation, and keeps that for\n"
                 "all later programs on the same device and driver.",
        .rows = rows,
        .n_rows = COUNT_OF(rows)};
    int status;
    return options_parse(&line, argc, argv, &status) ? tune(&o) : status;
}
