/* Named tensors between devices and safetensors files. */
#include "io/files.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hk_status slots_alloc(struct slots *slots, int count) {
    slots->count = 0;
    slots->items = calloc((size_t)count + 1, sizeof *slots->items);
    return slots->items ? HK_OK : hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for a list of %d tensors", count);
}

void slots_free(struct slots *slots) {
    for (int i = 0; i < slots->count; i++)
        if (slots->items[i].owned) hk_tensor_destroy(&slots->items[i].tensor);
    free(slots->items);
    *slots = (struct slots){0};
}

hk_status slots_of_model(struct slots *slots, struct hk_params *params) {
    const int count = hk_params_count(params);
    const hk_status status = slots_alloc(slots, count);
    if (status != HK_OK) return status;
    for (int i = 0; i < count; i++) {
        struct slot *slot = &slots->items[slots->count++];
        snprintf(slot->name, sizeof slot->name, "%s", hk_params_name(params, i));
        slot->tensor = hk_params_tensor(params, i);
        if (!slot->tensor) return hk_fail(HK_ERROR_INVALID, "run: the parameters have not been allocated");
    }
    return HK_OK;
}

/* The part of moment m that belongs to parameter i. */
static hk_status add_moment(struct slots *slots, struct hk_params *params, struct hk_optimizer *optimizer, int m,
                            int i) {
    int64_t first;
    const int slab = hk_params_place(params, i, &first);
    struct hk_tensor *moment = hk_optimizer_moment(optimizer, m, slab);
    if (!moment) return HK_OK; /* this kind of optimizer has none */
    struct slot *slot = &slots->items[slots->count];
    snprintf(slot->name, sizeof slot->name, "moment%d.%s", m + 1, hk_params_name(params, i));
    slot->tensor = hk_tensor_view(moment, first, hk_tensor_shape(hk_params_tensor(params, i)));
    slot->owned = true;
    if (!slot->tensor) return hk_error_status();
    slots->count++;
    return HK_OK;
}

hk_status slots_of_optimizer(struct slots *slots, struct hk_params *params, struct hk_optimizer *optimizer) {
    const int count = hk_params_count(params);
    hk_status status = slots_alloc(slots, 2 * count + 1);
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < count && status == HK_OK; i++) status = add_moment(slots, params, optimizer, m, i);
    if (status == HK_OK && hk_optimizer_scaling(optimizer))
        slots->items[slots->count++] = (struct slot){.name = "loss_scaling", .tensor = hk_optimizer_scaling(optimizer)};
    return status;
}

static hk_status fetch(void *user, int i, void *buffer) {
    const struct slot *slot = &((const struct slots *)user)->items[i];
    return hk_tensor_read(slot->tensor, buffer, hk_tensor_bytes(slot->tensor));
}

hk_status slots_save(const struct slots *slots, const char *path, const struct safetensors_metadata *metadata) {
    struct hk_safetensors_entry *entries = calloc((size_t)slots->count + 1, sizeof *entries);
    if (!entries) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory to write %s", path);
    for (int i = 0; i < slots->count; i++) {
        const struct slot *slot = &slots->items[i];
        entries[i] = (struct hk_safetensors_entry){.name = slot->name,
                                                   .dtype = hk_tensor_dtype(slot->tensor),
                                                   .shape = hk_tensor_shape(slot->tensor),
                                                   .bytes = hk_tensor_bytes(slot->tensor)};
    }
    const hk_status status = safetensors_stream(path, entries, slots->count, metadata, fetch, (void *)(uintptr_t)slots);
    free(entries);
    return status;
}

/* Some of Hugging Face's GPT-2 files have the names with a prefix. */
static const struct hk_safetensors_entry *find(const struct hk_safetensors *file, const char *name) {
    char prefixed[192];
    const struct hk_safetensors_entry *entry = hk_safetensors_find(file, name);
    if (entry) return entry;
    snprintf(prefixed, sizeof prefixed, "transformer.%s", name);
    return hk_safetensors_find(file, prefixed);
}

static void shape_text(const struct hk_shape *shape, char *text, size_t bytes) {
    int at = snprintf(text, bytes, "[");
    for (int i = 0; i < shape->rank; i++)
        at += snprintf(text + at, bytes - (size_t)at, i ? ", %" PRId64 : "%" PRId64, shape->size[i]);
    snprintf(text + at, bytes - (size_t)at, "]");
}

static hk_status check_slot(const struct slot *slot, const struct hk_safetensors *file) {
    const struct hk_safetensors_entry *entry = find(file, slot->name);
    if (!entry) return hk_fail(HK_ERROR_FORMAT, "it lacks %s", slot->name);
    if (entry->dtype != HK_F32 && entry->dtype != HK_F16 && entry->dtype != HK_BF16)
        return hk_fail(HK_ERROR_FORMAT, "%s is %s in it; the model needs f32, f16 or bf16", slot->name,
                       hk_dtype_name(entry->dtype));
    const struct hk_shape need = hk_tensor_shape(slot->tensor);
    if (entry->shape.rank == need.rank && !memcmp(entry->shape.size, need.size, (size_t)need.rank * sizeof *need.size))
        return HK_OK;
    char has[160], wants[160];
    shape_text(&entry->shape, has, sizeof has);
    shape_text(&need, wants, sizeof wants);
    return hk_fail(HK_ERROR_FORMAT, "%s is %s in it; the model needs %s", slot->name, has, wants);
}

hk_status slots_check(const struct slots *slots, const struct hk_safetensors *file) {
    for (int i = 0; i < slots->count; i++) {
        const hk_status status = check_slot(&slots->items[i], file);
        if (status != HK_OK) return status;
    }
    return HK_OK;
}

static hk_status write_converted(struct hk_tensor *tensor, const struct hk_safetensors_entry *entry, const void *data) {
    const size_t count = entry->bytes / 2;
    float *wide = malloc((count + 1) * sizeof *wide);
    if (!wide)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes of %s", count * sizeof *wide, entry->name);
    for (size_t i = 0; i < count; i++) {
        uint16_t narrow;
        memcpy(&narrow, (const char *)data + 2 * i, sizeof narrow);
        wide[i] = entry->dtype == HK_F16 ? hk_f32_from_f16(narrow) : hk_f32_from_bf16(narrow);
    }
    const hk_status status = hk_tensor_write(tensor, wide, count * sizeof *wide);
    free(wide);
    return status;
}

static hk_status load_slot(const struct slot *slot, const struct hk_safetensors *file, void *buffer) {
    const struct hk_safetensors_entry *entry = find(file, slot->name);
    const hk_status status = hk_safetensors_read(file, entry, buffer);
    if (status != HK_OK) return status;
    if (entry->dtype == HK_F32) return hk_tensor_write(slot->tensor, buffer, entry->bytes);
    return write_converted(slot->tensor, entry, buffer);
}

hk_status slots_load(const struct slots *slots, const struct hk_safetensors *file) {
    size_t largest = 1;
    for (int i = 0; i < slots->count; i++) largest = HK_MAX(largest, find(file, slots->items[i].name)->bytes);
    void *buffer = malloc(largest);
    if (!buffer) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for a tensor of %zu bytes", largest);
    hk_status status = HK_OK;
    for (int i = 0; i < slots->count && status == HK_OK; i++) status = load_slot(&slots->items[i], file, buffer);
    free(buffer);
    return status;
}
