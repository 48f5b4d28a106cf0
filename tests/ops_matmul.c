/* Cases of matmul: all transpositions, broadcast batches, bias, odd and empty sizes, sizes around the tiles of kernels,
   and operands of 16 bits: made of f32 inputs by hk_cast, which the reference rounds in its own way. */
#include "cases.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define F32(...)                                                                                                       \
    { .dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__) }
#define PAIR(a, b) .inputs = {a, b}, .n_inputs = 2
#define TRIPLE(a, b, c) .inputs = {a, b, c}, .n_inputs = 3

typedef struct hk_value *build(struct hk_graph *graph, struct hk_value *const *in);

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return expression;                                                                                             \
    }
BUILD(nn, hk_matmul(in[0], in[1]))
BUILD(nt, hk_matmul(in[0], hk_transpose(in[1])))
BUILD(tn, hk_matmul(hk_transpose(in[0]), in[1]))
BUILD(tt, hk_matmul(hk_transpose(in[0]), hk_transpose(in[1])))
BUILD(linear, hk_linear(in[0], in[1], NULL))
BUILD(linear_bias, hk_linear(in[0], in[1], in[2]))
BUILD(linear_kn, hk_linear_kn(in[0], in[1], NULL))
BUILD(linear_kn_bias, hk_linear_kn(in[0], in[1], in[2]))
/* Neither of the last two dimensions of a is dense. */
BUILD(gaps, hk_matmul(hk_slice(in[0], -1, 0, 14, 2), in[1]))
/* Heads out of a projection [B, T, H, D]: batches whose strides do not merge. */
BUILD(heads, hk_matmul(hk_permute(in[0], HK_AXES(0, 2, 1, 3)), hk_permute(in[1], HK_AXES(0, 2, 3, 1))))

/* ---- Plain arithmetic ---- */

struct matrices {
    struct hk_shape shape;
    const double *data;
    bool transposed;
    int64_t rows, columns; /* as the product sees them */
};

static struct matrices matrices_of(const struct hk_case *c, int input, const double *const *in, bool transposed) {
    const struct hk_shape s = c->inputs[input].shape;
    const int64_t rows = s.size[s.rank - 2], columns = s.size[s.rank - 1];
    return (struct matrices){s, in[input], transposed, transposed ? columns : rows, transposed ? rows : columns};
}

static double at(const struct matrices *x, int64_t item, int64_t row, int64_t column) {
    const int64_t within = x->transposed ? column * x->rows + row : row * x->columns + column;
    return x->data[item * x->rows * x->columns + within];
}

/* The item of a matrix that batch item `item`, of the given sizes, has after broadcasting. */
static int64_t item_of(const struct matrices *x, int rank, const int64_t *batch, int64_t item) {
    int64_t own = 0, scale = 1;
    for (int i = rank - 3, j = x->shape.rank - 3; i >= 0; i--, j--) {
        const int64_t size = j >= 0 ? x->shape.size[j] : 1;
        own += (size == 1 ? 0 : item % batch[i]) * scale;
        scale *= size;
        item /= batch[i];
    }
    return own;
}

static void product(const struct matrices *a, const struct matrices *b, const double *bias, double *out) {
    const int rank = a->shape.rank > b->shape.rank ? a->shape.rank : b->shape.rank;
    int64_t batch[HK_MAX_RANK] = {0}, items = 1;
    for (int i = 0; i < rank - 2; i++) {
        const int ia = i - (rank - a->shape.rank), ib = i - (rank - b->shape.rank);
        const int64_t x = ia >= 0 ? a->shape.size[ia] : 1, y = ib >= 0 ? b->shape.size[ib] : 1;
        batch[i] = x == 1 ? y : x;
        items *= batch[i];
    }
    for (int64_t n = 0; n < items; n++) {
        const int64_t na = item_of(a, rank, batch, n), nb = item_of(b, rank, batch, n);
        for (int64_t i = 0; i < a->rows; i++)
            for (int64_t j = 0; j < b->columns; j++) {
                double sum = bias ? bias[j] : 0;
                for (int64_t p = 0; p < a->columns; p++) sum += at(a, na, i, p) * at(b, nb, p, j);
                *out++ = sum;
            }
    }
}

#define REFERENCE(name, ta, tb, bias)                                                                                  \
    static void name(const struct hk_case *c, const double *const *in, double *out) {                                  \
        const struct matrices a = matrices_of(c, 0, in, ta), b = matrices_of(c, 1, in, tb);                            \
        product(&a, &b, bias, out);                                                                                    \
    }
REFERENCE(nn_of, false, false, NULL)
REFERENCE(nt_of, false, true, NULL)
REFERENCE(tn_of, true, false, NULL)
REFERENCE(tt_of, true, true, NULL)
REFERENCE(nn_bias_of, false, false, in[2])
REFERENCE(nt_bias_of, false, true, in[2])

/* ---- Operands of 16 bits ---- */

/* The nearest number of the dtype, ties to even. */
static double rounded(double x, enum hk_dtype dtype) {
    int exponent;
    if (dtype == HK_F32) return x;
    frexp(x, &exponent); /* x is below 2^exponent */
    const int digits = dtype == HK_F16 ? 11 : 8, least = dtype == HK_F16 ? -24 : -133;
    const double unit = ldexp(1, exponent - digits > least ? exponent - digits : least);
    return nearbyint(x / unit) * unit;
}

static double *rounded_copy(const double *x, int64_t count, enum hk_dtype dtype) {
    double *copy = malloc((size_t)(count + 1) * sizeof *copy);
    if (!copy) abort();
    for (int64_t i = 0; i < count; i++) copy[i] = rounded(x[i], dtype);
    return copy;
}

