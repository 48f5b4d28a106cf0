/* config.json, with the keys of Hugging Face's GPT2Config and LlamaConfig. */
#include "io/json.h"
#include <hekla/io.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE (INT64_C(1) << 31)
#define LEAST_EPSILON 1e-30 /* 0 in hk_model_config stands for the default */

/* Fails unless the key is missing or has the value with which Hekla's models compute. */
static void need_flag(struct json_reader *reader, const char *key, bool value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, key);
    if (reader->status != HK_OK || !item || cJSON_IsNull(item) ||
        (cJSON_IsBool(item) && (bool)cJSON_IsTrue(item) == value))
        return;
    reader->status = hk_fail(HK_ERROR_UNSUPPORTED, "\"%s\" must be %s: Hekla's models have nothing else", key,
                             value ? "true" : "false");
}

static void need_text(struct json_reader *reader, const char *key, const char *one, const char *other) {
    if (reader->status != HK_OK || !json_has(reader, key)) return;
    const char *text = json_text(reader, key);
    if (reader->status != HK_OK || !strcmp(text, one) || !strcmp(text, other)) return;
    reader->status = hk_fail(HK_ERROR_UNSUPPORTED, "\"%s\" is \"%.64s\"; Hekla's models have \"%s\"", key, text, one);
}

static void parse_gpt2(struct json_reader *reader, struct hk_model_config *config) {
    config->family = HK_GPT2;
    config->vocab = json_int(reader, "vocab_size", 1, MAX_SIZE);
    config->context = json_int(reader, "n_positions", 1, MAX_SIZE);
    config->width = json_int(reader, "n_embd", 1, MAX_SIZE);
    config->layers = json_int(reader, "n_layer", 1, MAX_SIZE);
    config->heads = json_int(reader, "n_head", 1, MAX_SIZE);
    config->kv_heads = config->heads;
    config->hidden = json_int_or(reader, "n_inner", 1, 4 * MAX_SIZE, 4 * config->width);
    config->epsilon = (float)json_number_or(reader, "layer_norm_epsilon", LEAST_EPSILON, 1, 1e-5);
    config->dropout = (float)json_number_or(reader, "resid_pdrop", 0, 1, 0);
    need_text(reader, "activation_function", "gelu_new", "gelu_pytorch_tanh");
    need_flag(reader, "tie_word_embeddings", true);
    need_flag(reader, "scale_attn_weights", true);
    need_flag(reader, "scale_attn_by_inverse_layer_idx", false);
    need_flag(reader, "add_cross_attention", false);
}

static void parse_llama(struct json_reader *reader, struct hk_model_config *config) {
    config->family = HK_LLAMA;
    config->vocab = json_int(reader, "vocab_size", 1, MAX_SIZE);
    config->context = json_int(reader, "max_position_embeddings", 1, MAX_SIZE);
    config->width = json_int(reader, "hidden_size", 1, MAX_SIZE);
    config->hidden = json_int(reader, "intermediate_size", 1, 4 * MAX_SIZE);
    config->layers = json_int(reader, "num_hidden_layers", 1, MAX_SIZE);
    config->heads = json_int(reader, "num_attention_heads", 1, MAX_SIZE);
    config->kv_heads = json_int_or(reader, "num_key_value_heads", 1, MAX_SIZE, config->heads);
    config->epsilon = (float)json_number_or(reader, "rms_norm_eps", LEAST_EPSILON, 1, 1e-6);
    config->rope_base = (float)json_number_or(reader, "rope_theta", 1, 1e30, 10000);
    config->dropout = (float)json_number_or(reader, "resid_pdrop", 0, 1, 0); /* not of LlamaConfig: Hekla's own */
    need_text(reader, "hidden_act", "silu", "swish");
    need_flag(reader, "tie_word_embeddings", false);
    need_flag(reader, "attention_bias", false);
    need_flag(reader, "mlp_bias", false);
    if (reader->status == HK_OK && json_has(reader, "rope_scaling"))
        reader->status = hk_fail(HK_ERROR_UNSUPPORTED, "\"rope_scaling\" must be null: Hekla's models have none");
    const int64_t head = config->heads ? config->width / config->heads : 0;
    if (reader->status == HK_OK && json_int_or(reader, "head_dim", 1, MAX_SIZE, head) != head &&
        reader->status == HK_OK)
        reader->status = hk_fail(HK_ERROR_UNSUPPORTED, "\"head_dim\" must be hidden_size / num_attention_heads");
}

