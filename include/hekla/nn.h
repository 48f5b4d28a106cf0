/* Neural networks on top of graphs: named parameters, layers, optimizers, schedules, language models, training. */
#ifndef HEKLA_NN_H
#define HEKLA_NN_H

#include <hekla/graph.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Parameter sets ----

   Parameters are declared by name, then allocated all at once, so that they lie in one slab of memory (several where
   the device's largest buffer is smaller): those that weight decay applies to (rank 2 and more) first. The gradients
   lie in slabs of the same layout. An optimizer step or a gradient norm is one op over a slab.

   Errors: a set that was given something wrong stays wrong, keeps the first message, and gives it to every later call
   and to each graph that uses it. So declarations need no check of their own: hk_compile's is enough.

   Threads: a set, its layers and its optimizers belong to one thread at a time. */
struct hk_params;

enum hk_init_kind { HK_INIT_ZERO, HK_INIT_ONE, HK_INIT_NORMAL, HK_INIT_UNIFORM };
struct hk_init {
    enum hk_init_kind kind;
    float scale; /* normal: standard deviation; uniform: from -scale to scale */
};

HK_API struct hk_params *hk_params_create(struct hk_device *device);
HK_API void hk_params_destroy(struct hk_params **params); /* after the last use of its tensors in building a graph */

/* Before hk_params_allocate. Names are unique, shorter than 128 bytes. */
HK_API hk_status hk_params_declare(struct hk_params *params, const char *name, struct hk_shape shape,
                                   struct hk_init init);

/* Makes parameters and zero gradients, f32. Each parameter's first values follow from the seed, its name and its shape
   alone: neither other parameters nor the device change them. Once per set. */
HK_API hk_status hk_params_allocate(struct hk_params *params, uint64_t seed);

/* HK_OK, or the status of the first call that was given something wrong; the message is then the calling thread's. */
HK_API hk_status hk_params_status(const struct hk_params *params);

/* Those that ask by number expect one that there is. */
HK_API struct hk_device *hk_params_device(const struct hk_params *params);

HK_API int hk_params_count(const struct hk_params *params);
HK_API int64_t hk_params_elements(const struct hk_params *params);            /* of all of them together */
HK_API const char *hk_params_name(const struct hk_params *params, int i);     /* in the order declared */
HK_API int hk_params_find(const struct hk_params *params, const char *name);  /* -1: none of that name */
HK_API struct hk_tensor *hk_params_tensor(struct hk_params *params, int i);   /* the set's; NULL before allocate */
HK_API struct hk_tensor *hk_params_gradient(struct hk_params *params, int i); /* the set's */

/* The parameter as a value of the graph; NULL and the graph marked where there is none of that name. */
HK_API struct hk_value *hk_params_use(struct hk_params *params, struct hk_graph *graph, const char *name);

HK_API int hk_params_slab_count(const struct hk_params *params);
HK_API struct hk_tensor *hk_params_slab(struct hk_params *params, int slab);
HK_API struct hk_tensor *hk_params_gradient_slab(struct hk_params *params, int slab);
HK_API int64_t hk_params_slab_decayed(const struct hk_params *params, int slab); /* elements at its start that decay */
/* Where parameter i lies: its slab, and its first element there (a multiple of 16: what lies between parameters is zero
   and stays so). */
HK_API int hk_params_place(const struct hk_params *params, int i, int64_t *first_element);

/* ---- Mixed precision (Micikevicius et al., 2018) ----

   A set's precision is the dtype that linear layers and models built on it multiply in: HK_F32 unless HK_BF16 or HK_F16
   is asked for. These multiply by a 16-bit copy of the parameters, and by activations that are rounded to the same dtype
   where they come to a product; products are summed in f32 (hk_matmul). So is attention without a cache
   (hk_attention). Everything else is f32 as before: norms, losses, the residual stream, gradients,
   the optimizer, and the parameters that are trained and saved. */

/* Makes copies of the slabs in the dtype, and fills them. After hk_params_allocate and before any graph uses the set (the
   updates of earlier graphs do not refresh the copies); a set's precision is chosen once.
   HK_ERROR_INVALID for a dtype that is none of the three. */
HK_API hk_status hk_params_set_precision(struct hk_params *params, enum hk_dtype dtype);
HK_API enum hk_dtype hk_params_precision(const struct hk_params *params); /* of NULL: f32 */
HK_API struct hk_tensor *hk_params_copy_slab(struct hk_params *params, int slab); /* NULL where the precision is f32 */

/* The copies become what the parameters are: now, or at this place in a graph's program. Optimizers' updates and
   hk_run_load do it; who writes to the parameters, does it too. Nothing where the precision is f32. */
HK_API hk_status hk_params_refresh(struct hk_params *params);
HK_API hk_status hk_params_refresh_in(struct hk_params *params, struct hk_graph *graph);

/* As hk_params_use, for a product: the parameter's copy in the set's precision, whose gradient is the parameter's. */
HK_API struct hk_value *hk_params_use_factor(struct hk_params *params, struct hk_graph *graph, const char *name);

/* ---- Layers: x_declare names the parameters, x_apply uses them; "prefix.weight", "prefix.bias" ---- */

/* weight [out, in] and bias [out], uniform from -1 / sqrt(in) to 1 / sqrt(in); x [..., in] -> [..., out], f32, in the
   set's precision */
HK_API hk_status hk_linear_declare(struct hk_params *params, const char *prefix, int64_t in, int64_t out, bool bias);
HK_API struct hk_value *hk_linear_apply(struct hk_params *params, const char *prefix, struct hk_value *x);
/* weight [width], one; bias [width], zero; x [..., width] */
HK_API hk_status hk_layer_norm_declare(struct hk_params *params, const char *prefix, int64_t width, bool bias);
HK_API struct hk_value *hk_layer_norm_apply(struct hk_params *params, const char *prefix, struct hk_value *x,
                                            float epsilon);
HK_API hk_status hk_rms_norm_declare(struct hk_params *params, const char *prefix, int64_t width);
HK_API struct hk_value *hk_rms_norm_apply(struct hk_params *params, const char *prefix, struct hk_value *x,
                                          float epsilon);
/* weight [rows, width], normal with deviation 1; index i32 [...] -> [..., width] */
HK_API hk_status hk_embedding_declare(struct hk_params *params, const char *prefix, int64_t rows, int64_t width);
HK_API struct hk_value *hk_embedding_apply(struct hk_params *params, const char *prefix, struct hk_value *index);

/* ---- Optimizers ---- */

struct hk_optimizer;
#define HK_LOSS_SCALE 65536 /* where the scale of f16's losses usually begins */
struct hk_optimizer_params {
    enum hk_optimizer_kind kind;
    float momentum;     /* SGD and Nesterov; SGD with 0 needs no moment */
    float beta1, beta2; /* Adam; 0: 0.9 and 0.999 */
    float epsilon;      /* 0: 1e-8 */
    float weight_decay; /* of parameters of rank 2 and more */
    float clip;         /* largest global norm of the gradient; 0: no clipping */
    float loss_scale;   /* 0: none. Else dynamic loss scaling (hk_loss_scale) that begins with this, a power of two
                           from 2^-24 to 2^40: gradients are of the loss times the scale, and a step whose gradients are
                           not finite is skipped: only the scale and hk_optimizer_step change. For f16, whose least
                           number is 6e-8, HK_LOSS_SCALE is a usual beginning. */
    int64_t scale_growth; /* good steps in a row after which the scale doubles; 0: 2000 */
};
/* Keeps params and must be destroyed first. Where params are of mixed precision, updates refresh the copies. The gradients
   held in params are of the scaled loss, where it is scaled. The moments are zero, in slabs laid out as the parameters'. how may be
   NULL: plain SGD. */
HK_API struct hk_optimizer *hk_optimizer_create(struct hk_params *params, const struct hk_optimizer_params *how);
HK_API void hk_optimizer_destroy(struct hk_optimizer **optimizer);

/* Adds to the loss's graph: the gradients of all parameters (zero for those that the loss does not depend on), their
   norm, clipping, and the update. A NULL optimizer marks the graph with the message of its failed creation. */
HK_API hk_status hk_optimizer_minimize(struct hk_optimizer *optimizer, struct hk_value *loss);

/* The same in two programs, for gradient accumulation. accumulate adds share * gradient of the loss to the gradients
   held (share is 1 / the number of runs per update); update adds the norm, clipping and the step, then sets the
   gradients to 0. */
HK_API hk_status hk_optimizer_accumulate(struct hk_optimizer *optimizer, struct hk_value *loss, float share);
HK_API hk_status hk_optimizer_update_graph(struct hk_optimizer *optimizer, struct hk_graph *graph);

/* Before each run of a program that updates: counts the step (from 1) and writes lr and what follows from both to the
   device. */
HK_API hk_status hk_optimizer_advance(struct hk_optimizer *optimizer, float lr);
HK_API int64_t hk_optimizer_step(const struct hk_optimizer *optimizer);
HK_API void hk_optimizer_set_step(struct hk_optimizer *optimizer, int64_t step); /* on resuming */
/* f32 [1]: the norm before clipping, of the gradients of the loss itself; not finite where the step was skipped */
HK_API struct hk_tensor *hk_optimizer_norm(struct hk_optimizer *optimizer);
/* f32 [HK_SCALING_COUNT], enum hk_scaling, to look at, and to save and load; NULL without loss scaling. */
HK_API struct hk_tensor *hk_optimizer_scaling(struct hk_optimizer *optimizer);
/* Moment m (0 or 1) of a slab, NULL where the kind has none: to save and load. */
HK_API struct hk_tensor *hk_optimizer_moment(struct hk_optimizer *optimizer, int m, int slab);

/* ---- Schedules ---- */

enum hk_schedule_kind { HK_SCHEDULE_CONSTANT, HK_SCHEDULE_LINEAR, HK_SCHEDULE_COSINE };
struct hk_schedule {
    enum hk_schedule_kind kind;
    float peak, floor; /* learning rates; linear and cosine fall from peak to floor */
    int64_t warmup;    /* steps of linear rise: peak * step / warmup */
    int64_t steps;     /* where the floor is reached */
};
/* step counts from 1. Cosine: Loshchilov and Hutter, 2016, without restarts. */
HK_API float hk_schedule_at(const struct hk_schedule *schedule, int64_t step);

/* ---- Language models: GPT-2 (Radford et al., 2019) and Llama (Touvron et al., 2023), parameters named and laid out as
   on Hugging Face (GPT-2 without the "transformer." prefix, its weights [in, out], its token table also the head).
   Weights start as N(0, 0.02) at a width of 768, at others N(0, 0.02 sqrt(768 / width)), projections into the residual
   stream divided by sqrt(2 * layers). ---- */

enum hk_family { HK_GPT2, HK_LLAMA };
struct hk_model_config {
    enum hk_family family;
    int64_t vocab, context, layers, heads, kv_heads; /* kv_heads 0: heads */
    int64_t width, hidden;                           /* hidden 0: 4 * width */
    float epsilon;                                   /* of the norms; 0: 1e-5 */
    float rope_base;                                 /* Llama; 0: 10000 */
    float dropout; /* of the embeddings and of both projections into the residual stream, for both families; GPT-2's
                      dropout of attention probabilities is left out. 0: none */
};

/* HK_ERROR_INVALID names what does not fit ("heads (5) do not divide width (128)"). */
HK_API hk_status hk_model_config_check(const struct hk_model_config *config);
HK_API hk_status hk_model_declare(struct hk_params *params, const struct hk_model_config *config);

struct hk_model_inputs {
    struct hk_value *rng;      /* for dropout; NULL: no dropout */
    struct hk_value *position; /* i32 [1]: of the first token; NULL: 0 */
    bool checkpoint;           /* keep only each layer's input for the backward pass (hk_checkpoint) */
    /* One cache per layer, [B, kv_heads, context, D]: the tokens' keys and values are written there, and attention
       reads all that were (no gradient). NULL: none. */
    struct hk_tensor *const *keys, *const *values;
};
/* tokens i32 [B, T] -> logits f32 [B, T, vocab], in the set's precision. inputs may be NULL. */
HK_API struct hk_value *hk_model_logits(struct hk_params *params, const struct hk_model_config *config,
                                        struct hk_value *tokens, const struct hk_model_inputs *inputs);

/* gpt-tiny, gpt-char, gpt2-124m, llama-2, llama-12: the models that bench measures, with their batch (may be NULL).
   HK_ERROR_INVALID lists them. */
HK_API hk_status hk_model_preset(const char *name, struct hk_model_config *config, int64_t *batch);

/* ---- Training a language model ---- */

/* One thread at a time. */
struct hk_trainer;
struct hk_trainer_params {
    struct hk_model_config model;
    struct hk_optimizer_params optimizer;
    int64_t batch, length; /* sequences, and tokens in each */
    int64_t accumulate;    /* batches per step; 0: 1 */
    uint64_t seed;
    bool checkpoint;
    enum hk_dtype precision; /* HK_F32, HK_BF16 or HK_F16; with f16 the optimizer's loss_scale 0 is HK_LOSS_SCALE */
};
/* Declares, allocates and initializes the model, and compiles the programs that train and evaluate it. To resume, load
   into hk_trainer_model and hk_trainer_optimizer before the first step: what a step draws follows from the seed and the
   optimizer's step alone. */
HK_API struct hk_trainer *hk_trainer_create(struct hk_device *device, const struct hk_trainer_params *params);
HK_API void hk_trainer_destroy(struct hk_trainer **trainer);

/* One step. tokens: accumulate * batch * (length + 1) of them; each row's first length are the input, its last length
   the targets. Does not wait for the device. After a failure here or in hk_trainer_result the step may have been taken in
   part: load the last checkpoint before going on. */
HK_API hk_status hk_trainer_step(struct hk_trainer *trainer, const int32_t *tokens, float lr);
/* Loss (mean over the step) and gradient norm (before clipping) of the last step; waits for it. Either may be NULL. */
HK_API hk_status hk_trainer_result(struct hk_trainer *trainer, float *loss, float *norm);
/* Mean loss on batch * (length + 1) tokens, without dropout. */
HK_API hk_status hk_trainer_evaluate(struct hk_trainer *trainer, const int32_t *tokens, float *loss);

HK_API struct hk_params *hk_trainer_model(struct hk_trainer *trainer);
HK_API struct hk_optimizer *hk_trainer_optimizer(struct hk_trainer *trainer);
HK_API const struct hk_program_info *hk_trainer_program(const struct hk_trainer *trainer); /* of one batch */

/* ---- Generation ---- */

struct hk_sampling {
    float temperature; /* 0: the most likely token */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 0 or 1: all */
    uint64_t seed;
};
/* Draws from logits [vocab]: of the top_k most likely tokens, the fewest that have top_p of the probability (Holtzman
   et al., 2019). Among equal logits the lower token comes first. position makes each draw of a seed another one; the
   same seed, position and logits give the same token. sampling may be NULL: the most likely. NaNs are never drawn, if
   there are numbers. Any thread. */
HK_API int32_t hk_sample(const float *logits, int64_t vocab, const struct hk_sampling *sampling, uint64_t position);

struct hk_generator;
/* With a KV cache, batch 1, in the set's precision: with 16-bit weights a token reads half the bytes. Keeps params, whose
   values may change between feeds (what is cached stays as it was; hk_params_refresh as for training). One thread at a
   time. */
HK_API struct hk_generator *hk_generator_create(struct hk_device *device, struct hk_params *params,
                                                const struct hk_model_config *config);
HK_API void hk_generator_destroy(struct hk_generator **generator);
/* Appends tokens and gives the logits [vocab] after the last of them. When the context is full, starts anew from its
   second half. count is at least 1. */
HK_API hk_status hk_generator_feed(struct hk_generator *generator, const int32_t *tokens, int64_t count, float *logits);

#ifdef __cplusplus
}
#endif
#endif
