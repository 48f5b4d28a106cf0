/* tokenizer.json for text as bytes, as Hugging Face's tokenizers reads it: a byte-level BPE without merges, whose token
   numbers are the bytes. */
#include "io/files.h"
#include "io/json.h"
#include <string.h>

/* Byte-level tokenizers write a byte as a printable character: itself where it is one in Latin-1, else the next of
   those from U+0100 (GPT-2's bytes_to_unicode). */
static void byte_character(int byte, int *unprintable, char text[3]) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const int code = printable ? byte : 256 + (*unprintable)++;
    if (code < 0x80) {
        text[0] = (char)code, text[1] = 0;
    } else {
        text[0] = (char)(0xc0 | code >> 6), text[1] = (char)(0x80 | (code & 0x3f)), text[2] = 0;
    }
}

static bool add_vocabulary(cJSON *model) {
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    int unprintable = 0;
    bool ok = true;
    for (int byte = 0; byte < 256; byte++) {
        char text[3];
        byte_character(byte, &unprintable, text);
        ok = cJSON_AddNumberToObject(vocab, text, byte) && ok;
    }
    return ok;
}

static bool add_byte_level(cJSON *object, const char *key) {
    cJSON *item = cJSON_AddObjectToObject(object, key);
    return cJSON_AddStringToObject(item, "type", "ByteLevel") && cJSON_AddFalseToObject(item, "add_prefix_space") &&
           cJSON_AddTrueToObject(item, "trim_offsets") && cJSON_AddFalseToObject(item, "use_regex");
}

static bool add_model(cJSON *object) {
    cJSON *model = cJSON_AddObjectToObject(object, "model");
    return cJSON_AddStringToObject(model, "type", "BPE") && cJSON_AddNullToObject(model, "dropout") &&
           cJSON_AddNullToObject(model, "unk_token") && cJSON_AddNullToObject(model, "continuing_subword_prefix") &&
           cJSON_AddNullToObject(model, "end_of_word_suffix") && cJSON_AddFalseToObject(model, "fuse_unk") &&
           cJSON_AddFalseToObject(model, "byte_fallback") && add_vocabulary(model) &&
           cJSON_AddArrayToObject(model, "merges");
}

char *tokenizer_format(void) {
    cJSON *object = cJSON_CreateObject();
    const bool ok = cJSON_AddStringToObject(object, "version", "1.0") && cJSON_AddNullToObject(object, "truncation") &&
                    cJSON_AddNullToObject(object, "padding") && cJSON_AddArrayToObject(object, "added_tokens") &&
                    cJSON_AddNullToObject(object, "normalizer") && add_byte_level(object, "pre_tokenizer") &&
                    cJSON_AddNullToObject(object, "post_processor") && add_byte_level(object, "decoder") &&
                    add_model(object);
    return json_finish(object, ok, true);
}

/* ---- Reading ---- */

static bool is_type(const cJSON *object, const char *key, const char *type) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "type"));
    return text && !strcmp(text, type);
}

/* Missing, null or an empty list. */
static bool is_nothing(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return !item || cJSON_IsNull(item) || (cJSON_IsArray(item) && !item->child);
}

/* Each byte's character, and nothing else, with the byte as its number. */
static bool has_bytes(const cJSON *vocab) {
    int unprintable = 0;
    if (!cJSON_IsObject(vocab) || cJSON_GetArraySize(vocab) != 256) return false;
    for (int byte = 0; byte < 256; byte++) {
        char text[3];
        byte_character(byte, &unprintable, text);
        int64_t number;
        if (!json_size(cJSON_GetObjectItemCaseSensitive(vocab, text), &number) || number != byte) return false;
    }
    return true;
}

hk_status tokenizer_parse(const char *json, size_t bytes) {
    cJSON *object = json_parse(json, bytes);
    if (!object) return hk_error_status();
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(object, "model");
    const cJSON *before = cJSON_GetObjectItemCaseSensitive(object, "pre_tokenizer");
    const bool same = is_type(object, "model", "BPE") && is_type(object, "pre_tokenizer", "ByteLevel") &&
                      is_type(object, "decoder", "ByteLevel") && is_nothing(object, "normalizer") &&
                      is_nothing(object, "post_processor") && is_nothing(object, "added_tokens") &&
                      is_nothing(model, "merges") &&
                      cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(before, "add_prefix_space")) &&
                      has_bytes(cJSON_GetObjectItemCaseSensitive(model, "vocab"));
    cJSON_Delete(object);
    return same ? HK_OK : hk_fail(HK_ERROR_UNSUPPORTED, "the tokenizer's tokens are not the bytes");
}
