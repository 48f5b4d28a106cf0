/* Configs that lie: what is accepted passes the model's own check, and reads back from what is written of it. */
#include "fuzz.h"
#include <hekla/hekla.h>
#include <stdlib.h>
#include <string.h>

static bool same(const struct hk_model_config *a, const struct hk_model_config *b) {
    return a->family == b->family && a->vocab == b->vocab && a->context == b->context && a->layers == b->layers &&
           a->heads == b->heads && a->kv_heads == b->kv_heads && a->width == b->width && a->hidden == b->hidden &&
           a->epsilon == b->epsilon && a->rope_base == b->rope_base && a->dropout == b->dropout;
}

bool fuzz_one(const uint8_t *data, size_t bytes) {
    struct hk_model_config config, again;
    if (hk_config_parse((const char *)data, bytes, &config)) {
        FUZZ_CHECK(hk_error_status() != HK_OK && *hk_error_message());
        return false;
    }
    FUZZ_CHECK(hk_model_config_check(&config) == HK_OK);
    char *text = hk_config_format(&config);
    FUZZ_CHECK(text && hk_config_parse(text, strlen(text), &again) == HK_OK && same(&config, &again));
    free(text);
    return true;
}
