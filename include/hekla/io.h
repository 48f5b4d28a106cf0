/* Files: safetensors, text data, run folders, metrics. */
#ifndef HEKLA_IO_H
#define HEKLA_IO_H

#include <hekla/nn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- safetensors (https://github.com/huggingface/safetensors, format 1) ---- */

/* Read-only after it is opened: any thread. */
struct hk_safetensors;
struct hk_safetensors_entry {
    const char *name;
    enum hk_dtype dtype; /* F32, F16, BF16, I32, U8, I8 */
    struct hk_shape shape;
    const void *data; /* in the file's memory; little-endian, dense; not aligned where the file's writer did not. Of a
                         file that was opened, see hk_safetensors_read */
    size_t bytes;
};

/* Opens and maps the file. Everything in it is checked: the header's size, that ranges tile the data exactly, dtypes and
   shapes. NULL: HK_ERROR_IO, HK_ERROR_FORMAT, or HK_ERROR_UNSUPPORTED for a dtype of the format that Hekla lacks (F64,
   I64, ...). */
HK_API struct hk_safetensors *hk_safetensors_open(const char *path);
/* The same from memory, which the caller keeps until destroy. */
HK_API struct hk_safetensors *hk_safetensors_parse(const void *data, size_t bytes);
HK_API void hk_safetensors_destroy(struct hk_safetensors **file);
HK_API int hk_safetensors_count(const struct hk_safetensors *file);
/* In the order in which they lie in the file. */
HK_API const struct hk_safetensors_entry *hk_safetensors_entry(const struct hk_safetensors *file, int i);
HK_API const struct hk_safetensors_entry *hk_safetensors_find(const struct hk_safetensors *file, const char *name);
/* Copies the entry's bytes to the buffer. HK_ERROR_IO where the disk fails or the file has been made shorter; with the
   entry's data itself, which is the file mapped, the system ends the process then. */
HK_API hk_status hk_safetensors_read(const struct hk_safetensors *file, const struct hk_safetensors_entry *entry,
                                     void *buffer);
HK_API const char *hk_safetensors_metadata(const struct hk_safetensors *file, const char *key); /* NULL: no such key */

/* Writes to path + ".part", syncs, and renames: path is the old file or the whole new one. Tensors of wider dtypes come
   first, so that all are aligned. keys and values: metadata. */
HK_API hk_status hk_safetensors_write(const char *path, const struct hk_safetensors_entry *entries, int count,
                                      const char *const *keys, const char *const *values, int metadata_count);

/* ---- Text as tokens (bytes) ---- */

/* Read-only after it is opened: any thread. */
struct hk_text;
struct hk_text_params {
    float held_out; /* the share at the end kept for evaluation, up to 1; 0: 0.1 */
};
/* Reads the whole file. NULL: HK_ERROR_IO, HK_ERROR_INVALID for an empty one. params may be NULL. */
HK_API struct hk_text *hk_text_open(const char *path, const struct hk_text_params *params);
/* The same from memory, which the caller keeps until destroy. */
HK_API struct hk_text *hk_text_parse(const void *data, size_t bytes, const struct hk_text_params *params);
HK_API void hk_text_destroy(struct hk_text **text);
HK_API int64_t hk_text_tokens(const struct hk_text *text, bool held_out);
HK_API uint64_t hk_text_hash(const struct hk_text *text); /* of all bytes: tells one text from another */
/* rows of length + 1 tokens from random places of the part that is not held out, that follow from seed and step alone.
   HK_ERROR_INVALID where the text is too short; the message has need and have. */
HK_API hk_status hk_text_batch(const struct hk_text *text, int64_t rows, int64_t length, uint64_t seed, uint64_t step,
                               int32_t *tokens);
/* rows of length + 1 tokens, evenly spread over the held-out part (part of parts: the next rows). */
HK_API hk_status hk_text_evaluation(const struct hk_text *text, int64_t rows, int64_t length, int64_t part,
                                    int64_t parts, int32_t *tokens);

/* ---- config.json, with Hugging Face's keys for model_type gpt2 and llama ---- */

/* HK_ERROR_FORMAT names the key that is missing or wrong, HK_ERROR_UNSUPPORTED the one that Hekla cannot follow. */
HK_API hk_status hk_config_parse(const char *json, size_t bytes, struct hk_model_config *config);
/* The caller frees the text. NULL only when out of memory. */
HK_API char *hk_config_format(const struct hk_model_config *config);

