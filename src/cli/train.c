/* hekla train: from options, and from the folder of a run to resume, to a training. */
#include "train.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct train_options {
    const char *data, *out, *model, *schedule, *precision, *device, *profile;
    int64_t layers, heads, width, context, batch, accumulate, steps, warmup, seed, eval_every;
    double minutes, lr, weight_decay, clip, dropout, tune;
    bool resume, json;
};

static const struct train_options defaults = {.out = "run",
                                              .model = "gpt",
                                              .schedule = "cosine",
                                              .precision = "f32",
                                              .layers = 4,
                                              .heads = 4,
                                              .width = 128,
                                              .context = 64,
                                              .batch = 12,
                                              .accumulate = 1,
                                              .steps = 5000,
                                              .warmup = 100,
                                              .seed = 1,
                                              .eval_every = 500,
                                              .lr = 1e-3,
                                              .weight_decay = 0.1,
                                              .clip = 1};

#define WHOLE(option, field, least, most, text)                                                                        \
    {                                                                                                                  \
        .name = option, .kind = OPTION_WHOLE, .value = &o->field, .low = least, .high = most, .argument = "N",         \
        .help = text                                                                                                   \
    }
#define NUMBER(option, field, most, text)                                                                              \
    { .name = option, .kind = OPTION_NUMBER, .value = &o->field, .high = most, .argument = "X", .help = text }
#define TEXT(option, field, form, text)                                                                                \
    { .name = option, .kind = OPTION_TEXT, .value = &o->field, .argument = form, .help = text }

/* Also of a run that is resumed: their product with the size of a token is far from overflow. */
enum { MOST_SEQUENCES = 65536, MOST_CONTEXT = 1 << 20 };

#define N_ROWS 25
static void make_rows(struct train_options *o, struct option_row rows[N_ROWS]) {
    const struct option_row made[N_ROWS] = {
        TEXT("data", data, "FILE", "the text to learn; its last tenth is held out for evaluation"),
        TEXT("out", out, "DIR", "the run's folder (default run)"),
        TEXT("model", model, "gpt|llama", "GPT-2's or Llama's kind of model (default gpt)"),
        WHOLE("layers", layers, 1, 1000, "(default 4)"),
        WHOLE("heads", heads, 1, 1000, "attention heads; must divide the width (default 4)"),
        WHOLE("width", width, 1, 65536, "channels (default 128); feed-forward layers have 4 x that, Llama's 8/3 x"),
        WHOLE("context", context, 1, MOST_CONTEXT, "bytes that the model sees (default 64)"),
        WHOLE("batch", batch, 1, MOST_SEQUENCES, "sequences at a time (default 12)"),
        WHOLE("accumulate", accumulate, 1, MOST_SEQUENCES, "batches in one step (default 1)"),
        WHOLE("steps", steps, 1, 1e12, "how many steps to train (default 5000)"),
        NUMBER("minutes", minutes, 1e6, "how long to train, instead of --steps"),
        NUMBER("lr", lr, 1e30, "the highest learning rate (default 0.001); it falls to 0"),
        WHOLE("warmup", warmup, 0, 1e12, "steps in which the learning rate rises (default 100, at most a tenth)"),
        TEXT("schedule", schedule, "KIND", "cosine, linear or constant (default cosine)"),
        NUMBER("weight-decay", weight_decay, 1000, "(default 0.1)"),
        NUMBER("clip", clip, 1e30, "the largest norm of a gradient; 0: any (default 1)"),
        NUMBER("dropout", dropout, 0.99, "(default 0)"),
        OPTION_PRECISION(&o->precision),
        WHOLE("seed", seed, 0, 9007199254740992.0, "(default 1)"),
        WHOLE("eval-every", eval_every, 0, 1e12, "steps between evaluations; 0: only at the end (default 500)"),
        {.name = "resume",
         .kind = OPTION_FLAG,
         .value = &o->resume,
         .help = "go on with the run in --out; options are its own, --steps or --minutes may be new"},
        NUMBER("tune", tune, 1e6, "first measure kernels for at most so many seconds (see hekla tune; default 0)"),
        OPTION_DEVICE(&o->device),
        OPTION_PROFILE(&o->profile),
        OPTION_JSON(&o->json),
    };
    memcpy(rows, made, sizeof made);
}

static const char *const schedule_names[] = {"constant", "linear", "cosine"}; /* by enum hk_schedule_kind */

static int schedule_kind(const char *name) {
    for (int i = 0; i < COUNT_OF(schedule_names); i++)
        if (!strcmp(name, schedule_names[i])) return i;
    return -1;
}

