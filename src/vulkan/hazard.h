/* Which dispatch must wait for an earlier one: byte ranges read and written since the last barrier. */
#ifndef HK_VULKAN_HAZARD_H
#define HK_VULKAN_HAZARD_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes [begin, end) of a buffer; access is HK_READ | HK_WRITE. */
struct vk_access {
    const void *buffer;
    uint64_t begin, end;
    int access;
};

/* Disjoint intervals in order of buffer and begin. */
struct vk_interval {
    uintptr_t buffer;
    uint64_t begin, end;
};
struct vk_interval_set {
    struct vk_interval *items;
    int count, capacity;
};

/* Zero-initialize; free with vk_hazards_free. */
struct vk_hazards {
    struct vk_interval_set reads, writes;
};

/* Adds a dispatch. Sets *barrier if it needs one before it: it reads or writes what was written since the last barrier, or
   writes what was read; everything before it is then forgotten. False when out of memory. */
bool vk_hazards_add(struct vk_hazards *hazards, const struct vk_access *accesses, int count, bool *barrier);
void vk_hazards_free(struct vk_hazards *hazards);

#endif
