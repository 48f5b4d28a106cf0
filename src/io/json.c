/* Strict reading of JSON on top of cJSON. */
#include "io/json.h"
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at s (RFC 3629: shortest form, no surrogates, no NUL); 0 where it is none. */
static size_t utf8_sequence(const uint8_t *s, size_t left) {
    static const uint32_t least[] = {0, 1, 0x80, 0x800, 0x10000};
    const size_t bytes = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (!bytes || bytes > left) return 0;
    uint32_t code = bytes == 1 ? s[0] : s[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if (s[i] >> 6 != 2) return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    return code >= least[bytes] && code <= 0x10ffff && !surrogate ? bytes : 0;
}

bool json_is_utf8(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes;) {
        const size_t n = utf8_sequence((const uint8_t *)text + i, bytes - i);
        if (!n) return false;
        i += n;
    }
    return true;
}

static cJSON *fail_parse(hk_status status, const char *why) {
    hk_fail(status, "%s", why);
    return NULL;
}

cJSON *json_parse(const char *text, size_t bytes) {
    if (!json_is_utf8(text, bytes)) return fail_parse(HK_ERROR_FORMAT, "the JSON text is not UTF-8");
    /* some versions of cJSON look a little past the end of what they are given */
    char *copy = malloc(bytes + 8);
    if (!copy) return fail_parse(HK_ERROR_OUT_OF_MEMORY, "no memory for a JSON text");
    memcpy(copy, text, bytes);
    memset(copy + bytes, 0, 8);
    const char *end = NULL, *why = NULL;
    cJSON *object = cJSON_ParseWithLengthOpts(copy, bytes + 1, &end, 0);
    if (!object) { /* cJSON does not say whether the text or the memory was at fault: with memory, again */
        void *probe = malloc(bytes + 4096);
        free(probe);
        if (probe) object = cJSON_ParseWithLengthOpts(copy, bytes + 1, &end, 0);
        else why = "no memory for a JSON text";
    }
    if (why) {
        free(copy);
        return fail_parse(HK_ERROR_OUT_OF_MEMORY, why);
    }
    if (!object) why = "the JSON text is not well formed, or nested too deeply";
    else if (!cJSON_IsObject(object)) why = "the JSON text is not an object";
    else if (end[strspn(end, " \t\r\n")] != 0) why = "something follows the JSON object";
    free(copy);
    if (!why) return object;
    cJSON_Delete(object);
    return fail_parse(HK_ERROR_FORMAT, why);
}

/* The key's item, or NULL: missing, or the reader has failed before. */
static const cJSON *item_of(const struct json_reader *reader, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

static void fail_key(struct json_reader *reader, const char *key, const char *want) {
    if (reader->status != HK_OK) return;
    const char *what = item_of(reader, key) ? "is not" : "is missing; it must be";
    reader->status = hk_fail(HK_ERROR_FORMAT, "\"%s\" %s %s", key, what, want);
}

bool json_has(const struct json_reader *reader, const char *key) { return item_of(reader, key) != NULL; }

bool json_size(const cJSON *item, int64_t *size) {
    const double limit = 9007199254740992.0; /* 2^53 */
    if (!cJSON_IsNumber(item)) return false;
    const double x = item->valuedouble;
    if (!(x >= 0 && x <= limit) || x != floor(x)) return false;
    *size = (int64_t)x;
    return true;
}

int64_t json_int(struct json_reader *reader, const char *key, int64_t low, int64_t high) {
    int64_t size = 0;
    if (json_size(item_of(reader, key), &size) && size >= low && size <= high) return size;
    char want[96];
    snprintf(want, sizeof want, "a whole number from %" PRId64 " to %" PRId64, low, high);
    fail_key(reader, key, want);
    return low;
}

double json_number(struct json_reader *reader, const char *key, double low, double high) {
    const cJSON *item = item_of(reader, key);
    if (cJSON_IsNumber(item) && item->valuedouble >= low && item->valuedouble <= high) return item->valuedouble;
    char want[96];
    snprintf(want, sizeof want, "a number from %g to %g", low, high);
    fail_key(reader, key, want);
    return low;
}

const char *json_text(struct json_reader *reader, const char *key) {
    const cJSON *item = item_of(reader, key);
    if (cJSON_IsString(item)) return item->valuestring;
    fail_key(reader, key, "a text");
    return "";
}

uint64_t json_u64(struct json_reader *reader, const char *key) {
    const char *text = json_text(reader, key);
    const size_t digits = strspn(text, "0123456789");
    errno = 0;
    const uint64_t number = digits && !text[digits] ? strtoull(text, NULL, 10) : 0;
    if (digits && !text[digits] && !errno) return number;
    fail_key(reader, key, "a whole number below 2^64 written as text");
    return 0;
}

int64_t json_int_or(struct json_reader *reader, const char *key, int64_t low, int64_t high, int64_t otherwise) {
    return json_has(reader, key) ? json_int(reader, key, low, high) : otherwise;
}

double json_number_or(struct json_reader *reader, const char *key, double low, double high, double otherwise) {
    return json_has(reader, key) ? json_number(reader, key, low, high) : otherwise;
}

bool json_add_double(cJSON *object, const char *key, double x) {
    if (!isfinite(x)) return cJSON_AddNullToObject(object, key) != NULL;
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    char *point = strchr(text, *localeconv()->decimal_point);
    if (point) *point = '.';
    return cJSON_AddRawToObject(object, key, text) != NULL;
}

bool json_add_item(cJSON *array, cJSON *item) {
    if (cJSON_AddItemToArray(array, item)) return true;
    cJSON_Delete(item);
    return false;
}

bool json_add_float(cJSON *object, const char *key, float x) {
    double shortest = (double)x;
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) != x) continue;
        shortest = strtod(text, NULL);
        break;
    }
    return cJSON_AddNumberToObject(object, key, shortest) != NULL;
}

bool json_add_u64(cJSON *object, const char *key, uint64_t x) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, x);
    return cJSON_AddStringToObject(object, key, text) != NULL;
}

char *json_finish(cJSON *object, bool ok, bool on_one_line) {
    char *text = !ok ? NULL : on_one_line ? cJSON_PrintUnformatted(object) : cJSON_Print(object);
    cJSON_Delete(object);
    const size_t bytes = text ? strlen(text) : 0;
    char *line = text ? malloc(bytes + 2) : NULL; /* a copy: the program may have given cJSON another allocator */
    if (line) {
        memcpy(line, text, bytes);
        line[bytes] = '\n', line[bytes + 1] = 0;
    } else {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for a JSON text");
    }
    cJSON_free(text);
    return line;
}
