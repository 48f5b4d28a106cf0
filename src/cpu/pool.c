#include "cpu/pool.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Looks for work before sleeping: about the time that sleeping and waking would take. */
enum { SPINS = 2000 };

struct pool {
    /* Upper half: the number of the job. Lower half: its pieces that nobody has taken. Taking a piece is a compare and
       exchange, so it fails if the job has changed; once it has succeeded, the job cannot end before the piece is done,
       and so the fields below are that job's. */
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic size_t done;
    size_t count;
    void (*piece)(void *, size_t);
    void *context;
    pthread_mutex_t mutex; /* of sleeping */
    pthread_cond_t work;
    _Atomic int sleepers;
    bool quit;
    int n_threads;
    pthread_t threads[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Runs pieces until there are none to take. */
static void take_pieces(struct pool *pool) {
    uint64_t state = atomic_load(&pool->state);
    while ((uint32_t)state) {
        if (!atomic_compare_exchange_weak(&pool->state, &state, state - 1)) continue; /* state is the new one */
        pool->piece(pool->context, pool->count - (uint32_t)state);
        atomic_fetch_add(&pool->done, 1);
        state = atomic_load(&pool->state);
    }
}

static bool has_work(struct pool *pool) { return (uint32_t)atomic_load(&pool->state) != 0; }

/* False when the pool ends. */
static bool wait_for_work(struct pool *pool) {
    for (int i = 0; i < SPINS; i++) {
        if (has_work(pool)) return true;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work(pool) && !pool->quit) pthread_cond_wait(&pool->work, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    const bool go_on = !pool->quit;
    pthread_mutex_unlock(&pool->mutex);
    return go_on;
}

static void *run_thread(void *pool) {
    while (wait_for_work(pool)) take_pieces(pool);
    return NULL;
}

static void wake(struct pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_run(struct pool *pool, size_t count, void (*piece)(void *context, size_t i), void *context) {
    if (count == 1 || pool->n_threads == 0) {
        for (size_t i = 0; i < count; i++) piece(context, i);
        return;
    }
    for (; count > UINT32_MAX; count--) piece(context, count - 1); /* more than the counter holds */
    pool->piece = piece;
    pool->context = context;
    pool->count = count;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->state, ((atomic_load(&pool->state) >> 32) + 1) << 32 | count);
    if (atomic_load(&pool->sleepers)) wake(pool);
    take_pieces(pool);
    for (int i = 0; atomic_load(&pool->done) != count; i++) {
        relax();
        if (i >= SPINS) sched_yield();
    }
}

struct pool *pool_create(int threads) {
    struct pool *pool = aligned_alloc(64, (sizeof *pool + (size_t)threads * sizeof(pthread_t) + 63) / 64 * 64);
    if (!pool) return NULL;
    *pool = (struct pool){.n_threads = 0};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    while (pool->n_threads < threads - 1) {
        if (pthread_create(&pool->threads[pool->n_threads], NULL, run_thread, pool)) {
            pool_destroy(pool);
            return NULL;
        }
        pool->n_threads++;
    }
    return pool;
}

void pool_destroy(struct pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->quit = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_threads; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