/* Wrong usage that no single option shows. EXIT_OK: none. */
static int check_usage(const struct command_line *line, const struct train_options *o) {
    if (!o->data && !o->resume) return fail_usage("train", "--data FILE is missing");
    if (options_given(line, "steps") && options_given(line, "minutes"))
        return fail_usage("train", "--steps and --minutes: choose one");
    if (options_given(line, "minutes") && o->minutes <= 0) return fail_usage("train", "--minutes must be over 0");
    if (strcmp(o->model, "gpt") && strcmp(o->model, "llama"))
        return fail_usage("train", "--model must be gpt or llama, not \"%s\"", o->model);
    if (schedule_kind(o->schedule) < 0)
        return fail_usage("train", "--schedule must be cosine, linear or constant, not \"%s\"", o->schedule);
    if (precision_of(o->precision) < 0) return fail_precision("train", o->precision);
    return EXIT_OK;
}

/* ---- A new run ---- */

static void new_model(const struct train_options *o, struct hk_model_config *model) {
    const bool llama = !strcmp(o->model, "llama");
    *model = (struct hk_model_config){.family = llama ? HK_LLAMA : HK_GPT2,
                                      .vocab = 256,
                                      .context = o->context,
                                      .layers = o->layers,
                                      .heads = o->heads,
                                      .kv_heads = o->heads,
                                      .width = o->width,
                                      .hidden = 4 * o->width,
                                      .epsilon = 1e-5f,
                                      .rope_base = llama ? 10000.0f : 0.0f,
                                      .dropout = (float)o->dropout};
    /* three matrices instead of two: 8/3 of the width, in whole 32s, keeps the number of parameters */
    if (llama) model->hidden = (8 * o->width / 3 + 31) / 32 * 32;
}

/* How long, and the learning rate on the way. */
static void set_plan(const struct train_options *o, bool by_time, bool warmup_given, struct hk_run_state *state) {
    state->steps = by_time ? 0 : o->steps;
    state->minutes = by_time ? o->minutes : 0;
    const bool shorten = !by_time && !warmup_given && o->warmup > o->steps / 10;
    state->schedule = (struct hk_schedule){.kind = (enum hk_schedule_kind)schedule_kind(o->schedule),
                                           .peak = (float)o->lr,
                                           .floor = 0, /* a rate that ends at 0 learns more than one that ends at a tenth */
                                           .warmup = shorten ? o->steps / 10 : o->warmup,
                                           .steps = state->steps};
}

/* Where the text is, for those who resume; none rather than one that is cut. */
static void keep_path(struct hk_run_state *state, const char *text) {
    char *path = realpath(text, NULL);
    const int length = snprintf(state->data, sizeof state->data, "%s", path ? path : text);
    if ((size_t)length >= sizeof state->data) state->data[0] = 0;
    free(path);
}

static void new_state(const struct train_options *o, const struct command_line *line, struct hk_run_state *state) {
    *state = (struct hk_run_state){.seed = (uint64_t)o->seed,
                                   .loss = NAN,
                                   .held_out_loss = NAN,
                                   .batch = o->batch,
                                   .length = o->context,
                                   .accumulate = o->accumulate,
                                   .evaluate_every = o->eval_every,
                                   .precision = (enum hk_dtype)precision_of(o->precision),
                                   .optimizer = {.kind = HK_ADAMW,
                                                 .beta1 = 0.9f,
                                                 .beta2 = 0.99f,
                                                 .epsilon = 1e-8f,
                                                 .weight_decay = (float)o->weight_decay,
                                                 .clip = (float)o->clip}};
    if (state->precision == HK_F16) state->optimizer.loss_scale = HK_LOSS_SCALE;
    set_plan(o, options_given(line, "minutes"), options_given(line, "warmup"), state);
}

/* ---- A run to resume ---- */

/* An option that the run has already decided: as a number or a text. */
struct decided {
    const char *name;
    double number;
    const char *text;
};

static int check_decided(const struct command_line *line, const struct decided *d, const char *folder) {
    const struct option_row *row = options_find(line, d->name);
    if (!row->given) return EXIT_OK;
    if (row->kind == OPTION_TEXT) {
        const char *given = *(const char **)row->value;
        return !strcmp(given, d->text) ? EXIT_OK
                                       : fail_with("--%s is %s in %s, not %s", d->name, d->text, folder, given);
    }
    const bool whole = row->kind == OPTION_WHOLE;
    const double given = whole ? (double)*(int64_t *)row->value : *(double *)row->value;
    if (whole ? given == d->number : (float)given == (float)d->number) return EXIT_OK;
    const int digits = whole ? 17 : 7; /* all that an int64_t of an option has, all that a float has */
    return fail_with("--%s is %.*g in %s, not %.*g; a resumed run keeps its options", d->name, digits, d->number,
                     folder, digits, given);
}

