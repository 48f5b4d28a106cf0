/* Products, attention, softmax, losses and norms of numbers at the ends of the range: large by small, subnormals,
   infinities and NaN, where IEEE 754 says what comes out. Bounds are those of f32 arithmetic in any order: n terms are
   summed to within n 2^-24 of the sum of their sizes. A GPU may take numbers below 2^-126 as 0, the CPU does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "range.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 0x1p-24
#define F32(data, ...)                                                                                                 \
    (struct range_input) { HK_F32, HK_SHAPE(__VA_ARGS__), data }

static float *numbers(int64_t n, double scale, uint64_t seed) {
    float *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) {
        const double u = test_uniform(&seed, -1, 1);
        x[i] = (float)(scale * (u < 0 ? u - 0.5 : u + 0.5));
    }
    return x;
}

/* ---- Products ---- */

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return expression;                                                                                             \
    }
BUILD(nn, hk_matmul(in[0], in[1]))
BUILD(nt, hk_matmul(in[0], hk_transpose(in[1])))
BUILD(tn, hk_matmul(hk_transpose(in[0]), in[1]))

struct product {
    int64_t m, n, k;
    float *a, *b; /* [m, k], [k, n]: as the product sees them */
};

static float *transposed(const float *x, int64_t rows, int64_t columns) {
    float *y = malloc((size_t)(rows * columns + 1) * sizeof *y);
    if (!y) abort();
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
    return y;
}

static void expect_product(const char *what, const struct product *p, bool subnormals, const double *got) {
    for (int64_t e = 0; e < p->m * p->n; e++) {
        double sum = 0, sizes = 0, largest = 1;
        for (int64_t k = 0; k < p->k; k++) {
            const double a = (double)p->a[e / p->n * p->k + k], b = (double)p->b[k * p->n + e % p->n];
            sum += a * b;
            sizes += fabs(a * b);
            largest = fmax(largest, fmax(fabs(a), fabs(b)));
        }
        const double least = subnormals ? 0x1p-149 : 0x1p-126 * largest;
        const double bound = (double)(p->k + 1) * (UNIT * sizes + least);
        range_expect(what, e, got[e], sum, bound);
    }
}

static void check_product(struct hk_device *device, const char *what, const struct product *p) {
    float *at = transposed(p->a, p->m, p->k), *bt = transposed(p->b, p->k, p->n);
    const struct range_input a = F32(p->a, p->m, p->k), b = F32(p->b, p->k, p->n), turned_a = F32(at, p->k, p->m),
                             turned_b = F32(bt, p->n, p->k);
    double *got[3] = {range_run(device, nn, (struct range_input[]){a, b}, 2),
                      range_run(device, nt, (struct range_input[]){a, turned_b}, 2),
                      range_run(device, tn, (struct range_input[]){turned_a, b}, 2)};
    for (int i = 0; i < 3; i++) {
        expect_product(what, p, test_is_cpu(device), got[i]);
        free(got[i]);
    }
    free(at), free(bt);
}

/* Sizes for every kernel: whole tiles, overhanging ones, few rows, one column. */
static const int64_t product_sizes[][3] = {{64, 64, 64}, {33, 65, 47}, {3, 70, 129},
                                           {130, 1, 70}, {1, 131, 33}, {70, 129, 5}};

static void check_scales(struct hk_device *device) {
    static const double scales[][2] = {{1e5, 1e-5},    {1e-9, 1e-9}, {1e18, 1e18},
                                       {1e-20, 1e-19}, {1e-39, 1},   {1e30, 1e-40}};
    for (int s = 0; s < COUNT(product_sizes); s++)
        for (int i = 0; i < COUNT(scales); i++) {
            const int64_t *size = product_sizes[s];
            struct product p = {size[0], size[1], size[2], numbers(size[0] * size[2], scales[i][0], 1),
                                numbers(size[2] * size[1], scales[i][1], 2)};
            char what[80];
            snprintf(what, sizeof what, "%g x %g, %d", scales[i][0], scales[i][1], s);
            check_product(device, what, &p);
            free(p.a), free(p.b);
        }
}
static void products_of_large_and_small(void **unused) {
    (void)unused;
    range_each_device(check_scales);
}

/* One number of an operand is special: its row (or column) of the result is what IEEE says, and nothing else changes.
 */
