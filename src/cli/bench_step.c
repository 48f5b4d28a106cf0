/* hekla bench step: whole training steps. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>

enum { CHECKED_STEPS = 3 };

struct step_options {
    const char *model, *precision, *device, *profile;
    int64_t steps, warmup, batch, length; /* batch, length 0: the model's */
    bool check;
};

struct step_bench {
    struct hk_trainer_params params;
    struct hk_device *device;
    struct hk_trainer *trainer;
    int32_t *tokens;
    double *times;                    /* seconds, one per step */
    float loss, first[CHECKED_STEPS]; /* the last, and those of the first steps */
    struct hk_stats before, after;    /* around the steps timed */
};

static bool step(struct step_bench *b, struct hk_trainer *trainer, int64_t i, float *loss) {
    float norm;
    random_tokens(b->tokens, b->params.batch * (b->params.length + 1), b->params.model.vocab, (uint64_t)i);
    return hk_trainer_step(trainer, b->tokens, 1e-3f) == HK_OK && hk_trainer_result(trainer, loss, &norm) == HK_OK;
}

static int time_steps(struct step_bench *b, const struct step_options *o) {
    for (int64_t i = 0; i < o->warmup + o->steps; i++) {
        if (i == o->warmup) hk_device_get_stats(b->device, &b->before);
        const double start = now_seconds();
        if (!step(b, b->trainer, i, &b->loss)) return fail_library();
        if (i < CHECKED_STEPS) b->first[i] = b->loss;
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
    cJSON_AddStringToObject(object, "dtype", o->precision);
    cJSON_AddNumberToObject(object, "batch", (double)b->params.batch);
    cJSON_AddNumberToObject(object, "length", (double)b->params.length);
    cJSON_AddNumberToObject(object, "params", (double)hk_params_elements(hk_trainer_model(b->trainer)));
    cJSON_AddNumberToObject(object, "ms_per_step", rounded(seconds * 1e3, 3));
    cJSON_AddNumberToObject(object, "ms_min", rounded(b->times[0] * 1e3, 3));
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
    b->params.precision = (enum hk_dtype)precision_of(o->precision);
    b->params.seed = 1;
    if (o->batch) b->params.batch = o->batch;
    if (o->length) b->params.model.context = o->length;
    b->params.length = b->params.model.context;
    b->tokens = malloc((size_t)(b->params.batch * (b->params.length + 1)) * sizeof *b->tokens);
    b->times = malloc((size_t)o->steps * sizeof *b->times);
    if (!b->tokens || !b->times) return fail_with("no memory for a batch");
    b->device = open_device(o->device, o->profile != NULL);
    if (!b->device) return EXIT_FAILED;
    b->trainer = hk_trainer_create(b->device, &b->params);
    return b->trainer ? EXIT_OK : fail_library();
}

/* The same first steps on the CPU. Their losses may differ by what rounding makes of them: a step of Adam is about the
   learning rate in each parameter, whichever sign a gradient near zero has. */
static int check_steps(struct step_bench *b, const struct step_options *o) {
    const double most = b->params.precision == HK_F32 ? 1e-3 : 2e-2;
    const int64_t count = o->warmup + o->steps < CHECKED_STEPS ? o->warmup + o->steps : CHECKED_STEPS;
    struct hk_device *cpu = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    struct hk_trainer *trainer = cpu ? hk_trainer_create(cpu, &b->params) : NULL;
    int status = trainer ? EXIT_OK : fail_library();
    for (int64_t i = 0; status == EXIT_OK && i < count; i++) {
        float loss;
        if (!step(b, trainer, i, &loss)) status = fail_library();
        else if (!(fabs((double)(loss - b->first[i])) <= most * fabs((double)loss))) /* a NaN is no loss */
            status =
                fail_with("step %d has a loss of %g, on the CPU of %g", (int)i + 1, (double)b->first[i], (double)loss);
    }
    hk_trainer_destroy(&trainer);
    hk_device_destroy(&cpu);
    return status;
}

int bench_step(int argc, char **argv) {
    struct step_options o = {.precision = "f32", .steps = 10, .warmup = 3};
    struct option_row rows[] = {
        OPTION_MODEL(&o.model),
        {.name = "steps",
         .kind = OPTION_WHOLE,
         .value = &o.steps,
         .low = 1,
         .high = MOST_TIMES,
         .argument = "N",
         .help = "steps to time (default 10)"},
        {.name = "warmup",
         .kind = OPTION_WHOLE,
         .value = &o.warmup,
         .high = MOST_TIMES,
         .argument = "N",
         .help = "steps before those (default 3)"},
        {.name = "batch",
         .kind = OPTION_WHOLE,
         .value = &o.batch,
         .high = 65536,
         .argument = "N",
         .help = "sequences in a step (default: the model's)"},
        {.name = "length",
         .kind = OPTION_WHOLE,
         .value = &o.length,
         .high = 1 << 20,
         .argument = "N",
         .help = "tokens in each, which is then the model's context (default: its own)"},
        {.name = "check", .kind = OPTION_FLAG, .value = &o.check, .help = "compare the first losses with the CPU's"},
        OPTION_PRECISION(&o.precision),
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
    if (precision_of(o.precision) < 0) return fail_precision("bench step", o.precision);
    struct step_bench bench = {0};
    if (hk_model_preset(o.model, &bench.params.model, &bench.params.batch) != HK_OK)
        return fail_usage("bench step", "%s", hk_error_message());
    status = make_trainer(&bench, &o);
    if (status == EXIT_OK) status = time_steps(&bench, &o);
    if (status == EXIT_OK) print_steps(&bench, &o);
    if (status == EXIT_OK && o.check) status = check_steps(&bench, &o);
    if (status == EXIT_OK) status = write_profile(bench.device, o.profile);
    hk_trainer_destroy(&bench.trainer);
    hk_device_destroy(&bench.device);
    free(bench.tokens);
    free(bench.times);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}
