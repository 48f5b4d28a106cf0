/* Random cases of matrix products, attention, rope and caches. */
#include "op/op.h"
#include "shapes.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- matmul: any transposition, batches that broadcast, and linear layers ---- */

static bool transposed[2];
static enum { PRODUCT, LINEAR, LINEAR_KN } form;

static struct hk_value *build_matmul(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    if (form == LINEAR) return hk_linear(in[0], in[1], in[2]);
    if (form == LINEAR_KN) return hk_linear_kn(in[0], in[1], in[2]);
    return hk_matmul(transposed[0] ? hk_transpose(in[0]) : in[0], transposed[1] ? hk_transpose(in[1]) : in[1]);
}

/* An operand of the product: element (row, column) of the matrix that result element e's batch has. */
static double operand(const struct hk_case *c, int k, const double *const *in, struct hk_shape result,
                      const int64_t *at, int64_t row, int64_t column) {
    const struct hk_shape shape = c->inputs[k].shape;
    int64_t own[HK_MAX_RANK] = {0};
    for (int i = 0; i < shape.rank - 2; i++) {
        const int64_t coordinate = at[i + result.rank - shape.rank];
        own[i] = shape.size[i] == 1 ? 0 : coordinate;
    }
    if (shape.rank >= 2) own[shape.rank - 2] = transposed[k] ? column : row;
    own[shape.rank - 1] = transposed[k] ? row : column;
    return in[k][shapes_element(shape, own)];
}

static struct hk_shape product_shape(const struct hk_case *c) {
    const struct hk_shape a = c->inputs[0].shape, b = c->inputs[1].shape;
    struct hk_shape shape = {.rank = a.rank > b.rank ? a.rank : b.rank};
    for (int i = 0; i < shape.rank - 2; i++) {
        const int ia = i - shape.rank + a.rank, ib = i - shape.rank + b.rank;
        const int64_t x = ia >= 0 ? a.size[ia] : 1, y = ib >= 0 ? b.size[ib] : 1;
        shape.size[i] = x == 1 ? y : x;
    }
    shape.size[shape.rank - 2] = a.size[a.rank - (transposed[0] ? 1 : 2)];
    shape.size[shape.rank - 1] = b.size[b.rank - (transposed[1] ? 2 : 1)];
    return shape;
}

static void product_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape shape = product_shape(c);
    const int64_t inner = c->inputs[0].shape.size[c->inputs[0].shape.rank - (transposed[0] ? 2 : 1)];
    for (int64_t e = 0; e < test_elements(shape); e++) {
        int64_t at[HK_MAX_RANK];
        shapes_coordinates(shape, e, at);
        const int64_t row = at[shape.rank - 2], column = at[shape.rank - 1];
        out[e] = c->n_inputs > 2 ? in[2][column] : 0;
        for (int64_t k = 0; k < inner; k++)
            out[e] += operand(c, 0, in, shape, at, row, k) * operand(c, 1, in, shape, at, k, column);
    }
}

static struct hk_shape matrix(struct hk_shape batch, int64_t rows, int64_t columns, bool transpose) {
    struct hk_shape shape = batch;
    shape.size[shape.rank++] = transpose ? columns : rows;
    shape.size[shape.rank++] = transpose ? rows : columns;
    return shape;
}

