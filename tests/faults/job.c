#include "faults/job.h"
#include "base/base.h"
#include "support.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BYTES = 1 << 20, VOCAB = 256, LENGTH = 8, ROWS = 2 };

/* Memory that the test itself needs is not what the library asks for. */
static unsigned char room[MAX_BYTES];

struct name {
    char text[512];
};

static struct name in_folder(const char *folder, const char *name) {
    struct name path;
    snprintf(path.text, sizeof path.text, "%.400s/%.100s", folder, name);
    return path;
}

/* ---- Files ---- */

void job_prepare(const char *folder) {
    FILE *file = fopen(in_folder(folder, "text.txt").text, "w");
    uint64_t random = 5;
    for (int i = 0; file && i < 2000; i++) fputc('a' + (int)(test_random(&random) % 26), file);
    if (!file || fclose(file)) exit(1);
}

static void clean_folder(const char *folder) {
    DIR *list = opendir(folder);
    if (!list) return;
    for (const struct dirent *entry; (entry = readdir(list));) unlink(in_folder(folder, entry->d_name).text);
    closedir(list);
    rmdir(folder);
}

void job_clean(const char *folder) {
    clean_folder(in_folder(folder, "run").text);
    clean_folder(in_folder(folder, "cache").text);
    unlink(in_folder(folder, "trace.json").text);
}

static size_t read_file(const char *path) {
    FILE *file = fopen(path, "r");
    const size_t bytes = file ? fread(room, 1, sizeof room - 1, file) : 0;
    if (file) fclose(file);
    room[bytes] = 0;
    return bytes;
}

static uint64_t hash_files(const char *folder) {
    static const char *const names[] = {"config.json", "tokenizer.json",        "state.json",
                                        "metrics.jsonl", "model.safetensors", "optimizer.safetensors"};
    uint64_t hash = 1;
    for (size_t i = 0; i < HK_LENGTH(names); i++)
        hash = hk_hash(room, read_file(in_folder(folder, names[i]).text), hash);
    return hash;
}

/* In the trace, or counted there as left out. */
static int count_events(const char *path) {
    static const char key[] = "\"events_dropped\":";
    read_file(path);
    const char *dropped = strstr((const char *)room, key);
    int n = dropped ? atoi(dropped + sizeof key - 1) : 0;
    for (const char *at = (const char *)room; (at = strstr(at, "\"dur\"")); at++) n++;
    return n;
}

/* ---- Training ---- */

struct hk_trainer_params job_params(const struct job *job) {
    return (struct hk_trainer_params){
        .model = {.family = job->rich ? HK_LLAMA : HK_GPT2,
                  .vocab = VOCAB,
                  .context = 16,
                  .layers = job->rich ? 2 : 1,
                  .heads = 2,
                  .width = 8,
                  .dropout = 0.1f},
        .optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1},
        .batch = ROWS,
        .length = LENGTH,
        .accumulate = job->rich ? 2 : 1,
        .seed = 3,
        .checkpoint = job->rich,
        .precision = job->rich ? HK_F16 : HK_F32};
}

hk_status job_train(struct hk_trainer *trainer, const struct hk_text *text, int from, int to) {
    int32_t tokens[2 * ROWS * (LENGTH + 1)];
    hk_status status = HK_OK;
    for (int step = from; step <= to && !status; step++) {
        status = hk_text_batch(text, 2 * ROWS, LENGTH, 3, (uint64_t)step, tokens);
        if (!status) status = hk_trainer_step(trainer, tokens, 0.01f);
    }
    return status;
}

static uint64_t hash_tensor(struct hk_tensor *tensor, uint64_t seed, hk_status *status) {
    const size_t bytes = hk_tensor_bytes(tensor);
    if (bytes > sizeof room) exit(1);
    if (!*status) *status = hk_tensor_read(tensor, room, bytes);
    return hk_hash(room, bytes, seed);
}

uint64_t job_hash_model(struct hk_params *params, hk_status *status) {
    uint64_t hash = 1;
    for (int i = 0; i < hk_params_slab_count(params); i++) hash = hash_tensor(hk_params_slab(params, i), hash, status);
    return hash;
}

uint64_t job_hash_optimizer(struct hk_trainer *trainer, hk_status *status) {
    struct hk_optimizer *optimizer = hk_trainer_optimizer(trainer);
    uint64_t hash = 1 + (uint64_t)hk_optimizer_step(optimizer);
    for (int i = 0; i < hk_params_slab_count(hk_trainer_model(trainer)); i++)
        for (int m = 0; m < 2; m++) hash = hash_tensor(hk_optimizer_moment(optimizer, m, i), hash, status);
    return hash;
}

