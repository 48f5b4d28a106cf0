/* Products on the CPU, with every instruction set: the order of the sums of an element depends on the depth alone, so
   that neither the number of threads nor cutting the operands changes a bit; and sums of 16-bit products are those of
   f32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "support.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { M = 187, N = 421, K = 1603 }; /* more than a block deep, and no multiple of any tile */

static const char *const sets[] = {"base", "avx2", "avx512", "avx512bf16", "amx"};
static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16};

/* A product of part of a [M, K] and b [K, N], either of which may lie transposed in memory. */
struct part {
    int64_t rows[2], columns[2]; /* from, to */
    bool a_turned, b_turned;
    enum hk_dtype dtype;
};

static struct hk_value *operand(struct hk_graph *graph, struct hk_tensor *tensor, enum hk_dtype dtype, bool turned,
                                int axis, const int64_t *range) {
    struct hk_value *x = hk_cast(hk_leaf(graph, tensor), dtype);
    if (turned) x = hk_transpose(hk_contiguous(hk_transpose(x)));
    return hk_slice(x, axis, range[0], range[1], 1);
}

/* f32 [rows, columns], to be freed. */
static float *multiply(const char *set, int threads, const float *a, const float *b, const struct part *p) {
    setenv("HEKLA_ISA", set, 1);
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "cpu", .threads = threads});
    unsetenv("HEKLA_ISA");
    if (!device) fail_msg("%s", hk_error_message());
    struct hk_tensor *in[] = {hk_tensor_from(device, HK_F32, HK_SHAPE(M, K), a),
                              hk_tensor_from(device, HK_F32, HK_SHAPE(K, N), b)};
    struct hk_tensor *out =
        hk_tensor_create(device, HK_F32, HK_SHAPE(p->rows[1] - p->rows[0], p->columns[1] - p->columns[0]));
    struct hk_graph *graph = hk_graph_create();
    if (!in[0] || !in[1] || !out || !graph) fail_msg("%s", hk_error_message());
    hk_store(out, hk_matmul(operand(graph, in[0], p->dtype, p->a_turned, 0, p->rows),
                            operand(graph, in[1], p->dtype, p->b_turned, 1, p->columns)));
    struct hk_program *program = hk_compile(device, graph, NULL);
    float *result = malloc(hk_tensor_bytes(out));
    if (!result || !program || hk_program_run(program) || hk_tensor_read(out, result, hk_tensor_bytes(out)))
        fail_msg("%s", hk_error_message());
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&in[0]), hk_tensor_destroy(&in[1]), hk_tensor_destroy(&out);
    hk_device_destroy(&device);
    return result;
}

/* Of bf16 and of f16, so that neither rounds them, and of sizes so far apart that any other order of sums shows. */
static float *numbers(int64_t count, uint64_t seed) {
    float *x = malloc((size_t)count * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < count; i++) {
        const double fraction = round(test_uniform(&seed, -255, 255)) / 256;
        x[i] = (float)ldexp(fraction, (int)test_uniform(&seed, -4, 5));
    }
    return x;
}

static void each_product(void (*test)(const char *set, const float *a, const float *b, const struct part *whole)) {
    float *a = numbers(M * K, 1), *b = numbers(K * N, 2);
    for (int s = 0; s < COUNT(sets); s++)
        for (int layout = 0; layout < 4; layout++)
            for (int t = 0; t < COUNT(dtypes); t++)
                test(sets[s], a, b, &(struct part){{0, M}, {0, N}, layout & 1, layout >> 1, dtypes[t]});
    free(a), free(b);
}

