/* The memory of buffers on the CPU. */
#ifndef HK_CPU_MEMORY_H
#define HK_CPU_MEMORY_H

#include <stddef.h>

/* Zeroed and aligned to a page; NULL when out of memory. */
void *cpu_memory_take(size_t bytes);
/* What was taken with as many bytes. NULL: nothing. */
void cpu_memory_release(void *memory, size_t bytes);

#endif
