/* What CPU kernels are given: the thread pool and the way to use it. */
#ifndef HK_CPU_CPU_H
#define HK_CPU_CPU_H

#include "backend.h"

struct cpu {
    struct pool *pool;
    int threads;
    void *workspace;        /* for kernels, one op at a time: threads * workspace_bytes, 64-byte aligned */
    size_t workspace_bytes; /* per thread */
};

#define CPU_WORKSPACE_BYTES ((size_t)4 << 20)

/* body(context, begin, end) over [0, count) in pieces of `grain` (the last may be smaller) on all threads; returns when all
   are done. Pieces do not depend on the number of threads, so what is summed per piece has the same bits everywhere. */
void cpu_for(const struct cpu *cpu, int64_t count, int64_t grain, void (*body)(void *context, int64_t begin, int64_t end),
             void *context);

/* The same with the number of the thread [0, threads), for bodies that use a part of the workspace. */
void cpu_for_threads(const struct cpu *cpu, int64_t count, int64_t grain,
                     void (*body)(void *context, int thread, int64_t begin, int64_t end), void *context);

static inline void *cpu_data(const struct hk_operand *operand) {
    return (char *)operand->buffer->host + operand->offset;
}
static inline int64_t cpu_elements(const struct hk_operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->rank; i++) n *= operand->shape[i];
    return n;
}

#endif