static void check_special_products(struct hk_device *device) {
    static const float specials[] = {INFINITY, -INFINITY, NAN};
    for (int s = 0; s < COUNT(product_sizes); s++)
        for (int i = 0; i < COUNT(specials); i++)
            for (int corner = 0; corner < 2; corner++) {
                const int64_t m = product_sizes[s][0], n = product_sizes[s][1], k = product_sizes[s][2];
                struct product p = {m, n, k, numbers(m * k, 1, 3), numbers(k * n, 1, 4)};
                p.a[corner ? m * k - 1 : k / 2] = specials[i]; /* the last row's last, or in the first row */
                p.b[corner ? 0 : k * n - 1] = specials[(i + 1) % 3];
                if (!corner) p.b[k / 2 * n] = 0; /* inf * 0 */
                check_product(device, "a special number", &p);
                free(p.a), free(p.b);
            }
}
static void infinities_and_nan_stay_in_their_rows(void **unused) {
    (void)unused;
    range_each_device(check_special_products);
}

/* More terms than 16 bits can count. */
static void check_long_products(struct hk_device *device) {
    static const int64_t sizes[][3] = {{1, 3, 70001}, {3, 2, 131073}, {20, 33, 70001}, {70, 70, 66000}};
    for (int s = 0; s < COUNT(sizes) - !range_is_long(); s++) {
        const int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
        struct product p = {m, n, k, numbers(m * k, 1, 5), numbers(k * n, 1, 6)};
        check_product(device, "many terms", &p);
        free(p.a), free(p.b);
    }
}
static void products_of_many_terms(void **unused) {
    (void)unused;
    range_each_device(check_long_products);
}

/* ---- Attention ---- */

BUILD(all_keys, hk_attention(in[0], in[1], in[2], NULL))
BUILD(causal, hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true}))
static struct hk_value *gradient_of(struct hk_value *y, struct hk_value *x) {
    struct hk_value *grad = NULL;
    hk_gradients(hk_sum(y, HK_ALL_AXES, false), &x, 1, &grad);
    return grad;
}

struct heads {
    int64_t queries, keys, depth;
    float *q, *k, *v;
};

/* One head, as the formula has it. The bound: scores are known to within (depth + 2) units of their terms' sizes, and
   what they are wrong by, every p is relatively. */
static void expect_attention(const char *what, const struct heads *h, bool is_causal, const double *got) {
    const double scale = 1 / sqrt((double)h->depth);
    double *p = malloc((size_t)h->keys * sizeof *p);
    if (!p) abort();
    for (int64_t t = 0; t < h->queries; t++) {
        const int64_t seen =
            is_causal ? (t + 1 + h->keys - h->queries > 0 ? t + 1 + h->keys - h->queries : 0) : h->keys;
        double most = -INFINITY, total = 0, sizes = 1;
        for (int64_t j = 0; j < seen; j++) {
            double size = 0;
            p[j] = 0;
            for (int64_t d = 0; d < h->depth; d++) {
                const double term = (double)h->q[t * h->depth + d] * (double)h->k[j * h->depth + d] * scale;
                p[j] += term, size += fabs(term);
            }
            if (isnan(p[j])) most = NAN;
            most = isnan(most) ? NAN : fmax(most, p[j]);
            if (isfinite(size)) sizes = fmax(sizes, size);
        }
        for (int64_t j = 0; j < seen; j++) total += p[j] = exp(p[j] - most);
        for (int64_t d = 0; d < h->depth; d++) {
            double sum = 0, size = 0;
            for (int64_t j = 0; j < seen; j++) {
                const double v = (double)h->v[j * h->depth + d];
                sum += p[j] / total * v, size += fabs(p[j] / total * v);
            }
            const double relative = 2 * UNIT * ((double)(h->depth + 8) * sizes + (double)seen);
            range_expect(what, t * h->depth + d, got[t * h->depth + d], sum, relative * size + 0x1p-120);
        }
    }
    free(p);
}

static double *run_attention(struct hk_device *device, range_build *build, const struct heads *h) {
    return range_run(device, build,
                     (struct range_input[]){F32(h->q, 1, 1, h->queries, h->depth), F32(h->k, 1, 1, h->keys, h->depth),
                                            F32(h->v, 1, 1, h->keys, h->depth)},
                     3);
}

static const int64_t head_sizes[][3] = {{37, 37, 16}, {70, 70, 64},  {5, 133, 33},
                                        {1, 300, 64}, {65, 65, 128}, {16, 16, 8}};

static struct heads make_heads(int s, double q, double k, double v) {
    const int64_t *size = head_sizes[s];
    return (struct heads){size[0],
                          size[1],
                          size[2],
                          numbers(size[0] * size[2], q, 7),
                          numbers(size[1] * size[2], k, 8),
                          numbers(size[1] * size[2], v, 9)};
}
static void free_heads(struct heads *h) { free(h->q), free(h->k), free(h->v); }

