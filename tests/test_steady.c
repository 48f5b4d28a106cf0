/* Training steps of the models that `hekla bench` measures: after the first, a step allocates nothing, writes no
   descriptor and makes no pipeline; nothing ever runs on another device; and the same seed gives the same bits.

       test_steady MODEL...

   MODEL-bf16 and MODEL-f16 are trained in mixed precision. */
#include "support.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 3 };

struct outcome {
    float loss[STEPS], norm[STEPS];
};

static int failures;

static void __attribute__((format(printf, 2, 3))) fail(const char *where, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED %s: ", where);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    failures++;
}

static void expect_unchanged(const char *where, const char *what, uint64_t before, uint64_t after) {
    if (before != after) fail(where, "%llu %s after the first step", (unsigned long long)(after - before), what);
}

static void check_counters(const char *where, const struct hk_stats *before, const struct hk_stats *after) {
    expect_unchanged(where, "allocations", before->allocations, after->allocations);
    expect_unchanged(where, "bytes allocated", before->bytes, after->bytes);
    expect_unchanged(where, "descriptor writes", before->descriptor_writes, after->descriptor_writes);
    expect_unchanged(where, "pipelines made", before->pipelines, after->pipelines);
    if (after->fallbacks) fail(where, "%llu fallbacks", (unsigned long long)after->fallbacks);
    if (after->dispatches == before->dispatches) fail(where, "the counter of dispatches stands still");
}

static bool take_steps(struct hk_trainer *trainer, const int32_t *tokens, int first, int steps, struct outcome *out) {
    for (int i = first; i < steps; i++)
        if (hk_trainer_step(trainer, tokens, 1e-4f) || hk_trainer_result(trainer, &out->loss[i], &out->norm[i]))
            return false;
    return true;
}

static struct hk_trainer_params settings(const char *model, int64_t *rows) {
    struct hk_trainer_params how = {.optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1}, .seed = 5};
    const char *bf16 = strstr(model, "-bf16"), *f16 = strstr(model, "-f16"), *end = bf16 ? bf16 : f16;
    char name[32];
    how.precision = bf16 ? HK_BF16 : f16 ? HK_F16 : HK_F32;
    snprintf(name, sizeof name, "%.*s", end ? (int)(end - model) : (int)sizeof name - 1, model);
    if (hk_model_preset(name, &how.model, &how.batch)) {
        fprintf(stderr, "%s: %s\n", model, hk_error_message());
        exit(1);
    }
    how.length = how.model.context;
    *rows = how.batch;
    return how;
}

/* A whole training of a few steps on a device; its counters are checked from the second step on. */
static bool train(struct hk_device *device, const char *where, const struct hk_trainer_params *how,
                  const int32_t *tokens, int steps, struct outcome *out) {
    struct hk_trainer *trainer = hk_trainer_create(device, how);
    struct hk_stats before, after;
    bool ok = trainer && take_steps(trainer, tokens, 0, 1, out);
    hk_device_get_stats(device, &before);
    ok = ok && take_steps(trainer, tokens, 1, steps, out);
    hk_device_get_stats(device, &after);
    if (!ok) fail(where, "%s", hk_error_message());
    else if (steps > 1) check_counters(where, &before, &after);
    hk_trainer_destroy(&trainer);
    return ok;
}

static void check_model(struct hk_device *device, const char *model) {
    int64_t rows;
    char where[300];
    struct outcome once, twice;
    const struct hk_trainer_params how = settings(model, &rows);
    const size_t count = (size_t)(rows * (how.length + 1));
    /* a step of the two large models takes a driver without a GPU a minute */
    const bool slow = hk_device_get_info(device)->software && how.model.width >= 384;
    const int steps = !slow ? STEPS : how.model.width >= 768 ? 1 : 2, again = slow ? 0 : STEPS;
    uint64_t random = 11;
    int32_t *tokens = malloc(count * sizeof *tokens);
    if (!tokens) abort();
    for (size_t i = 0; i < count; i++) tokens[i] = (int32_t)(test_random(&random) % (uint64_t)how.model.vocab);
    snprintf(where, sizeof where, "%s on %s", model, test_device_name(device));
    if (train(device, where, &how, tokens, steps, &once) &&
        (!again || train(device, where, &how, tokens, again, &twice))) {
        if (memcmp(once.loss, twice.loss, (size_t)again * sizeof *once.loss) ||
            memcmp(once.norm, twice.norm, (size_t)again * sizeof *once.norm))
            fail(where, "the same seed gave other bits the second time");
        if (!isfinite(once.loss[steps - 1]) || (steps > 1 && once.loss[steps - 1] >= once.loss[0]))
            fail(where, "the loss does not fall: %g, then %g", (double)once.loss[0], (double)once.loss[steps - 1]);
        printf("%s: loss %.6f, then %.6f\n", where, (double)once.loss[0], (double)once.loss[steps - 1]);
        fflush(stdout);
    }
    free(tokens);
}

int main(int argc, char **argv) {
    struct hk_device *devices[TEST_MAX_DEVICES];
    const int n_devices = test_devices_open(devices);
    if (n_devices == 0) {
        printf("skipped: no Vulkan device on this machine\n");
        return TEST_SKIPPED;
    }
    for (int i = 0; i < n_devices; i++)
        for (int k = 1; k < argc; k++) check_model(devices[i], argv[k]);
    const bool silent = test_devices_close(devices, n_devices);
    return failures || !silent || argc < 2;
}
