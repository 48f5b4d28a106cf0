#include "faults/faults.h"
#include "base/base.h"
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Counting ---- */

static _Atomic enum fault_kind armed;
static _Atomic long calls, fatal;
static int fatal_variant;
static struct fault_report report;
static atomic_long live_allocations;

void fault_arm(enum fault_kind kind, long n, int variant) {
    atomic_store(&armed, FAULT_NONE);
    report = (struct fault_report){0};
    fatal_variant = variant;
    atomic_store(&calls, 0);
    atomic_store(&fatal, n);
    atomic_store(&armed, kind);
}

const struct fault_report *fault_disarm(void) {
    atomic_store(&armed, FAULT_NONE);
    report.calls = atomic_load(&calls);
    return &report;
}

bool fault_hits(enum fault_kind kind, const char *what, int *variant) {
    if (atomic_load(&armed) != kind || atomic_fetch_add(&calls, 1) + 1 != atomic_load(&fatal)) return false;
    report.what = what;
    report.depth = backtrace(report.stack, (int)HK_LENGTH(report.stack));
    report.fired = true;
    if (variant) *variant = fatal_variant;
    return true;
}

void fault_result(int result, int variants) { report.result = result, report.variants = variants; }

bool fault_called_by(const struct fault_report *r, const char *function) {
    for (int i = 0; i < r->depth; i++)
        if (!strcmp(fault_function(r->stack[i]), function)) return true;
    return false;
}

void fault_describe(const struct fault_report *r, char *text, size_t bytes) {
    int n = snprintf(text, bytes, "%s", r->what);
    if (r->result) n += snprintf(text + n, bytes - (size_t)n, " (VkResult %d)", r->result);
    const char *before = " in ";
    for (int i = 0; i < r->depth && (size_t)n < bytes; i++) {
        const char *name = fault_function(r->stack[i]);
        if (*name == '?' || !strncmp(name, "fault", 5) || !strncmp(name, "__wrap", 6)) continue;
        n += snprintf(text + n, bytes - (size_t)n, "%s%s", before, name);
        before = " < ";
    }
}

long fault_live_allocations(void) { return atomic_load(&live_allocations); }

/* Mesa writes its own cache of shaders from a thread of its own, whose open files come and go under whoever counts. */
static bool is_of_driver(DIR *folder, const char *name) {
    char target[512];
    const ssize_t n = readlinkat(dirfd(folder), name, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    return n < 0 || strstr(target, "/mesa_shader_cache");
}

long fault_live_files(void) {
    DIR *folder = opendir("/proc/self/fd");
    long n = 0;
    if (!folder) return 0;
    for (const struct dirent *entry; (entry = readdir(folder));) n += !is_of_driver(folder, entry->d_name);
    closedir(folder);
    return n;
}

/* ---- Memory ---- */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *memory);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t bytes);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *memory);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t bytes);

static bool memory_fails(const char *what) {
    if (!fault_hits(FAULT_MEMORY, what, NULL)) return false;
    errno = ENOMEM;
    return true;
}

static void *count_allocation(void *memory) {
    if (memory) atomic_fetch_add(&live_allocations, 1);
    return memory;
}

/* What malloc returns is not zero: it is filled, so that who relies on that is seen. */
void *__wrap_malloc(size_t bytes) {
    void *memory = memory_fails("malloc") ? NULL : count_allocation(__real_malloc(bytes));
    if (memory && bytes <= 1 << 16) memset(memory, 0xa5, bytes);
    return memory;
}

void *__wrap_calloc(size_t count, size_t bytes) {
    return memory_fails("calloc") ? NULL : count_allocation(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *memory, size_t bytes) {
    if (memory_fails("realloc")) return NULL;
    void *grown = __real_realloc(memory, bytes);
    return memory ? grown : count_allocation(grown);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes) {
    if (memory_fails("posix_memalign")) {
        *memory = (void *)(uintptr_t)0xdead0; /* undefined, says POSIX */
        return ENOMEM;
    }
    const int error = __real_posix_memalign(memory, alignment, bytes);
    if (!error) count_allocation(*memory);
    return error;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return memory_fails("aligned_alloc") ? NULL : count_allocation(__real_aligned_alloc(alignment, bytes));
}

void __wrap_free(void *memory) {
    if (memory) atomic_fetch_sub(&live_allocations, 1);
    __real_free(memory);
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (memory_fails("mmap")) return MAP_FAILED;
    void *memory = __real_mmap(address, bytes, protection, flags, fd, offset);
    if (memory != MAP_FAILED) atomic_fetch_add(&live_allocations, 1);
    return memory;
}

int __wrap_munmap(void *address, size_t bytes) {
    atomic_fetch_sub(&live_allocations, 1);
    return __real_munmap(address, bytes);
}

static void *json_malloc(size_t bytes) {
    return memory_fails("cJSON's malloc") ? NULL : count_allocation(__real_malloc(bytes));
}

void faults_install(void) {
    void *stack[1];
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = json_malloc, .free_fn = __wrap_free});
    backtrace(stack, 1); /* these load what they need */
    fault_function(stack[0]);
}

/* ---- The library's own ---- */

void *__real_hk_arena_alloc(struct hk_arena *arena, size_t bytes);
void *__real_hk_arena_copy(struct hk_arena *arena, const void *data, size_t bytes);
bool __real_hk_grow(void *items, int *capacity, int need, size_t item_size);
void *__wrap_hk_arena_alloc(struct hk_arena *arena, size_t bytes);
void *__wrap_hk_arena_copy(struct hk_arena *arena, const void *data, size_t bytes);
bool __wrap_hk_grow(void *items, int *capacity, int need, size_t item_size);

void *__wrap_hk_arena_alloc(struct hk_arena *arena, size_t bytes) {
    return fault_hits(FAULT_ARENA, "hk_arena_alloc", NULL) ? NULL : __real_hk_arena_alloc(arena, bytes);
}

void *__wrap_hk_arena_copy(struct hk_arena *arena, const void *data, size_t bytes) {
    return fault_hits(FAULT_ARENA, "hk_arena_copy", NULL) ? NULL : __real_hk_arena_copy(arena, data, bytes);
}

bool __wrap_hk_grow(void *items, int *capacity, int need, size_t item_size) {
    return !fault_hits(FAULT_ARENA, "hk_grow", NULL) && __real_hk_grow(items, capacity, need, item_size);
}

/* ---- Threads ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *context);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *context) {
    if (fault_hits(FAULT_THREAD, "pthread_create", NULL)) return EAGAIN;
    return __real_pthread_create(thread, attr, start, context);
}
