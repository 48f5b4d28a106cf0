/* The training loop: steps, evaluations, checkpoints, interruption. Everything a step depends on follows from its
   number and from what a checkpoint holds, so that a resumed run goes on as if it had never stopped. */
#include "train.h"
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LOG_EVERY 10        /* steps */
#define SAVE_SECONDS 60     /* between checkpoints, if no evaluation makes one */
#define QUICK_TOKENS 16384  /* of an evaluation on the way, and ... */
#define FINAL_TOKENS 131072 /* ... at the end */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

/* The first signal asks the loop to stop; SA_RESETHAND lets a second one end the process. */
static void catch_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool train_finished(const struct hk_run_state *state) {
    return state->steps ? state->step >= state->steps : state->seconds >= state->minutes * 60;
}

/* By steps the rate depends on the step alone; by time, on the share of the time that is over. */
static float learning_rate(const struct hk_run_state *state, int64_t step) {
    struct hk_schedule schedule = state->schedule;
    if (state->steps) return hk_schedule_at(&schedule, step);
    const double share = fmin(state->seconds / (state->minutes * 60), 1);
    const int64_t warmup = schedule.warmup;
    schedule.warmup = 0, schedule.steps = 1 << 20;
    const float rate = hk_schedule_at(&schedule, 1 + (int64_t)(share * (double)((1 << 20) - 1)));
    return step < warmup ? rate * (float)step / (float)warmup : rate;
}

/* Mean loss over up to so many held-out tokens. */
static int held_out_loss(struct training *t, int64_t most_tokens, double *mean) {
    const struct hk_run_state *s = &t->state;
    const int64_t part_tokens = s->batch * s->length, have = hk_text_tokens(t->text, true);
    const int64_t wanted = have < most_tokens ? have : most_tokens, parts = (wanted + part_tokens - 1) / part_tokens;
    double sum = 0;
    for (int64_t part = 0; part < parts; part++) {
        float loss;
        if (hk_text_evaluation(t->text, s->batch, s->length, part, parts, t->tokens) != HK_OK ||
            hk_trainer_evaluate(t->trainer, t->tokens, &loss) != HK_OK)
            return fail_library();
        sum += (double)loss;
    }
    *mean = sum / (double)parts;
    return EXIT_OK;
}

static int fail_save(struct training *t, const char *message) {
    struct hk_run_state saved = {.step = -1};
    progress_end(&t->progress);
    if (hk_run_load_state(t->folder, &saved) != HK_OK) return fail_with("%s", message);
    return fail_with("%s\nhekla: %s keeps the checkpoint of step %" PRId64, message, t->folder, saved.step);
}

/* A disk that is full now may not be when the next checkpoint is due: training is worth more than a try. Only the last
   one must succeed. */
static int save(struct training *t, bool last) {
    t->last_save = now_seconds();
    const hk_status status =
        hk_run_save(t->folder, &t->model, hk_trainer_model(t->trainer), hk_trainer_optimizer(t->trainer), &t->state);
    if (status == HK_OK) return EXIT_OK;
    char message[1024];
    snprintf(message, sizeof message, "%s", hk_error_message());
    if (last || status != HK_ERROR_IO) return fail_save(t, message);
    progress_end(&t->progress);
    note("%s\nhekla: step %" PRId64 " is not saved; training goes on and tries again at the next checkpoint", message,
         t->state.step);
    return EXIT_OK;
}

/* A line that is lost is no reason to stop, but for the exit status at the end. */
static void write_metrics(struct training *t, const struct hk_metric *metrics, int count) {
    if (hk_metrics_write(t->metrics, t->state.step, metrics, count) == HK_OK || t->lost_lines++) return;
    progress_end(&t->progress);
    note("%s\nhekla: training goes on without this line", hk_error_message());
}

/* The status of a training that came to its end. */
static int check_metrics(const struct training *t) {
    if (!t->lost_lines) return EXIT_OK;
    return fail_with("the run is saved, but %s/metrics.jsonl lacks %" PRId64 " lines that could not be written",
                     t->folder, t->lost_lines);
}

