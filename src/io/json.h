/* Strict reading of JSON, and writing of numbers that read back as they were. */
#ifndef HK_IO_JSON_H
#define HK_IO_JSON_H

#include "base/base.h"
#include <cjson/cJSON.h>

/* The whole text as one object, or NULL with HK_ERROR_FORMAT: not UTF-8, not JSON, no object, or more after it. */
cJSON *json_parse(const char *text, size_t bytes);

bool json_is_utf8(const char *text, size_t bytes);

/* Takes keys from an object. The first that is missing or wrong sets status and the thread's message, later ones change
   neither, so that a reader asks for all it needs and looks at status once. null counts as missing. */
struct json_reader {
    const cJSON *object;
    hk_status status;
};
bool json_has(const struct json_reader *reader, const char *key);
int64_t json_int(struct json_reader *reader, const char *key, int64_t low, int64_t high);
double json_number(struct json_reader *reader, const char *key, double low, double high);
const char *json_text(struct json_reader *reader, const char *key); /* "" on failure; in the object's memory */
uint64_t json_u64(struct json_reader *reader, const char *key);     /* written as text: doubles end at 2^53 */
/* The same where the key may be missing. */
int64_t json_int_or(struct json_reader *reader, const char *key, int64_t low, int64_t high, int64_t otherwise);
double json_number_or(struct json_reader *reader, const char *key, double low, double high, double otherwise);

/* Adds the item to the array; where that fails, either of them NULL, the item is deleted. */
bool json_add_item(cJSON *array, cJSON *item);

/* A whole number from 0 to 2^53; false for anything else. */
bool json_size(const cJSON *item, int64_t *size);

/* x with as many digits as it takes to read back as it was; null where it is no number. (cJSON's own printing is
   content with a neighbour.) */
bool json_add_double(cJSON *object, const char *key, double x);

/* The shortest decimal number that reads back as x: 1e-05 rather than 9.9999997473787516e-06. */
bool json_add_float(cJSON *object, const char *key, float x);
bool json_add_u64(cJSON *object, const char *key, uint64_t x);

/* The object as text that ends its line, from malloc; NULL with HK_ERROR_OUT_OF_MEMORY, also where !ok (something could
   not be added). Deletes the object. */
char *json_finish(cJSON *object, bool ok, bool on_one_line);

#endif
