/* Files that lie: whatever the bytes, parsing refuses them or gives entries that lie within them, each found by its
   name, in order and without a gap. */
#include "fuzz.h"
#include <hekla/hekla.h>
#include <stdlib.h>
#include <string.h>

static void check_entry(const struct hk_safetensors *file, const struct hk_safetensors_entry *entry) {
    size_t elements = 1;
    FUZZ_CHECK(entry->shape.rank >= 0 && entry->shape.rank <= HK_MAX_RANK);
    for (int d = 0; d < entry->shape.rank; d++) elements *= (size_t)entry->shape.size[d];
    FUZZ_CHECK(elements * hk_dtype_size(entry->dtype) == entry->bytes);
    FUZZ_CHECK(hk_safetensors_find(file, entry->name) == entry);
    uint8_t *copy = malloc(entry->bytes + 1);
    FUZZ_CHECK(copy && hk_safetensors_read(file, entry, copy) == HK_OK);
    FUZZ_CHECK(!entry->bytes || !memcmp(copy, entry->data, entry->bytes));
    free(copy);
}

bool fuzz_one(const uint8_t *data, size_t bytes) {
    struct hk_safetensors *file = hk_safetensors_parse(data, bytes);
    if (!file) {
        FUZZ_CHECK(hk_error_status() != HK_OK && *hk_error_message());
        return false;
    }
    const int count = hk_safetensors_count(file);
    const uint8_t *end = count ? hk_safetensors_entry(file, 0)->data : data + bytes;
    FUZZ_CHECK(end >= data + 8 && end <= data + bytes);
    for (int i = 0; i < count; i++) {
        const struct hk_safetensors_entry *entry = hk_safetensors_entry(file, i);
        FUZZ_CHECK(entry->data == end && entry->bytes <= (size_t)(data + bytes - end));
        end += entry->bytes;
        check_entry(file, entry);
    }
    FUZZ_CHECK(end == data + bytes);
    hk_safetensors_metadata(file, "format");
    hk_safetensors_destroy(&file);
    return true;
}