static int check_conflicts(const struct command_line *line, const struct training *t) {
    const struct hk_run_state *s = &t->state;
    const struct hk_model_config *m = &t->model;
    const struct decided decided[] = {
        {"model", 0, m->family == HK_LLAMA ? "llama" : "gpt"},
        {"layers", (double)m->layers, NULL},
        {"heads", (double)m->heads, NULL},
        {"width", (double)m->width, NULL},
        {"context", (double)s->length, NULL},
        {"batch", (double)s->batch, NULL},
        {"accumulate", (double)s->accumulate, NULL},
        {"lr", (double)s->schedule.peak, NULL},
        {"warmup", (double)s->schedule.warmup, NULL},
        {"schedule", 0, schedule_names[s->schedule.kind]},
        {"weight-decay", (double)s->optimizer.weight_decay, NULL},
        {"clip", (double)s->optimizer.clip, NULL},
        {"dropout", (double)m->dropout, NULL},
        {"precision", 0, hk_dtype_name(s->precision)},
        {"seed", (double)s->seed, NULL},
    };
    for (int i = 0; i < COUNT_OF(decided); i++) {
        const int status = check_decided(line, &decided[i], t->folder);
        if (status != EXIT_OK) return status;
    }
    return EXIT_OK;
}

/* A new end for a run: the learning rate follows it from here on. */
static void change_plan(const struct command_line *line, const struct train_options *o, struct hk_run_state *state) {
    if (options_given(line, "steps")) state->steps = o->steps, state->minutes = 0;
    if (options_given(line, "minutes")) state->steps = 0, state->minutes = o->minutes;
    state->schedule.steps = state->steps;
    if (options_given(line, "eval-every")) state->evaluate_every = o->eval_every;
}

static bool in_range(int64_t x, int64_t most) { return x >= 1 && x <= most; }

static int load_run(const struct command_line *line, const struct train_options *o, struct training *t) {
    if (hk_run_load_config(t->folder, &t->model) != HK_OK || hk_run_load_state(t->folder, &t->state) != HK_OK)
        return fail_library();
    const struct hk_run_state *s = &t->state;
    if (!in_range(s->batch, MOST_SEQUENCES) || !in_range(s->accumulate, MOST_SEQUENCES) ||
        !in_range(s->length, MOST_CONTEXT) || (!s->steps && !(s->minutes > 0)))
        return fail_with("%s/state.json does not say how the run is trained: it cannot be resumed", t->folder);
    const int status = check_conflicts(line, t);
    if (status == EXIT_OK) change_plan(line, o, &t->state);
    return status;
}

static int load_text(const struct train_options *o, struct training *t) {
    const char *path = o->data ? o->data : t->state.data;
    if (!*path) return fail_with("%s does not say where its text is: --data FILE is needed", t->folder);
    t->text = hk_text_open(path, NULL);
    if (!t->text) return fail_library();
    const uint64_t hash = hk_text_hash(t->text);
    if (o->resume && hash != t->state.data_hash)
        return fail_with("%s is not the text that %s was trained on", path, t->folder);
    t->state.data_hash = hash;
    if (o->data) keep_path(&t->state, o->data);
    /* says now what it would say after the model is made */
    t->tokens = malloc((size_t)(t->state.batch * t->state.accumulate * (t->state.length + 1)) * sizeof *t->tokens);
    if (!t->tokens)
        return fail_with("no memory for a step's %" PRId64 " sequences", t->state.batch * t->state.accumulate);
    if (hk_text_batch(t->text, 1, t->state.length, 0, 0, t->tokens) != HK_OK ||
        hk_text_evaluation(t->text, 1, t->state.length, 0, 1, t->tokens) != HK_OK)
        return fail_library();
    return EXIT_OK;
}

/* ---- Both ---- */

static int lock_folder(struct training *t) {
    t->lock = hk_run_lock(t->folder);
    return t->lock ? EXIT_OK : fail_library();
}

static int refuse_run(const char *folder) {
    return fail_with("%s holds a run already: go on with it by --resume, or choose another folder with --out", folder);
}

/* Fills the description of the training; nothing is computed or written yet. */
static int describe(const struct command_line *line, const struct train_options *o, struct training *t) {
    t->folder = o->out;
    int status = EXIT_OK;
    if (o->resume) {
        status = load_run(line, o, t);
    } else {
        if (hk_run_exists(t->folder)) return refuse_run(t->folder);
        new_model(o, &t->model);
        new_state(o, line, &t->state);
    }
    if (status == EXIT_OK && hk_model_config_check(&t->model) != HK_OK) status = fail_library();
    return status == EXIT_OK ? load_text(o, t) : status;
}