static void check_attention_scales(struct hk_device *device) {
    /* of q, k and v: the first two make logits of +-1e4 */
    static const double scales[][3] = {{100, 100, 1},      {1e4, 1, 1e-9},      {1e5, 1e-5, 1e5},
                                       {1e-9, 1e-9, 1e-9}, {1e-30, 1e30, 1e30}, {1, 1, 1e-39}};
    for (int s = 0; s < COUNT(head_sizes); s++)
        for (int i = 0; i < COUNT(scales); i++) {
            struct heads h = make_heads(s, scales[i][0], scales[i][1], scales[i][2]);
            double *got = run_attention(device, i % 2 ? causal : all_keys, &h);
            expect_attention("attention", &h, i % 2, got);
            free(got);
            free_heads(&h);
        }
}
static void attention_of_large_and_small(void **unused) {
    (void)unused;
    range_each_device(check_attention_scales);
}

/* What a query does not see, be it NaN or infinite, does not change its row. Keys alone: a value is multiplied by the
   probability 0, and 0 times NaN is NaN, in PyTorch too. */
static void check_future(struct hk_device *device) {
    static const float specials[] = {INFINITY, -INFINITY, NAN};
    for (int s = 0; s < COUNT(head_sizes); s++)
        for (int i = 0; i < COUNT(specials) && head_sizes[s][0] == head_sizes[s][1]; i++) {
            struct heads h = make_heads(s, 1, 1, 1);
            double *plain = run_attention(device, causal, &h);
            const int64_t n = h.keys * 2 / 3 * h.depth; /* the rows before do not see it */
            h.k[n + h.depth / 2] = specials[i];
            double *got = run_attention(device, causal, &h);
            for (int64_t e = 0; e < n; e++) range_expect("before a special key", e, got[e], plain[e], 0);
            expect_attention("rows that see it", &h, true, got);
            free(plain), free(got);
            free_heads(&h);
        }
}
static void the_future_reaches_no_row(void **unused) {
    (void)unused;
    range_each_device(check_future);
}

/* ---- Softmax and cross entropy ---- */

BUILD(softmax, hk_softmax(in[0], -1))
BUILD(log_softmax, hk_log_softmax(in[0], -1))
BUILD(cross_entropy, hk_cross_entropy(in[0], in[1], NULL))
BUILD(cross_entropy_dx, gradient_of(hk_cross_entropy(in[0], in[1], NULL), in[0]))

enum { ROWS = 8 };
/* Rows: +-1e4; one far above the rest; with -inf; all -inf; with inf; with NaN; all the same; one -inf and large. */
static float *hard_rows(int64_t width) {
    float *x = numbers(ROWS * width, 1e4, 10);
    for (int64_t i = 0; i < width; i++) {
        x[1 * width + i] = i == width / 2 ? 1e4f : -1e4f;
        x[2 * width + i] = i % 3 ? -INFINITY : (float)(i % 7);
        x[3 * width + i] = -INFINITY;
        x[6 * width + i] = 1e4f;
        x[7 * width + i] = i == 0 ? -INFINITY : 3e38f;
    }
    x[4 * width + width - 1] = INFINITY;
    x[5 * width + width / 2] = NAN;
    return x;
}

/* The logarithm of the softmax, by the formula. */
static void log_softmax_of(const float *x, int64_t n, double *y) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = isnan(most) || isnan((double)x[i]) ? NAN : fmax(most, (double)x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    for (int64_t i = 0; i < n; i++) y[i] = (double)x[i] - most - log(sum);
}

static void check_softmax(struct hk_device *device) {
    static const int64_t widths[] = {1, 2, 33, 256, 1029};
    for (int w = 0; w < COUNT(widths); w++) {
        const int64_t n = widths[w];
        float *x = hard_rows(n);
        double *expected = malloc((size_t)n * sizeof *expected);
        double *y = range_run(device, softmax, &F32(x, ROWS, n), 1),
               *l = range_run(device, log_softmax, &F32(x, ROWS, n), 1);
        if (!expected) abort();
        for (int64_t row = 0; row < ROWS; row++) {
            log_softmax_of(x + row * n, n, expected);
            for (int64_t i = 0; i < n; i++) {
                /* a GPU's exp is promised to 3 + 2 |x| ulp */
                const double p = exp(expected[i]),
                             bound = UNIT * 2 * (8 + 2 * fmin(fabs(expected[i]), 100) + 0.1 * (double)n);
                char what[64];
                snprintf(what, sizeof what, "row %d of width %d, softmax", (int)row, (int)n);
                range_expect(what, i, y[row * n + i], p, bound * p + 0x1p-126);
                snprintf(what, sizeof what, "row %d of width %d, log_softmax", (int)row, (int)n);
                range_expect(what, i, l[row * n + i], expected[i], 4 * UNIT * fabs(expected[i]) + 1e-5);
            }
        }
        free(x), free(expected), free(y), free(l);
    }
}
static void softmax_at_the_ends(void **unused) {
    (void)unused;
    range_each_device(check_softmax);
}

