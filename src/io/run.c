/* Run folders that a process may be killed in at any moment.

   model.safetensors and optimizer.safetensors carry their step, and state.json says which step is the run's. A save
   writes both files under ".next" names, replaces state.json at once, and then renames. So of each file, either the one
   under its name or the one under its ".next" name is of the run's step, whenever one looks:

       written by now                state.json   name   name.next
       before a save                 10           10     -
       after writing                 10           10     20
       after replacing state.json    20           10     20          <- the save took place
       after renaming                20           20     -

   Between any two of these the folder is synced: a power cut may lose any of the changes since the last sync, and keep
   those after it. */
#include "io/files.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const weights[] = {"model.safetensors", "optimizer.safetensors"};

struct path {
    char text[4096];
};

static struct path path_in(const char *folder, const char *name, const char *suffix) {
    struct path path;
    if ((size_t)snprintf(path.text, sizeof path.text, "%s/%s%s", folder, name, suffix) >= sizeof path.text)
        path.text[0] = 0; /* which no call opens */
    return path;
}

static bool exists(const char *folder, const char *name) {
    const struct path path = path_in(folder, name, "");
    return access(path.text, F_OK) == 0;
}

bool hk_run_exists(const char *folder) {
    return folder && (exists(folder, "state.json") || exists(folder, "model.safetensors"));
}

static hk_status load_json(const char *folder, const char *name, char **text, size_t *bytes) {
    if (!folder || !*folder) return hk_fail(HK_ERROR_INVALID, "run: no folder given");
    if (access(folder, F_OK)) return hk_fail(HK_ERROR_IO, "cannot open %s: %s", folder, strerror(errno));
    if (!exists(folder, name)) return hk_fail(HK_ERROR_FORMAT, "%s is no run: it has no %s", folder, name);
    return hk_file_read(path_in(folder, name, "").text, text, bytes);
}

/* -1: none. */
static int64_t step_of(const struct hk_safetensors *file) {
    const char *text = hk_safetensors_metadata(file, "step");
    if (!text || strspn(text, "0123456789") != strlen(text) || !*text) return -1;
    return strtoll(text, NULL, 10);
}

/* -1 where there is no such file, or none with a step in it. Fails where it cannot be known. */
static hk_status step_of_path(const struct path *path, int64_t *step) {
    *step = -1;
    if (access(path->text, F_OK)) return HK_OK;
    struct hk_safetensors *file = hk_safetensors_open(path->text);
    if (file) *step = step_of(file);
    const hk_status status = file ? HK_OK : hk_error_status();
    hk_safetensors_destroy(&file);
    return status == HK_ERROR_IO || status == HK_ERROR_OUT_OF_MEMORY ? status : HK_OK;
}

static bool is_of_step(const struct path *path, int64_t step) {
    int64_t found;
    return step_of_path(path, &found) == HK_OK && found == step;
}

/* ---- Locking ---- */

struct hk_run_lock {
    int fd; /* of the folder */
};

struct hk_run_lock *hk_run_lock(const char *folder) {
    if (!folder || !*folder) return hk_fail(HK_ERROR_INVALID, "run: no folder given"), NULL;
    if (hk_folder_make(folder)) return NULL;
    const int fd = hk_file_lock(folder, O_RDONLY | O_DIRECTORY, 1);
    if (fd < 0 && errno == EWOULDBLOCK)
        return hk_fail(HK_ERROR_INVALID, "another process is training in %s", folder), NULL;
    if (fd < 0 && errno != EACCES && !hk_has_no_locks(errno)) /* EACCES: one may write there, and not read */
        return hk_fail(HK_ERROR_IO, "cannot lock %s: %s", folder, strerror(errno)), NULL;
    struct hk_run_lock *lock = malloc(sizeof *lock);
    if (lock) lock->fd = fd;
    else hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    if (!lock && fd >= 0) close(fd);
    return lock;
}

void hk_run_unlock(struct hk_run_lock **lock) {
    if (!lock || !*lock) return;
    if ((*lock)->fd >= 0) {
        flock((*lock)->fd, LOCK_UN); /* a child that was forked may have it, too */
        close((*lock)->fd);
    }
    free(*lock);
    *lock = NULL;
}

/* ---- Saving ---- */

static void remove_next(const char *folder) {
    for (size_t i = 0; i < HK_LENGTH(weights); i++) unlink(path_in(folder, weights[i], ".next").text);
}

