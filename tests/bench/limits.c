/* What this processor can do at most, on all of its cores, as JSON lines: f32 fused multiply-adds, dot products of
   bf16, and reading memory. The best of several measurements: these are limits. Uses what the compiler's -march=native
   allows. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MOST_THREADS = 256, REPEATS = 25 };

static int n_threads;
static pthread_barrier_t barrier;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Arithmetic: as many chains as hide the latency of one instruction (4 cycles at 2 a cycle), in registers ---- */

enum { CHAINS = 12, ROUNDS = 20 * 1000 * 1000 / CHAINS };

#if defined(__AVX512F__)
enum { LANES = 16 };
typedef __m512 vector;
#elif defined(__AVX2__)
enum { LANES = 8 };
typedef float vector __attribute__((vector_size(32)));
#else
enum { LANES = 4 };
typedef float vector __attribute__((vector_size(16)));
#endif

static double multiply_add(void) {
    vector x[CHAINS], a, b;
    float sum = 0;
    for (int i = 0; i < CHAINS; i++) memset(&x[i], 0, sizeof x[i]);
    for (int i = 0; i < LANES; i++) ((float *)&a)[i] = 0.5f, ((float *)&b)[i] = 1;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;
        __asm__ volatile("" : "+x"(a), "+x"(b)); /* so that no round can be computed beforehand */
    }
    for (int i = 0; i < CHAINS; i++) sum += x[i][0];
    return sum > 0 ? 2.0 * LANES * CHAINS * ROUNDS : 0;
}

#if defined(__AVX512BF16__)
static double dot_products(void) {
    __m512 x[CHAINS];
    __m512bh a = (__m512bh)_mm512_set1_epi16(0x3c3c), b = a; /* small positive numbers */
    float sum = 0;
    for (int i = 0; i < CHAINS; i++) x[i] = _mm512_setzero_ps();
    for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) x[i] = _mm512_dpbf16_ps(x[i], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int i = 0; i < CHAINS; i++) sum += x[i][0];
    return sum > 0 ? 4.0 * LANES * CHAINS * ROUNDS : 0;
}
#endif

#if defined(__AMX_BF16__) && defined(__linux__)
/* Products of [16, 32] and [32, 16] in Intel's tiles, summed in f32. */
static double tile_products(void) {
    enum { ROUNDS_OF_TILES = 2 * 1000 * 1000 };
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    float sums[16][16];
    uint16_t ones[16][32];
    for (int i = 0; i < 16 * 32; i++) ones[i / 32][i % 32] = 0x3f80;
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (int i = 0; i < ROUNDS_OF_TILES / 4; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    return sums[0][0] > 0 ? 2.0 * 16 * 16 * 32 * ROUNDS_OF_TILES : 0;
}

/* The system gives tiles to those who ask. */
static int may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

/* ---- Memory: each thread reads its own part of what no cache holds ---- */

static size_t read_bytes; /* a thread: of 1 GiB, which holds more than any cache, and fits most machines */
static uint64_t *memory[MOST_THREADS];
static int next_memory;

static double read_memory(void) {
    static _Thread_local uint64_t *own;
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    typedef uint64_t words __attribute__((vector_size(64)));
    words sums[4] = {{0}};
    if (!own) {
        pthread_mutex_lock(&mutex);
        own = memory[next_memory++];
        pthread_mutex_unlock(&mutex);
    }
    const words *data = (const words *)own;
    for (size_t i = 0; i < read_bytes / sizeof *data; i += 4)
        for (size_t k = 0; k < 4; k++) sums[k] += data[i + k];
    const words sum = sums[0] + sums[1] + sums[2] + sums[3];
    return sum[0] ? (double)read_bytes : 0;
}

static int make_memory(void) {
    read_bytes = ((size_t)1 << 30) / (size_t)n_threads / 4096 * 4096;
    if (read_bytes > (size_t)256 << 20) read_bytes = (size_t)256 << 20;
    for (int i = 0; i < n_threads; i++) {
        if (posix_memalign((void **)&memory[i], 1 << 21, read_bytes)) return 0;
        memset(memory[i], 1, read_bytes);
    }
    return 1;
}

/* ---- Measuring ---- */

struct job {
    double (*work)(void); /* returns how much it did */
    double done, begin[REPEATS], end[REPEATS];
};

static void *run(void *context) {
    struct job *job = context;
    for (int i = 0; i < REPEATS; i++) {
        pthread_barrier_wait(&barrier);
        job->begin[i] = now();
        job->done = job->work();
        job->end[i] = now();
    }
    return NULL;
}

/* Of the fastest repeat: from the first thread's begin to the last one's end. */
static double fastest(const struct job *jobs) {
    double best = 1e30;
    for (int i = 0; i < REPEATS; i++) {
        double begin = jobs[0].begin[i], end = jobs[0].end[i];
        for (int k = 1; k < n_threads; k++) {
            if (jobs[k].begin[i] < begin) begin = jobs[k].begin[i];
            if (jobs[k].end[i] > end) end = jobs[k].end[i];
        }
        if (end - begin < best) best = end - begin;
    }
    return best;
}

static void measure(const char *name, const char *unit, double (*work)(void)) {
    static struct job jobs[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    double done = 0;
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads);
    for (int i = 0; i < n_threads; i++) {
        jobs[i] = (struct job){.work = work};
        if (pthread_create(&threads[i], NULL, run, &jobs[i])) exit(1);
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        done += jobs[i].done;
    }
    pthread_barrier_destroy(&barrier);
    printf("{\"limit\": \"%s\", \"%s\": %.1f, \"threads\": %d}\n", name, unit, done / fastest(jobs) / 1e9, n_threads);
    fflush(stdout);
}

int main(void) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    n_threads = processors < 1 ? 1 : processors > MOST_THREADS ? MOST_THREADS : (int)processors;
    measure("multiply-adds of f32", "gflops", multiply_add);
#if defined(__AVX512BF16__)
    measure("dot products of bf16", "gflops", dot_products);
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
    if (may_use_tiles()) measure("tiles of bf16", "gflops", tile_products);
#endif
    if (make_memory()) measure("reading memory", "gbps", read_memory);
}
