/* hekla bench start: from nothing to the first finished training step. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { STEPS = 5 }; /* after the first */

struct start_bench {
    struct hk_model_config config;
    int64_t batch;
    struct hk_device *device;
    struct hk_params *params;
    struct hk_optimizer *optimizer;
    struct hk_tensor *tokens, *targets, *loss;
    struct hk_graph *graph;
    struct hk_program *step;
    double load, open, params_made, graph_made, compiled, first, later; /* seconds that each part took */
};

/* Seconds since the last call with the same clock. */
static double lap(double *clock) {
    const double before = *clock;
    *clock = now_seconds();
    return *clock - before;
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool make_params(struct start_bench *b) {
    const struct hk_optimizer_params adamw = {.kind = HK_ADAMW, .weight_decay = 0.01f, .clip = 1};
    b->params = hk_params_create(b->device);
    if (!b->params || hk_model_declare(b->params, &b->config) != HK_OK || hk_params_allocate(b->params, 1) != HK_OK)
        return false;
    b->optimizer = hk_optimizer_create(b->params, &adamw);
    return b->optimizer != NULL;
}

static bool make_graph(struct start_bench *b) {
    const struct hk_shape shape = HK_SHAPE(b->batch, b->config.context);
    b->tokens = hk_tensor_create(b->device, HK_I32, shape);
    b->targets = hk_tensor_create(b->device, HK_I32, shape);
    b->loss = hk_tensor_create(b->device, HK_F32, HK_SCALAR);
    b->graph = hk_graph_create();
    if (!b->tokens || !b->targets || !b->loss || !b->graph) return false;
    struct hk_value *logits = hk_model_logits(b->params, &b->config, hk_leaf(b->graph, b->tokens), NULL);
    struct hk_value *loss = hk_cross_entropy(logits, hk_leaf(b->graph, b->targets), NULL);
    hk_store(b->loss, loss);
    return hk_optimizer_minimize(b->optimizer, loss) == HK_OK;
}

static bool run_step(struct start_bench *b) {
    float loss;
    return hk_optimizer_advance(b->optimizer, 1e-3f) == HK_OK && hk_program_run(b->step) == HK_OK &&
           hk_tensor_read(b->loss, &loss, sizeof loss) == HK_OK && isfinite(loss);
}

static int start(struct start_bench *b, const char *device) {
    double clock = now_seconds(), times[STEPS];
    b->device = open_device(device, false);
    if (!b->device) return EXIT_FAILED;
    b->open = lap(&clock);
    if (!make_params(b)) return fail_library();
    b->params_made = lap(&clock);
    if (!make_graph(b)) return fail_library();
    b->graph_made = lap(&clock);
    b->step = hk_compile(b->device, b->graph, &(struct hk_compile_params){.name = "training"});
    if (!b->step) return fail_library();
    b->compiled = lap(&clock);
    if (!run_step(b)) return fail_library();
    b->first = lap(&clock);
    for (int i = 0; i < STEPS; i++) {
        if (!run_step(b)) return fail_library();
        times[i] = lap(&clock);
    }
    b->later = median(times, STEPS);
    return EXIT_OK;
}

static void print_start(const struct start_bench *b, const char *model) {
    const double total = b->load + b->open + b->params_made + b->graph_made + b->compiled + b->first;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", model);
    add_device(object, b->device);
    cJSON_AddNumberToObject(object, "load_ms", rounded(b->load * 1e3, 2));
    cJSON_AddNumberToObject(object, "open_ms", rounded(b->open * 1e3, 2));
    cJSON_AddNumberToObject(object, "parameters_ms", rounded(b->params_made * 1e3, 2));
    cJSON_AddNumberToObject(object, "graph_ms", rounded(b->graph_made * 1e3, 2));
    cJSON_AddNumberToObject(object, "compile_ms", rounded(b->compiled * 1e3, 2));
    cJSON_AddNumberToObject(object, "first_step_ms", rounded(b->first * 1e3, 2));
    cJSON_AddNumberToObject(object, "step_ms", rounded(b->later * 1e3, 2));
    cJSON_AddNumberToObject(object, "beyond_step_ms", rounded((total - b->later) * 1e3, 2));
    json_print_line(object);
}

int bench_start(int argc, char **argv) {
    const char *model = NULL, *device = NULL;
    struct option_row rows[] = {OPTION_MODEL(&model), OPTION_DEVICE(&device)};
    const struct command_line line = {
        .command = "bench start",
        .usage = "--model NAME [options]",
        .about =
            "Times what a process does up to the end of its first training step: load_ms is the processor's time\n"
            "before main, beyond_step_ms all of it without one step (the median of those after the first). Run it\n"
            "twice: the first run fills the caches of pipelines.",
        .rows = rows,
        .n_rows = COUNT_OF(rows)};
    struct start_bench bench = {.load = processor_seconds()};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (!model) return fail_usage("bench start", "--model NAME is missing");
    if (hk_model_preset(model, &bench.config, &bench.batch) != HK_OK)
        return fail_usage("bench start", "%s", hk_error_message());
    status = start(&bench, device);
    if (status == EXIT_OK) print_start(&bench, model);
    hk_program_destroy(&bench.step);
    hk_graph_destroy(&bench.graph);
    hk_tensor_destroy(&bench.tokens);
    hk_tensor_destroy(&bench.targets);
    hk_tensor_destroy(&bench.loss);
    hk_optimizer_destroy(&bench.optimizer);
    hk_params_destroy(&bench.params);
    hk_device_destroy(&bench.device);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}
