/* tokenizer.json for text as bytes, as Hugging Face's tokenizers reads it: a byte-level BPE without merges, whose token
   numbers are the bytes. */
#include "io/json.h"
#include "io/write.h"

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
