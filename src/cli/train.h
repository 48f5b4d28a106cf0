/* Training: what the options say (train.c), the loop (train_loop.c), and what one sees of it (progress.c). */
#ifndef HK_CLI_TRAIN_H
#define HK_CLI_TRAIN_H

#include "cli.h"

/* One line that is rewritten on a terminal; a line now and then elsewhere; JSON lines if asked for. All on stdout. */
struct progress {
    bool json, live;
    double last_shown, last_time, tokens_per_s; /* seconds on now_seconds' clock; smoothed */
    int64_t last_step;
};
void progress_start(struct progress *progress, bool json, int64_t step);
/* After each step. logged: the step is one of those in metrics.jsonl. */
void progress_step(struct progress *progress, const struct hk_run_state *state, float norm, float lr, bool logged,
                   struct hk_device *device);
void progress_evaluation(struct progress *progress, const struct hk_run_state *state);
void progress_end(struct progress *progress); /* leaves the live line as it is */

struct training {
    const char *folder;
    struct hk_model_config model;
    struct hk_run_state state; /* with the plan */
    struct hk_device *device;
    struct hk_text *text;
    struct hk_trainer *trainer;
    struct hk_metrics *metrics;
    struct hk_run_lock *lock;
    struct progress progress;
    int32_t *tokens; /* [accumulate * batch, length + 1] */
    double started;  /* now_seconds when state.seconds was 0, were there no break */
    double last_save;
    int64_t lost_lines; /* of metrics, that could not be written */
};
/* Trains from state.step on to the plan's end, saving as it goes. The exit status. */
int train_loop(struct training *training);
/* Whether the plan's end was reached. */
bool train_finished(const struct hk_run_state *state);

#endif
