/* Measuring kernels: the work of a plan of which there are several, each on memory of its own, by the device's timestamps. */
#include "vulkan/tune.h"
#include "graph/tuning.h"
#include "op/gpu.h"
#include <stdlib.h>

enum { LEAST_RUNS = 3, MOST_RUNS = 9, MOST_OPERANDS = 32 };
static const double enough_seconds = 0.1; /* of runs of one kernel */
static const double warm_seconds = 0.1;   /* of runs before, by the host's clock, on GPUs: while a kernel is compiled they fall
                                             back to a fraction of their clock rate, and take about that long to return */
static const double least_gain = 0.05;    /* below it the standard kernel stays: measurements are no better */
static const uint32_t pattern = 0x3c003c00; /* what operands hold: two times 1 as f16, 0.0078 as f32 and twice as bf16; as
                                               i32 more than there are rows of anything */

/* ---- Taking ---- */

/* The kernel's place in the choice; -1 where it is not among them: it was measured with another version of Hekla. */
static int find_kernel(const struct hk_choice *choice, const char *name) {
    int i = choice->count - 1;
    while (i >= 0 && strcmp(choice->names[i], name)) i--;
    return i;
}

static int take_tuned(struct vk_chooser *chooser, const struct hk_step *step, const struct hk_choice *choice) {
    struct hk_tunings *tunings = ((struct vk_tuned *)chooser)->tunings;
    struct hk_tuning tuning;
    (void)step;
    if (choice->count < 2 || !hk_tunings_find(tunings, choice->work, 1, &tuning)) return choice->standard;
    const int i = find_kernel(choice, tuning.kernel);
    return i < 0 ? choice->standard : i;
}

struct vk_tuned vk_tuned(struct vk_device *device) { return (struct vk_tuned){{take_tuned}, device->base.tunings}; }

/* ---- Finding work ---- */

/* Work that is not measured, and a step that does it. */
struct work {
    const struct hk_step *step;
    bool outdated; /* it is measured, but there are other kernels now */
    struct hk_choice choice;
};

struct collector {
    struct vk_chooser base; /* first */
    struct hk_tunings *tunings;
    struct work *items;
    int count, capacity;
};

static bool is_collected(const struct collector *c, const char *work) {
    for (int i = 0; i < c->count; i++)
        if (!strcmp(c->items[i].choice.work, work)) return true;
    return false;
}

static int collect(struct vk_chooser *chooser, const struct hk_step *step, const struct hk_choice *choice) {
    struct collector *c = (struct collector *)chooser;
    struct hk_tuning tuning;
    if (choice->count < 2 || is_collected(c, choice->work)) return choice->standard;
    const bool measured = hk_tunings_find(c->tunings, choice->work, 0, &tuning) && tuning.seconds > 0;
    if (measured && tuning.kernels == choice->count && find_kernel(choice, tuning.kernel) >= 0) return choice->standard;
    if (hk_grow(&c->items, &c->capacity, c->count + 1, sizeof *c->items))
        c->items[c->count++] = (struct work){step, measured, *choice};
    return choice->standard;
}

/* ---- One kernel ---- */

/* Takes one kernel for the work, and the standard ones for what else the step does. */
struct forced {
    struct vk_chooser base; /* first */
    const char *work;
    int kernel;
};

static int take_forced(struct vk_chooser *chooser, const struct hk_step *step, const struct hk_choice *choice) {
    const struct forced *f = (const struct forced *)chooser;
    (void)step;
    return strcmp(choice->work, f->work) ? choice->standard : f->kernel;
}

