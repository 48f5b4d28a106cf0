/* Text as tokens, one per byte. Which rows make a batch follows from the seed and the step alone, so that a resumed run
   sees what it would have seen. */
#include "base/base.h"
#include <hekla/io.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct hk_text {
    const char *bytes;
    char *owned;             /* what was read from a file */
    int64_t count, training; /* tokens in all, and before the part that is held out */
    char name[256];          /* for messages */
};

static struct hk_text *make(const char *name, const void *data, size_t bytes, const struct hk_text_params *params) {
    const float held_out = params && params->held_out != 0 ? params->held_out : 0.1f;
    struct hk_text *text = NULL;
    if (!(held_out > 0 && held_out <= 1))
        hk_fail(HK_ERROR_INVALID, "text: the part held out must be over 0 and at most 1, not %g", (double)held_out);
    else if (bytes == 0 || !data) hk_fail(HK_ERROR_INVALID, "%s is empty: there is nothing to learn from", name);
    else if (!(text = calloc(1, sizeof *text))) hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory to read %s", name);
    if (!text) return NULL;
    text->bytes = data;
    text->count = (int64_t)bytes;
    text->training = text->count - (int64_t)((double)text->count * (double)held_out);
    snprintf(text->name, sizeof text->name, "%s", name);
    return text;
}

struct hk_text *hk_text_parse(const void *data, size_t bytes, const struct hk_text_params *params) {
    return make("the text", data, bytes, params);
}

struct hk_text *hk_text_open(const char *path, const struct hk_text_params *params) {
    char *data;
    size_t bytes;
    if (!path) {
        hk_fail(HK_ERROR_INVALID, "text: no file given");
        return NULL;
    }
    if (hk_file_read(path, &data, &bytes) != HK_OK) return NULL;
    struct hk_text *text = make(path, data, bytes, params);
    if (text) text->owned = data;
    else free(data);
    return text;
}

void hk_text_destroy(struct hk_text **text) {
    if (!text || !*text) return;
    free((*text)->owned);
    free(*text);
    *text = NULL;
}

int64_t hk_text_tokens(const struct hk_text *text, bool held_out) {
    return held_out ? text->count - text->training : text->training;
}

uint64_t hk_text_hash(const struct hk_text *text) { return hk_hash(text->bytes, (size_t)text->count, 0); }

static hk_status check(const struct hk_text *text, int64_t rows, int64_t length, bool held_out, const int32_t *tokens) {
    if (!text || !tokens || rows < 1 || length < 1)
        return hk_fail(HK_ERROR_INVALID,
                       "text: needs a text, memory, and at least 1 row of 1 token, not %" PRId64 " of %" PRId64, rows,
                       length);
    const int64_t have = hk_text_tokens(text, held_out);
    if (have > length) return HK_OK;
    return hk_fail(HK_ERROR_INVALID,
                   "%s is too short: a context of %" PRId64 " needs %" PRIu64 " bytes to %s, it has %" PRId64
                   " (of %" PRId64 " in all)",
                   text->name, length, (uint64_t)length + 1, held_out ? "evaluate on" : "train on", have, text->count);
}

static void copy_row(const struct hk_text *text, int64_t first, int64_t length, int32_t *tokens) {
    for (int64_t i = 0; i <= length; i++) tokens[i] = (uint8_t)text->bytes[first + i];
}

hk_status hk_text_batch(const struct hk_text *text, int64_t rows, int64_t length, uint64_t seed, uint64_t step,
                        int32_t *tokens) {
    const hk_status status = check(text, rows, length, false, tokens);
    if (status != HK_OK) return status;
    const uint64_t places = (uint64_t)(text->training - length);
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int64_t row = 0; row < rows; row++) {
        /* the last word sets this stream apart from those of the random ops, which have 0 there */
        const uint32_t counter[4] = {(uint32_t)row, (uint32_t)step, (uint32_t)(step >> 32), 1};
        uint32_t bits[4];
        hk_philox(counter, key, bits);
        const uint64_t wide = (uint64_t)bits[1] << 32 | bits[0];
        copy_row(text, (int64_t)(((unsigned __int128)wide * places) >> 64), length, tokens + row * (length + 1));
    }
    return HK_OK;
}

hk_status hk_text_evaluation(const struct hk_text *text, int64_t rows, int64_t length, int64_t part, int64_t parts,
                             int32_t *tokens) {
    const hk_status status = check(text, rows, length, true, tokens);
    if (status != HK_OK) return status;
    int64_t total;
    if (part < 0 || part >= parts || __builtin_mul_overflow(rows, parts, &total))
        return hk_fail(HK_ERROR_INVALID, "text: part %" PRId64 " of %" PRId64, part, parts);
    const int64_t last = hk_text_tokens(text, true) - length - 1;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t place = total > 1 ? (int64_t)((__int128)last * (part * rows + row) / (total - 1)) : 0;
        copy_row(text, text->training + place, length, tokens + row * (length + 1));
    }
    return HK_OK;
}
