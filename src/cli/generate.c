/* hekla generate */
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct generate_options {
    const char *folder, *prompt, *precision, *device;
    int64_t tokens, top_k, seed;
    double temperature, top_p;
};

static hk_status feed_prompt(struct hk_generator *generator, const char *prompt, float *logits) {
    const size_t count = strlen(prompt);
    int32_t *tokens = malloc((count + 1) * sizeof *tokens);
    if (!tokens) return HK_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++) tokens[i] = (unsigned char)prompt[i];
    const hk_status status = hk_generator_feed(generator, tokens, (int64_t)count, logits);
    free(tokens);
    return status;
}

/* Writes byte after byte as the model makes them. */
static int write_text(struct hk_generator *generator, const struct generate_options *o) {
    float logits[256];
    const struct hk_sampling sampling = {.temperature = (float)o->temperature,
                                         .top_k = (int32_t)o->top_k,
                                         .top_p = (float)o->top_p,
                                         .seed = (uint64_t)o->seed};
    /* a model always needs something to go on from; a new line is what texts have before a beginning */
    if (feed_prompt(generator, *o->prompt ? o->prompt : "\n", logits) != HK_OK) return fail_library();
    fputs(o->prompt, stdout);
    for (int64_t i = 0; i < o->tokens; i++) {
        const int32_t token = hk_sample(logits, 256, &sampling, (uint64_t)i);
        putchar(token);
        if (!output_ok()) return EXIT_FAILED;
        if (i + 1 < o->tokens && hk_generator_feed(generator, &token, 1, logits) != HK_OK) return fail_library();
    }
    putchar('\n');
    return output_ok() ? EXIT_OK : EXIT_FAILED;
}

static int generate(const struct generate_options *o) {
    struct loaded_model model;
    int status = model_load(&model, o->folder, o->device);
    if (status != EXIT_OK) return status;
    hk_params_set_precision(model.params, (enum hk_dtype)precision_of(o->precision)); /* a failure stays with them */
    struct hk_generator *generator = hk_generator_create(model.device, model.params, &model.config);
    status = generator ? write_text(generator, o) : fail_library();
    hk_generator_destroy(&generator);
    model_unload(&model);
    return status;
}

int command_generate(int argc, char **argv) {
    struct generate_options o = {.prompt = "", .precision = "f32", .tokens = 500, .temperature = 0.8, .seed = 1};
    struct option_row rows[] = {
        {.name = "prompt",
         .kind = OPTION_TEXT,
         .value = &o.prompt,
         .argument = "TEXT",
         .help = "what the text begins with"},
        {.name = "tokens",
         .kind = OPTION_WHOLE,
         .value = &o.tokens,
         .low = 0,
         .high = 1e9,
         .argument = "N",
         .help = "bytes to write (default 500)"},
        {.name = "temperature",
         .kind = OPTION_NUMBER,
         .value = &o.temperature,
         .high = 100,
         .argument = "X",
         .help = "0: always the most likely byte; 1: as the model says (default 0.8)"},
        {.name = "top-k",
         .kind = OPTION_WHOLE,
         .value = &o.top_k,
         .high = 256,
         .argument = "N",
         .help = "draw from the N most likely; 0: all (default 0)"},
        {.name = "top-p",
         .kind = OPTION_NUMBER,
         .value = &o.top_p,
         .high = 1,
         .argument = "P",
         .help = "draw from the fewest that together have probability P; 0: all (default 0)"},
        {.name = "seed",
         .kind = OPTION_WHOLE,
         .value = &o.seed,
         .high = 9007199254740992.0,
         .argument = "N",
         .help = "another seed, another text (default 1)"},
        OPTION_PRECISION(&o.precision),
        OPTION_DEVICE(&o.device),
    };
    const struct command_line line = {.command = "generate",
                                      .usage = "DIR [options]",
                                      .about = "Writes text with the model in DIR, a folder that hekla train made.",
                                      .rows = rows,
                                      .n_rows = COUNT_OF(rows),
                                      .operand = &o.folder,
                                      .operand_name = "DIR"};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (precision_of(o.precision) < 0) return fail_precision("generate", o.precision);
    return generate(&o);
}