hk_status hk_config_parse(const char *json, size_t bytes, struct hk_model_config *config) {
    if (!json || !config) return hk_fail(HK_ERROR_INVALID, "config: nothing to read, or nowhere to put it");
    cJSON *object = json_parse(json, bytes);
    if (!object) return hk_error_status();
    struct json_reader reader = {object, HK_OK};
    struct hk_model_config result = {0};
    const char *type = json_text(&reader, "model_type");
    if (!strcmp(type, "gpt2")) parse_gpt2(&reader, &result);
    else if (!strcmp(type, "llama")) parse_llama(&reader, &result);
    else if (reader.status == HK_OK)
        reader.status = hk_fail(HK_ERROR_UNSUPPORTED, "\"model_type\" is \"%.64s\"; Hekla has gpt2 and llama", type);
    cJSON_Delete(object);
    if (reader.status == HK_OK && hk_model_config_check(&result) != HK_OK) {
        reader.status = HK_ERROR_FORMAT;
        hk_fail(reader.status, "%s", hk_error_message());
    }
    if (reader.status == HK_OK) *config = result;
    return reader.status;
}

static bool add_int(cJSON *object, const char *key, int64_t value) {
    return cJSON_AddNumberToObject(object, key, (double)value) != NULL;
}

static bool add_architecture(cJSON *object, const char *architecture, const char *type) {
    cJSON *list = cJSON_AddArrayToObject(object, "architectures");
    return json_add_item(list, cJSON_CreateString(architecture)) &&
           cJSON_AddStringToObject(object, "model_type", type);
}

static bool format_gpt2(cJSON *object, const struct hk_model_config *c) {
    return add_architecture(object, "GPT2LMHeadModel", "gpt2") && add_int(object, "vocab_size", c->vocab) &&
           add_int(object, "n_positions", c->context) && add_int(object, "n_embd", c->width) &&
           add_int(object, "n_layer", c->layers) && add_int(object, "n_head", c->heads) &&
           add_int(object, "n_inner", c->hidden ? c->hidden : 4 * c->width) &&
           json_add_float(object, "layer_norm_epsilon", c->epsilon != 0 ? c->epsilon : 1e-5f) &&
           json_add_float(object, "resid_pdrop", c->dropout) && json_add_float(object, "embd_pdrop", c->dropout) &&
           json_add_float(object, "attn_pdrop", 0) &&
           cJSON_AddStringToObject(object, "activation_function", "gelu_new") &&
           cJSON_AddTrueToObject(object, "tie_word_embeddings");
}

static bool format_llama(cJSON *object, const struct hk_model_config *c) {
    return add_architecture(object, "LlamaForCausalLM", "llama") && add_int(object, "vocab_size", c->vocab) &&
           add_int(object, "max_position_embeddings", c->context) && add_int(object, "hidden_size", c->width) &&
           add_int(object, "intermediate_size", c->hidden ? c->hidden : 4 * c->width) &&
           add_int(object, "num_hidden_layers", c->layers) && add_int(object, "num_attention_heads", c->heads) &&
           add_int(object, "num_key_value_heads", c->kv_heads ? c->kv_heads : c->heads) &&
           json_add_float(object, "rms_norm_eps", c->epsilon != 0 ? c->epsilon : 1e-5f) &&
           json_add_float(object, "rope_theta", c->rope_base != 0 ? c->rope_base : 10000.0f) &&
           json_add_float(object, "resid_pdrop", c->dropout) && cJSON_AddStringToObject(object, "hidden_act", "silu") &&
           cJSON_AddFalseToObject(object, "attention_bias") && cJSON_AddFalseToObject(object, "mlp_bias") &&
           cJSON_AddFalseToObject(object, "tie_word_embeddings");
}

char *hk_config_format(const struct hk_model_config *config) {
    cJSON *object = cJSON_CreateObject();
    const bool ok = config->family == HK_LLAMA ? format_llama(object, config) : format_gpt2(object, config);
    return json_finish(object, ok && cJSON_AddStringToObject(object, "torch_dtype", "float32"), false);
}