/* The file is under its name, if it is anywhere. */
static hk_status finish_rename(const char *folder, const char *name, int64_t step) {
    const struct path old = path_in(folder, name, ""), next = path_in(folder, name, ".next");
    int64_t found;
    hk_status status = step_of_path(&old, &found);
    if (status != HK_OK || found == step) return status;
    status = step_of_path(&next, &found);
    if (status != HK_OK || found != step) return status;
    if (rename(next.text, old.text) == 0) return hk_folder_sync(folder);
    return hk_fail(HK_ERROR_IO, "cannot rename %s: %s", next.text, strerror(errno));
}

/* Does the renames that a killed process did not come to. */
static hk_status finish_commit(const char *folder, int64_t step) {
    hk_status status = HK_OK;
    for (size_t i = 0; i < HK_LENGTH(weights) && status == HK_OK; i++) status = finish_rename(folder, weights[i], step);
    return status;
}

static hk_status commit(const char *folder, const struct hk_run_state *state) {
    char *text = state_format(state);
    if (!text) return HK_ERROR_OUT_OF_MEMORY;
    hk_status status = hk_folder_sync(folder);
    if (status == HK_OK) status = hk_file_write(path_in(folder, "state.json", "").text, text, strlen(text));
    free(text);
    return status;
}

static hk_status rename_next(const char *folder, bool optimizer) {
    const hk_status status = hk_folder_sync(folder);
    if (status != HK_OK) return status;
    for (size_t i = 0; i < HK_LENGTH(weights); i++) {
        const struct path old = path_in(folder, weights[i], ""), next = path_in(folder, weights[i], ".next");
        if (i == 1 && !optimizer) unlink(old.text);
        else if (rename(next.text, old.text))
            return hk_fail(HK_ERROR_IO, "cannot rename %s: %s", next.text, strerror(errno));
    }
    return hk_folder_sync(folder);
}

static hk_status write_weights(const char *folder, struct hk_params *params, struct hk_optimizer *optimizer,
                               int64_t step) {
    char step_text[24], updates[24];
    snprintf(step_text, sizeof step_text, "%" PRId64, step);
    snprintf(updates, sizeof updates, "%" PRId64, optimizer ? hk_optimizer_step(optimizer) : 0);
    const char *const keys[] = {"format", "step", "updates"}, *const values[] = {"pt", step_text, updates};
    struct slots slots = {0};
    struct safetensors_metadata metadata = {keys, values, 2};
    hk_status status = slots_of_model(&slots, params);
    if (status == HK_OK) status = slots_save(&slots, path_in(folder, weights[0], ".next").text, &metadata);
    slots_free(&slots);
    if (!optimizer || status != HK_OK) return status;
    metadata.count = 3;
    status = slots_of_optimizer(&slots, params, optimizer);
    if (status == HK_OK) status = slots_save(&slots, path_in(folder, weights[1], ".next").text, &metadata);
    slots_free(&slots);
    return status;
}

/* Writes what stays the same through a run; config.json last, so that where it is, both are. */
static hk_status write_description(const char *folder, const struct hk_model_config *config) {
    char *text = hk_config_format(config), *tokenizer = tokenizer_format();
    hk_status status = text && tokenizer ? HK_OK : hk_error_status();
    if (status == HK_OK && !exists(folder, "tokenizer.json"))
        status = hk_file_write(path_in(folder, "tokenizer.json", "").text, tokenizer, strlen(tokenizer));
    if (status == HK_OK) status = hk_file_write(path_in(folder, "config.json", "").text, text, strlen(text));
    free(text);
    free(tokenizer);
    return status;
}

static void remove_description(const char *folder, bool keep_tokenizer) {
    unlink(path_in(folder, "config.json", "").text);
    if (!keep_tokenizer) unlink(path_in(folder, "tokenizer.json", "").text);
    rmdir(folder); /* only if nothing else is in it */
}

/* That config.json describes the model to be saved: a run's model does not change, and what is not a run's is its
   owner's. */
static hk_status check_description(const char *folder, const struct hk_model_config *config) {
    struct hk_model_config old;
    hk_status status = hk_run_load_config(folder, &old);
    if (status != HK_OK) return hk_fail(status, "%s (choose another folder)", hk_error_message());
    char *a = hk_config_format(&old), *b = hk_config_format(config);
    if (!a || !b) status = HK_ERROR_OUT_OF_MEMORY;
    else if (strcmp(a, b))
        status = hk_fail(HK_ERROR_INVALID, "%s holds a run of another model: choose another folder", folder);
    free(a);
    free(b);
    return status;
}