static int compare_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of a few runs after those that do not count: drivers compile in the first. One is enough where it is hopeless. */
static hk_status time_runs(struct vk_device *device, struct hk_backend_program *program, double best, double *seconds) {
    double times[MOST_RUNS], spent = 0;
    int n = 0;
    bool hopeless = false;
    hk_status status = vk_program_time(device, program, &times[0]);
    const double begin = hk_seconds();
    while (!status && !device->base.info.software && hk_seconds() < begin + warm_seconds)
        status = vk_program_time(device, program, &times[0]);
    while (!status && !hopeless && n < MOST_RUNS && (n < LEAST_RUNS || spent < enough_seconds)) {
        status = vk_program_time(device, program, &times[n]);
        if (status) break;
        spent += times[n];
        hopeless = times[n++] > 1.5 * best || spent > 10 * enough_seconds;
    }
    if (status) return status;
    qsort(times, (size_t)n, sizeof *times, compare_times);
    *seconds = times[n / 2];
    return HK_OK;
}

static hk_status time_kernel(struct vk_device *device, const struct hk_step *step, const struct hk_choice *choice, int kernel,
                             double best, double *seconds) {
    struct forced forced = {{take_forced}, choice->work, kernel};
    const struct hk_plan plan = {.name = "a measurement", .steps = step, .n_steps = 1};
    struct hk_backend_program *program = NULL;
    hk_status status = vk_program_make(device, &plan, &forced.base, true, NULL, &program);
    if (!status) status = time_runs(device, program, best, seconds);
    vk_program_destroy((struct hk_device *)device, program);
    if (status) return status;
    pthread_mutex_lock(&device->mutex);
    device->stats.measurements++;
    pthread_mutex_unlock(&device->mutex);
    return HK_OK;
}

/* ---- One step on memory of its own ---- */

struct bench {
    struct hk_step step;
    struct hk_operand operands[MOST_OPERANDS];
    struct hk_buffer *buffer; /* all operands, one after the other */
};

/* Gives the operand the next bytes of the buffer, aligned as it is. */
static void place(struct hk_operand *operand, uint64_t *used) {
    operand->offset = *used + operand->offset % VK_MEMORY_ALIGN;
    *used = (operand->offset + hk_operand_span(operand) + 2 * VK_MEMORY_ALIGN - 1) / VK_MEMORY_ALIGN * VK_MEMORY_ALIGN;
}

static hk_status bench_open(struct bench *bench, struct vk_device *device, const struct hk_step *step) {
    const int count = step->n_inputs + step->n_outputs;
    uint64_t bytes = 0;
    *bench = (struct bench){.step = *step};
    if (count > MOST_OPERANDS) return hk_fail(HK_ERROR_UNSUPPORTED, "%s has %d operands", step->op->name, count);
    memcpy(bench->operands, step->inputs, (size_t)step->n_inputs * sizeof *step->inputs);
    memcpy(bench->operands + step->n_inputs, step->outputs, (size_t)step->n_outputs * sizeof *step->outputs);
    for (int i = 0; i < count; i++) place(&bench->operands[i], &bytes);
    if (step->scratch.buffer) place(&bench->step.scratch, &bytes);
    hk_status status = vk_buffer_create((struct hk_device *)device, bytes, &bench->buffer);
    if (status) return status;
    for (int i = 0; i < count; i++) bench->operands[i].buffer = bench->buffer;
    if (step->scratch.buffer) bench->step.scratch.buffer = bench->buffer;
    bench->step.inputs = bench->operands, bench->step.outputs = bench->operands + step->n_inputs;
    status = vk_lock(device);
    if (status) return status;
    status = vk_transfers_fill(device, (struct vk_buffer *)bench->buffer, pattern);
    vk_unlock(device);
    return status;
}

static void bench_close(struct bench *bench, struct vk_device *device) {
    if (bench->buffer) vk_buffer_destroy((struct hk_device *)device, bench->buffer);
}

/* ---- All of a plan ---- */

