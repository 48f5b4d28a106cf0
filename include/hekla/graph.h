/* Graphs: what is to be computed, described once. Programs: graphs compiled for a device, run often.

   A graph is a list of ops in the order in which they were added, and that is the order in which a program runs them.
   Ops take and return values; a value has a dtype and a shape, known at once, and no memory until a program has it.

   Errors: an op that is given something wrong (or a NULL value, that is: the result of an op that was) returns NULL and
   marks the graph, which keeps the first message; hk_compile then returns NULL with it. So building reads like
   mathematics and needs one check at the end.

   Ownership: a graph owns its values, and they die with it. It keeps the memory of the tensors it refers to alive.
   Threads: a graph and its values belong to one thread at a time; so does a program. */
#ifndef HEKLA_GRAPH_H
#define HEKLA_GRAPH_H

#include <hekla/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hk_graph;
struct hk_value;
struct hk_program;

/* NULL only when out of memory. */
HK_API struct hk_graph *hk_graph_create(void);
HK_API void hk_graph_destroy(struct hk_graph **graph);

/* HK_OK, or the status of the first op that was given something wrong; the message is then the calling thread's. */
HK_API hk_status hk_graph_status(const struct hk_graph *graph);

/* For builders outside the library (layers, models): marks the graph with its first error, as an op does. Returns NULL. */
HK_API struct hk_value *hk_graph_refuse(struct hk_graph *graph, hk_status status, const char *message);

HK_API enum hk_dtype hk_value_dtype(const struct hk_value *value);
HK_API struct hk_shape hk_value_shape(const struct hk_value *value);
HK_API struct hk_graph *hk_value_graph(const struct hk_value *value);

/* ---- Between tensors and values ---- */

/* What the tensor holds when the program comes to the ops that use the value. */
HK_API struct hk_value *hk_leaf(struct hk_graph *graph, struct hk_tensor *tensor);

/* tensor = value, at this place in the program. Shapes and dtypes must be equal. */
HK_API void hk_store(struct hk_tensor *tensor, struct hk_value *value);

/* ---- Sources ---- */

HK_API struct hk_value *hk_fill(struct hk_graph *graph, enum hk_dtype dtype, struct hk_shape shape, double value);
HK_API struct hk_value *hk_arange(struct hk_graph *graph, enum hk_dtype dtype, int64_t count, double start, double step);

/* Random numbers come from Philox 4x32-10 (Salmon et al., 2011): key = the seed, counter = (element / 4, the op's number in
   its graph, step, 0). rng is i32 [4]: seed low, seed high, step, unused: write another step before each run to get other
   numbers. The same graph, seed and step give the same raw bits on every device. */
HK_API struct hk_value *hk_random_uniform(struct hk_value *rng, struct hk_shape shape, float low, float high);
HK_API struct hk_value *hk_random_normal(struct hk_value *rng, struct hk_shape shape, float mean, float deviation);

/* ---- Elementwise, f32 (neg, abs, square and the arithmetic ones also i32). Any strides. ---- */

HK_API struct hk_value *hk_neg(struct hk_value *x);
HK_API struct hk_value *hk_exp(struct hk_value *x);
HK_API struct hk_value *hk_log(struct hk_value *x);
HK_API struct hk_value *hk_sqrt(struct hk_value *x);
HK_API struct hk_value *hk_rsqrt(struct hk_value *x);
HK_API struct hk_value *hk_square(struct hk_value *x);
HK_API struct hk_value *hk_abs(struct hk_value *x);
HK_API struct hk_value *hk_sin(struct hk_value *x);
HK_API struct hk_value *hk_cos(struct hk_value *x);
HK_API struct hk_value *hk_tanh(struct hk_value *x);
HK_API struct hk_value *hk_sigmoid(struct hk_value *x);
HK_API struct hk_value *hk_relu(struct hk_value *x);
HK_API struct hk_value *hk_leaky_relu(struct hk_value *x, float slope);
HK_API struct hk_value *hk_elu(struct hk_value *x, float alpha);
HK_API struct hk_value *hk_silu(struct hk_value *x);
HK_API struct hk_value *hk_gelu(struct hk_value *x);      /* x * Phi(x), by erf (Hendrycks and Gimpel, 2016) */
HK_API struct hk_value *hk_gelu_tanh(struct hk_value *x); /* its approximation by tanh, as GPT-2 uses it */
HK_API struct hk_value *hk_softplus(struct hk_value *x);  /* log(1 + exp(x)) */
HK_API struct hk_value *hk_affine(struct hk_value *x, float scale, float offset); /* scale * x + offset */
/* Any dtype to any. To i32 and u8: toward zero, clamped. To i8: to the nearest, even where two are as near, clamped to
   -128 ... 127, as quantizing wants it. NaN becomes the integer 0. Gradients pass between f32, f16 and bf16 alone. */