static int64_t elements(struct hk_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++) n *= shape.size[i];
    return n;
}

static void rounded_product(const struct hk_case *c, const double *const *in, double *out, enum hk_dtype a_type, bool ta,
                            enum hk_dtype b_type, bool tb) {
    double *const x = rounded_copy(in[0], elements(c->inputs[0].shape), a_type);
    double *const y = rounded_copy(in[1], elements(c->inputs[1].shape), b_type);
    const double *const both[] = {x, y};
    const struct matrices a = matrices_of(c, 0, both, ta), b = matrices_of(c, 1, both, tb);
    product(&a, &b, c->n_inputs > 2 ? in[2] : NULL, out);
    free(x);
    free(y);
}

static struct hk_value *as(struct hk_value *x, enum hk_dtype dtype, bool transposed) {
    x = hk_cast(x, dtype);
    return transposed ? hk_transpose(x) : x;
}

/* name: the product of the inputs as these dtypes; name_of: what it should be. */
#define MIXED(name, a_type, ta, b_type, tb)                                                                            \
    BUILD(name, hk_matmul(as(in[0], a_type, ta), as(in[1], b_type, tb)))                                               \
    static void name##_of(const struct hk_case *c, const double *const *in, double *out) {                             \
        rounded_product(c, in, out, a_type, ta, b_type, tb);                                                           \
    }
MIXED(nn_f16, HK_F16, false, HK_F16, false)
MIXED(nt_f16, HK_F16, false, HK_F16, true)
MIXED(tn_f16, HK_F16, true, HK_F16, false)
MIXED(tt_f16, HK_F16, true, HK_F16, true)
MIXED(nn_bf16, HK_BF16, false, HK_BF16, false)
MIXED(nt_bf16, HK_BF16, false, HK_BF16, true)
MIXED(tn_bf16, HK_BF16, true, HK_BF16, false)
MIXED(tt_bf16, HK_BF16, true, HK_BF16, true)
MIXED(nn_f32_f16, HK_F32, false, HK_F16, false)
MIXED(nt_f32_f16, HK_F32, false, HK_F16, true)
MIXED(nn_f16_f32, HK_F16, false, HK_F32, false)
MIXED(nt_f32_bf16, HK_F32, false, HK_BF16, true)
MIXED(tn_bf16_f32, HK_BF16, true, HK_F32, false)

BUILD(linear_f16, hk_linear(as(in[0], HK_F16, false), as(in[1], HK_F16, false), in[2]))
BUILD(linear_f32_bf16, hk_linear(in[0], as(in[1], HK_BF16, false), as(in[2], HK_BF16, false)))
static void linear_f16_of(const struct hk_case *c, const double *const *in, double *out) {
    rounded_product(c, in, out, HK_F16, false, HK_F16, true);
}
static void linear_f32_bf16_of(const struct hk_case *c, const double *const *in, double *out) {
    double *const bias = rounded_copy(in[2], elements(c->inputs[2].shape), HK_BF16);
    const double *const all[] = {in[0], in[1], bias};
    rounded_product(c, all, out, HK_F32, false, HK_BF16, true);
    free(bias);
}

/* All but the first and last column: rows of 16-bit elements that begin in the middle of a word. */
static struct hk_value *inner_columns(struct hk_value *x) { return hk_slice(x, -1, 1, -1, 1); }
BUILD(inner_f16, hk_matmul(inner_columns(as(in[0], HK_F16, false)), inner_columns(as(in[1], HK_F16, false))))
BUILD(inner_bf16_t,
      hk_matmul(hk_transpose(inner_columns(as(in[0], HK_BF16, false))), inner_columns(as(in[1], HK_BF16, false))))
static void inner_product(const struct hk_case *c, const double *const *in, double *out, enum hk_dtype dtype, bool ta) {
    struct hk_case narrow = {.n_inputs = 2};
    double *part[2];
    for (int i = 0; i < 2; i++) {
        const int64_t rows = c->inputs[i].shape.size[0], columns = c->inputs[i].shape.size[1] - 2;
        part[i] = malloc((size_t)(rows * columns) * sizeof **part);
        if (!part[i]) abort();
        for (int64_t r = 0; r < rows; r++)
            memcpy(part[i] + r * columns, in[i] + r * (columns + 2) + 1, (size_t)columns * sizeof **part);
        narrow.inputs[i] = (struct hk_case_input){.shape = HK_SHAPE(rows, columns)};
    }
    rounded_product(&narrow, (const double *const *)part, out, dtype, ta, dtype, false);
    free(part[0]);
    free(part[1]);
}
static void inner_f16_of(const struct hk_case *c, const double *const *in, double *out) {
    inner_product(c, in, out, HK_F16, false);
}
static void inner_bf16_t_of(const struct hk_case *c, const double *const *in, double *out) {
    inner_product(c, in, out, HK_BF16, true);
}
BUILD(heads_f16, hk_matmul(hk_permute(as(in[0], HK_F16, false), HK_AXES(0, 2, 1, 3)),
                           hk_permute(as(in[1], HK_F16, false), HK_AXES(0, 2, 3, 1))))

