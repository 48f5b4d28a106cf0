/* Where in the arena each lifetime goes. */
#include "graph/plan.h"
#include <stdlib.h>

static int compare_sizes(const void *a, const void *b) {
    const struct hk_lifetime *x = *(struct hk_lifetime *const *)a, *y = *(struct hk_lifetime *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool live_together(const struct hk_lifetime *a, const struct hk_lifetime *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* placed: those of one block, by offset. The smallest gap between those that live at once, or UINT64_MAX. */
static uint64_t find_gap(struct hk_lifetime *const *placed, int n, const struct hk_lifetime *l, uint64_t max_block) {
    uint64_t end = 0, best = UINT64_MAX, best_size = UINT64_MAX;
    for (int i = 0; i < n; i++) {
        const struct hk_lifetime *other = placed[i];
        if (!live_together(other, l)) continue;
        if (other->offset >= end && other->offset - end >= l->bytes && other->offset - end < best_size)
            best = end, best_size = other->offset - end;
        end = HK_MAX(end, other->offset + other->bytes);
    }
    if (best == UINT64_MAX && end + l->bytes <= max_block) best = end;
    return best;
}

static void insert_by_offset(struct hk_lifetime **placed, int n, struct hk_lifetime *l) {
    while (n > 0 && placed[n - 1]->offset > l->offset) placed[n] = placed[n - 1], n--;
    placed[n] = l;
}

hk_status hk_place(struct hk_lifetime *lifetimes, int count, uint64_t max_block, uint64_t blocks[HK_MAX_BLOCKS], int *n_blocks) {
    struct hk_lifetime **order = malloc((size_t)(count + 1) * sizeof *order);
    struct hk_lifetime **placed = malloc((size_t)(count + 1) * sizeof *placed);
    hk_status status = HK_OK;
    *n_blocks = 0;
    if (!order || !placed) {
        status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while planning");
        goto done;
    }
    int left = count;
    for (int i = 0; i < count; i++) {
        lifetimes[i].bytes = (lifetimes[i].bytes + HK_MEMORY_ALIGN - 1) / HK_MEMORY_ALIGN * HK_MEMORY_ALIGN;
        order[i] = &lifetimes[i];
    }
    qsort(order, (size_t)count, sizeof *order, compare_sizes);
    if (count && order[0]->bytes > max_block) {
        status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "one value needs %llu bytes, but the device's largest buffer has %llu",
                         (unsigned long long)order[0]->bytes, (unsigned long long)max_block);
        goto done;
    }
    while (left) {
        int n_placed = 0, n_left = 0;
        if (*n_blocks == HK_MAX_BLOCKS) {
            status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "the program needs more than %d buffers of %llu bytes", HK_MAX_BLOCKS,
                             (unsigned long long)max_block);
            goto done;
        }
        blocks[*n_blocks] = 0;
        for (int i = 0; i < left; i++) {
            struct hk_lifetime *l = order[i];
            const uint64_t offset = find_gap(placed, n_placed, l, max_block);
            if (offset == UINT64_MAX) {
                order[n_left++] = l;
                continue;
            }
            l->offset = offset, l->block = *n_blocks;
            insert_by_offset(placed, n_placed++, l);
            blocks[*n_blocks] = HK_MAX(blocks[*n_blocks], offset + l->bytes);
        }
        left = n_left;
        ++*n_blocks;
    }
done:
    free(order);
    free(placed);
    return status;
}
