/* A small model whose every number tells of which step it is, to save and to load. Its functions end the test program
   where what they need is not to be had. */
#ifndef HK_TESTS_SMALL_RUN_H
#define HK_TESTS_SMALL_RUN_H

#include <hekla/hekla.h>

extern const struct hk_model_config small_config;

struct small_run {
    struct hk_device *device;
    struct hk_params *params;
    struct hk_optimizer *optimizer;
};
struct small_run small_run_open(void);
void small_run_close(struct small_run *run);
void small_run_set(struct small_run *run, int64_t step);
/* Whether the model (and the moments) are those of the step. */
bool small_run_is(struct small_run *run, int64_t step, bool moments);

hk_status small_run_save(struct small_run *run, const char *folder, int64_t step, bool moments);
/* Loads what a run holds, as who resumes it does, or without the moments. The step, of which then all is; -1 with the
   library's message, or "mixed" where numbers are of different steps. */
int64_t small_run_load(struct small_run *run, const char *folder, bool moments, char message[512]);

#endif
