/* Decoders: tokens to logits. GPT-2 (Radford et al., 2019) and Llama (Touvron et al., 2023).

   Sizes: B sequences of T tokens, C = width, H query heads and KV key heads of D = C / H channels, S = context of a
   cache. */
#include "base/base.h" /* hk_fail */
#include "nn/model.h"
#include <stdio.h>

struct decoder {
    struct hk_params *params;
    struct hk_graph *graph;
    struct hk_model_config config;
    struct hk_model_inputs inputs;
    struct hk_value *position; /* i32 [1], with caches; else NULL */
    int64_t B, T, C, D;
};

static struct hk_value *use(const struct decoder *d, const char *name) {
    return hk_params_use(d->params, d->graph, name);
}

static struct hk_value *use_in(const struct decoder *d, int64_t layer, const char *name) {
    return use(d, hk_model_layer_name(d->config.family, layer, name).text);
}

/* A weight of a product, and x where it comes to one: in the set's precision, which the backward pass then keeps. */
static struct hk_value *factor(const struct decoder *d, const char *name) {
    return hk_params_use_factor(d->params, d->graph, name);
}

static struct hk_value *factor_in(const struct decoder *d, int64_t layer, const char *name) {
    return factor(d, hk_model_layer_name(d->config.family, layer, name).text);
}

static struct hk_value *rounded(const struct decoder *d, struct hk_value *x) {
    return hk_cast(x, hk_params_precision(d->params));
}

/* What comes to attention: in the set's precision, too, but for caches, which are f32. */
static struct hk_value *attended(const struct decoder *d, struct hk_value *x) {
    return d->inputs.keys ? x : rounded(d, x);
}

static struct hk_value *dropout(const struct decoder *d, struct hk_value *x) {
    return d->inputs.rng && d->config.dropout > 0 ? hk_dropout(x, d->config.dropout, d->inputs.rng) : x;
}

/* ---- Attention ---- */

/* [B, T, heads * D] -> [B, heads, T, D], a view */
static struct hk_value *split_heads(const struct decoder *d, struct hk_value *x, int64_t heads) {
    return hk_permute(hk_reshape(x, HK_SHAPE(d->B, d->T, heads, d->D)), HK_AXES(0, 2, 1, 3));
}

/* q [B, H, T, D], k and v [B, KV, T, D] -> [B, T, C]. With caches, k and v join those of the tokens before. */
static struct hk_value *attend(const struct decoder *d, int64_t layer, struct hk_value *q, struct hk_value *k,
                               struct hk_value *v) {
    struct hk_attention_params how = {.causal = true};
    if (d->inputs.keys) {
        k = hk_cache_write(d->inputs.keys[layer], k, d->position); /* [B, KV, S, D] */
        v = hk_cache_write(d->inputs.values[layer], v, d->position);
        how.position = d->position;
    }
    struct hk_value *heads = hk_attention(q, k, v, &how);
    return hk_reshape(hk_permute(heads, HK_AXES(0, 2, 1, 3)), HK_SHAPE(d->B, d->T, d->C));
}

/* ---- GPT-2 ---- */

static struct hk_value *gpt2_norm(const struct decoder *d, int64_t layer, const char *weight, const char *bias,
                                  struct hk_value *x) {
    return hk_layer_norm(x, use_in(d, layer, weight), use_in(d, layer, bias), d->config.epsilon);
}

static struct hk_value *gpt2_linear(const struct decoder *d, int64_t layer, const char *weight, const char *bias,
                                    struct hk_value *x) {
    return hk_linear_kn(rounded(d, x), factor_in(d, layer, weight), use_in(d, layer, bias));
}

static struct hk_value *gpt2_embed(const struct decoder *d, struct hk_value *tokens) {
    struct hk_value *table = use(d, "wpe.weight"), *places; /* [context, C] -> [T, C] */
    if (d->inputs.position)
        places = hk_embedding(table, hk_add(hk_arange(d->graph, HK_I32, d->T, 0, 1), d->inputs.position));
    else places = hk_slice(table, 0, 0, d->T, 1);
    return dropout(d, hk_add(hk_embedding(use(d, "wte.weight"), tokens), places));
}

static struct hk_value *gpt2_block(const struct decoder *d, int64_t layer, struct hk_value *x) {
    const int64_t H = d->config.heads, C = d->C;
    struct hk_value *h = gpt2_norm(d, layer, "ln_1.weight", "ln_1.bias", x);
    struct hk_value *qkv = gpt2_linear(d, layer, "attn.c_attn.weight", "attn.c_attn.bias", h); /* [B, T, 3C] */
    qkv = attended(d, qkv);
    struct hk_value *q = split_heads(d, hk_slice(qkv, 2, 0, C, 1), H);
    struct hk_value *k = split_heads(d, hk_slice(qkv, 2, C, 2 * C, 1), H);
    struct hk_value *v = split_heads(d, hk_slice(qkv, 2, 2 * C, 3 * C, 1), H);
    h = gpt2_linear(d, layer, "attn.c_proj.weight", "attn.c_proj.bias", attend(d, layer, q, k, v));
    x = hk_add(x, dropout(d, h));
    h = gpt2_norm(d, layer, "ln_2.weight", "ln_2.bias", x);
    h = hk_gelu_tanh(gpt2_linear(d, layer, "mlp.c_fc.weight", "mlp.c_fc.bias", h)); /* [B, T, hidden] */
    return hk_add(x, dropout(d, gpt2_linear(d, layer, "mlp.c_proj.weight", "mlp.c_proj.bias", h)));
}

