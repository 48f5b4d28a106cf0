/* Language models as data: what a config must satisfy, which parameters a family has, and the models that bench
 * measures. */
#include "nn/model.h"
#include "base/base.h" /* hk_fail */
#include <math.h>
#include <stdio.h>
#include <string.h>

struct hk_model_config hk_model_filled_in(const struct hk_model_config *config) {
    struct hk_model_config c = *config;
    if (!c.kv_heads) c.kv_heads = c.heads;
    if (!c.hidden) c.hidden = 4 * c.width;
    if (c.epsilon == 0) c.epsilon = 1e-5f;
    if (c.rope_base == 0) c.rope_base = 10000;
    return c;
}

/* ---- Checking ---- */

static hk_status check_sizes(const struct hk_model_config *c) {
    enum { MOST_LAYERS = 1000 }; /* names are looked up one by one: far more would take minutes */
    const struct {
        const char *name;
        int64_t value, most;
    } sizes[] = {{"vocab", c->vocab, INT32_MAX},     {"context", c->context, INT32_MAX},
                 {"layers", c->layers, MOST_LAYERS}, {"heads", c->heads, INT32_MAX},
                 {"width", c->width, INT32_MAX / 8}, {"kv_heads", c->kv_heads, INT32_MAX},
                 {"hidden", c->hidden, INT32_MAX}};
    for (size_t i = 0; i < HK_LENGTH(sizes); i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return hk_fail(HK_ERROR_INVALID, "%s (%lld) must be from 1 to %lld", sizes[i].name,
                           (long long)sizes[i].value, (long long)sizes[i].most);
    return HK_OK;
}

static hk_status check_heads(const struct hk_model_config *c) {
    enum { MOST_HEAD = 256 }; /* of hk_attention */
    const long long width = c->width, heads = c->heads, kv_heads = c->kv_heads;
    if (width % heads) return hk_fail(HK_ERROR_INVALID, "heads (%lld) do not divide width (%lld)", heads, width);
    if (heads % kv_heads)
        return hk_fail(HK_ERROR_INVALID, "kv_heads (%lld) do not divide heads (%lld)", kv_heads, heads);
    if (c->family == HK_GPT2 && kv_heads != heads)
        return hk_fail(HK_ERROR_INVALID, "kv_heads (%lld) differ from heads (%lld), which GPT-2 does not have",
                       kv_heads, heads);
    if (width / heads > MOST_HEAD)
        return hk_fail(HK_ERROR_INVALID, "a head's width (%lld, width / heads) must be at most %d", width / heads,
                       MOST_HEAD);
    if (c->family == HK_LLAMA && width / heads % 2)
        return hk_fail(HK_ERROR_INVALID, "a head's width (%lld, width / heads) must be even for rotary positions",
                       width / heads);
    return HK_OK;
}

hk_status hk_model_config_check(const struct hk_model_config *config) {
    if (!config) return hk_fail(HK_ERROR_INVALID, "the model's config is NULL");
    const bool countable = config->width > 0 && config->width <= INT32_MAX; /* else 4 * width may overflow */
    const struct hk_model_config c = countable ? hk_model_filled_in(config) : *config;
    if (c.family != HK_GPT2 && c.family != HK_LLAMA)
        return hk_fail(HK_ERROR_INVALID, "there is no model family %d", (int)c.family);
    if (check_sizes(&c) || check_heads(&c)) return HK_ERROR_INVALID;
    if (!(c.epsilon > 0 && c.epsilon < 1)) /* false for a NaN, too */
        return hk_fail(HK_ERROR_INVALID, "epsilon (%g) must be between 0 and 1", (double)c.epsilon);
    if (!(c.rope_base > 1 && isfinite(c.rope_base)))
        return hk_fail(HK_ERROR_INVALID, "rope_base (%g) must be over 1", (double)c.rope_base);
    if (!(c.dropout >= 0 && c.dropout < 1))
        return hk_fail(HK_ERROR_INVALID, "dropout (%g) must be at least 0 and under 1", (double)c.dropout);
    return HK_OK;
}

/* ---- Parameters ---- */

enum size { NONE, VOCAB, CONTEXT, WIDTH, WIDTH_3, HIDDEN, KV_WIDTH, SIZES };
enum start { ZERO, ONE, NORMAL, RESIDUAL }; /* RESIDUAL: its output is added to the residual stream */

struct row {
    const char *name;
    enum size rows, columns;
    enum start start;
};

static const struct row gpt2_before[] = {
    {"wte.weight", VOCAB, WIDTH, NORMAL}, {"wpe.weight", CONTEXT, WIDTH, NORMAL}, {0}};
static const struct row gpt2_layer[] = {
    {"ln_1.weight", WIDTH, NONE, ONE},
    {"ln_1.bias", WIDTH, NONE, ZERO},
    {"attn.c_attn.weight", WIDTH, WIDTH_3, NORMAL},
    {"attn.c_attn.bias", WIDTH_3, NONE, ZERO},
    {"attn.c_proj.weight", WIDTH, WIDTH, RESIDUAL},
    {"attn.c_proj.bias", WIDTH, NONE, ZERO},
    {"ln_2.weight", WIDTH, NONE, ONE},
    {"ln_2.bias", WIDTH, NONE, ZERO},
    {"mlp.c_fc.weight", WIDTH, HIDDEN, NORMAL},
    {"mlp.c_fc.bias", HIDDEN, NONE, ZERO},
    {"mlp.c_proj.weight", HIDDEN, WIDTH, RESIDUAL},
    {"mlp.c_proj.bias", WIDTH, NONE, ZERO},
    {0},
};
static const struct row gpt2_after[] = {{"ln_f.weight", WIDTH, NONE, ONE}, {"ln_f.bias", WIDTH, NONE, ZERO}, {0}};

static const struct row llama_before[] = {{"model.embed_tokens.weight", VOCAB, WIDTH, NORMAL}, {0}};
static const struct row llama_layer[] = {
    {"input_layernorm.weight", WIDTH, NONE, ONE},         {"self_attn.q_proj.weight", WIDTH, WIDTH, NORMAL},
    {"self_attn.k_proj.weight", KV_WIDTH, WIDTH, NORMAL}, {"self_attn.v_proj.weight", KV_WIDTH, WIDTH, NORMAL},
    {"self_attn.o_proj.weight", WIDTH, WIDTH, RESIDUAL},  {"post_attention_layernorm.weight", WIDTH, NONE, ONE},
    {"mlp.gate_proj.weight", HIDDEN, WIDTH, NORMAL},      {"mlp.up_proj.weight", HIDDEN, WIDTH, NORMAL},
    {"mlp.down_proj.weight", WIDTH, HIDDEN, RESIDUAL},    {0},
};
static const struct row llama_after[] = {
    {"model.norm.weight", WIDTH, NONE, ONE}, {"lm_head.weight", VOCAB, WIDTH, NORMAL}, {0}};

static const struct {
    const struct row *before, *layer, *after;
} families[] = {
    [HK_GPT2] = {gpt2_before, gpt2_layer, gpt2_after},
    [HK_LLAMA] = {llama_before, llama_layer, llama_after},
};

struct hk_model_name hk_model_layer_name(enum hk_family family, int64_t layer, const char *last) {
    struct hk_model_name name;
    snprintf(name.text, sizeof name.text, "%s%lld.%s", family == HK_GPT2 ? "h." : "model.layers.", (long long)layer,
             last);
    return name;
}

/* GPT-2's deviation is 0.02 at a width of 768; other widths keep the size of what a layer puts out, so it goes with
   1 / sqrt(width). (At a width of 128 that alone is worth 0.03 nats a byte after 2400 steps.) Projections into the
   residual stream start smaller, since all layers add up there (Radford et al. 2019, 2.3). */
static struct hk_init init_of(const struct hk_model_config *c, enum start start) {
    const float deviation = 0.02f * sqrtf(768.0f / (float)c->width);
    switch (start) {
    case ZERO:
        break;
    case ONE:
        return (struct hk_init){.kind = HK_INIT_ONE};
    case NORMAL:
        return (struct hk_init){.kind = HK_INIT_NORMAL, .scale = deviation};
    case RESIDUAL:
        return (struct hk_init){.kind = HK_INIT_NORMAL, .scale = deviation / sqrtf(2 * (float)c->layers)};
    }
    return (struct hk_init){.kind = HK_INIT_ZERO};
}

static hk_status declare_row(struct hk_params *params, const struct hk_model_config *c, const struct row *row,
                             const char *name) {
    const int64_t sizes[SIZES] = {
        [VOCAB] = c->vocab,       [CONTEXT] = c->context, [WIDTH] = c->width,
        [WIDTH_3] = 3 * c->width, [HIDDEN] = c->hidden,   [KV_WIDTH] = c->width / c->heads * c->kv_heads,
    };
    const struct hk_shape shape = {.rank = row->columns == NONE ? 1 : 2,
                                   .size = {sizes[row->rows], sizes[row->columns]}};
    return hk_params_declare(params, name, shape, init_of(c, row->start));
}

hk_status hk_model_declare(struct hk_params *params, const struct hk_model_config *config) {
    hk_status status = hk_model_config_check(config);
    if (status) return status;
    const struct hk_model_config c = hk_model_filled_in(config);
    for (const struct row *row = families[c.family].before; !status && row->name; row++)
        status = declare_row(params, &c, row, row->name);
    for (int64_t layer = 0; layer < c.layers; layer++)
        for (const struct row *row = families[c.family].layer; !status && row->name; row++)
            status = declare_row(params, &c, row, hk_model_layer_name(c.family, layer, row->name).text);
    for (const struct row *row = families[c.family].after; !status && row->name; row++)
        status = declare_row(params, &c, row, row->name);
    return status;
}

/* ---- Presets ---- */

static const struct {
    const char *name;
    enum hk_family family;
    int64_t layers, heads, width, context, batch, vocab;
} presets[] = {
    {"gpt-tiny", HK_GPT2, 4, 4, 128, 64, 12, 65},      {"gpt-char", HK_GPT2, 6, 6, 384, 256, 16, 65},
    {"gpt2-124m", HK_GPT2, 12, 12, 768, 64, 4, 50257}, {"llama-2", HK_LLAMA, 2, 4, 128, 64, 1, 256},
    {"llama-12", HK_LLAMA, 12, 4, 128, 64, 1, 256},
};

hk_status hk_model_preset(const char *name, struct hk_model_config *config, int64_t *batch) {
    char list[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < HK_LENGTH(presets); i++) {
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", presets[i].name);
        if (!name || strcmp(name, presets[i].name)) continue;
        *config = (struct hk_model_config){.family = presets[i].family,
                                           .vocab = presets[i].vocab,
                                           .context = presets[i].context,
                                           .layers = presets[i].layers,
                                           .heads = presets[i].heads,
                                           .width = presets[i].width};
        if (batch) *batch = presets[i].batch;
        return HK_OK;
    }
    return hk_fail(HK_ERROR_INVALID, "no model \"%s\"; there are: %s", name ? name : "", list);
}
