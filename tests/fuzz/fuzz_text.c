/* Texts and requests for batches of any size: each row is a run of the text, of the part that it must be of. The first
   line is the request, as numbers: rows length part parts seed step held_out; what follows is the text. */
#include "fuzz.h"
#include <hekla/hekla.h>
#include <stdlib.h>
#include <string.h>

struct request {
    int64_t rows, length, part, parts;
    uint64_t seed, step;
    float held_out;
};

/* The bytes of the request's line; 0: there is none. */
static size_t read_request(const uint8_t *data, size_t bytes, struct request *r) {
    char line[256];
    const uint8_t *end = memchr(data, '\n', bytes);
    if (!end || (size_t)(end - data) >= sizeof line) return 0;
    memcpy(line, data, (size_t)(end - data));
    line[end - data] = 0;
    char *at = line;
    r->rows = strtoll(at, &at, 10);
    r->length = strtoll(at, &at, 10);
    r->part = strtoll(at, &at, 10);
    r->parts = strtoll(at, &at, 10);
    r->seed = strtoull(at, &at, 10);
    r->step = strtoull(at, &at, 10);
    r->held_out = strtof(at, &at);
    return (size_t)(end - data) + 1;
}

/* That each row is found in the part. */
static void check_rows(const uint8_t *part, int64_t count, const int32_t *tokens, int64_t rows, int64_t length) {
    uint8_t *row = malloc((size_t)length + 1);
    FUZZ_CHECK(row);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k <= length; k++) {
            const int32_t token = tokens[i * (length + 1) + k];
            FUZZ_CHECK(token >= 0 && token < 256);
            row[k] = (uint8_t)token;
        }
        FUZZ_CHECK(memmem(part, (size_t)count, row, (size_t)length + 1));
    }
    free(row);
}

bool fuzz_one(const uint8_t *data, size_t bytes) {
    struct request r;
    const size_t line = read_request(data, bytes, &r), text_size = bytes - line;
    if (!line) return false;
    const uint8_t *text_bytes = data + line;
    struct hk_text *text = hk_text_parse(text_bytes, text_size, &(struct hk_text_params){r.held_out});
    if (!text) {
        FUZZ_CHECK(hk_error_status() != HK_OK && *hk_error_message());
        return false;
    }
    const int64_t training = hk_text_tokens(text, false), held_out = hk_text_tokens(text, true);
    FUZZ_CHECK(training >= 0 && held_out >= 0 && (size_t)(training + held_out) == text_size);
    hk_text_hash(text);
    /* memory for what may be accepted; what is larger must be refused before memory is touched */
    const bool small = r.rows > 0 && r.rows <= 64 && r.length > 0 && r.length < (int64_t)text_size;
    const bool refused = r.rows < 1 || r.length < 1 || r.length >= (int64_t)text_size;
    int32_t *tokens = malloc((small ? (size_t)(r.rows * (r.length + 1)) : 1) * sizeof *tokens);
    FUZZ_CHECK(tokens);
    bool accepted = false;
    if ((small || refused) && hk_text_batch(text, r.rows, r.length, r.seed, r.step, tokens) == HK_OK) {
        check_rows(text_bytes, training, tokens, r.rows, r.length);
        accepted = true;
    }
    if ((small || refused) && hk_text_evaluation(text, r.rows, r.length, r.part, r.parts, tokens) == HK_OK) {
        check_rows(text_bytes + training, held_out, tokens, r.rows, r.length);
        accepted = true;
    }
    free(tokens);
    hk_text_destroy(&text);
    return accepted;
}
