/* What every room may use: failing with a message, arenas, Philox, paths and atomic files. */
#ifndef HK_BASE_BASE_H
#define HK_BASE_BASE_H

#include <hekla/base.h>
#include <stdarg.h>

#if defined(__GNUC__)
#define HK_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define HK_PRINTF(text, first)
#endif

#define HK_LENGTH(array) (sizeof(array) / sizeof *(array))
#define HK_MIN(a, b) ((a) < (b) ? (a) : (b))
#define HK_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Sets the calling thread's message and returns status, so that `return hk_fail(...)` reads well. */
hk_status hk_fail(hk_status status, const char *format, ...) HK_PRINTF(2, 3);
/* To the log callback, if there is one. */
void hk_remark(enum hk_log_level level, const char *format, ...) HK_PRINTF(2, 3);

/* Memory that is freed all at once. Allocations are zeroed and aligned to 16 bytes; NULL when out of memory. */
struct hk_arena {
    struct hk_arena_block *first;
};
void *hk_arena_alloc(struct hk_arena *arena, size_t bytes);
void *hk_arena_copy(struct hk_arena *arena, const void *data, size_t bytes);
void hk_arena_free(struct hk_arena *arena);

/* Grows an array of items of the given size to hold at least need of them; *items is unchanged on failure. */
bool hk_grow(void *items, int *capacity, int need, size_t item_size);

/* Philox 4x32-10. */
void hk_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* 32 random bits to [0, 1): the upper 24 of them. */
static inline float hk_unit_float(uint32_t bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f); }

uint64_t hk_hash(const void *data, size_t bytes, uint64_t seed); /* FNV-1a; seed 0 to begin */

/* The environment has NAME=1. */
bool hk_environment_flag(const char *name);

/* Wall clock for durations, in seconds. */
double hk_seconds(void);

/* Whole files. read: the caller frees *data; a terminating 0 follows the data. write: to path.part, synced,
   renamed; of several writers, in any process, each writes the whole file, one after the other. */
hk_status hk_file_read(const char *path, char **data, size_t *bytes);
hk_status hk_file_write(const char *path, const void *data, size_t bytes);
/* An exclusive lock on what is opened so: its file descriptor, to be closed. It is tried so many times, 10 ms apart; -1 with
   errno EWOULDBLOCK where another has it to the end, or with what else is in the way. */
int hk_file_lock(const char *path, int flags, int tries);
/* Of the errno: the file system cannot lock that. */
bool hk_has_no_locks(int error);
/* Makes the folder and its parents, durably. */
hk_status hk_folder_make(const char *path);
/* Makes the names in a folder durable: after it, renames, new and removed files outlive a power cut. */
hk_status hk_folder_sync(const char *path);
/* dir (or the user's cache folder + "hekla" where NULL) made if need be; false where there is none or dir is "". */
bool hk_cache_folder(const char *dir, char *path, size_t bytes);

#endif