static int make_trainer(struct training *t) {
    const struct hk_trainer_params params = {.model = t->model,
                                             .optimizer = t->state.optimizer,
                                             .batch = t->state.batch,
                                             .length = t->state.length,
                                             .accumulate = t->state.accumulate,
                                             .seed = t->state.seed,
                                             .precision = t->state.precision};
    t->trainer = hk_trainer_create(t->device, &params);
    return t->trainer ? EXIT_OK : fail_library();
}

/* From here on the folder is this run's: a new one gets its first checkpoint before the first step, which also shows
   early whether there is room for it. */
static int claim_folder(const struct train_options *o, struct training *t) {
    struct hk_params *params = hk_trainer_model(t->trainer);
    struct hk_optimizer *optimizer = hk_trainer_optimizer(t->trainer);
    const int status = lock_folder(t);
    if (status != EXIT_OK) return status;
    if (o->resume) {
        struct hk_run_state now;
        if (hk_run_load(t->folder, params, optimizer, &now) != HK_OK) return fail_library();
        if (now.step != t->state.step)
            return fail_with("another process has trained %s meanwhile, to step %" PRId64 ": resume it again", t->folder,
                             now.step);
    } else {
        if (hk_run_exists(t->folder)) return refuse_run(t->folder); /* it was begun while the device was opened */
        if (hk_run_save(t->folder, &t->model, params, optimizer, &t->state) != HK_OK) return fail_library();
    }
    t->metrics = hk_metrics_open(t->folder, t->state.step);
    return t->metrics ? EXIT_OK : fail_library();
}

static void say_what(const struct train_options *o, const struct training *t) {
    if (o->json) return;
    printf("%s of %" PRId64 " parameters, %" PRId64 " bytes to learn from, %" PRId64 " held out\n",
           t->model.family == HK_LLAMA ? "a llama" : "a gpt", hk_params_elements(hk_trainer_model(t->trainer)),
           hk_text_tokens(t->text, false), hk_text_tokens(t->text, true));
    if (o->resume) printf("resuming after step %" PRId64 "\n", t->state.step);
    fflush(stdout);
}

/* Nothing is left to do, but what a process that was killed in its last save did not come to. */
static int leave_finished(struct training *t) {
    const int status = lock_folder(t);
    if (status != EXIT_OK) return status;
    if (hk_run_settle(t->folder) != HK_OK) return fail_library();
    note("%s is finished, at step %" PRId64 "; --steps N or --minutes M go on from there", t->folder, t->state.step);
    return EXIT_OK;
}

static int train(const struct command_line *line, const struct train_options *o, struct training *t) {
    int status = describe(line, o, t);
    if (status != EXIT_OK) return status;
    if (train_finished(&t->state)) return leave_finished(t);
    t->device = open_device_as(&(struct hk_device_params){.name = o->device, .profile = o->profile != NULL, .tune = o->tune});
    if (!t->device) return EXIT_FAILED;
    status = make_trainer(t);
    if (status == EXIT_OK) status = claim_folder(o, t);
    if (status != EXIT_OK) return status;
    say_what(o, t);
    progress_start(&t->progress, o->json, t->state.step);
    status = train_loop(t);
    const int profile_status = write_profile(t->device, o->profile);
    if (status == EXIT_OK) status = profile_status;
    if (status == EXIT_OK && !o->json)
        printf("saved in %s; to write with it: hekla generate %s\n", t->folder, t->folder);
    return status == EXIT_OK && !output_ok() ? EXIT_FAILED : status;
}

static void clean_up(struct training *t) {
    hk_metrics_close(&t->metrics);
    hk_trainer_destroy(&t->trainer);
    hk_device_destroy(&t->device);
    hk_text_destroy(&t->text);
    hk_run_unlock(&t->lock);
    free(t->tokens);
}

int command_train(int argc, char **argv) {
    struct train_options o = defaults;
    struct option_row rows[N_ROWS];
    make_rows(&o, rows);
    const struct command_line line = {.command = "train",
                                      .usage =
                                          "--data FILE [options]\n       hekla train --resume [--out DIR] [options]",
                                      .about = "Trains a language model on the bytes of a text and keeps it in a "
                                               "folder. Ctrl-C stops after the step and saves.",
                                      .rows = rows,
                                      .n_rows = N_ROWS};
    struct training training = {0};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    status = check_usage(&line, &o);
    if (status != EXIT_OK) return status;
    status = train(&line, &o, &training);
    clean_up(&training);
    return status;
}