/* The gradient of sum(a b * in[2]) of one operand: rounding has none of its own, so no finite differences. */
static struct hk_value *gradient_of(struct hk_value *const *in, enum hk_dtype a_type, enum hk_dtype b_type, int wrt,
                                    bool of_cast) {
    struct hk_value *x[] = {hk_cast(in[0], a_type), hk_cast(in[1], b_type)}, *grad = NULL;
    struct hk_value *loss = hk_sum(hk_mul(hk_matmul(x[0], x[1]), in[2]), HK_ALL_AXES, false);
    hk_gradients(loss, of_cast ? &x[wrt] : &in[wrt], 1, &grad);
    if (grad && hk_value_dtype(grad) != (!of_cast ? HK_F32 : wrt ? b_type : a_type)) return NULL;
    return hk_cast(grad, HK_F32);
}
BUILD(da_f16, gradient_of(in, HK_F16, HK_F16, 0, false))
BUILD(db_bf16, gradient_of(in, HK_BF16, HK_BF16, 1, false))
BUILD(da_f32_f16, gradient_of(in, HK_F32, HK_F16, 0, false))
BUILD(db_f32_f16, gradient_of(in, HK_F32, HK_F16, 1, false))
BUILD(da_f16_cast, gradient_of(in, HK_F16, HK_F16, 0, true))

/* dy b^T, or a^T dy, from inputs a [M, K], b [K, N], dy [M, N]. */
static void gradient_product(const struct hk_case *c, const double *const *in, double *out, enum hk_dtype dy_type,
                             enum hk_dtype other_type, int wrt) {
    struct hk_case both = {.n_inputs = 2};
    const double *operands[2];
    for (int i = 0; i < 2; i++) {
        const int from = i == wrt ? 2 : !wrt; /* dy is on the side of the operand that it is the gradient of */
        both.inputs[i] = c->inputs[from];
        operands[i] = in[from];
    }
    if (wrt == 0) rounded_product(&both, operands, out, dy_type, false, other_type, true);
    else rounded_product(&both, operands, out, other_type, true, dy_type, false);
}
#define GRADIENT_REFERENCE(name, dy_type, other_type, wrt)                                                             \
    static void name(const struct hk_case *c, const double *const *in, double *out) {                                  \
        gradient_product(c, in, out, dy_type, other_type, wrt);                                                        \
    }
GRADIENT_REFERENCE(da_f16_of, HK_F16, HK_F16, 0)
GRADIENT_REFERENCE(db_bf16_of, HK_BF16, HK_BF16, 1)
GRADIENT_REFERENCE(da_f32_f16_of, HK_F32, HK_F16, 0)
GRADIENT_REFERENCE(db_f32_f16_of, HK_F32, HK_F32, 1)

/* ---- Cases ---- */

#define IN(least, most, ...)                                                                                           \
    { .dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__), .low = least, .high = most }