/* layers: linear ones, too. */
static void draw_product(struct shapes *s, bool layers) {
    const int64_t most = s->most; /* of each operand and of the result, and 16 times as many products */
    int64_t m = shapes_size(s, most), n = shapes_size(s, most / m), k = shapes_size(s, most / (m > n ? m : n));
    while (m * n * k > 16 * most) *(m > n && m > k ? &m : n > k ? &n : &k) /= 2;
    if (shapes_one_in(s, 32)) *(shapes_one_in(s, 2) ? &k : shapes_one_in(s, 2) ? &m : &n) = 0;
    form = layers && shapes_one_in(s, 3) ? LINEAR + shapes_one_in(s, 2) : PRODUCT;
    const int64_t largest = HK_MAX(HK_MAX(m * n, m * k), HK_MAX(k * n, m * n * k / 16));
    s->most = largest ? most / largest : 1;
    const struct hk_shape batch = shapes_any(s, 0, HK_MAX_RANK - 2);
    transposed[0] = form == PRODUCT && shapes_one_in(s, 2);
    transposed[1] = form == LINEAR || (form == PRODUCT && shapes_one_in(s, 2));
    shapes_input(s, HK_F32, matrix(form ? batch : shapes_broadcastable(s, batch), m, k, transposed[0]), 0, 0);
    shapes_input(s, HK_F32, matrix(form ? HK_SCALAR : shapes_broadcastable(s, batch), k, n, transposed[1]), 0, 0);
    if (form && shapes_one_in(s, 2)) shapes_input(s, HK_F32, HK_SHAPE(n), 0, 0);
    s->most = most;
    s->c.build = build_matmul, s->c.reference = product_of, s->c.gradient = true;
    const double batches = (double)test_elements(batch);
    s->size = sqrt((double)k), s->gradient_size[2] = sqrt((double)m * batches);
    s->gradient_size[0] = sqrt((double)n * batches), s->gradient_size[1] = sqrt((double)m * batches);
    shapes_note(s, "%s%s%s ", (const char *[]){"product", "linear", "linear_kn"}[form],
                transposed[0] ? " a transposed" : "", transposed[1] ? " b transposed" : "");
}
void hk_shapes_matmul(struct shapes *s) { draw_product(s, true); }

/* ---- matmul_i8: the same of i8, which may be the inner columns of operands that are wider ---- */

static int64_t before[2], after[2]; /* columns of each operand that are left out, at both ends */

static struct hk_value *operand_i8(struct hk_value *x, int k) {
    x = hk_slice(hk_cast(x, HK_I8), -1, before[k], hk_value_shape(x).size[hk_value_shape(x).rank - 1] - after[k], 1);
    return transposed[k] ? hk_transpose(x) : x;
}
static struct hk_value *build_matmul_i8(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_matmul(operand_i8(in[0], 0), operand_i8(in[1], 1));
}

/* As product_of, of what is left of the operands. */
static void product_of_i8(const struct hk_case *c, const double *const *in, double *out) {
    struct hk_case narrow = *c;
    double *part[2];
    for (int k = 0; k < 2; k++) {
        struct hk_shape *const shape = &narrow.inputs[k].shape;
        const int64_t wide = shape->size[shape->rank - 1], columns = wide - before[k] - after[k];
        shape->size[shape->rank - 1] = columns;
        part[k] = malloc((size_t)(test_elements(*shape) + 1) * sizeof **part);
        if (!part[k]) abort();
        for (int64_t e = 0; e < test_elements(*shape); e++)
            part[k][e] = in[k][e / columns * wide + before[k] + e % columns];
    }
    product_of(&narrow, (const double *const *)part, out);
    free(part[0]);
    free(part[1]);
}

void hk_shapes_matmul_i8(struct shapes *s) {
    draw_product(s, false);
    s->c.build = build_matmul_i8, s->c.reference = product_of_i8, s->c.gradient = false, s->c.exact = true;
    s->c.tolerance = 1e-6; /* less than 1 for any sum that i32 holds */
    for (int k = 0; k < 2; k++) {
        struct hk_case_input *const input = &s->c.inputs[k];
        const bool part = shapes_one_in(s, 2);
        before[k] = part ? shapes_number(s, 0, 5) : 0, after[k] = part ? shapes_number(s, 0, 5) : 0;
        *input = (struct hk_case_input){HK_I32, input->shape, -128, 128};
        input->shape.size[input->shape.rank - 1] += before[k] + after[k];
        shapes_note(s, "columns %lld to -%lld ", (long long)before[k], (long long)after[k]);
    }
}

/* ---- attention ---- */

static const struct hk_case *case_named(const struct shapes *s, const char *name) {
    for (int i = 0; i < s->known->n_cases; i++)
        if (!strcmp(s->known->cases[i].name, name)) return &s->known->cases[i];
    abort();
}

