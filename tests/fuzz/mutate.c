#include "mutate.h"
#include "support.h"
#include <ctype.h>
#include <string.h>

static size_t below(uint64_t *state, size_t limit) { return limit ? (size_t)(test_random(state) % limit) : 0; }

/* Puts text in place of data[at, at + removed). */
static size_t replace(uint8_t *data, size_t bytes, size_t at, size_t removed, const void *text, size_t length) {
    if (at > bytes || removed > bytes - at) return bytes;
    memmove(data + at + length, data + at + removed, bytes - at - removed);
    if (length) memcpy(data + at, text, length);
    return bytes - removed + length;
}

static size_t flip_bits(uint8_t *data, size_t bytes, uint64_t *state) {
    for (size_t n = 1 + below(state, 4); n && bytes; n--) data[below(state, bytes)] ^= (uint8_t)(1u << below(state, 8));
    return bytes;
}

static size_t remove_some(uint8_t *data, size_t bytes, uint64_t *state) {
    const size_t at = below(state, bytes), most = bytes - at, n = below(state, 2) ? most : below(state, most + 1);
    return replace(data, bytes, at, n, NULL, 0);
}

static size_t repeat_some(uint8_t *data, size_t bytes, uint64_t *state) {
    uint8_t copy[MUTATION_GROWTH];
    const size_t from = below(state, bytes), left = bytes - from;
    const size_t n = below(state, (left < sizeof copy ? left : sizeof copy) + 1);
    memcpy(copy, data + from, n);
    return replace(data, bytes, below(state, bytes + 1), 0, copy, n);
}

static size_t splice(uint8_t *data, size_t bytes, const uint8_t *other, size_t other_bytes, uint64_t *state) {
    const size_t from = below(state, other_bytes), left = other_bytes - from;
    const size_t n = below(state, (left < MUTATION_GROWTH ? left : MUTATION_GROWTH) + 1), at = below(state, bytes + 1);
    const size_t removed = below(state, 2) ? below(state, bytes - at + 1) : 0;
    return replace(data, bytes, at, removed, other + from, n);
}

/* A number of the text becomes one at which arithmetic goes wrong. */
static size_t change_number(uint8_t *data, size_t bytes, uint64_t *state) {
    static const char *const numbers[] = {"0",
                                          "1",
                                          "-1",
                                          "7",
                                          "0.5",
                                          "1e-60",
                                          "1e30",
                                          "1e308",
                                          "1e999",
                                          "-0",
                                          "255",
                                          "256",
                                          "2147483647",
                                          "2147483648",
                                          "4294967295",
                                          "4294967296",
                                          "9007199254740991",
                                          "9007199254740992",
                                          "9007199254740993",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "00",
                                          "\"1\"",
                                          "null",
                                          "[]"};
    size_t begin = below(state, bytes), end;
    while (begin < bytes && !isdigit(data[begin])) begin++;
    while (begin > 0 && begin < bytes && isdigit(data[begin - 1])) begin--;
    for (end = begin; end < bytes && isdigit(data[end]);) end++;
    if (begin == end) return flip_bits(data, bytes, state);
    const char *number = numbers[below(state, (size_t)COUNT(numbers))];
    return replace(data, bytes, begin, end - begin, number, strlen(number));
}

static size_t insert_word(uint8_t *data, size_t bytes, uint64_t *state) {
    static const char *const words[] = {"\"",
                                        "\\",
                                        "\\u0000",
                                        "\\ud800",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ":",
                                        ",",
                                        "null",
                                        "true",
                                        "1e9",
                                        "-",
                                        "\xc3",
                                        "\xf4\x90",
                                        "\xef\xbb\xbf",
                                        "\n",
                                        " ",
                                        "[[[[[[[[",
                                        "{\"a\":",
                                        "\"__metadata__\":{}",
                                        ""};
    const size_t i = below(state, (size_t)COUNT(words));
    const size_t length = *words[i] ? strlen(words[i]) : 1; /* the last is a NUL */
    return replace(data, bytes, below(state, bytes + 1), 0, words[i], length);
}

size_t mutate(uint8_t *data, size_t bytes, const uint8_t *other, size_t other_bytes, uint64_t *state) {
    if (bytes == 0) return splice(data, bytes, other, other_bytes, state);
    switch (below(state, 8)) {
    case 0:
    case 1: return flip_bits(data, bytes, state);
    case 2: return remove_some(data, bytes, state);
    case 3: return repeat_some(data, bytes, state);
    case 4: return splice(data, bytes, other, other_bytes, state);
    case 5: return insert_word(data, bytes, state);
    default: return change_number(data, bytes, state);
    }
}

size_t mutate_safetensors(uint8_t *data, size_t bytes, const uint8_t *other, size_t other_bytes, uint64_t *state) {
    uint64_t header = 0;
    for (size_t i = 0; i < 8 && bytes >= 8; i++) header |= (uint64_t)data[i] << (8 * i);
    if (!header || header > bytes - 8 || below(state, 4) == 0) return mutate(data, bytes, other, other_bytes, state);
    uint8_t rest[8192];
    const size_t rest_bytes = bytes - 8 - (size_t)header;
    if (rest_bytes > sizeof rest) return mutate(data, bytes, other, other_bytes, state);
    memcpy(rest, data + 8 + header, rest_bytes);
    header = mutate(data + 8, (size_t)header, other, other_bytes, state);
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)(header >> (8 * i));
    memcpy(data + 8 + header, rest, rest_bytes);
    return 8 + (size_t)header + rest_bytes;
}