#define MIXED_CASE(text, build_it, ...)                                                                                \
    { .name = text, .inputs = {__VA_ARGS__}, .n_inputs = 2, .build = build_it, .reference = build_it##_of }

static const struct hk_case cases[] = {
    {.name = "nn, odd sizes", PAIR(F32(5, 7), F32(7, 9)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "nt, odd sizes", PAIR(F32(5, 7), F32(9, 7)), .build = nt, .reference = nt_of, .gradient = true},
    {.name = "tn, odd sizes", PAIR(F32(7, 5), F32(7, 9)), .build = tn, .reference = tn_of, .gradient = true},
    {.name = "tt, odd sizes", PAIR(F32(7, 5), F32(9, 7)), .build = tt, .reference = tt_of, .gradient = true},
    {.name = "one number", PAIR(F32(1, 1), F32(1, 1)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "outer product", PAIR(F32(17, 1), F32(1, 33)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "inner product", PAIR(F32(1, 300), F32(300, 1)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "a row by a matrix", PAIR(F32(1, 65), F32(65, 130)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "a row by columns", PAIR(F32(1, 65), F32(131, 65)), .build = nt, .reference = nt_of, .gradient = true},
    {.name = "three rows by columns", PAIR(F32(3, 70), F32(67, 70)), .build = nt, .reference = nt_of},
    {.name = "four rows by a matrix", PAIR(F32(4, 70), F32(70, 67)), .build = nn, .reference = nn_of},
    {.name = "a matrix by a column", PAIR(F32(67, 70), F32(70, 1)), .build = nn, .reference = nn_of},
    {.name = "nn, several blocks", PAIR(F32(133, 500), F32(500, 401)), .build = nn, .reference = nn_of},
    {.name = "nt, several blocks", PAIR(F32(133, 401), F32(500, 401)), .build = nt, .reference = nt_of},
    {.name = "tn, several blocks", PAIR(F32(401, 130), F32(401, 259)), .build = tn, .reference = tn_of},
    {.name = "tt, several blocks", PAIR(F32(401, 130), F32(259, 401)), .build = tt, .reference = tt_of},
    {.name = "whole tiles", PAIR(F32(128, 64), F32(64, 128)), .build = nn, .reference = nn_of},
    {.name = "nothing to sum", PAIR(F32(3, 0), F32(0, 4)), .build = nn, .reference = nn_of},
    {.name = "no rows", PAIR(F32(0, 3), F32(3, 4)), .build = nn},
    {.name = "no columns", PAIR(F32(2, 3), F32(3, 0)), .build = nn},
    {.name = "batches", PAIR(F32(3, 5, 6), F32(3, 6, 4)), .build = nn, .reference = nn_of, .gradient = true},
    {.name = "batches, three rows", PAIR(F32(5, 3, 70), F32(5, 70, 67)), .build = nn, .reference = nn_of},
    {.name = "batches, nt", PAIR(F32(2, 3, 33, 16), F32(2, 3, 35, 16)), .build = nt, .reference = nt_of},
    {.name = "batches, tn", PAIR(F32(2, 3, 16, 33), F32(2, 3, 16, 35)), .build = tn, .reference = tn_of},
    {.name = "b broadcast to a's batches",
     PAIR(F32(2, 3, 4, 5), F32(3, 5, 2)),
     .build = nn,
     .reference = nn_of,
     .gradient = true},
    {.name = "a broadcast to b's batches",
     PAIR(F32(4, 5), F32(3, 5, 2)),
     .build = nn,
     .reference = nn_of,
     .gradient = true},
    {.name = "both broadcast",
     PAIR(F32(2, 1, 4, 5), F32(1, 3, 5, 2)),
     .build = nn,
     .reference = nn_of,
     .gradient = true},
    {.name = "leading dimensions are rows",
     PAIR(F32(2, 3, 4, 5), F32(5, 6)),
     .build = nn,
     .reference = nn_of,
     .gradient = true},
    {.name = "three batch dimensions",
     PAIR(F32(2, 1, 3, 4, 5), F32(1, 2, 3, 5, 2)),
     .build = nn,
     .reference = nn_of,
     .gradient = true},
    {.name = "empty batch", PAIR(F32(0, 4, 5), F32(0, 5, 2)), .build = nn},
    {.name = "gaps between columns", PAIR(F32(5, 14), F32(7, 3)), .build = gaps, .gradient = true},
    {.name = "heads of a projection", PAIR(F32(2, 9, 3, 8), F32(2, 7, 3, 8)), .build = heads, .gradient = true},
    {.name = "linear", PAIR(F32(6, 10), F32(7, 10)), .build = linear, .reference = nt_of, .gradient = true},
    {.name = "linear of a batch",
     PAIR(F32(2, 3, 10), F32(7, 10)),
     .build = linear,
     .reference = nt_of,
     .gradient = true},
    {.name = "linear, bias",
     TRIPLE(F32(2, 5, 10), F32(7, 10), F32(7)),
     .build = linear_bias,
     .reference = nt_bias_of,
     .gradient = true},
    {.name = "linear of a vector, bias", TRIPLE(F32(10), F32(7, 10), F32(7)), .build = linear_bias, .gradient = true},
    {.name = "linear, bias, several blocks",
     TRIPLE(F32(70, 450), F32(403, 450), F32(403)),
     .build = linear_bias,
     .reference = nt_bias_of},
    {.name = "linear, bias, nothing to sum",
     TRIPLE(F32(3, 0), F32(4, 0), F32(4)),
     .build = linear_bias,
     .reference = nt_bias_of},
    {.name = "linear_kn", PAIR(F32(6, 10), F32(10, 7)), .build = linear_kn, .reference = nn_of, .gradient = true},
    {.name = "linear_kn, bias",
     TRIPLE(F32(2, 5, 10), F32(10, 7), F32(7)),
     .build = linear_kn_bias,
     .reference = nn_bias_of,
     .gradient = true},
    {.name = "linear_kn of one row, bias",
     TRIPLE(F32(1, 66), F32(66, 130), F32(130)),
     .build = linear_kn_bias,
     .reference = nn_bias_of},
    /* few tiles and a long k: on hardware each of some workgroups has a part of it */
    {.name = "parts, nn", PAIR(F32(33, 2048), F32(2048, 43)), .build = nn, .reference = nn_of},
    {.name = "parts, nt", PAIR(F32(33, 2048), F32(43, 2048)), .build = nt, .reference = nt_of},
    {.name = "parts, tn", PAIR(F32(4096, 35), F32(4096, 70)), .build = tn, .reference = tn_of},
    {.name = "parts, tt", PAIR(F32(2048, 33), F32(43, 2048)), .build = tt, .reference = tt_of},
    {.name = "parts, a row by a matrix", PAIR(F32(1, 4096), F32(4096, 37)), .build = nn, .reference = nn_of},
    {.name = "parts, three rows by columns", PAIR(F32(3, 2048), F32(37, 2048)), .build = nt, .reference = nt_of},
    {.name = "parts, batches", PAIR(F32(3, 5, 2048), F32(3, 2048, 7)), .build = nn, .reference = nn_of},
    {.name = "parts, a broadcast to b's batches", PAIR(F32(5, 2048), F32(3, 7, 2048)), .build = nt, .reference = nt_of},
    {.name = "parts, heads of a projection", PAIR(F32(1, 3, 3, 1024), F32(1, 5, 3, 1024)), .build = heads},
    {.name = "parts, the most", PAIR(F32(2, 16384), F32(16384, 3)), .build = nn, .reference = nn_of},
    {.name = "parts, bias",
     TRIPLE(F32(2, 5, 2048), F32(37, 2048), F32(37)),
     .build = linear_bias,
     .reference = nt_bias_of},
    {.name = "parts, bias, many",
     TRIPLE(F32(3, 16384), F32(16384, 2), F32(2)),
     .build = linear_kn_bias,
     .reference = nn_bias_of},
    MIXED_CASE("f16, parts, nn", nn_f16, F32(33, 2048), F32(2048, 44)),
    MIXED_CASE("f16, parts, nt", nt_f16, F32(33, 2048), F32(43, 2048)),
    MIXED_CASE("f16, parts, tn", tn_f16, F32(4096, 64), F32(4096, 128)),
    MIXED_CASE("f16, parts, tt", tt_f16, F32(2048, 33), F32(43, 2048)),
    MIXED_CASE("f16, parts, a row by columns", nt_f16, F32(1, 4096), F32(67, 4096)),
    MIXED_CASE("bf16, parts, nn", nn_bf16, F32(64, 2048), F32(2048, 64)),
    MIXED_CASE("bf16, parts, tn", tn_bf16, F32(2048, 33), F32(2048, 43)),
    MIXED_CASE("f32 by f16, parts, nt", nt_f32_f16, F32(11, 2048), F32(43, 2048)),
    MIXED_CASE("f16, nn, odd sizes", nn_f16, F32(5, 7), F32(7, 9)),
    MIXED_CASE("f16, nt, odd sizes", nt_f16, F32(5, 7), F32(9, 7)),
    MIXED_CASE("f16, tn, odd sizes", tn_f16, F32(7, 5), F32(7, 9)),
    MIXED_CASE("f16, tt, odd sizes", tt_f16, F32(7, 5), F32(9, 7)),
    MIXED_CASE("f16, nn, several blocks", nn_f16, F32(133, 500), F32(500, 401)),
    MIXED_CASE("f16, nt, several blocks", nt_f16, F32(133, 401), F32(500, 401)),
    MIXED_CASE("f16, tn, several blocks", tn_f16, F32(401, 130), F32(401, 259)),
    MIXED_CASE("f16, tt, several blocks", tt_f16, F32(401, 130), F32(259, 401)),
    MIXED_CASE("f16, whole tiles", nn_f16, F32(128, 64), F32(64, 128)),
    MIXED_CASE("f16, whole tiles, nt", nt_f16, F32(128, 64), F32(256, 64)),
    MIXED_CASE("f16, whole tiles, tn", tn_f16, F32(64, 128), F32(64, 128)),
    MIXED_CASE("f16, whole tiles, tt", tt_f16, F32(64, 128), F32(128, 64)),
    MIXED_CASE("f16, one past whole tiles", nn_f16, F32(129, 65), F32(65, 129)),
    MIXED_CASE("f16, one short of whole tiles", nt_f16, F32(127, 63), F32(127, 63)),
    MIXED_CASE("f16, outer product", nn_f16, F32(17, 1), F32(1, 33)),
    MIXED_CASE("f16, inner product", nn_f16, F32(1, 300), F32(300, 1)),
    MIXED_CASE("f16, a row by a matrix", nn_f16, F32(1, 65), F32(65, 131)),
    MIXED_CASE("f16, a row by columns", nt_f16, F32(1, 65), F32(131, 65)),
    MIXED_CASE("f16, a row by columns of whole words", nt_f16, F32(1, 70), F32(67, 70)),
    MIXED_CASE("bf16, rows by columns of whole words", nt_bf16, F32(11, 70), F32(67, 70)),
    MIXED_CASE("f16, three rows by columns", nt_f16, F32(3, 70), F32(67, 70)),
    MIXED_CASE("f16, four rows by a matrix", nn_f16, F32(4, 71), F32(71, 67)),
    MIXED_CASE("f16, a matrix by a column", nn_f16, F32(67, 70), F32(70, 1)),
    MIXED_CASE("f16, nothing to sum", nn_f16, F32(3, 0), F32(0, 4)),
    MIXED_CASE("f16, batches", nn_f16, F32(3, 5, 7), F32(3, 7, 5)),
    MIXED_CASE("f16, batches of whole tiles, nt", nt_f16, F32(2, 3, 64, 32), F32(2, 3, 64, 32)),
    MIXED_CASE("f16, b broadcast to a's batches", nn_f16, F32(2, 3, 4, 5), F32(3, 5, 3)),
    MIXED_CASE("f16, below its normal range", nt_f16, IN(-6e-5f, 6e-5f, 40, 33), IN(-6e-5f, 6e-5f, 37, 33)),
    MIXED_CASE("f16, products past its range", nn_f16, IN(1e3f, 6e4f, 40, 33), IN(1e3f, 6e4f, 33, 37)),
    MIXED_CASE("f16, sums far below their terms", nn_f16, IN(-3e2f, 3e2f, 33, 640), IN(-3e2f, 3e2f, 640, 35)),
    MIXED_CASE("bf16, nn, odd sizes", nn_bf16, F32(5, 7), F32(7, 9)),
    MIXED_CASE("bf16, nt, odd sizes", nt_bf16, F32(5, 7), F32(9, 7)),
    MIXED_CASE("bf16, tn, odd sizes", tn_bf16, F32(7, 5), F32(7, 9)),
    MIXED_CASE("bf16, tt, odd sizes", tt_bf16, F32(7, 5), F32(9, 7)),
    MIXED_CASE("bf16, nn, several blocks", nn_bf16, F32(133, 501), F32(501, 403)),
    MIXED_CASE("bf16, nt, several blocks", nt_bf16, F32(133, 401), F32(500, 401)),
    MIXED_CASE("bf16, tn, several blocks", tn_bf16, F32(401, 130), F32(401, 259)),
    MIXED_CASE("bf16, tt, several blocks", tt_bf16, F32(401, 130), F32(259, 401)),
    MIXED_CASE("bf16, whole tiles", nn_bf16, F32(128, 64), F32(64, 128)),
    MIXED_CASE("bf16, a row by a matrix", nn_bf16, F32(1, 65), F32(65, 131)),
    MIXED_CASE("bf16, four rows by columns", nt_bf16, F32(4, 70), F32(67, 70)),
    MIXED_CASE("bf16, a matrix by a column", nn_bf16, F32(67, 70), F32(70, 1)),
    MIXED_CASE("bf16, 1e5 by 1e-5", nn_bf16, IN(5e4f, 1e5f, 40, 33), IN(5e-6f, 1e-5f, 33, 37)),
    MIXED_CASE("bf16, 1e-9 by 1e-9", nt_bf16, IN(-1e-9f, 1e-9f, 40, 33), IN(-1e-9f, 1e-9f, 37, 33)),
    /* one term each: what f32 loses on its way to f16 or bf16 is more than is allowed */
    MIXED_CASE("f32 by f16, outer product", nn_f32_f16, F32(70, 1), F32(1, 66)),
    MIXED_CASE("f32 by bf16, outer product", nt_f32_bf16, F32(70, 1), F32(66, 1)),
    MIXED_CASE("f16 by f32, outer product", nn_f16_f32, F32(70, 1), F32(1, 66)),
    MIXED_CASE("f32 by f16, past f16's range", nn_f32_f16, IN(1e5f, 1e6f, 40, 33), IN(1e-5f, 1e-4f, 33, 37)),
    MIXED_CASE("f32 by f16, nn", nn_f32_f16, F32(66, 130), F32(130, 67)),
    MIXED_CASE("f32 by f16, nt", nt_f32_f16, F32(66, 131), F32(67, 131)),
    MIXED_CASE("f32 by f16, nt, whole words", nt_f32_f16, F32(11, 70), F32(67, 70)),
    MIXED_CASE("f32 by f16, one row", nt_f32_f16, F32(1, 131), F32(67, 131)),
    MIXED_CASE("f16 by f32, one row", nn_f16_f32, F32(1, 131), F32(131, 67)),
    MIXED_CASE("f16 by f32, one column", nn_f16_f32, F32(67, 131), F32(131, 1)),
    MIXED_CASE("bf16 by f32, tn", tn_bf16_f32, F32(131, 66), F32(131, 67)),
    MIXED_CASE("f16 in the middle of words", inner_f16, F32(35, 68), F32(66, 43)),
    MIXED_CASE("bf16 in the middle of words, tn", inner_bf16_t, F32(66, 37), F32(66, 43)),
    MIXED_CASE("f16 in the middle of words, one row", inner_f16, F32(1, 68), F32(66, 43)),
    {.name = "f16, heads of a projection", PAIR(F32(2, 9, 3, 7), F32(2, 7, 3, 7)), .build = heads_f16},
    {.name = "f16, linear, bias",
     TRIPLE(F32(70, 45), F32(75, 45), F32(75)),
     .build = linear_f16,
     .reference = linear_f16_of},
    {.name = "f32 by bf16, linear, bf16 bias",
     TRIPLE(F32(6, 45), F32(75, 45), F32(75)),
     .build = linear_f32_bf16,
     .reference = linear_f32_bf16_of},
    {.name = "f16, gradient of a",
     TRIPLE(F32(19, 70), F32(70, 35), F32(19, 35)),
     .build = da_f16,
     .reference = da_f16_of},
    {.name = "bf16, gradient of b",
     TRIPLE(F32(19, 70), F32(70, 35), F32(19, 35)),
     .build = db_bf16,
     .reference = db_bf16_of},
    {.name = "f32 by f16, gradient of a",
     TRIPLE(F32(19, 7), F32(7, 1), F32(19, 1)),
     .build = da_f32_f16,
     .reference = da_f32_f16_of},
    {.name = "f32 by f16, gradient of b",
     TRIPLE(F32(1, 7), F32(7, 35), F32(1, 35)),
     .build = db_f32_f16,
     .reference = db_f32_f16_of},
    /* rounded to f16 itself: a unit in its last place, by which two devices may differ, is up to 9.8e-4 */
    {.name = "f16, gradient of a in f16",
     TRIPLE(F32(19, 70), F32(70, 35), F32(19, 35)),
     .build = da_f16_cast,
     .reference = da_f16_of,
     .tolerance = 10},
};

BUILD(nn_f16_bf16, hk_matmul(as(in[0], HK_F16, false), as(in[1], HK_BF16, false)))
BUILD(linear_f16_bf16, hk_linear(as(in[0], HK_F16, false), as(in[1], HK_BF16, false), NULL))

static const struct hk_refusal refusals[] = {
    {"inner sizes", {F32(32, 784), F32(512, 10)}, 2, nn, "matmul: inner sizes differ: a is [32, 784], b is [512, 10]"},
    {"batches",
     {F32(2, 3, 4), F32(3, 4, 5)},
     2,
     nn,
     "matmul: leading sizes do not broadcast: a is [2, 3, 4], b is [3, 4, 5]"},
    {"a vector", {F32(4), F32(4, 5)}, 2, nn, "matmul: operands need two dimensions or more: a is [4]"},
    {"integers",
     {{.dtype = HK_I32, .shape = HK_SHAPE(3, 4), .high = 5}, F32(4, 5)},
     2,
     nn,
     "matmul: operands must be f32, f16 or bf16, and the same or one of them f32, not i32 and f32"},
    {"two kinds of 16 bits", {F32(3, 4), F32(4, 5)}, 2, nn_f16_bf16, "not f16 and bf16 (hk_cast converts)"},
    {"linear's two kinds of 16 bits", {F32(3, 4), F32(5, 4)}, 2, linear_f16_bf16, "linear: operands must be"},
    {"an integer bias",
     {F32(2, 10), F32(7, 10), {.dtype = HK_I32, .shape = HK_SHAPE(7), .high = 5}},
     3,
     linear_bias,
     "linear: bias must be f32, f16 or bf16, not i32"},
    {"linear's weight the wrong way round",
     {F32(2, 10), F32(10, 7)},
     2,
     linear,
     "linear: inner sizes differ: x is [2, 10], weight is [10, 7]"},
    {"linear_kn's weight the wrong way round", {F32(2, 10), F32(7, 10)}, 2, linear_kn, "linear: inner sizes differ"},
    {"linear's weight of three dimensions",
     {F32(2, 10), F32(1, 7, 10)},
     2,
     linear,
     "linear: x needs a dimension and weight two"},
    {"bias of another size", {F32(2, 10), F32(7, 10), F32(10)}, 3, linear_bias, "linear: bias must be [7], not [10]"},
};

const struct hk_case_set hk_cases_matmul = {cases, sizeof cases / sizeof *cases, refusals,
                                            sizeof refusals / sizeof *refusals};

/* ---- matmul_i8: what hk_matmul makes of two i8, exact ---- */

BUILD(nn_i8, hk_matmul(as(in[0], HK_I8, false), as(in[1], HK_I8, false)))
BUILD(nt_i8, hk_matmul(as(in[0], HK_I8, false), as(in[1], HK_I8, true)))
BUILD(tn_i8, hk_matmul(as(in[0], HK_I8, true), as(in[1], HK_I8, false)))
BUILD(tt_i8, hk_matmul(as(in[0], HK_I8, true), as(in[1], HK_I8, true)))
BUILD(inner_i8, hk_matmul(inner_columns(as(in[0], HK_I8, false)), inner_columns(as(in[1], HK_I8, false))))
BUILD(inner_i8_t, hk_matmul(hk_transpose(inner_columns(as(in[0], HK_I8, false))), inner_columns(as(in[1], HK_I8, false))))
BUILD(gaps_i8, hk_matmul(hk_slice(as(in[0], HK_I8, false), -1, 0, 14, 2), as(in[1], HK_I8, false)))
BUILD(heads_i8, hk_matmul(hk_permute(as(in[0], HK_I8, false), HK_AXES(0, 2, 1, 3)),
                          hk_permute(as(in[1], HK_I8, false), HK_AXES(0, 2, 3, 1))))
BUILD(nn_i8_f32, hk_matmul(as(in[0], HK_I8, false), in[1]))
BUILD(linear_i8, hk_linear(as(in[0], HK_I8, false), as(in[1], HK_I8, false), NULL))
static void inner_i8_of(const struct hk_case *c, const double *const *in, double *out) {
    inner_product(c, in, out, HK_F32, false);
}
static void inner_i8_t_of(const struct hk_case *c, const double *const *in, double *out) {
    inner_product(c, in, out, HK_F32, true);
}

#define WHOLE(least, most, ...)                                                                                        \
    { .dtype = HK_I32, .shape = HK_SHAPE(__VA_ARGS__), .low = least, .high = most }
#define I8(...) WHOLE(-128, 128, __VA_ARGS__)
#define LEAST(...) WHOLE(-128, -127, __VA_ARGS__)
#define MOST(...) WHOLE(127, 128, __VA_ARGS__)
/* tolerance: less than 1 for any sum that i32 holds */
#define I8_CASE(text, build_it, ref, ...)                                                                              \
    {                                                                                                                  \
        .name = text, .inputs = {__VA_ARGS__}, .n_inputs = 2, .build = build_it, .reference = ref, .exact = true,      \
        .tolerance = 1e-6                                                                                              \
    }

static const struct hk_case i8_cases[] = {
    I8_CASE("nn, odd sizes", nn_i8, nn_of, I8(5, 7), I8(7, 9)),
    I8_CASE("nt, odd sizes", nt_i8, nt_of, I8(5, 7), I8(9, 7)),
    I8_CASE("tn, odd sizes", tn_i8, tn_of, I8(7, 5), I8(7, 9)),
    I8_CASE("tt, odd sizes", tt_i8, tt_of, I8(7, 5), I8(9, 7)),
    I8_CASE("one number", nn_i8, nn_of, I8(1, 1), I8(1, 1)),
    I8_CASE("outer product", nn_i8, nn_of, I8(17, 1), I8(1, 33)),
    I8_CASE("inner product", nn_i8, nn_of, I8(1, 300), I8(300, 1)),
    I8_CASE("nn, several blocks", nn_i8, nn_of, I8(133, 1501), I8(1501, 203)),
    I8_CASE("nt, several blocks", nt_i8, nt_of, I8(133, 1501), I8(201, 1501)),
    I8_CASE("tn, several blocks", tn_i8, tn_of, I8(1501, 130), I8(1501, 259)),
    I8_CASE("tt, several blocks", tt_i8, tt_of, I8(1501, 130), I8(259, 1501)),
    I8_CASE("more columns than a block", nn_i8, nn_of, I8(9, 21), I8(21, 1101)),
    I8_CASE("whole tiles, nn", nn_i8, nn_of, I8(128, 96), I8(96, 256)),
    I8_CASE("whole tiles, nt", nt_i8, nt_of, I8(128, 96), I8(256, 96)),
    I8_CASE("whole tiles, tn", tn_i8, tn_of, I8(96, 128), I8(96, 256)),
    I8_CASE("whole tiles, tt", tt_i8, tt_of, I8(96, 128), I8(256, 96)),
    I8_CASE("whole words, not whole tiles, nn", nn_i8, nn_of, I8(60, 68), I8(68, 76)),
    I8_CASE("whole words, not whole tiles, tt", tt_i8, tt_of, I8(68, 60), I8(76, 68)),
    I8_CASE("one past whole tiles", nn_i8, nn_of, I8(129, 65), I8(65, 129)),
    I8_CASE("one short of whole tiles", nt_i8, nt_of, I8(127, 63), I8(127, 63)),
    I8_CASE("words along k that end within one", nt_i8, nt_of, I8(9, 4), I8(6, 4)),
    I8_CASE("a row by a matrix", nn_i8, nn_of, I8(1, 65), I8(65, 130)),
    I8_CASE("a row by a matrix, whole words", nn_i8, nn_of, I8(1, 1024), I8(1024, 132)),
    I8_CASE("a row by columns", nt_i8, nt_of, I8(1, 65), I8(131, 65)),
    I8_CASE("a row by columns, whole words", nt_i8, nt_of, I8(1, 1040), I8(67, 1040)),
    I8_CASE("two rows by columns", nt_i8, nt_of, I8(2, 70), I8(67, 70)),
    I8_CASE("three rows by columns", nt_i8, nt_of, I8(3, 70), I8(67, 70)),
    I8_CASE("three rows by a matrix", nn_i8, nn_of, I8(3, 71), I8(71, 67)),
    I8_CASE("four rows by a matrix", nn_i8, nn_of, I8(4, 70), I8(70, 67)),
    I8_CASE("four rows by columns", nt_i8, nt_of, I8(4, 131), I8(70, 131)),
    I8_CASE("four rows that lie across, tn", tn_i8, tn_of, I8(70, 4), I8(70, 67)),
    I8_CASE("three rows that lie across, tt", tt_i8, tt_of, I8(70, 3), I8(67, 70)),
    I8_CASE("a matrix by a column", nn_i8, nn_of, I8(67, 70), I8(70, 1)),
    I8_CASE("a matrix that lies across by a column", tn_i8, tn_of, I8(70, 67), I8(70, 1)),
    I8_CASE("nothing to sum", nn_i8, nn_of, I8(3, 0), I8(0, 4)),
    I8_CASE("no rows", nn_i8, NULL, I8(0, 3), I8(3, 4)),
    I8_CASE("no columns", nn_i8, NULL, I8(2, 3), I8(3, 0)),
    I8_CASE("batches", nn_i8, nn_of, I8(3, 5, 6), I8(3, 6, 4)),
    I8_CASE("batches of whole words, nt", nt_i8, nt_of, I8(2, 3, 32, 16), I8(2, 3, 36, 16)),
    I8_CASE("batches, three rows", nn_i8, nn_of, I8(5, 3, 70), I8(5, 70, 67)),
    I8_CASE("b broadcast to a's batches", nn_i8, nn_of, I8(2, 3, 4, 5), I8(3, 5, 2)),
    I8_CASE("both broadcast", nn_i8, nn_of, I8(2, 1, 4, 5), I8(1, 3, 5, 2)),
    I8_CASE("three batch dimensions", nn_i8, nn_of, I8(2, 1, 3, 4, 5), I8(1, 2, 3, 5, 2)),
    I8_CASE("leading dimensions are rows", nn_i8, nn_of, I8(2, 3, 4, 5), I8(5, 6)),
    I8_CASE("within words", inner_i8, inner_i8_of, I8(35, 68), I8(66, 43)),
    I8_CASE("within words, tn", inner_i8_t, inner_i8_t_of, I8(66, 38), I8(66, 46)),
    I8_CASE("within words, one row", inner_i8, inner_i8_of, I8(1, 68), I8(66, 43)),
    I8_CASE("gaps between columns", gaps_i8, NULL, I8(5, 14), I8(7, 3)),
    I8_CASE("heads of a projection", heads_i8, NULL, I8(2, 9, 3, 8), I8(2, 7, 3, 8)),
    I8_CASE("the least by the least", nn_i8, nn_of, LEAST(35, 1300), LEAST(1300, 37)),
    I8_CASE("the least by the most", nt_i8, nt_of, LEAST(35, 1300), MOST(37, 1300)),
    I8_CASE("the most by the least", tn_i8, tn_of, MOST(1300, 35), LEAST(1300, 37)),
    I8_CASE("the largest sum", nn_i8, nn_of, LEAST(5, 131071), LEAST(131071, 2)),
    I8_CASE("the largest sum, few rows", nt_i8, nt_of, LEAST(2, 131071), LEAST(3, 131071)),
    I8_CASE("the lowest sum", nt_i8, nt_of, MOST(5, 131071), LEAST(3, 131071)),
};

static const struct hk_refusal i8_refusals[] = {
    {"inner sizes", {I8(32, 78), I8(51, 10)}, 2, nn_i8, "matmul: inner sizes differ: a is [32, 78], b is [51, 10]"},
    {"batches", {I8(2, 3, 4), I8(3, 4, 5)}, 2, nn_i8, "matmul: leading sizes do not broadcast"},
    {"i8 by f32", {I8(3, 4), F32(4, 5)}, 2, nn_i8_f32, "matmul: operands must both be i8, or neither: a is i8, b is f32"},
    {"a layer", {I8(3, 4), I8(5, 4)}, 2, linear_i8, "linear: operands must be f32, f16 or bf16"},
    {"a sum that may overflow",
     {I8(1, 131072), I8(131072, 1)},
     2,
     nn_i8,
     "matmul: the sum of 131072 products of i8 may not fit an i32: 131071 are the most"},
};

const struct hk_case_set hk_cases_matmul_i8 = {i8_cases, sizeof i8_cases / sizeof *i8_cases, i8_refusals,
                                               sizeof i8_refusals / sizeof *i8_refusals};
