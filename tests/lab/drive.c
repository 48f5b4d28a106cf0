/* Whole training steps and generation on a device whose submissions run nothing: what they leave in memory is not looked
   at, only that every call succeeds, that the validation layers have nothing to say, and what the host's side costs. */
#include "lab.h"
#include "support.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VALIDATED_STEPS = 4, WARM_STEPS = 20, TIMED_STEPS = 300 };

static const char *const models[] = {"gpt-tiny", "llama-12"};

/* A model in training on a device. */
struct driver {
    struct lab *lab;
    const char *model;
    struct hk_device *device;
    struct hk_trainer_params how;
    struct hk_trainer *trainer;
    int32_t *tokens;
};

static bool failed(struct driver *d, const char *what) {
    lab_fail(d->lab, "%s: %s: %s", d->model, what, hk_error_message());
    return false;
}

static bool start(struct driver *d, const struct hk_device_params *params) {
    uint64_t random = 3;
    d->how = (struct hk_trainer_params){.optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1}, .seed = 1};
    if (hk_model_preset(d->model, &d->how.model, &d->how.batch)) return failed(d, "the preset");
    d->how.length = d->how.model.context;
    const size_t count = (size_t)(d->how.batch * (d->how.length + 1));
    d->tokens = calloc(count, sizeof *d->tokens);
    if (!d->tokens) abort();
    for (size_t i = 0; i < count; i++) d->tokens[i] = (int32_t)(test_random(&random) % (uint64_t)d->how.model.vocab);
    d->device = hk_device_open(params);
    if (!d->device) return failed(d, "opening the device");
    d->trainer = hk_trainer_create(d->device, &d->how);
    return d->trainer || failed(d, "making the trainer");
}

static void end(struct driver *d) {
    struct hk_stats stats = {0};
    hk_trainer_destroy(&d->trainer);
    if (d->device) hk_device_get_stats(d->device, &stats);
    hk_device_destroy(&d->device);
    free(d->tokens);
    if (stats.validation_messages)
        lab_fail(d->lab, "%s: %llu validation messages", d->model, (unsigned long long)stats.validation_messages);
    if (stats.fallbacks) lab_fail(d->lab, "%s: %llu fallbacks", d->model, (unsigned long long)stats.fallbacks);
    if (stats.bytes) lab_fail(d->lab, "%s: %llu bytes not freed", d->model, (unsigned long long)stats.bytes);
}

static bool step(struct driver *d) {
    float loss, norm;
    return (!hk_trainer_step(d->trainer, d->tokens, 1e-3f) && !hk_trainer_result(d->trainer, &loss, &norm)) ||
           failed(d, "a step");
}

/* A prompt, then tokens one by one, over the end of the context. */
static bool generate(struct driver *d) {
    const struct hk_model_config *config = &d->how.model;
    struct hk_generator *g = hk_generator_create(d->device, hk_trainer_model(d->trainer), config);
    float *logits = calloc((size_t)config->vocab, sizeof *logits);
    if (!logits) abort();
    bool ok = g && !hk_generator_feed(g, d->tokens, config->context - 4, logits);
    for (uint64_t i = 0; i < 8 && ok; i++) {
        const int32_t token = hk_sample(logits, config->vocab, &(struct hk_sampling){.temperature = 1, .seed = 1}, i);
        ok = !hk_generator_feed(g, &token, 1, logits);
    }
    hk_generator_destroy(&g);
    free(logits);
    return ok || failed(d, "generating");
}

static void drive_validated(struct lab *lab, const char *model, const char *folder) {
    struct driver d = {.lab = lab, .model = model};
    float loss;
    bool ok = start(&d, &(struct hk_device_params){.name = "vulkan", .cache_dir = folder, .validate = true});
    for (int i = 0; i < VALIDATED_STEPS && ok; i++) ok = step(&d);
    if (ok && hk_trainer_evaluate(d.trainer, d.tokens, &loss)) ok = failed(&d, "evaluating");
    if (ok) generate(&d);
    end(&d);
}

/* ---- Time ---- */

static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void drive_timed(struct lab *lab, const char *model, const char *folder) {
    struct driver d = {.lab = lab, .model = model};
    struct hk_stats before = {0}, after = {0};
    double times[TIMED_STEPS];
    bool ok = start(&d, &(struct hk_device_params){.name = "vulkan", .cache_dir = folder});
    for (int i = 0; i < WARM_STEPS && ok; i++) ok = step(&d);
    if (ok) hk_device_get_stats(d.device, &before);
    for (int i = 0; i < TIMED_STEPS && ok; i++) {
        const double begin = processor_seconds();
        ok = step(&d);
        times[i] = processor_seconds() - begin;
    }
    if (ok) {
        hk_device_get_stats(d.device, &after);
        qsort(times, TIMED_STEPS, sizeof *times, compare);
        if (after.allocations != before.allocations || after.descriptor_writes != before.descriptor_writes ||
            after.pipelines != before.pipelines)
            lab_fail(lab, "%s: steady steps allocate, write descriptors or make pipelines", model);
        lab->drives[lab->n_drives++] = (struct lab_drive){
            .model = model,
            .submits = (double)(after.submits - before.submits) / TIMED_STEPS,
            .dispatches = (double)(after.dispatches - before.dispatches) / TIMED_STEPS,
            .barriers = hk_trainer_program(d.trainer)->barriers,
            .host_us = times[TIMED_STEPS / 2] * 1e6};
    }
    end(&d);
}

/* ---- All of it ---- */

/* The device that the library itself chooses: whatever that is, it must open. */
static void drive_auto(struct lab *lab, const char *folder) {
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.cache_dir = folder});
    if (!device) lab_fail(lab, "choosing a device: %s", hk_error_message());
    hk_device_destroy(&device);
}

/* The validated run left its pipelines there, for the timed one. */
static void check_cache(struct lab *lab, const char *folder) {
    char path[512];
    struct stat file;
    int length = snprintf(path, sizeof path, "%s/pipelines-", folder);
    for (int i = 0; i < 16; i++) length += snprintf(path + length, 3, "%02x", lab->info.uuid[i]);
    snprintf(path + length, 5, ".bin");
    if (stat(path, &file) || !file.st_size) lab_fail(lab, "no pipelines are cached in %s", path);
    unlink(path);
}

void lab_drive(struct lab *lab) {
    struct hk_device *device = lab_open(false);
    if (!device) {
        lab_fail(lab, "%s", hk_error_message());
        return;
    }
    lab->info = *hk_device_get_info(device);
    hk_device_destroy(&device);
    char folder[] = "/tmp/hekla-lab-XXXXXX", measurements[64];
    if (!mkdtemp(folder)) {
        lab_fail(lab, "no folder for a cache");
        return;
    }
    drive_auto(lab, folder);
    if (lab->info.software) printf("%s: not driven: it runs what is submitted, and the tests run there\n", lab->label);
    for (size_t i = 0; i < HK_LENGTH(models) && !lab->info.software; i++) {
        drive_validated(lab, models[i], folder);
        drive_timed(lab, models[i], folder);
    }
    if (!lab->info.software) check_cache(lab, folder);
    snprintf(measurements, sizeof measurements, "%s/measurements.json", folder);
    unlink(measurements);
    if (rmdir(folder)) lab_fail(lab, "%s holds more than the library's caches", folder);
}
