/* Tokenizers that lie: one that is taken for the bytes tokenizer has what that one has. */
#include "fuzz.h"
#include "io/files.h"
#include <string.h>

static bool has(const uint8_t *data, size_t bytes, const char *text) { return memmem(data, bytes, text, strlen(text)); }

bool fuzz_one(const uint8_t *data, size_t bytes) {
    if (tokenizer_parse((const char *)data, bytes)) {
        FUZZ_CHECK(hk_error_status() != HK_OK && *hk_error_message());
        return false;
    }
    /* two places for the bytes level, and the 256 tokens: at least "x":0, each */
    FUZZ_CHECK(bytes > 256 * 6);
    FUZZ_CHECK(has(data, bytes, "false") && has(data, bytes, ":") && has(data, bytes, "255"));
    return true;
}