static void expect_same(const char *set, const struct part *whole, const float *all, const struct part *cut,
                        const float *part) {
    const int64_t width = cut->columns[1] - cut->columns[0];
    for (int64_t i = cut->rows[0]; i < cut->rows[1]; i++) {
        const float *x = all + i * N + cut->columns[0], *y = part + (i - cut->rows[0]) * width;
        for (int64_t j = 0; j < width; j++)
            if (memcmp(x + j, y + j, sizeof *x))
                fail_msg("%s, %s, %s%s: row %lld, column %lld is %.9g of the whole product and %.9g of the part", set,
                         hk_dtype_name(whole->dtype), whole->a_turned ? "t" : "n", whole->b_turned ? "t" : "n",
                         (long long)i, (long long)(cut->columns[0] + j), (double)x[j], (double)y[j]);
    }
}

static void check_cuts(const char *set, const float *a, const float *b, const struct part *whole) {
    static const int64_t rows[][2] = {{0, M}, {0, 64}, {5, 14}, {100, M}},
                         columns[][2] = {{0, N}, {0, 31}, {7, 300}, {400, N}};
    float *all = multiply(set, 1, a, b, whole), *other = multiply(set, 5, a, b, whole);
    expect_same(set, whole, all, whole, other);
    free(other);
    for (int i = 1; i < COUNT(rows); i++) {
        struct part cut = *whole;
        memcpy(cut.rows, rows[i], sizeof cut.rows);
        memcpy(cut.columns, columns[COUNT(columns) - i], sizeof cut.columns);
        float *part = multiply(set, 2, a, b, &cut);
        expect_same(set, whole, all, &cut, part);
        free(part);
    }
    free(all);
}
static void cutting_changes_no_bit(void **unused) {
    (void)unused;
    each_product(check_cuts);
}

/* Sums in f32, in any order, are off by K 2^-24 of the sum of sizes at most; what rounded the terms or the sums to 16
   bits would be off by 2^-9 of them. The root of K is what is common. */
static void check_sums(const char *set, const float *a, const float *b, const struct part *whole) {
    float *all = multiply(set, 2, a, b, whole);
    double worst = 0;
    for (int64_t e = 0; e < M * N; e += 13) {
        double sum = 0, sizes = 0;
        for (int64_t k = 0; k < K; k++) {
            const double term = (double)a[e / N * K + k] * (double)b[k * N + e % N];
            sum += term, sizes += fabs(term);
        }
        worst = fmax(worst, fabs((double)all[e] - sum) / sizes);
    }
    printf("%s, %s: largest error of the sum of sizes %.2g\n", set, hk_dtype_name(whole->dtype), worst);
    assert_true(worst < sqrt((double)K) * 0x1p-24);
    free(all);
}
static void sums_are_of_f32(void **unused) {
    (void)unused;
    each_product(check_sums);
}

/* The flags that Linux says the processor has, with a space around each; "" elsewhere. */
static char *processor_flags(void) {
    static char line[8192];
#if defined(__x86_64__) /* an emulator of another processor may show the host's */
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "flags", 5)) break;
        else line[0] = 0;
    if (f) fclose(f);
#endif
    return line;
}

static void expect_set(const char *set, const char *flag) {
    const bool there = strstr(processor_flags(), flag) != NULL;
    setenv("HEKLA_ISA", set, 1);
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    unsetenv("HEKLA_ISA");
    if (!device) fail_msg("%s", hk_error_message());
    printf("HEKLA_ISA=%s gives %s\n", set, hk_device_get_info(device)->driver);
    if (there) assert_string_equal(hk_device_get_info(device)->driver, set);
    else assert_string_not_equal(hk_device_get_info(device)->driver, set);
    hk_device_destroy(&device);
}
static void sets_that_the_processor_has_are_used(void **unused) {
    (void)unused;
    if (!*processor_flags()) skip();
    expect_set("avx2", " avx2 ");
    expect_set("avx512", " avx512bw ");
    expect_set("avx512bf16", " avx512_bf16 ");
    expect_set("amx", " amx_bf16 ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cutting_changes_no_bit),
        cmocka_unit_test(sums_are_of_f32),
        cmocka_unit_test(sets_that_the_processor_has_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
