#ifndef HK_ISA_NAME
#include "op/gpu.h"
#include <stdio.h>

uint64_t hk_operand_span(const struct hk_operand *operand) {
    int64_t last = 0;
    for (int i = 0; i < operand->rank; i++) {
        if (operand->shape[i] == 0) return 0;
        last += (operand->shape[i] - 1) * operand->stride[i];
    }
    return (uint64_t)(last + 1) * hk_dtype_size(operand->dtype);
}

void hk_bind_range(struct hk_dispatch *dispatch, const struct hk_operand *operand, uint64_t first, uint64_t bytes, int access,
                   int push_word) {
    assert(dispatch->n_bindings < HK_MAX_BINDINGS);
    const uint64_t begin = operand->offset + first, rest = begin % 4;
    dispatch->bindings[dispatch->n_bindings++] = (struct hk_binding){
        .buffer = operand->buffer, .offset = begin - rest, .bytes = (bytes + rest + 3) / 4 * 4, .access = access, .push_word = push_word};
}

void hk_bind(struct hk_dispatch *dispatch, const struct hk_operand *operand, int access, int push_word) {
    hk_bind_range(dispatch, operand, 0, hk_operand_span(operand), access, push_word);
}

uint32_t hk_binding_rest(const struct hk_operand *operand) {
    return (uint32_t)(operand->offset % 4 / hk_dtype_size(operand->dtype));
}

bool hk_binds_fours(const struct hk_limits *limits, const struct hk_operand *operand) {
    return operand->offset % limits->offset_align % 16 == 0;
}

bool hk_binds_units(const struct hk_recorder *recorder, const struct hk_operand *operand, int64_t unit) {
    bool whole = hk_binds_fours(recorder->limits, operand) && operand->stride[operand->rank - 1] == 1;
    for (int i = 0; i + 1 < operand->rank; i++) whole = whole && operand->stride[i] % unit == 0;
    return whole;
}

void hk_groups(const struct hk_recorder *recorder, struct hk_dispatch *dispatch, uint64_t count) {
    const uint64_t limit = recorder->limits->max_groups;
    const uint64_t rows = (count + limit - 1) / limit;
    dispatch->groups[0] = (uint32_t)(rows > 1 ? (count + rows - 1) / rows : count);
    dispatch->groups[1] = (uint32_t)(rows > 1 ? rows : 1);
    dispatch->groups[2] = 1;
}

void hk_choice_add(struct hk_choice *choice, const char *shader, const uint32_t *constants, int count, bool standard) {
    assert(choice->count < HK_MAX_KERNELS);
    char *const name = choice->names[choice->count];
    size_t used = (size_t)snprintf(name, HK_TUNING_KERNEL, "%s", shader);
    while (count > 0 && !constants[count - 1]) count--;
    for (int i = 0; i < count && used < HK_TUNING_KERNEL; i++)
        used += (size_t)snprintf(name + used, HK_TUNING_KERNEL - used, "%c%u", i ? 'x' : ' ', constants[i]);
    if (standard) choice->standard = choice->count;
    choice->count++;
}

/* Dimension i of all operands continues dimension i + 1, so both are one. */
static bool can_merge(const struct hk_operand *operands, int count, int i) {
    for (int k = 0; k < count; k++)
        if (operands[k].stride[i] != operands[k].stride[i + 1] * operands[k].shape[i + 1]) return false;
    return true;
}

static void remove_dimension(struct hk_operand *operands, int count, int i) {
    for (int k = 0; k < count; k++) {
        struct hk_operand *o = &operands[k];
        for (int j = i; j + 1 < o->rank; j++) o->shape[j] = o->shape[j + 1], o->stride[j] = o->stride[j + 1];
        o->rank--;
    }
}

static void simplify(struct hk_operand *operands, int count) {
    for (int i = operands[0].rank - 1; i >= 0; i--)
        if (operands[0].shape[i] == 1) remove_dimension(operands, count, i);
    for (int i = operands[0].rank - 2; i >= 0; i--) {
        if (!can_merge(operands, count, i)) continue;
        for (int k = 0; k < count; k++) operands[k].shape[i + 1] *= operands[k].shape[i];
        remove_dimension(operands, count, i);
    }
}

static bool fits(const struct hk_recorder *recorder, const struct hk_operand *operands, int count) {
    /* the backend rounds a binding's start down, so leave room for that */
    const uint64_t range = recorder->limits->max_range - recorder->limits->offset_align;
    for (int k = 0; k < count; k++)
        if (hk_operand_span(&operands[k]) > range) return false;
    return true;
}

/* Halves the dimension that makes the largest operand large, until all pieces fit. */
static hk_status split(const struct hk_recorder *recorder, const struct hk_operand *operands, int count,
                       hk_status (*piece)(void *, const struct hk_operand *), void *context) {
    if (fits(recorder, operands, count)) return piece(context, operands);
    int largest = 0;
    for (int k = 1; k < count; k++)
        if (hk_operand_span(&operands[k]) > hk_operand_span(&operands[largest])) largest = k;
    int d = -1;
    int64_t reach = 0;
    for (int i = 0; i < operands[largest].rank; i++) {
        const int64_t r = (operands[largest].shape[i] - 1) * operands[largest].stride[i];
        if (r > reach) d = i, reach = r;
    }
    if (d < 0) return hk_fail(HK_ERROR_INTERNAL, "an operand of one element exceeds the device's binding range");
    const int64_t size = operands[0].shape[d], half = HK_MAX(size / 2 / 256 * 256, size >= 2 ? 1 : 0);
    const int64_t cut = half > 1 ? half : size / 2;
    struct hk_operand part[HK_MAX_BINDINGS];
    for (int side = 0; side < 2; side++) {
        for (int k = 0; k < count; k++) {
            part[k] = operands[k];
            part[k].shape[d] = side ? size - cut : cut;
            if (side) part[k].offset += (uint64_t)(cut * operands[k].stride[d]) * hk_dtype_size(operands[k].dtype);
        }
        const hk_status status = split(recorder, part, count, piece, context);
        if (status) return status;
    }
    return HK_OK;
}

hk_status hk_for_pieces(const struct hk_recorder *recorder, const struct hk_operand *operands, int count,
                        hk_status (*piece)(void *context, const struct hk_operand *operands), void *context) {
    struct hk_operand copy[HK_MAX_BINDINGS];
    assert(count <= HK_MAX_BINDINGS);
    memcpy(copy, operands, (size_t)count * sizeof *operands);
    for (int i = 0; i < copy[0].rank; i++)
        if (copy[0].shape[i] == 0) return HK_OK;
    simplify(copy, count);
    return split(recorder, copy, count, piece, context);
}
#endif