/* One of the first `count` cases, or of those with operands of 16 bits, from case `narrow` on. */
static void make_attention(struct shapes *s, int count, int narrow, int narrow_count) {
    const int64_t most = s->most;
    shapes_known(s, count);
    if (shapes_one_in(s, 3)) s->c = s->known->cases[narrow + shapes_number(s, 0, narrow_count - 1)];
    static const int64_t depths[] = {1, 8, 33, 64, 128};
    const int64_t depth =
        s->on_device ? depths[shapes_number(s, 0, COUNT(depths) - 1)] : shapes_size(s, HK_MIN(256, most / 4));
    const bool few = shapes_one_in(s, 4); /* as in decoding, which has kernels of its own */
    const int64_t queries = shapes_size(s, HK_MIN(most / depth, few ? 4 : 600));
    int64_t keys = shapes_size(s, HK_MIN(most / depth, 600));
    keys = HK_MAX(1, HK_MIN(keys, 16 * most / depth / queries));
    const int64_t room = HK_MAX(1, HK_MIN(most / depth / HK_MAX(queries, keys), 16 * most / depth / queries / keys));
    const int64_t group = shapes_number(s, 1, HK_MIN(room, 4)), kv_heads = shapes_number(s, 1, HK_MIN(room / group, 4)),
                  batch = shapes_number(s, 1, HK_MIN(room / group / kv_heads, 3));
    s->c.inputs[0].shape = HK_SHAPE(batch, group * kv_heads, queries, depth);
    s->c.inputs[1].shape = s->c.inputs[2].shape = HK_SHAPE(batch, kv_heads, keys, depth);
    if (s->c.n_inputs == 4) s->c.inputs[3].shape = s->c.inputs[0].shape; /* dout */
    s->size = 1 / sqrt((double)keys);
    /* scale p (dv - sum(p dv)) k, where dv is a sum over the depth: all but 0 where p is all but 0 or 1 */
    for (int i = 0; i < 3; i++) s->gradient_size[i] = 0.3 + 0.25 * sqrt((double)depth);
}
void hk_shapes_attention_backward(struct shapes *s) {
    make_attention(s, 9, 13, 6);
    if (!s->c.gradient) s->size = s->gradient_size[0];
}
void hk_shapes_attention(struct shapes *s) {
    make_attention(s, 13, 20, 2);
    if (!shapes_one_in(s, 4)) return;
    const struct hk_case drawn = s->c;
    s->c = *case_named(s, "a cache with room"); /* keys of which only some exist, by a position that the device holds */
    for (int i = 0; i < 3; i++) s->c.inputs[i].shape = drawn.inputs[i].shape;
    const float position = (float)shapes_number(s, -2, drawn.inputs[1].shape.size[2] + 2);
    s->c.inputs[3].low = position, s->c.inputs[3].high = position + 1;
}

/* ---- rope: the known cases but for the heads ---- */

void hk_shapes_rope(struct shapes *s) {
    shapes_known(s, 6);
    const int64_t half = shapes_size(s, 130), length = shapes_size(s, s->most / half / 2);
    const int64_t room = HK_MAX(1, s->most / half / 2 / length), heads = shapes_size(s, room);
    s->c.inputs[0].shape = HK_SHAPE(shapes_size(s, room / heads), heads, length, 2 * half);
}

/* ---- cache_write: the cache as it is after ---- */

static struct hk_value *build_cache(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_tensor cache = {in[0]->root->storage, in[0]->root->storage_offset, HK_F32, hk_value_shape(in[0])};
    (void)graph;
    return hk_cache_write(&cache, in[1], in[2]);
}
static void cache_of(const struct hk_case *c, const double *const *in, double *out) {
    const struct hk_shape cache = c->inputs[0].shape, rows = c->inputs[1].shape;
    memcpy(out, in[0], (size_t)test_elements(cache) * sizeof *out);
    for (int64_t e = 0; e < test_elements(rows); e++) {
        int64_t at[HK_MAX_RANK];
        shapes_coordinates(rows, e, at);
        at[2] += (int64_t)in[2][0];
        if (at[2] >= 0 && at[2] < cache.size[2]) out[shapes_element(cache, at)] = in[1][e];
    }
}
void hk_shapes_cache_write(struct shapes *s) {
    struct hk_shape cache = shapes_any(s, 4, 4);
    for (int i = 0; i < 4; i++) cache.size[i] = HK_MAX(cache.size[i], 1);
    struct hk_shape rows = cache;
    rows.size[2] = shapes_size(s, cache.size[2]);
    const int64_t position = shapes_number(s, -3, cache.size[2] + 2);
    shapes_input(s, HK_F32, cache, 0, 0);
    shapes_input(s, HK_F32, rows, 0, 0);
    shapes_input(s, HK_I32, HK_SHAPE(1), (double)position, (double)position + 1);
    shapes_note(s, "at %lld ", (long long)position);
    s->c.build = build_cache, s->c.reference = cache_of, s->c.exact = true, s->c.no_strided = true;
}
