#include "small_run.h"
#include <stdio.h>
#include <stdlib.h>

const struct hk_model_config small_config = {HK_GPT2, 16, 8, 1, 2, 2, 8, 16, 1e-5f, 0, 0};

static void need(bool ok) {
    if (ok) return;
    fprintf(stderr, "FAILED: %s\n", hk_error_message());
    exit(1);
}

struct small_run small_run_open(void) {
    struct small_run run = {
        .device = hk_device_open(&(struct hk_device_params){.name = "cpu", .threads = 1, .cache_dir = ""})};
    need(run.device != NULL);
    run.params = hk_params_create(run.device);
    need(run.params && hk_model_declare(run.params, &small_config) == HK_OK);
    need(hk_params_allocate(run.params, 5) == HK_OK);
    run.optimizer = hk_optimizer_create(run.params, &(struct hk_optimizer_params){.kind = HK_ADAMW});
    need(run.optimizer != NULL);
    return run;
}

void small_run_close(struct small_run *run) {
    hk_optimizer_destroy(&run->optimizer);
    hk_params_destroy(&run->params);
    hk_device_destroy(&run->device);
}

/* Parameter i (moment -1), or its part of a moment: a view, for the caller to destroy. */
static struct hk_tensor *part_of(struct small_run *run, int moment, int i) {
    int64_t first;
    const int slab = hk_params_place(run->params, i, &first);
    struct hk_tensor *all =
        moment < 0 ? hk_params_slab(run->params, slab) : hk_optimizer_moment(run->optimizer, moment, slab);
    struct hk_tensor *part = hk_tensor_view(all, first, hk_tensor_shape(hk_params_tensor(run->params, i)));
    need(part != NULL);
    return part;
}

static float value_at(int64_t step, int moment, int i, int64_t element) {
    return (float)(1000 * step + i) + 0.25f * (float)(moment + 1) + (float)(element % 97) / 1024;
}

/* Writes the step's numbers, or compares with them. */
static bool each_part(struct small_run *run, int64_t step, int last_moment, bool compare) {
    bool same = true;
    for (int moment = -1; moment <= last_moment; moment++) {
        for (int i = 0; i < hk_params_count(run->params); i++) {
            struct hk_tensor *part = part_of(run, moment, i);
            const int64_t count = hk_tensor_elements(part);
            const size_t bytes = (size_t)count * sizeof(float);
            float *data = malloc(bytes);
            need(data && (!compare || hk_tensor_read(part, data, bytes) == HK_OK));
            for (int64_t k = 0; k < count; k++) {
                const float wanted = value_at(step, moment, i, k);
                if (compare) same = same && data[k] == wanted;
                else data[k] = wanted;
            }
            need(compare || hk_tensor_write(part, data, bytes) == HK_OK);
            free(data);
            hk_tensor_destroy(&part);
        }
    }
    return same;
}

void small_run_set(struct small_run *run, int64_t step) {
    each_part(run, step, 1, false);
    hk_optimizer_set_step(run->optimizer, step);
}

bool small_run_is(struct small_run *run, int64_t step, bool moments) {
    return each_part(run, step, moments ? 1 : -1, true) && (!moments || hk_optimizer_step(run->optimizer) == step);
}

hk_status small_run_save(struct small_run *run, const char *folder, int64_t step, bool moments) {
    const struct hk_run_state state = {.step = step, .steps = 1000, .seed = 7, .loss = 1.5, .held_out_loss = 2.5};
    small_run_set(run, step);
    return hk_run_save(folder, &small_config, run->params, moments ? run->optimizer : NULL, &state);
}

int64_t small_run_load(struct small_run *run, const char *folder, bool moments, char message[512]) {
    struct hk_run_state state;
    struct hk_model_config config;
    small_run_set(run, 0);
    if (hk_run_load_config(folder, &config) != HK_OK ||
        hk_run_load(folder, run->params, moments ? run->optimizer : NULL, &state) != HK_OK) {
        snprintf(message, 512, "%s", hk_error_message());
        return -1;
    }
    if (small_run_is(run, state.step, moments)) return state.step;
    snprintf(message, 512, "mixed: state.json is of step %lld, numbers are not", (long long)state.step);
    return -1;
}
