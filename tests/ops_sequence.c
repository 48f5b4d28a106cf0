/* Cases of embedding and rope. Indices out of range, positions on the device and caches are in test_sequence.c. */
#include "cases.h"
#include <math.h>

#define F32(...) {.dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__)}
#define I32(end, ...) {.dtype = HK_I32, .shape = HK_SHAPE(__VA_ARGS__), .high = end}
#define SET(list, wrong) {list, sizeof(list) / sizeof *(list), wrong, sizeof(wrong) / sizeof *(wrong)}

/* ---- Embedding ---- */

static struct hk_value *build_embedding(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_embedding(in[0], in[1]);
}

/* The table is used twice, as GPT-2's is: y = table[index] table^T. Its gradients are added in place. */
static struct hk_value *build_tied(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_matmul(hk_embedding(in[0], in[1]), hk_transpose(in[0]));
}

/* The other gradient of the table is in[2]'s too, and so must not be added to in place. */
static struct hk_value *build_tied_sum(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_matmul(hk_embedding(in[0], in[1]), hk_transpose(hk_add(in[0], in[2])));
}

static void embedding_of(const struct hk_case *c, const double *const *in, double *out) {
    const int64_t width = c->inputs[0].shape.size[1];
    int64_t count = 1;
    for (int i = 0; i < c->inputs[1].shape.rank; i++) count *= c->inputs[1].shape.size[i];
    for (int64_t n = 0; n < count; n++)
        for (int64_t i = 0; i < width; i++) out[n * width + i] = in[0][(int64_t)in[1][n] * width + i];
}

static const struct hk_case embedding_cases[] = {
    {.name = "odd sizes", .inputs = {F32(11, 37), I32(11, 3, 5)}, .n_inputs = 2, .build = build_embedding,
     .reference = embedding_of, .exact = true},
    {.name = "rows of one", .inputs = {F32(5, 1), I32(5, 9)}, .n_inputs = 2, .build = build_embedding,
     .reference = embedding_of, .exact = true},
    {.name = "one index", .inputs = {F32(5, 70), {.dtype = HK_I32, .shape = {0, {0}}, .high = 5}}, .n_inputs = 2,
     .build = build_embedding, .reference = embedding_of, .exact = true},
    {.name = "no indices", .inputs = {F32(5, 7), I32(5, 0)}, .n_inputs = 2, .build = build_embedding},
};
static const struct hk_case embedding_backward_cases[] = {
    {.name = "odd sizes", .inputs = {F32(11, 37), I32(11, 3, 5)}, .n_inputs = 2, .build = build_embedding, .gradient = true},
    {.name = "few rows, many positions", .inputs = {F32(3, 5), I32(3, 2500)}, .n_inputs = 2, .build = build_embedding,
     .gradient = true},
    {.name = "several chunks of positions", .inputs = {F32(5, 3), I32(5, 500)}, .n_inputs = 2, .build = build_embedding,
     .gradient = true},
    {.name = "wide rows", .inputs = {F32(2, 300), I32(2, 7)}, .n_inputs = 2, .build = build_embedding, .gradient = true},
    {.name = "wider rows, each of few positions", .inputs = {F32(50, 1028), I32(50, 19)}, .n_inputs = 2,
     .build = build_embedding, .gradient = true},
    {.name = "rows of whole fours", .inputs = {F32(3, 12), I32(3, 300)}, .n_inputs = 2, .build = build_embedding,
     .gradient = true},
    {.name = "a table used twice", .inputs = {F32(9, 6), I32(9, 14)}, .n_inputs = 2, .build = build_tied, .gradient = true},
    {.name = "a gradient that two share", .inputs = {F32(9, 6), I32(9, 14), F32(9, 6)}, .n_inputs = 3,
     .build = build_tied_sum, .gradient = true},
};
static const struct hk_refusal embedding_refusals[] = {
    {"a table of three dimensions", {F32(2, 3, 4), I32(2, 5)}, 2, build_embedding,
     "embedding: table must be [V, C], it is [2, 3, 4]"},
    {"an index that is no integer", {F32(3, 4), F32(5)}, 2, build_embedding, "embedding: index must be i32, it is f32"},
    {"an empty table", {F32(0, 4), I32(3, 5)}, 2, build_embedding, "embedding: the table has no rows"},
};

const struct hk_case_set hk_cases_embedding = SET(embedding_cases, embedding_refusals);
const struct hk_case_set hk_cases_embedding_backward = {embedding_backward_cases, 8, NULL, 0};

/* ---- Rope ---- */

