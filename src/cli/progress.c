/* What one sees of a training run. */
#include "train.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LIVE_SECONDS 0.2 /* between rewritings of the live line */
#define PLAIN_SECONDS 10 /* between lines where there is no terminal */

void progress_start(struct progress *progress, bool json, int64_t step) {
    const double now = now_seconds();
    *progress = (struct progress){
        .json = json, .live = !json && isatty(STDOUT_FILENO), .last_shown = now, .last_time = now, .last_step = step};
}

static void duration_text(double seconds, char *text, size_t size) {
    const long s = seconds > 0 ? lround(fmin(seconds, 1e9)) : 0;
    if (s >= 3600) snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
}

/* Tokens per second, smoothed over about the last two seconds. */
static void update_rate(struct progress *p, const struct hk_run_state *state) {
    const double now = now_seconds(), passed = now - p->last_time;
    if (passed < LIVE_SECONDS && p->tokens_per_s > 0) return;
    const int64_t step_tokens = state->batch * state->accumulate * state->length;
    const double rate = (double)((state->step - p->last_step) * step_tokens) / fmax(passed, 1e-9);
    const double weight = p->tokens_per_s > 0 ? exp(-passed / 2) : 0;
    p->tokens_per_s = weight * p->tokens_per_s + (1 - weight) * rate;
    p->last_time = now, p->last_step = state->step;
}

static double seconds_left(const struct progress *p, const struct hk_run_state *state) {
    if (!state->steps) return state->minutes * 60 - state->seconds;
    const double tokens = (double)((state->steps - state->step) * state->batch * state->accumulate * state->length);
    return tokens / fmax(p->tokens_per_s, 1e-9);
}

static void print_line(struct progress *p, const struct hk_run_state *state, uint64_t bytes) {
    char left[32], memory[32], of[32] = "", held_out[48] = "";
    duration_text(seconds_left(p, state), left, sizeof left);
    if (state->steps) snprintf(of, sizeof of, "/%" PRId64, state->steps);
    if (isfinite(state->held_out_loss)) snprintf(held_out, sizeof held_out, "  held-out %.3f", state->held_out_loss);
    printf("%sstep %" PRId64 "%s  loss %.3f%s  %.1fk tokens/s  %s left  %s%s", p->live ? "\r" : "", state->step, of,
           state->loss, held_out, p->tokens_per_s / 1000, left, bytes_text(bytes, memory, sizeof memory),
           p->live ? "\033[K" : "\n");
    fflush(stdout);
}

static void print_json(const struct progress *p, const struct hk_run_state *state, float norm, float lr,
                       uint64_t bytes) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "event", "step");
    cJSON_AddNumberToObject(object, "step", (double)state->step);
    cJSON_AddNumberToObject(object, "loss", rounded(state->loss, 6));
    cJSON_AddNumberToObject(object, "norm", rounded((double)norm, 6));
    cJSON_AddNumberToObject(object, "lr", rounded((double)lr, 9));
    cJSON_AddNumberToObject(object, "tokens_per_s", rounded(p->tokens_per_s, 0));
    cJSON_AddNumberToObject(object, "seconds", rounded(state->seconds, 3));
    cJSON_AddNumberToObject(object, "seconds_left", rounded(seconds_left(p, state), 1));
    cJSON_AddNumberToObject(object, "bytes", (double)bytes);
    json_print_line(object);
}

void progress_step(struct progress *p, const struct hk_run_state *state, float norm, float lr, bool logged,
                   struct hk_device *device) {
    struct hk_stats stats = {0};
    update_rate(p, state);
    const double now = now_seconds();
    const bool due = now - p->last_shown >= (p->live ? LIVE_SECONDS : PLAIN_SECONDS);
    if (p->json ? !logged : !due) return;
    hk_device_get_stats(device, &stats);
    p->last_shown = now;
    if (p->json) print_json(p, state, norm, lr, stats.bytes);
    else print_line(p, state, stats.bytes);
}

void progress_evaluation(struct progress *p, const struct hk_run_state *state) {
    if (p->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "event", "evaluation");
        cJSON_AddNumberToObject(object, "step", (double)state->step);
        cJSON_AddNumberToObject(object, "held_out_loss", rounded(state->held_out_loss, 6));
        json_print_line(object);
    } else {
        printf("%sstep %" PRId64 ": loss %.4f, held-out loss %.4f nats/byte\n", p->live ? "\r\033[K" : "", state->step,
               state->loss, state->held_out_loss);
        fflush(stdout);
    }
    /* the time that it took is not the training's */
    p->last_time = now_seconds(), p->last_step = state->step;
}

void progress_end(struct progress *p) {
    if (p->live) printf("\n");
    fflush(stdout);
}