static struct hk_value *gpt2_head(const struct decoder *d, struct hk_value *x) {
    x = hk_layer_norm(x, use(d, "ln_f.weight"), use(d, "ln_f.bias"), d->config.epsilon);
    return hk_linear(rounded(d, x), factor(d, "wte.weight"), NULL); /* the table of tokens read the other way */
}

/* ---- Llama ---- */

static struct hk_value *llama_linear(const struct decoder *d, int64_t layer, const char *weight, struct hk_value *x) {
    return hk_linear(rounded(d, x), factor_in(d, layer, weight), NULL);
}

/* Rounded once for all the products that it comes to. */
static struct hk_value *llama_norm(const struct decoder *d, int64_t layer, const char *weight, struct hk_value *x) {
    return rounded(d, hk_rms_norm(x, use_in(d, layer, weight), d->config.epsilon));
}

static struct hk_value *rotate(const struct decoder *d, struct hk_value *x) {
    const struct hk_rope_params how = {
        .style = HK_ROPE_HALF, .base = d->config.rope_base, .position = d->inputs.position};
    return hk_rope(x, &how);
}

static struct hk_value *llama_embed(const struct decoder *d, struct hk_value *tokens) {
    return dropout(d, hk_embedding(use(d, "model.embed_tokens.weight"), tokens));
}

static struct hk_value *llama_block(const struct decoder *d, int64_t layer, struct hk_value *x) {
    const int64_t H = d->config.heads, KV = d->config.kv_heads;
    struct hk_value *h = llama_norm(d, layer, "input_layernorm.weight", x);
    struct hk_value *q = rotate(d, split_heads(d, llama_linear(d, layer, "self_attn.q_proj.weight", h), H));
    struct hk_value *k = rotate(d, split_heads(d, llama_linear(d, layer, "self_attn.k_proj.weight", h), KV));
    struct hk_value *v = split_heads(d, attended(d, llama_linear(d, layer, "self_attn.v_proj.weight", h)), KV);
    q = attended(d, q), k = attended(d, k);
    h = llama_linear(d, layer, "self_attn.o_proj.weight", attend(d, layer, q, k, v));
    x = hk_add(x, dropout(d, h));
    h = llama_norm(d, layer, "post_attention_layernorm.weight", x);
    struct hk_value *gate = hk_silu(llama_linear(d, layer, "mlp.gate_proj.weight", h)); /* [B, T, hidden] */
    h = hk_mul(gate, llama_linear(d, layer, "mlp.up_proj.weight", h));
    return hk_add(x, dropout(d, llama_linear(d, layer, "mlp.down_proj.weight", h)));
}

static struct hk_value *llama_head(const struct decoder *d, struct hk_value *x) {
    x = hk_rms_norm(x, use(d, "model.norm.weight"), d->config.epsilon);
    return hk_linear(rounded(d, x), factor(d, "lm_head.weight"), NULL);
}

/* ---- Both ---- */

static const struct {
    struct hk_value *(*embed)(const struct decoder *d, struct hk_value *tokens);           /* [B, T] -> [B, T, C] */
    struct hk_value *(*block)(const struct decoder *d, int64_t layer, struct hk_value *x); /* [B, T, C] */
    struct hk_value *(*head)(const struct decoder *d, struct hk_value *x); /* [B, T, C] -> [B, T, vocab] */
} families[] = {
    [HK_GPT2] = {gpt2_embed, gpt2_block, gpt2_head},
    [HK_LLAMA] = {llama_embed, llama_block, llama_head},
};

static hk_status check_inputs(const struct decoder *d, struct hk_value *tokens) {
    const struct hk_shape shape = hk_value_shape(tokens);
    if (shape.rank != 2 || hk_value_dtype(tokens) != HK_I32)
        return hk_fail(HK_ERROR_INVALID, "model: tokens must be i32 [B, T], but are %s of rank %d",
                       hk_dtype_name(hk_value_dtype(tokens)), shape.rank);
    if (shape.size[1] > d->config.context)
        return hk_fail(HK_ERROR_INVALID, "model: %lld tokens are more than the context (%lld)",
                       (long long)shape.size[1], (long long)d->config.context);
    if (!d->inputs.keys != !d->inputs.values)
        return hk_fail(HK_ERROR_INVALID, "model: caches need both keys and values");
    return HK_OK;
}

struct hk_value *hk_model_logits(struct hk_params *params, const struct hk_model_config *config,
                                 struct hk_value *tokens, const struct hk_model_inputs *inputs) {
    struct hk_graph *graph = hk_value_graph(tokens);
    if (!tokens) return NULL;
    if (hk_model_config_check(config)) return hk_graph_refuse(graph, hk_error_status(), hk_error_message());
    struct decoder d = {.params = params, .graph = graph, .config = hk_model_filled_in(config)};
    if (inputs) d.inputs = *inputs;
    if (check_inputs(&d, tokens)) return hk_graph_refuse(graph, hk_error_status(), hk_error_message());
    const struct hk_shape shape = hk_value_shape(tokens);
    d.B = shape.size[0], d.T = shape.size[1], d.C = d.config.width, d.D = d.C / d.config.heads;
    d.position = d.inputs.position;
    if (d.inputs.keys && !d.position) d.position = hk_fill(graph, HK_I32, HK_SHAPE(1), 0);
    struct hk_value *x = families[d.config.family].embed(&d, tokens);
    for (int64_t layer = 0; layer < d.config.layers; layer++) {
        if (d.inputs.checkpoint) x = hk_checkpoint(x);
        x = families[d.config.family].block(&d, layer, x);
    }
    return families[d.config.family].head(&d, x);
}
