/* The pieces of a run folder that run.c puts together. Within src/io. */
#ifndef HK_IO_FILES_H
#define HK_IO_FILES_H

#include "io/write.h"

/* state.json. The caller frees the text. */
char *state_format(const struct hk_run_state *state);
hk_status state_parse(const char *json, size_t bytes, struct hk_run_state *state);

/* tokenizer.json: the bytes tokenizer, in the format of Hugging Face's tokenizers. The caller frees it; NULL when out
   of memory. */
char *tokenizer_format(void);
/* HK_OK if it is that tokenizer, however written; HK_ERROR_UNSUPPORTED if another. */
hk_status tokenizer_parse(const char *json, size_t bytes);

/* metrics.jsonl: the bytes of the leading lines that are whole and of no step after the last; SIZE_MAX when out
   of memory. */
size_t metrics_kept(const char *text, size_t bytes, int64_t last_step);

/* Tensors with the names that they have in a file: what a model or an optimizer consists of. */
struct slot {
    char name[160];
    struct hk_tensor *tensor;
    bool owned; /* a view that dies with the slots */
};
struct slots {
    struct slot *items;
    int count;
};
hk_status slots_of_model(struct slots *slots, struct hk_params *params);
/* moment1.NAME and moment2.NAME for each parameter, and loss_scaling where the loss is scaled. */
hk_status slots_of_optimizer(struct slots *slots, struct hk_params *params, struct hk_optimizer *optimizer);
void slots_free(struct slots *slots);

hk_status slots_save(const struct slots *slots, const char *path, const struct safetensors_metadata *metadata);
/* That the file has every slot's tensor, with its shape and a dtype that converts to f32. */
hk_status slots_check(const struct slots *slots, const struct hk_safetensors *file);
/* Copies the file's tensors to the slots'; after slots_check. */
hk_status slots_load(const struct slots *slots, const struct hk_safetensors *file);

#endif
