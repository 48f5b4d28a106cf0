/* Cases of matmul: all transpositions, broadcast batches, bias, odd and empty sizes, and sizes around the tiles of
 * kernels. */
#include "cases.h"

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

/* ---- Cases ---- */

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
};

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
     "matmul: operands must be f32, not i32"},
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
