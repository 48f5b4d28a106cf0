/* OpenBLAS on the products that tests/bench/run.sh compares: one JSON line each, the median of several. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

char *openblas_get_corename(void);

static const int shapes[][3] = {/* M, N, K: square ones, then gpt-char's and gpt2-124m's */
                                {512, 512, 512},   {1024, 1024, 1024}, {2048, 2048, 2048}, {4096, 1152, 384},
                                {4096, 384, 1536}, {256, 2304, 768},   {256, 768, 3072},   {256, 50257, 768}};
static const char *const transpositions[] = {"nn", "nt", "tn"};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static float *matrix(size_t count) {
    float *data = malloc(count * sizeof *data);
    if (!data) exit(1);
    for (size_t i = 0; i < count; i++) data[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return data;
}

static void measure(int m, int n, int k, const char *transpose) {
    enum { MOST = 200 };
    const int ta = transpose[0] == 't', tb = transpose[1] == 't';
    float *a = matrix((size_t)m * (size_t)k), *b = matrix((size_t)k * (size_t)n), *c = matrix((size_t)m * (size_t)n);
    double times[MOST];
    int count = 0;
    for (double end = now() + 0.5; count < 5 || (count < MOST && now() < end);) {
        const double start = now();
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1, a,
                    ta ? m : k, b, tb ? k : n, 0, c, n);
        times[count++] = now() - start;
    }
    qsort(times, (size_t)count, sizeof *times, compare);
    printf("{\"peer\": \"OpenBLAS %s\", \"op\": \"matmul\", \"shape\": \"%dx%dx%d\", \"transpose\": \"%s\", "
           "\"gflops\": %.1f}\n",
           openblas_get_corename(), m, n, k, transpose, 2.0 * m * n * k / times[count / 2] / 1e9);
    fflush(stdout);
    free(a), free(b), free(c);
}

int main(void) {
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < sizeof transpositions / sizeof *transpositions; t++)
            measure(shapes[s][0], shapes[s][1], shapes[s][2], transpositions[t]);
    return 0;
}
