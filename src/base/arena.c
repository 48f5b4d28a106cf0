/* Arenas, growing arrays, hashing. */
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

struct hk_arena_block {
    struct hk_arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

enum { BLOCK_BYTES = 1 << 16 };

void *hk_arena_alloc(struct hk_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) / 16 * 16;
    struct hk_arena_block *block = arena->first;
    if (!block || block->size - block->used < bytes) {
        const size_t size = HK_MAX(bytes, (size_t)BLOCK_BYTES);
        block = calloc(1, sizeof *block + size);
        if (!block) return NULL;
        block->size = size;
        block->next = arena->first;
        arena->first = block;
    }
    void *result = block->data + block->used;
    block->used += bytes;
    return result;
}

void *hk_arena_copy(struct hk_arena *arena, const void *data, size_t bytes) {
    void *copy = hk_arena_alloc(arena, bytes);
    if (copy && bytes) memcpy(copy, data, bytes);
    return copy;
}

void hk_arena_free(struct hk_arena *arena) {
    while (arena->first) {
        struct hk_arena_block *next = arena->first->next;
        free(arena->first);
        arena->first = next;
    }
}

bool hk_grow(void *items, int *capacity, int need, size_t item_size) {
    if (need <= *capacity) return true;
    int wanted = *capacity ? *capacity : 16;
    while (wanted < need) {
        if (wanted > INT32_MAX / 2) return false;
        wanted *= 2;
    }
    void *old;
    memcpy(&old, items, sizeof old);
    void *grown = realloc(old, (size_t)wanted * item_size);
    if (!grown) return false;
    memcpy(items, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}

uint64_t hk_hash(const void *data, size_t bytes, uint64_t seed) {
    const unsigned char *p = data;
    uint64_t h = seed ? seed : 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
