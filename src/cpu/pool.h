/* Threads that share the pieces of a job. What is waited for is pieces, not threads: a thread that the system runs late finds
   nothing left to do, and nobody has waited for it. (A pool that waits for each of its threads loses most of its speed as soon
   as something else runs on the machine, and on a desktop something always does.) */
#ifndef HK_CPU_POOL_H
#define HK_CPU_POOL_H

#include <stddef.h>

struct pool;

/* With the calling thread there are `threads` of them, 1 or more. NULL when out of memory. */
struct pool *pool_create(int threads);
void pool_destroy(struct pool *pool);

/* piece(context, i) for all i < count, on all threads and the calling one; returns when all are done. One call at a time. */
void pool_run(struct pool *pool, size_t count, void (*piece)(void *context, size_t i), void *context);

#endif