static const struct hk_rope_params adjacent = {.style = HK_ROPE_ADJACENT, .base = 500000, .start = 5};
static const struct hk_rope_params far_away = {.style = HK_ROPE_HALF, .start = 8000};
static const struct hk_rope_params before = {.style = HK_ROPE_HALF, .start = -9};

static struct hk_value *build_rope(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], NULL);
}
static struct hk_value *build_adjacent(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], &adjacent);
}
static struct hk_value *build_far(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], &far_away);
}
static struct hk_value *build_before(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], &before);
}
/* Heads out of a projection, [B, T, H * D]: a view that rope reads in place. */
static struct hk_value *build_heads(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(hk_permute(hk_reshape(in[0], HK_SHAPE(2, 5, 3, 8)), HK_AXES(0, 2, 1, 3)), NULL);
}

static void rotate(const struct hk_case *c, const double *x, double *y, const struct hk_rope_params *how) {
    const int64_t *size = c->inputs[0].shape.size, width = size[3], length = size[2];
    for (int64_t row = 0; row < size[0] * size[1] * length; row++)
        for (int64_t i = 0; i < width / 2; i++) {
            const double frequency = pow(how->base != 0 ? (double)how->base : 10000.0, -2.0 * (double)i / (double)width);
            const double angle = (double)(how->start + row % length) * frequency;
            const bool near = how->style == HK_ROPE_ADJACENT;
            const int64_t first = row * width + (near ? 2 * i : i), second = first + (near ? 1 : width / 2);
            y[first] = x[first] * cos(angle) - x[second] * sin(angle);
            y[second] = x[second] * cos(angle) + x[first] * sin(angle);
        }
}
static void rope_plain(const struct hk_case *c, const double *const *in, double *out) {
    rotate(c, in[0], out, &(struct hk_rope_params){0});
}
static void rope_adjacent(const struct hk_case *c, const double *const *in, double *out) { rotate(c, in[0], out, &adjacent); }
static void rope_far(const struct hk_case *c, const double *const *in, double *out) { rotate(c, in[0], out, &far_away); }
static void rope_before(const struct hk_case *c, const double *const *in, double *out) { rotate(c, in[0], out, &before); }

static const struct hk_case rope_cases[] = {
    {.name = "halves", .inputs = {F32(2, 3, 7, 16)}, .n_inputs = 1, .build = build_rope, .reference = rope_plain, .gradient = true},
    {.name = "adjacent", .inputs = {F32(1, 2, 9, 32)}, .n_inputs = 1, .build = build_adjacent, .reference = rope_adjacent,
     .gradient = true},
    {.name = "odd pairs", .inputs = {F32(2, 1, 5, 38)}, .n_inputs = 1, .build = build_rope, .reference = rope_plain},
    {.name = "one pair", .inputs = {F32(1, 3, 4, 2)}, .n_inputs = 1, .build = build_rope, .reference = rope_plain},
    {.name = "large positions", .inputs = {F32(1, 1, 300, 128)}, .n_inputs = 1, .build = build_far, .reference = rope_far},
    {.name = "negative positions", .inputs = {F32(1, 2, 20, 8)}, .n_inputs = 1, .build = build_before, .reference = rope_before},
    {.name = "heads in place", .inputs = {F32(2, 5, 24)}, .n_inputs = 1, .build = build_heads, .gradient = true},
    {.name = "no rows", .inputs = {F32(2, 3, 0, 8)}, .n_inputs = 1, .build = build_rope},
};

static struct hk_value *build_bad_base(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], &(struct hk_rope_params){.base = 0.5f});
}
static struct hk_value *build_bad_position(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_rope(in[0], &(struct hk_rope_params){.position = in[1]});
}
static const struct hk_refusal rope_refusals[] = {
    {"odd width", {F32(1, 2, 3, 5)}, 1, build_rope, "rope: x must be [B, H, T, D] with D even"},
    {"three dimensions", {F32(2, 3, 4)}, 1, build_rope, "it is [2, 3, 4]"},
    {"a small base", {F32(1, 2, 3, 4)}, 1, build_bad_base, "rope: base must be greater than 1"},
    {"two positions", {F32(1, 2, 3, 4), I32(3, 2)}, 2, build_bad_position, "rope: position must be [1], it is [2]"},
};

const struct hk_case_set hk_cases_rope = SET(rope_cases, rope_refusals);

/* ---- Caches: what is written is in test_sequence.c ---- */

const struct hk_case_set hk_cases_cache_write = {NULL, 0, NULL, 0};