/* Sets the tuning's kernel and times; they stay as they are where the standard kernel does not run or the time is over. */
static hk_status measure(struct vk_device *device, const struct bench *bench, const struct hk_choice *choice, double end,
                         struct hk_tuning *tuning) {
    int best = choice->standard;
    double best_seconds = 1e30, standard_seconds = 0;
    for (int i = -1; i < choice->count; i++) { /* the standard kernel first */
        double seconds;
        const int kernel = i < 0 ? choice->standard : i;
        if (i == choice->standard) continue;
        if (device->clock() >= end) return HK_OK;
        const hk_status status = time_kernel(device, &bench->step, choice, kernel, best_seconds, &seconds);
        if (status == HK_ERROR_DEVICE_LOST) return status;
        if (status) hk_remark(HK_LOG_WARNING, "tuning: %s with %s: %s", choice->work, choice->names[kernel], hk_error_message());
        if (status && i < 0) return HK_OK;
        if (status) continue;
        hk_remark(HK_LOG_INFO, "tuning: %s with %s: %.2f us", choice->work, choice->names[kernel], seconds * 1e6);
        if (i < 0) standard_seconds = seconds;
        if (seconds < best_seconds) best = kernel, best_seconds = seconds;
    }
    const bool gains = best_seconds < (1 - least_gain) * standard_seconds;
    tuning->seconds = gains ? best_seconds : standard_seconds;
    tuning->standard_seconds = standard_seconds;
    if (gains) memcpy(tuning->kernel, choice->names[best], sizeof tuning->kernel);
    return HK_OK;
}

/* Adds the work to what is known, measured or not. */
static hk_status tune_work(struct vk_device *device, const struct work *work, double end) {
    const struct hk_choice *choice = &work->choice;
    struct hk_tuning tuning = {.kernels = choice->count};
    struct bench bench;
    memcpy(tuning.work, choice->work, sizeof tuning.work);
    memcpy(tuning.standard, choice->names[choice->standard], sizeof tuning.standard);
    memcpy(tuning.kernel, tuning.standard, sizeof tuning.kernel);
    hk_status status = HK_OK;
    if (device->clock() < end) {
        status = bench_open(&bench, device, work->step);
        if (!status) status = measure(device, &bench, choice, end, &tuning);
        else hk_remark(HK_LOG_WARNING, "tuning: %s: %s", choice->work, hk_error_message());
        bench_close(&bench, device);
    }
    hk_tunings_add(device->base.tunings, &tuning, work->outdated);
    return status;
}

hk_status vk_tune(struct vk_device *device, const struct hk_plan *plan) {
    struct collector collector = {.base = {collect}, .tunings = device->base.tunings};
    struct vk_launches launches = {0};
    hk_status status = vk_lock(device);
    if (status) return status;
    const double seconds = device->tuning_seconds, begin = device->clock();
    vk_unlock(device);
    if (seconds <= 0) return HK_OK;
    status = vk_record(device, plan, &collector.base, &launches);
    vk_launches_free(&launches);
    for (int i = 0; i < collector.count && status != HK_ERROR_DEVICE_LOST; i++)
        status = tune_work(device, &collector.items[i], begin + seconds);
    if (collector.count) hk_tunings_save(device->base.tunings, false);
    free(collector.items);
    pthread_mutex_lock(&device->mutex);
    device->tuning_seconds -= device->clock() - begin;
    pthread_mutex_unlock(&device->mutex);
    return status == HK_ERROR_DEVICE_LOST ? status : HK_OK; /* what else fails keeps the standard kernels */
}

hk_status vk_tuning_open(struct vk_device *device, const struct hk_device_params *params) {
    device->base.tunings = hk_tunings_open(params, &device->base.info);
    device->clock = hk_seconds;
    device->tuning_seconds = params->tune;
    if (params->tune > 0 && device->profile.period <= 0) {
        hk_remark(HK_LOG_WARNING, "tuning: %s has no timestamps: nothing is measured", device->base.info.name);
        device->tuning_seconds = 0;
    }
    return device->base.tunings ? HK_OK : HK_ERROR_OUT_OF_MEMORY;
}