/* That a folder without a run has nothing in it that a run would replace. The bytes tokenizer may be there: a first
   save that was cut off leaves it. */
static hk_status check_new(const char *folder) {
    char *text;
    size_t bytes;
    if (exists(folder, weights[1]))
        return hk_fail(HK_ERROR_INVALID, "%s has an %s of no run (choose another folder)", folder, weights[1]);
    if (!exists(folder, "tokenizer.json")) return HK_OK;
    hk_status status = load_json(folder, "tokenizer.json", &text, &bytes);
    if (status != HK_OK) return status;
    status = tokenizer_parse(text, bytes);
    free(text);
    if (status == HK_OK) return HK_OK;
    return hk_fail(status, "%s/tokenizer.json: %s (choose another folder)", folder, hk_error_message());
}

/* Brings a folder in which a process was killed to where no file under a ".next" name is the run's. Where that fails,
   saving must not begin: it would remove them. */
hk_status hk_run_settle(const char *folder) {
    struct hk_run_state state;
    if (!folder) return hk_fail(HK_ERROR_INVALID, "run: settling needs a folder");
    if (!exists(folder, "state.json")) return HK_OK;
    const hk_status status = hk_run_load_state(folder, &state);
    if (status == HK_ERROR_FORMAT) return HK_OK; /* nobody can resume it */
    return status == HK_OK ? finish_commit(folder, state.step) : status;
}

static hk_status save(const char *folder, struct hk_params *params, struct hk_optimizer *optimizer,
                      const struct hk_run_state *state) {
    hk_status status = hk_run_settle(folder);
    if (status != HK_OK) return status;
    remove_next(folder);
    status = write_weights(folder, params, optimizer, state->step);
    if (status == HK_OK) status = commit(folder, state);
    if (status == HK_OK) return rename_next(folder, optimizer != NULL);
    remove_next(folder);
    return status;
}

hk_status hk_run_save(const char *folder, const struct hk_model_config *config, struct hk_params *params,
                      struct hk_optimizer *optimizer, const struct hk_run_state *state) {
    if (!folder || !*folder || !config || !params || !state || state->step < 0)
        return hk_fail(HK_ERROR_INVALID, "run: saving needs a folder, a config, parameters and a state");
    hk_status status = hk_folder_make(folder);
    if (status != HK_OK) return status;
    if (hk_run_exists(folder) || exists(folder, "config.json")) {
        status = check_description(folder, config);
        return status == HK_OK ? save(folder, params, optimizer, state) : status;
    }
    const bool has_tokenizer = exists(folder, "tokenizer.json");
    status = check_new(folder);
    if (status != HK_OK) return status;
    status = write_description(folder, config);
    if (status == HK_OK) status = save(folder, params, optimizer, state);
    if (status != HK_OK && !hk_run_exists(folder)) remove_description(folder, has_tokenizer);
    return status;
}

/* ---- Loading ---- */

/* Puts the file's name before the message. */
static hk_status in_file(hk_status status, const char *folder, const char *name) {
    return status == HK_OK ? HK_OK : hk_fail(status, "%s/%s: %s", folder, name, hk_error_message());
}

hk_status hk_run_load_config(const char *folder, struct hk_model_config *config) {
    char *text;
    size_t bytes;
    hk_status status = load_json(folder, "config.json", &text, &bytes);
    if (status != HK_OK) return status;
    status = in_file(hk_config_parse(text, bytes, config), folder, "config.json");
    free(text);
    return status;
}

hk_status hk_run_load_state(const char *folder, struct hk_run_state *state) {
    char *text;
    size_t bytes;
    hk_status status = load_json(folder, "state.json", &text, &bytes);
    if (status != HK_OK) return status;
    status = in_file(state_parse(text, bytes, state), folder, "state.json");
    free(text);
    return status;
}

