/* A whole job, small: open a device, compile a model's training, three steps, evaluate, save; then, on a device opened again,
   load and generate. What fault tests disturb. */
#ifndef HK_TESTS_FAULT_JOB_H
#define HK_TESTS_FAULT_JOB_H

#include <hekla/hekla.h>

enum { JOB_STEPS = 3 };

struct job {
    const char *device; /* "cpu" or "vulkan:0" */
    const char *folder; /* of the test; holds text.txt, run/, cache/, trace.json */
    int threads;        /* of the CPU */
    bool rich;          /* Llama of two layers, batches accumulated, checkpointing: more graphs */
    bool trace;         /* profile, and write trace.json */
};

/* What came out: equal where all went well. */
struct job_result {
    uint64_t losses, model, optimizer, logits; /* hashes of bits */
    uint64_t files;                            /* of the run's folder */
    int events;                                /* in the trace */
};

/* Makes the folder's text. */
void job_prepare(const char *folder);
/* Removes what a job wrote, but for the text. */
void job_clean(const char *folder);

struct hk_trainer_params job_params(const struct job *job);
/* Steps from .. to of the training, counted from 1. */
hk_status job_train(struct hk_trainer *trainer, const struct hk_text *text, int from, int to);
uint64_t job_hash_model(struct hk_params *params, hk_status *status);
uint64_t job_hash_optimizer(struct hk_trainer *trainer, hk_status *status);

/* The status of the first call that failed; everything is destroyed in any case. */
hk_status job_run(const struct job *job, struct job_result *result);

#endif