static void check_cross_entropy(struct hk_device *device) {
    static const int64_t widths[] = {2, 33, 1029};
    for (int w = 0; w < COUNT(widths); w++)
        for (int row = 0; row < ROWS; row++) {
            const int64_t n = widths[w];
            float *x = hard_rows(n);
            double expected[1029];
            const int32_t target = (int32_t)(n / 2);
            const struct range_input in[2] = {F32(x + row * n, 1, n), {HK_I32, HK_SHAPE(1), &target}};
            double *loss = range_run(device, cross_entropy, in, 2), *dx = range_run(device, cross_entropy_dx, in, 2);
            char what[64];
            log_softmax_of(x + row * n, n, expected);
            snprintf(what, sizeof what, "cross entropy of row %d of width %d", row, (int)n);
            range_expect(what, 0, loss[0], -expected[target], 4 * UNIT * fabs(expected[target]) + 1e-5);
            for (int64_t i = 0; i < n; i++) range_expect(what, i, dx[i], exp(expected[i]) - (i == target), 1e-5);
            free(x), free(loss), free(dx);
        }
}
static void cross_entropy_at_the_ends(void **unused) {
    (void)unused;
    range_each_device(check_cross_entropy);
}

/* ---- Norms ---- */

BUILD(layer_norm, hk_layer_norm(in[0], in[1], NULL, 1e-5f))
BUILD(rms_norm, hk_rms_norm(in[0], in[1], 1e-5f))

/* mean + deviation * noise. What the mean may be wrong by, rounding of the sum, is one unit in the last place of it or
   so for each of the terms that one accumulator adds; 1 / deviation magnifies that. */
static void check_norm(struct hk_device *device, int64_t n, double mean, double deviation) {
    float *x = numbers(n, deviation, 11), *ones = malloc((size_t)n * sizeof *ones);
    double average = 0, variance = 0, squares = 0;
    if (!ones) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] + mean), ones[i] = 1;
    for (int64_t i = 0; i < n; i++) average += (double)x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        variance += ((double)x[i] - average) * ((double)x[i] - average) / (double)n;
        squares += (double)x[i] * (double)x[i] / (double)n;
    }
    const struct range_input in[2] = {F32(x, 1, n), F32(ones, n)};
    double *layer = range_run(device, layer_norm, in, 2), *rms = range_run(device, rms_norm, in, 2);
    const double terms = 8 + (double)n / 16, rstd = 1 / sqrt(variance + 1e-5), rrms = 1 / sqrt(squares + 1e-5);
    char what[80];
    snprintf(what, sizeof what, "a norm of %d numbers, mean %g, deviation %g", (int)n, mean, deviation);
    for (int64_t i = 0; i < n; i++) {
        const double y = ((double)x[i] - average) * rstd, z = (double)x[i] * rrms;
        range_expect(what, i, layer[i], y, 4 * UNIT * (fabs(mean) * rstd + terms * fabs(y)) + 1e-6);
        range_expect(what, i, rms[i], z, UNIT * (terms + 8) * fabs(z) + 0x1p-120);
    }
    free(x), free(ones), free(layer), free(rms);
}

static void check_norms(struct hk_device *device) {
    static const double at[][2] = {{0, 1},    {100, 1}, {100, 1e-3}, {1e4, 1},     {-1e4, 0},
                                   {0, 1e-6}, {0, 0},   {0, 1e15},   {1e15, 1e13}, {3, 1e-20}};
    static const int64_t widths[] = {3, 64, 768, 5000};
    for (int i = 0; i < COUNT(at); i++)
        for (int w = 0; w < COUNT(widths); w++) check_norm(device, widths[w], at[i][0], at[i][1]);
}
static void norms_of_tiny_deviation_and_large_mean(void **unused) {
    (void)unused;
    range_each_device(check_norms);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_large_and_small), cmocka_unit_test(infinities_and_nan_stay_in_their_rows),
        cmocka_unit_test(products_of_many_terms),      cmocka_unit_test(attention_of_large_and_small),
        cmocka_unit_test(the_future_reaches_no_row),   cmocka_unit_test(softmax_at_the_ends),
        cmocka_unit_test(cross_entropy_at_the_ends),   cmocka_unit_test(norms_of_tiny_deviation_and_large_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