HK_API struct hk_value *hk_cast(struct hk_value *x, enum hk_dtype dtype);

/* Two values, broadcast as NumPy does: aligned at the last dimension, a size of 1 stretches. */
HK_API struct hk_value *hk_add(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_sub(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_mul(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_div(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_maximum(struct hk_value *a, struct hk_value *b); /* where equal, half the gradient each */
HK_API struct hk_value *hk_minimum(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_pow(struct hk_value *a, struct hk_value *b); /* f32; a < 0 gives NaN unless b is a whole number */

/* i32: 1 where it holds, else 0. No gradient. */
HK_API struct hk_value *hk_equal(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_not_equal(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_less(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_less_equal(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_greater(struct hk_value *a, struct hk_value *b);
HK_API struct hk_value *hk_greater_equal(struct hk_value *a, struct hk_value *b);

/* a where the i32 condition is not 0, else b; all three broadcast. */
HK_API struct hk_value *hk_where(struct hk_value *condition, struct hk_value *a, struct hk_value *b);

/* ---- Reductions, f32. Negative axes count from the end; no axes: all of them. ---- */

struct hk_axes {
    int count;
    int axis[HK_MAX_RANK];
};
#define HK_AXES(...) (HK_LITERAL(hk_axes){HK_COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#define HK_ALL_AXES (HK_LITERAL(hk_axes){0, {0}})

HK_API struct hk_value *hk_sum(struct hk_value *x, struct hk_axes axes, bool keepdims);
HK_API struct hk_value *hk_mean(struct hk_value *x, struct hk_axes axes, bool keepdims);
HK_API struct hk_value *hk_max(struct hk_value *x, struct hk_axes axes, bool keepdims); /* equal maxima share the gradient */
/* i32: the first index of the maximum, counted row-major over the axes given. No gradient. */
HK_API struct hk_value *hk_argmax(struct hk_value *x, struct hk_axes axes, bool keepdims);

/* ---- Shape. The first four are views wherever strides can say it, and copy where not. ---- */

HK_API struct hk_value *hk_reshape(struct hk_value *x, struct hk_shape shape); /* one size may be -1: what is left */
HK_API struct hk_value *hk_permute(struct hk_value *x, struct hk_axes order);  /* out dimension i is x's order.axis[i] */
HK_API struct hk_value *hk_transpose(struct hk_value *x);                      /* the last two dimensions change places */
HK_API struct hk_value *hk_broadcast_to(struct hk_value *x, struct hk_shape shape);
/* Elements begin, begin + step, ... before end of one axis. begin and end may be negative (from the end); step >= 1. */
HK_API struct hk_value *hk_slice(struct hk_value *x, int axis, int64_t begin, int64_t end, int64_t step);
HK_API struct hk_value *hk_concat(struct hk_value *const *values, int count, int axis);
/* before and after: elements to add at each end of each dimension (HK_MAX_RANK entries are not needed: x's rank is). */
HK_API struct hk_value *hk_pad(struct hk_value *x, const int64_t *before, const int64_t *after, float value);
HK_API struct hk_value *hk_contiguous(struct hk_value *x); /* x itself where it is dense and row-major, else a copy */

/* ---- Matrix products: of f32, f16 and bf16, summed in f32, f32 out (hk_cast narrows it) ----

   Operands are of one dtype, or one of the two is f32. An f32 operand is never lowered: f32 x f16 (activations and the
   weights of a decoder, say) widens the f16, which is exact, and multiplies in f32. Products of two f16 or two bf16 are
   exact in f32; they are what matrix units take, which may add them in any order, and take what is below 2^-126 as 0.

   Gradients: where both operands are 16-bit, the gradient that arrives is rounded to their dtype before it is multiplied
   (Micikevicius et al., 2018: scale the loss where that is f16); else it stays f32. What comes out is f32, and goes on as
   f32 through hk_cast, to f32 weights that were cast; hk_gradients gives a 16-bit value its gradient in its own dtype. */

/* a [..., M, K], b [..., K, N] -> [..., M, N]; the leading dimensions broadcast. Transposed operands (hk_transpose, or any
   permutation that leaves one of the last two dimensions dense) are read in place.

   Also of two i8, summed in i32, i32 out: exact, therefore K <= 131071. No gradient; scales are for the caller to multiply by.
   GPUs read four of i8 at once where rows (along the dense dimension) begin at multiples of four bytes: others take longer. */
HK_API struct hk_value *hk_matmul(struct hk_value *a, struct hk_value *b);
/* x [..., K], weight [N, K], bias [N] (of any of the three dtypes) or NULL -> x weight^T + bias [..., N] */
HK_API struct hk_value *hk_linear(struct hk_value *x, struct hk_value *weight, struct hk_value *bias);
/* The same with weight [K, N], as GPT-2's checkpoints have it. */
HK_API struct hk_value *hk_linear_kn(struct hk_value *x, struct hk_value *weight, struct hk_value *bias);

/* ---- Softmax and losses ---- */

HK_API struct hk_value *hk_softmax(struct hk_value *x, int axis);
HK_API struct hk_value *hk_log_softmax(struct hk_value *x, int axis);

struct hk_cross_entropy_params {
    bool ignore;           /* rows whose target is ignore_index count neither in the sum nor in the mean */
    int32_t ignore_index;
    float label_smoothing; /* 0 to 1: mixes the target with the uniform distribution (Szegedy et al., 2015) */
};
/* logits f32 [..., C], targets i32 [...] in [0, C) -> the mean over rows (f32 scalar). A target out of range makes the loss
   NaN. params may be NULL. */
HK_API struct hk_value *hk_cross_entropy(struct hk_value *logits, struct hk_value *targets,
                                         const struct hk_cross_entropy_params *params);
HK_API struct hk_value *hk_mse_loss(struct hk_value *x, struct hk_value *target);        /* mean over all elements */
HK_API struct hk_value *hk_bce_with_logits(struct hk_value *x, struct hk_value *target); /* mean; target in [0, 1] */

/* ---- Normalization over the last dimension ---- */

/* x [..., C], weight [C], bias [C] or NULL (Ba et al., 2016) */
HK_API struct hk_value *hk_layer_norm(struct hk_value *x, struct hk_value *weight, struct hk_value *bias, float epsilon);
/* x [..., C], weight [C] (Zhang and Sennrich, 2019) */
HK_API struct hk_value *hk_rms_norm(struct hk_value *x, struct hk_value *weight, float epsilon);

/* ---- Sequences ---- */

/* table f32 [V, C], index i32 [...] -> [..., C]. An index out of range gives a row of NaN, and no gradient. */
HK_API struct hk_value *hk_embedding(struct hk_value *table, struct hk_value *index);

enum hk_rope_style {
    HK_ROPE_HALF,    /* pairs (i, i + D/2): GPT-NeoX, Llama on Hugging Face */
    HK_ROPE_ADJACENT /* pairs (2i, 2i + 1): the paper (Su et al., 2021) */
};
struct hk_rope_params {
    enum hk_rope_style style;
    float base;                /* 0: 10000 */
    int32_t start;             /* position of the first row */
    struct hk_value *position; /* i32 [1], added to start, read on the device; NULL: 0 */
};
/* x [B, H, T, D], D even, rotated by the position of each of the T rows. params may be NULL. */
HK_API struct hk_value *hk_rope(struct hk_value *x, const struct hk_rope_params *params);

struct hk_attention_params {
    bool causal;               /* query t sees keys up to t + S - T */
    float scale;               /* 0: 1 / sqrt(D) */
    struct hk_value *position; /* i32 [1], read on the device: only the first position + T keys exist (a KV cache whose
                                  memory has room for S); NULL: all S. No gradient with it. */
};
/* q [B, H, T, D], k and v [B, Hkv, S, D], H a multiple of Hkv (grouped queries), D <= 256 -> [B, H, T, D], all of them
   of one dtype: f32, f16 or bf16. Sums are f32. With 16 bits, what is read and the result have them, and kernels that use
   cooperative matrices round probabilities and the scores' gradients to them, too, for the next product (in f16 a score's
   gradient over 65504 is infinite then); D, all strides and the first element should be even (otherwise it works on copies in f32). One fused op,
   forward and backward, in memory linear in T and S (Dao et al., 2022). Strided q, k, v whose D is dense are read in
   place; the result lies in memory as [B, T, H, D], so that merging the heads is a view. */
HK_API struct hk_value *hk_attention(struct hk_value *q, struct hk_value *k, struct hk_value *v,
                                     const struct hk_attention_params *params);

/* cache [B, H, S, D] at rows position .. position + T of dimension 2 = rows [B, H, T, D], at this place in the program.
   position i32 [1] is read on the device; rows past S are dropped. Returns the cache as it is after the write. */
HK_API struct hk_value *hk_cache_write(struct hk_tensor *cache, struct hk_value *rows, struct hk_value *position);

/* Zero with the given probability (0 <= p < 1), else x / (1 - p); rng as for hk_random_uniform. (Srivastava et al., 2014) */
HK_API struct hk_value *hk_dropout(struct hk_value *x, float probability, struct hk_value *rng);

/* ---- Optimizer steps: in place on tensors, each one fused op ---- */

/* sqrt of the sum of squares over all tensors (f32 [1]). Sums in a fixed order. */
HK_API struct hk_value *hk_global_norm(struct hk_graph *graph, struct hk_tensor *const *tensors, int count);

/* Numbers that change from step to step, in a tensor f32 [HK_HYPER_COUNT] that the kernels read. */
enum hk_hyper {
    HK_HYPER_LR,
    HK_HYPER_BETA1,  /* SGD: momentum */
    HK_HYPER_BETA2,
    HK_HYPER_EPSILON,
    HK_HYPER_DECAY,
    HK_HYPER_BIAS1, /* 1 - beta1^t; SGD: 0 on the first step, else 1 */
    HK_HYPER_BIAS2, /* 1 - beta2^t */
    HK_HYPER_CLIP,  /* largest global norm of the gradient; 0: no limit */
    HK_HYPER_UNSCALE, /* factor on the gradients: 1 / the loss's scale; 0: 1 */
    HK_HYPER_SKIP,    /* 1: parameters and moments stay as they are */
    HK_HYPER_COUNT
};

enum hk_optimizer_kind {
    HK_SGD,   /* decay is added to the gradient; moment1 holds the velocity */
    HK_NESTEROV,
    HK_ADAM,  /* Kingma and Ba, 2014; decay is added to the gradient */
    HK_ADAMW  /* Loshchilov and Hutter, 2017 */
};

/* Tensors of one size, f32 but for the copy. */
struct hk_optimizer_slab {
    struct hk_tensor *parameters, *gradients;
    struct hk_tensor *moment1, *moment2; /* as the kind needs them, NULL otherwise; SGD without moment1 has no momentum */
    struct hk_tensor *copy; /* f16 or bf16: the parameters after the step, rounded; NULL: none. A step that is
                               skipped need not write it */
    int64_t decayed;        /* the first so many elements take weight decay, the rest do not */
};

/* One step over a slab. norm f32 [1] is the gradient's global norm for clipping, as torch.nn.utils.clip_grad_norm_ does it
   (the factor is min(1, clip / (norm + 1e-6))); NULL: no clipping. */
HK_API void hk_optimizer_update(enum hk_optimizer_kind kind, const struct hk_optimizer_slab *slab, struct hk_value *hyper,
                                struct hk_value *norm);

/* Dynamic loss scaling (Micikevicius et al., 2018, as torch.amp.GradScaler does it), all of it on the device: what a
   tensor f32 [HK_SCALING_COUNT] holds. */
enum hk_scaling {
    HK_SCALING_SCALE,   /* what the loss is multiplied by: a power of two that divides out again without rounding */
    HK_SCALING_GOOD,    /* steps since it changed */
    HK_SCALING_UPDATES, /* steps that were taken ... */
    HK_SCALING_SKIPPED, /* ... and those that were not */
    HK_SCALING_POWER1,  /* beta1^updates, for Adam's bias correction; 1 at first */
    HK_SCALING_POWER2,
    HK_SCALING_COUNT
};

/* Of norm, f32 [1], the global norm of the gradients of loss * scale, makes what hk_optimizer_update takes: hyper with
   UNSCALE, SKIP, BIAS1 and BIAS2 set, and in *unscaled (may be NULL) the norm / scale. Where the norm is infinite or NaN,
   SKIP is set and the scale is halved, else the step counts, and after grow_after of them (1 to 2^24) in a row the scale
   is doubled; it stays between 2^-24 and 2^40. kind says what BIAS1 is. Changes the tensor, at this place in the program. */
HK_API struct hk_value *hk_loss_scale(enum hk_optimizer_kind kind, struct hk_tensor *scaling, struct hk_value *hyper,
                                      struct hk_value *norm, int64_t grow_after, struct hk_value **unscaled);

/* ---- Gradients ---- */

/* Adds the ops that compute d loss / d wrt[i], in wrt[i]'s dtype, for a scalar f32 loss; grads[i] is NULL only if the
   graph is wrong, and zero where loss does not depend on wrt[i]. The ops read tensors where they are added:
   HK_ERROR_INVALID where one of them needs a tensor that an op since has changed. */
HK_API hk_status hk_gradients(struct hk_value *loss, struct hk_value *const *wrt, int count, struct hk_value **grads);

/* Ends a segment of the graph for gradient checkpointing (Chen et al., 2016): of the ops between two marks, only the
   marked values are kept for the backward pass, the rest is computed again there. Returns value. */
HK_API struct hk_value *hk_checkpoint(struct hk_value *value);

/* A value that the backward pass does not go through. */
HK_API struct hk_value *hk_stop_gradient(struct hk_value *x);

/* What `stand_in` holds, of x's shape and any of f32, f16 and bf16, with a gradient that goes to x as if it were x (and
   none to stand_in): the straight-through estimator (Bengio et al., 2013). A view: nothing is computed. */
HK_API struct hk_value *hk_straight_through(struct hk_value *x, struct hk_value *stand_in);

/* ---- Programs ---- */

struct hk_compile_params {
    const char *name;      /* shows in messages and traces */
    uint64_t memory_limit; /* bytes that this program's arena may take; 0: what the device has left */
    struct hk_program *share; /* of the same device: both use its arena, as far as it is large enough, which costs no time,
                                 as a device runs one program after the other. It may be destroyed first. NULL: none */
};

/* Removes what nothing needs, plans memory, chooses kernels and records them. The graph is not changed and may be destroyed
   after. Needs at least one hk_store, hk_cache_write or hk_optimizer_update. NULL on a wrong graph, too little memory (the
   message names need and have) or a tensor of another device. params may be NULL. */
HK_API struct hk_program *hk_compile(struct hk_device *device, struct hk_graph *graph, const struct hk_compile_params *params);
HK_API void hk_program_destroy(struct hk_program **program);

/* Submits the program; it may still run when this returns (hk_tensor_read and hk_device_wait wait). Programs on a device run
   in the order of these calls. */
HK_API hk_status hk_program_run(struct hk_program *program);

struct hk_program_info {
    uint64_t arena_bytes;  /* planned for everything between tensors */
    uint64_t tensor_bytes; /* of the tensors that the program refers to */
    uint64_t peak_bytes;   /* both */
    uint64_t value_bytes;  /* what the arena would be if no memory were used twice */
    double flops, bytes;   /* of one run: arithmetic, and memory read and written if each op touched each operand once */
    int ops;               /* after removal, those that share a kernel counted as one */
    int fused;             /* ops less by that: elementwise ones and reductions that run in the kernel of another */
    int dispatches, barriers, submits; /* recorded; on the CPU dispatches = ops */
};
HK_API const struct hk_program_info *hk_program_get_info(const struct hk_program *program);

#ifdef __cplusplus
}
#endif
#endif
