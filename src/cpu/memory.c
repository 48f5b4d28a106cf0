/* Small buffers come from malloc. Large ones are pages that the system makes zero when they are first touched: nothing
   is spent on them before, and then by the threads that compute. Where it has pages of 2 MiB it is asked for those:
   zeroing gpt2-124m's parameters, gradients and moments page by page of 4 KiB took two seconds, most of it in the
   kernel. */
#include "cpu/memory.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES ((size_t)4096)
#define LARGE_BYTES ((size_t)4 << 20) /* of which at least one whole page of 2 MiB can be made, wherever it begins */

static void *take_pages(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, bytes, MADV_HUGEPAGE); /* a system without them has none to give */
#endif
    return memory;
}

void *cpu_memory_take(size_t bytes) {
    void *memory;
    if (bytes >= LARGE_BYTES) return take_pages(bytes);
    if (posix_memalign(&memory, PAGE_BYTES, bytes)) return NULL;
    return memset(memory, 0, bytes);
}

void cpu_memory_release(void *memory, size_t bytes) {
    if (memory && bytes >= LARGE_BYTES) munmap(memory, bytes);
    else free(memory);
}