static hk_status save(const struct job *job, struct hk_trainer *trainer, float loss) {
    const struct name folder = in_folder(job->folder, "run");
    const struct hk_trainer_params how = job_params(job);
    const struct hk_run_state state = {.step = JOB_STEPS, .steps = JOB_STEPS, .seed = 3, .loss = (double)loss, .data = "text.txt"};
    struct hk_metrics *metrics = hk_metrics_open(folder.text, 0);
    if (!metrics) return hk_error_status();
    const struct hk_metric metric = {"loss", (double)loss};
    hk_status status = hk_metrics_write(metrics, JOB_STEPS, &metric, 1);
    hk_metrics_close(&metrics);
    metrics = status ? NULL : hk_metrics_open(folder.text, JOB_STEPS); /* as who goes on does: reads what is there */
    if (!metrics) return hk_error_status();
    hk_metrics_close(&metrics);
    status = hk_run_save(folder.text, &how.model, hk_trainer_model(trainer), hk_trainer_optimizer(trainer), &state);
    return status;
}

static hk_status train_and_save(const struct job *job, struct hk_trainer *trainer, const struct hk_text *text,
                                struct job_result *result) {
    float numbers[3];
    int32_t tokens[ROWS * (LENGTH + 1)];
    hk_status status = job_train(trainer, text, 1, JOB_STEPS);
    if (!status) status = hk_trainer_result(trainer, &numbers[0], &numbers[1]);
    if (!status) status = hk_text_evaluation(text, ROWS, LENGTH, 0, 1, tokens);
    if (!status) status = hk_trainer_evaluate(trainer, tokens, &numbers[2]);
    if (!status) status = save(job, trainer, numbers[0]);
    if (status) return status;
    result->losses = hk_hash(numbers, sizeof numbers, 0);
    result->optimizer = job_hash_optimizer(trainer, &status);
    return status;
}

static struct hk_device *open_device(const struct job *job) {
    const struct name cache = in_folder(job->folder, "cache");
    return hk_device_open(
        &(struct hk_device_params){.name = job->device, .threads = job->threads, .cache_dir = cache.text, .profile = job->trace});
}

static hk_status train_part(const struct job *job, struct job_result *result) {
    const struct hk_trainer_params how = job_params(job);
    const struct name trace = in_folder(job->folder, "trace.json");
    struct hk_device *device = open_device(job);
    struct hk_text *text = device ? hk_text_open(in_folder(job->folder, "text.txt").text, NULL) : NULL;
    struct hk_trainer *trainer = text ? hk_trainer_create(device, &how) : NULL;
    hk_status status = trainer ? train_and_save(job, trainer, text, result) : hk_error_status();
    if (!status && job->trace) status = hk_device_write_trace(device, trace.text);
    hk_trainer_destroy(&trainer);
    hk_text_destroy(&text);
    hk_device_destroy(&device);
    return status;
}

/* ---- Generating ---- */

static hk_status generate(const struct job *job, struct hk_device *device, struct hk_trainer *trainer,
                          struct job_result *result) {
    const struct hk_trainer_params how = job_params(job);
    struct hk_params *model = hk_trainer_model(trainer);
    struct hk_run_state state;
    float logits[VOCAB];
    int32_t tokens[4] = {'a', 'b', 'c', 'd'};
    hk_status status = hk_run_load(in_folder(job->folder, "run").text, model, hk_trainer_optimizer(trainer), &state);
    if (status) return status;
    struct hk_generator *generator = hk_generator_create(device, model, &how.model);
    if (!generator) return hk_error_status();
    result->logits = 1;
    for (int i = 0; i < 3 && !status; i++) {
        status = hk_generator_feed(generator, tokens, i ? 1 : 4, logits);
        result->logits = hk_hash(logits, sizeof logits, result->logits);
        tokens[0] = hk_sample(logits, VOCAB, &(struct hk_sampling){.temperature = 1, .seed = 3}, (uint64_t)i);
    }
    hk_generator_destroy(&generator);
    result->model = job_hash_model(model, &status);
    const uint64_t optimizer = job_hash_optimizer(trainer, &status);
    if (!status && optimizer != result->optimizer)
        return hk_fail(HK_ERROR_INTERNAL, "what was loaded is not what was saved");
    return status;
}

static hk_status generate_part(const struct job *job, struct job_result *result) {
    const struct hk_trainer_params how = job_params(job);
    struct hk_device *device = open_device(job);
    struct hk_trainer *trainer = device ? hk_trainer_create(device, &how) : NULL;
    const hk_status status = trainer ? generate(job, device, trainer, result) : hk_error_status();
    hk_trainer_destroy(&trainer);
    hk_device_destroy(&device);
    return status;
}

hk_status job_run(const struct job *job, struct job_result *result) {
    *result = (struct job_result){0};
    hk_status status = train_part(job, result);
    if (!status) status = generate_part(job, result);
    if (status) return status;
    result->files = hash_files(in_folder(job->folder, "run").text);
    result->events = count_events(in_folder(job->folder, "trace.json").text);
    return HK_OK;
}