/* ---- Run folders: model.safetensors, config.json and tokenizer.json (as on Hugging Face), optimizer.safetensors,
   state.json, metrics.jsonl. One process at a time may save to a folder; others may load from it meanwhile. ---- */

struct hk_run_state {
    int64_t step;   /* finished */
    int64_t steps;  /* planned; 0: by time */
    double minutes; /* planned; 0: by steps */
    uint64_t seed;
    double seconds;             /* of training so far */
    double loss, held_out_loss; /* the last seen, nats per token; NaN: none yet */

    /* How the run is trained, kept for those who resume it; zero where the caller does not say. */
    int64_t batch, length, accumulate, evaluate_every;
    struct hk_schedule schedule;
    struct hk_optimizer_params optimizer;
    enum hk_dtype precision; /* HK_F32, HK_BF16 or HK_F16 */
    uint64_t data_hash; /* hk_text_hash */
    char data[1024];    /* the text's path */
};

/* Saves all files so that a process killed at any moment, or a power cut, leaves the old state or the new one, and after
   a return of HK_OK the new one: model and optimizer are written beside the old ones under ".next" names and synced, then
   replacing state.json (atomic) makes them the run's, then they are renamed. A failure (no space, say) leaves the old
   state and no partial file; only where the last renames are what fails, the new state, which a later save or load
   renames. Makes the folder. optimizer may be NULL: the run can then be used, not resumed. HK_ERROR_INVALID where the
   folder holds a run or a config.json of another model, HK_ERROR_FORMAT where that is no model's; HK_ERROR_UNSUPPORTED
   where a folder without a run has another tokenizer.json. */
HK_API hk_status hk_run_save(const char *folder, const struct hk_model_config *config, struct hk_params *params,
                             struct hk_optimizer *optimizer, const struct hk_run_state *state);

/* Does the renames that a process which was killed in saving did not come to: model.safetensors is then of the state's
   step. Saving, and loading to resume, do it too. For who may save there. */
HK_API hk_status hk_run_settle(const char *folder);

/* Makes the folder if need be, and keeps out of it all others who lock it, until it is released or the process ends. NULL with
   HK_ERROR_INVALID where another has it, of this process or any. A folder on a file system that has no locks, or that cannot be
   read, locks nobody out. Programs that train take it before they save; nothing else asks for it. */
struct hk_run_lock;
HK_API struct hk_run_lock *hk_run_lock(const char *folder);
HK_API void hk_run_unlock(struct hk_run_lock **lock); /* sets it to NULL; may hold NULL */

/* Whether the folder has a model or a state in it: what hk_run_save there would replace. */
HK_API bool hk_run_exists(const char *folder);
HK_API hk_status hk_run_load_config(const char *folder, struct hk_model_config *config);
HK_API hk_status hk_run_load_state(const char *folder, struct hk_run_state *state);
/* Parameters must have been declared and allocated. optimizer and state may be NULL. The files must agree on the step.
   A folder from Hugging Face (no state.json, names with or without "transformer.") loads without optimizer and state;
   f16 and bf16 become f32. Files that are wrong change nothing; where reading or the device fails midway, what was
   loaded is of no use. */
HK_API hk_status hk_run_load(const char *folder, struct hk_params *params, struct hk_optimizer *optimizer,
                             struct hk_run_state *state);

/* ---- metrics.jsonl: one JSON object a line, in the order of the steps. One thread at a time. ---- */

struct hk_metrics;
struct hk_metric {
    const char *name;
    double value; /* NaN and infinities become null */
};
/* Opens FOLDER/metrics.jsonl to append to, first cutting lines of steps after the given one (what was logged after the
   checkpoint that a run resumes from). */
HK_API struct hk_metrics *hk_metrics_open(const char *folder, int64_t last_step);
/* HK_ERROR_IO where there is no room: the log then lacks this line alone, and later ones may be written. */
HK_API hk_status hk_metrics_write(struct hk_metrics *metrics, int64_t step, const struct hk_metric *values, int count);
HK_API void hk_metrics_close(struct hk_metrics **metrics);

#ifdef __cplusplus
}
#endif
#endif