static void log_step(struct training *t, float norm, float lr) {
    const struct hk_run_state *s = &t->state;
    const bool logged = s->step % LOG_EVERY == 0 || s->step == 1 || train_finished(s);
    progress_step(&t->progress, s, norm, lr, logged, t->device);
    const struct hk_metric metrics[] = {{"loss", s->loss},
                                        {"norm", (double)norm},
                                        {"lr", (double)lr},
                                        {"tokens_per_s", round(t->progress.tokens_per_s)},
                                        {"seconds", rounded(s->seconds, 3)}};
    if (logged) write_metrics(t, metrics, COUNT_OF(metrics));
}

/* what: "the loss" or another number that training cannot go on from; a NaN's sign says nothing. */
static int stop_on_nan(struct training *t, int64_t step, const char *what, double value) {
    struct hk_run_state saved = {0};
    progress_end(&t->progress);
    hk_run_load_state(t->folder, &saved);
    return fail_with("training stopped at step %" PRId64 ": %s is %g. %s keeps the checkpoint of step %" PRId64
                     ". A lower --lr, a longer --warmup or --clip 1 may help",
                     step, what, fabs(value), t->folder, saved.step);
}

/* A step that was skipped since the scaled loss was too large for f16 is no reason to stop, but for one whose scale can
   hardly become less. */
static bool was_skipped(struct training *t) {
    float scaling[HK_SCALING_COUNT];
    struct hk_tensor *tensor = hk_optimizer_scaling(hk_trainer_optimizer(t->trainer));
    return tensor && hk_tensor_read(tensor, scaling, sizeof scaling) == HK_OK && scaling[HK_SCALING_SCALE] >= 1;
}

static int one_step(struct training *t) {
    struct hk_run_state *s = &t->state;
    const int64_t step = s->step + 1;
    const float lr = learning_rate(s, step);
    float loss, norm;
    if (hk_text_batch(t->text, s->batch * s->accumulate, s->length, s->seed, (uint64_t)step, t->tokens) != HK_OK ||
        hk_trainer_step(t->trainer, t->tokens, lr) != HK_OK || hk_trainer_result(t->trainer, &loss, &norm) != HK_OK)
        return fail_library();
    if (!isfinite(loss)) return stop_on_nan(t, step, "the loss", (double)loss);
    if (!isfinite(norm) && !was_skipped(t)) return stop_on_nan(t, step, "the gradient's norm", (double)norm);
    s->step = step, s->loss = (double)loss, s->seconds = now_seconds() - t->started;
    log_step(t, norm, lr);
    return EXIT_OK;
}

static void show_evaluation(struct training *t, double loss) {
    t->state.held_out_loss = loss;
    progress_evaluation(&t->progress, &t->state);
    write_metrics(t, &(struct hk_metric){"held_out_loss", loss}, 1);
}

/* Evaluates and saves where it is time. Nothing is saved that was not evaluated, a little at least: the last step may
   have made weights of which the next loss would be NaN, and the checkpoint before it is the good one. */
static int checkpoint_if_due(struct training *t, bool stop) {
    const struct hk_run_state *s = &t->state;
    const bool finished = train_finished(s),
               shown = finished || (s->evaluate_every && s->step % s->evaluate_every == 0);
    if (!shown && !stop && now_seconds() - t->last_save < SAVE_SECONDS) return EXIT_OK;
    double loss = 0;
    const int status = held_out_loss(t, finished ? FINAL_TOKENS : shown ? QUICK_TOKENS : 1, &loss);
    if (status != EXIT_OK) return status;
    if (!isfinite(loss)) return stop_on_nan(t, s->step, "the held-out loss", loss);
    if (shown) show_evaluation(t, loss);
    return save(t, finished || stop);
}

int train_loop(struct training *t) {
    catch_interrupts();
    t->last_save = now_seconds();
    t->started = t->last_save - t->state.seconds;
    while (!train_finished(&t->state)) {
        int status = one_step(t);
        const bool stop = interrupted; /* once: what comes later is seen after the next step */
        if (status == EXIT_OK) status = checkpoint_if_due(t, stop);
        if (status != EXIT_OK) return status;
        if (!stop || train_finished(&t->state)) continue;
        progress_end(&t->progress);
        check_metrics(t);
        return fail_with("stopped after step %" PRId64 " and saved; to go on: hekla train --resume --out %s",
                         t->state.step, t->folder);
    }
    return check_metrics(t);
}
