/* Files that lie: whatever the bytes, parsing refuses them or gives entries that lie within them. */
#include <hekla/hekla.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct hk_safetensors *file = hk_safetensors_parse(data, bytes);
    unsigned sum = 0;
    for (int i = 0; file && i < hk_safetensors_count(file); i++) {
        const struct hk_safetensors_entry *entry = hk_safetensors_entry(file, i);
        const uint8_t *begin = entry->data;
        if (entry->bytes && (begin < data || begin + entry->bytes > data + bytes)) __builtin_trap();
        int64_t elements = 1;
        for (int d = 0; d < entry->shape.rank; d++) elements *= entry->shape.size[d];
        if ((size_t)elements * hk_dtype_size(entry->dtype) != entry->bytes) __builtin_trap();
        if (!hk_safetensors_find(file, entry->name)) __builtin_trap();
        for (size_t k = 0; k < entry->bytes; k++) sum += begin[k];
    }
    if (file) sum += hk_safetensors_metadata(file, "format") != NULL;
    hk_safetensors_destroy(&file);
    return sum == 0xffffffff ? -1 : 0;
}
