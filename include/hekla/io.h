/* Files: safetensors, text data, run folders. */
#ifndef HEKLA_IO_H
#define HEKLA_IO_H

#include <hekla/nn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- safetensors (https://github.com/huggingface/safetensors, format 1) ---- */

struct hk_safetensors;
struct hk_safetensors_entry {
    const char *name;
    enum hk_dtype dtype; /* F32, F16, BF16, I32, U8 */
    struct hk_shape shape;
    const void *data; /* in the file's memory; little-endian, dense */
    size_t bytes;
};

/* Maps the file. Everything in it is checked: the header's size, that ranges tile the data exactly, dtypes and shapes. NULL:
   HK_ERROR_IO or HK_ERROR_FORMAT. */
HK_API struct hk_safetensors *hk_safetensors_open(const char *path);
/* The same from memory, which the caller keeps until destroy. */
HK_API struct hk_safetensors *hk_safetensors_parse(const void *data, size_t bytes);
HK_API void hk_safetensors_destroy(struct hk_safetensors **file);
HK_API int hk_safetensors_count(const struct hk_safetensors *file);
HK_API const struct hk_safetensors_entry *hk_safetensors_entry(const struct hk_safetensors *file, int i);
HK_API const struct hk_safetensors_entry *hk_safetensors_find(const struct hk_safetensors *file, const char *name);
HK_API const char *hk_safetensors_metadata(const struct hk_safetensors *file, const char *key); /* NULL: no such key */

/* Writes to path + ".part", syncs, and renames: path is the old file or the whole new one. keys and values: metadata. */
HK_API hk_status hk_safetensors_write(const char *path, const struct hk_safetensors_entry *entries, int count,
                                      const char *const *keys, const char *const *values, int metadata_count);

/* ---- Text as tokens (bytes) ---- */

struct hk_text;
struct hk_text_params {
    float held_out; /* the share at the end kept for evaluation; 0: 0.1 */
};
HK_API struct hk_text *hk_text_open(const char *path, const struct hk_text_params *params);
HK_API void hk_text_destroy(struct hk_text **text);
HK_API int64_t hk_text_tokens(const struct hk_text *text, bool held_out);
/* rows of length + 1 tokens from random places, that follow from seed and step alone. HK_ERROR_INVALID where the text is
   too short. */
HK_API hk_status hk_text_batch(const struct hk_text *text, int64_t rows, int64_t length, uint64_t seed, uint64_t step,
                               int32_t *tokens);
/* rows of length + 1 tokens, evenly spread over the held-out part (part of parts: the next rows). */
HK_API hk_status hk_text_evaluation(const struct hk_text *text, int64_t rows, int64_t length, int64_t part, int64_t parts,
                                    int32_t *tokens);

/* ---- Run folders: model.safetensors and config.json (as on Hugging Face), tokenizer.json, optimizer.safetensors,
   state.json, metrics.jsonl ---- */

struct hk_run_state {
    int64_t step;     /* finished */
    int64_t steps;    /* planned; 0: by time */
    uint64_t seed;
    double seconds;   /* of training so far */
    double loss, held_out_loss; /* the last seen */
};

/* Saves all files so that a process killed at any moment leaves the old state or the new one. optimizer may be NULL. */
HK_API hk_status hk_run_save(const char *folder, const struct hk_model_config *config, struct hk_params *params,
                             struct hk_optimizer *optimizer, const struct hk_run_state *state);
HK_API hk_status hk_run_load_config(const char *folder, struct hk_model_config *config);
/* Parameters must have been declared and allocated. optimizer and state may be NULL. */
HK_API hk_status hk_run_load(const char *folder, struct hk_params *params, struct hk_optimizer *optimizer,
                             struct hk_run_state *state);

#ifdef __cplusplus
}
#endif
#endif
