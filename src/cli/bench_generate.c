/* hekla bench generate: one token after another, from a model of random weights. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>

struct generate_bench {
    struct hk_model_config config;
    struct hk_device *device;
    struct hk_params *params;
    struct hk_generator *generator;
    float *logits;
    double *times; /* seconds, one per token */
};

struct generate_options {
    const char *model, *precision, *device;
    int64_t tokens, prompt;
};

static int time_tokens(struct generate_bench *b, const struct generate_options *o) {
    int32_t *prompt = malloc((size_t)o->prompt * sizeof *prompt);
    if (!prompt) return fail_with("no memory for the prompt");
    random_tokens(prompt, o->prompt, b->config.vocab, 1);
    const hk_status status = hk_generator_feed(b->generator, prompt, o->prompt, b->logits);
    free(prompt);
    if (status != HK_OK) return fail_library();
    for (int64_t i = 0; i < o->tokens; i++) {
        const double start = now_seconds();
        const int32_t token = hk_sample(b->logits, b->config.vocab, NULL, (uint64_t)i);
        if (hk_generator_feed(b->generator, &token, 1, b->logits) != HK_OK) return fail_library();
        b->times[i] = now_seconds() - start;
    }
    return EXIT_OK;
}

static void print_tokens(struct generate_bench *b, const struct generate_options *o) {
    const double seconds = median(b->times, o->tokens);
    const double weights =
        (double)hk_params_elements(b->params) * (double)hk_dtype_size((enum hk_dtype)precision_of(o->precision));
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", o->model);
    add_device(object, b->device);
    cJSON_AddStringToObject(object, "dtype", o->precision);
    cJSON_AddNumberToObject(object, "tokens", (double)o->tokens);
    cJSON_AddNumberToObject(object, "ms_per_token", rounded(seconds * 1e3, 4));
    cJSON_AddNumberToObject(object, "ms_min", rounded(b->times[0] * 1e3, 4));
    cJSON_AddNumberToObject(object, "tokens_per_s", rounded(1 / seconds, 2));
    cJSON_AddNumberToObject(object, "weights_gbps", rounded(weights / seconds / 1e9, 2)); /* each weight read once */
    json_print_line(object);
}

static int make_generator(struct generate_bench *b, const struct generate_options *o) {
    b->logits = malloc((size_t)b->config.vocab * sizeof *b->logits);
    b->times = malloc((size_t)o->tokens * sizeof *b->times);
    if (!b->logits || !b->times) return fail_with("no memory for logits");
    b->device = open_device(o->device, false);
    if (!b->device) return EXIT_FAILED;
    b->params = hk_params_create(b->device);
    if (!b->params || hk_model_declare(b->params, &b->config) != HK_OK || hk_params_allocate(b->params, 1) != HK_OK)
        return fail_library();
    hk_params_set_precision(b->params, (enum hk_dtype)precision_of(o->precision)); /* a failure stays with them */
    b->generator = hk_generator_create(b->device, b->params, &b->config);
    return b->generator ? EXIT_OK : fail_library();
}

int bench_generate(int argc, char **argv) {
    struct generate_options o = {.precision = "f32", .tokens = 40, .prompt = 8};
    struct option_row rows[] = {
        OPTION_MODEL(&o.model),
        {.name = "tokens",
         .kind = OPTION_WHOLE,
         .value = &o.tokens,
         .low = 1,
         .high = MOST_TIMES,
         .argument = "N",
         .help = "tokens to time (default 40)"},
        {.name = "prompt",
         .kind = OPTION_WHOLE,
         .value = &o.prompt,
         .low = 1,
         .high = MOST_TIMES,
         .argument = "N",
         .help = "tokens fed before those (default 8)"},
        OPTION_PRECISION(&o.precision),
        OPTION_DEVICE(&o.device),
    };
    const struct command_line line = {
        .command = "bench generate",
        .usage = "--model NAME [options]",
        .about =
            "Times the writing of tokens, one at a time, by a model of random weights. ms_per_token is the median;\n"
            "weights_gbps is how fast its weights were read, each once a token.",
        .rows = rows,
        .n_rows = COUNT_OF(rows)};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (!o.model) return fail_usage("bench generate", "--model NAME is missing");
    if (precision_of(o.precision) < 0) return fail_precision("bench generate", o.precision);
    struct generate_bench bench = {0};
    if (hk_model_preset(o.model, &bench.config, NULL) != HK_OK)
        return fail_usage("bench generate", "%s", hk_error_message());
    status = make_generator(&bench, &o);
    if (status == EXIT_OK) status = time_tokens(&bench, &o);
    if (status == EXIT_OK) print_tokens(&bench, &o);
    hk_generator_destroy(&bench.generator);
    hk_params_destroy(&bench.params);
    hk_device_destroy(&bench.device);
    free(bench.logits);
    free(bench.times);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}