/* The one of name and name.next that is of the step (any, where step is -1). */
static struct hk_safetensors *open_weights(const char *folder, const char *name, int64_t step) {
    const struct path old = path_in(folder, name, ""), next = path_in(folder, name, ".next");
    if (step >= 0 && !is_of_step(&old, step) && is_of_step(&next, step)) return hk_safetensors_open(next.text);
    struct hk_safetensors *file = hk_safetensors_open(old.text);
    const int64_t other = step_of(file);
    if (!file || step < 0 || other == step) return file;
    if (other < 0) hk_fail(HK_ERROR_FORMAT, "%s has no step, state.json has step %" PRId64, old.text, step);
    else hk_fail(HK_ERROR_FORMAT, "%s is of step %" PRId64 ", state.json of step %" PRId64, old.text, other, step);
    hk_safetensors_destroy(&file);
    return NULL;
}

struct opened {
    struct hk_run_state state;
    struct hk_safetensors *model, *optimizer;
};

static void close_run(struct opened *run) {
    hk_safetensors_destroy(&run->model);
    hk_safetensors_destroy(&run->optimizer);
}

static hk_status open_run(const char *folder, bool optimizer, struct opened *run) {
    int64_t step = -1;
    *run = (struct opened){0};
    if (optimizer || exists(folder, "state.json")) {
        const hk_status status = hk_run_load_state(folder, &run->state);
        if (status != HK_OK) return status;
        step = run->state.step;
    }
    /* who resumes is the one who will save; where it cannot be done, what is needed is read from where it is */
    if (optimizer) finish_commit(folder, step);
    run->model = open_weights(folder, weights[0], step);
    if (run->model && optimizer) run->optimizer = open_weights(folder, weights[1], step);
    if (run->model && (run->optimizer || !optimizer)) return HK_OK;
    close_run(run);
    return hk_error_status();
}

/* Another process may save between our opening of one file and the next: then the steps differ, and we look again. */
static hk_status open_run_again(const char *folder, bool optimizer, struct opened *run) {
    hk_status status = HK_OK;
    for (int attempt = 0; attempt < 3; attempt++) {
        status = open_run(folder, optimizer, run);
        if (status == HK_OK || status == HK_ERROR_OUT_OF_MEMORY) break;
    }
    return status;
}

static hk_status load_weights(const char *folder, const struct slots *model, const struct slots *optimizer,
                              const struct opened *run) {
    hk_status status = in_file(slots_check(model, run->model), folder, weights[0]);
    if (status == HK_OK && run->optimizer) status = in_file(slots_check(optimizer, run->optimizer), folder, weights[1]);
    if (status == HK_OK) status = in_file(slots_load(model, run->model), folder, weights[0]);
    if (status == HK_OK && run->optimizer) status = in_file(slots_load(optimizer, run->optimizer), folder, weights[1]);
    return status;
}

/* The optimizer's own count of steps, where the file has one; of a size that can be multiplied by batches per step. */
static hk_status read_updates(const struct hk_safetensors *file, int64_t *updates) {
    const char *text = hk_safetensors_metadata(file, "updates");
    if (!text) return HK_OK;
    const size_t digits = strspn(text, "0123456789");
    if (!digits || digits > 13 || text[digits])
        return hk_fail(HK_ERROR_FORMAT, "\"updates\" is \"%.32s\", no number of steps", text);
    *updates = strtoll(text, NULL, 10);
    return HK_OK;
}

hk_status hk_run_load(const char *folder, struct hk_params *params, struct hk_optimizer *optimizer,
                      struct hk_run_state *state) {
    if (!folder || !params) return hk_fail(HK_ERROR_INVALID, "run: loading needs a folder and parameters");
    if (state && !exists(folder, "state.json"))
        return hk_fail(HK_ERROR_FORMAT, "%s has no state.json: its model can be used, not resumed", folder);
    struct opened run;
    hk_status status = open_run_again(folder, optimizer != NULL, &run);
    if (status != HK_OK) return status;
    struct slots model = {0}, moments = {0};
    status = slots_of_model(&model, params);
    if (status == HK_OK && optimizer) status = slots_of_optimizer(&moments, params, optimizer);
    int64_t updates = run.state.step;
    if (status == HK_OK && optimizer) status = in_file(read_updates(run.optimizer, &updates), folder, weights[1]);
    if (status == HK_OK) status = load_weights(folder, &model, &moments, &run);
    if (status == HK_OK) status = hk_params_refresh(params);
    if (status == HK_OK && optimizer) hk_optimizer_set_step(optimizer, updates);
    if (status == HK_OK && state) *state = run.state;
    slots_free(&model);
    slots_free(&moments);
    close_run(&run);
    return status;
}
