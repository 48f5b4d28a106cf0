/* Sorted sets of disjoint intervals: a lookup is a binary search, and neighbours grow together into one. */
#include "vulkan/hazard.h"
#include "backend.h"
#include <stdlib.h>
#include <string.h>

/* The first interval that ends after byte `begin` of the buffer. */
static int find(const struct vk_interval_set *set, uintptr_t buffer, uint64_t begin) {
    int low = 0, high = set->count;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const struct vk_interval *i = &set->items[middle];
        if (i->buffer < buffer || (i->buffer == buffer && i->end <= begin)) low = middle + 1;
        else high = middle;
    }
    return low;
}

static bool overlaps(const struct vk_interval_set *set, const struct vk_access *a) {
    const uintptr_t buffer = (uintptr_t)a->buffer;
    const int i = find(set, buffer, a->begin);
    return i < set->count && set->items[i].buffer == buffer && set->items[i].begin < a->end;
}

static bool insert(struct vk_interval_set *set, const struct vk_access *a) {
    struct vk_interval merged = {(uintptr_t)a->buffer, a->begin, a->end};
    const int first = find(set, merged.buffer, a->begin ? a->begin - 1 : 0); /* one that ends at begin joins too */
    int last = first;
    for (; last < set->count; last++) {
        const struct vk_interval *i = &set->items[last];
        if (i->buffer != merged.buffer || i->begin > merged.end) break;
        merged.begin = HK_MIN(merged.begin, i->begin);
        merged.end = HK_MAX(merged.end, i->end);
    }
    if (!hk_grow(&set->items, &set->capacity, set->count + 1, sizeof *set->items)) return false;
    memmove(&set->items[first + 1], &set->items[last], (size_t)(set->count - last) * sizeof *set->items);
    set->items[first] = merged;
    set->count += 1 - (last - first);
    return true;
}

static bool conflicts(const struct vk_hazards *hazards, const struct vk_access *a) {
    return overlaps(&hazards->writes, a) || (a->access & HK_WRITE && overlaps(&hazards->reads, a));
}

bool vk_hazards_add(struct vk_hazards *hazards, const struct vk_access *accesses, int count, bool *barrier) {
    *barrier = false;
    for (int i = 0; i < count && !*barrier; i++)
        *barrier = accesses[i].begin < accesses[i].end && conflicts(hazards, &accesses[i]);
    if (*barrier) hazards->reads.count = hazards->writes.count = 0;
    for (int i = 0; i < count; i++) {
        const struct vk_access *a = &accesses[i];
        if (a->begin >= a->end) continue;
        if (a->access & HK_READ && !insert(&hazards->reads, a)) return false;
        if (a->access & HK_WRITE && !insert(&hazards->writes, a)) return false;
    }
    return true;
}

void vk_hazards_free(struct vk_hazards *hazards) {
    free(hazards->reads.items);
    free(hazards->writes.items);
    *hazards = (struct vk_hazards){0};
}
