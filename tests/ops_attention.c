/* Cases of attention. Caches with a position on the device are in test_sequence.c. */
#include "cases.h"
#include <math.h>

#define F32(...)                                                                                                       \
    { .dtype = HK_F32, .shape = HK_SHAPE(__VA_ARGS__) }
#define QKV(q, kv) .inputs = {q, kv, kv}, .n_inputs = 3

static struct hk_value *build(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], NULL);
}
static struct hk_value *build_causal(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true});
}
static struct hk_value *build_scaled(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true, .scale = 1.7f});
}
/* As models use it: heads out of projections [B, T, H, D], heads merged after. */
static struct hk_value *build_heads(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *head[3];
    (void)graph;
    for (int i = 0; i < 3; i++) head[i] = hk_permute(in[i], HK_AXES(0, 2, 1, 3));
    struct hk_value *y = hk_attention(head[0], head[1], head[2], &(struct hk_attention_params){.causal = true});
    return hk_reshape(hk_permute(y, HK_AXES(0, 2, 1, 3)), HK_SHAPE(2, 19, 64));
}
/* The same tensor three times: its gradient has three parts. */
static struct hk_value *build_self(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[0], in[0], &(struct hk_attention_params){.causal = true});
}
static struct hk_value *build_positioned(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true, .position = in[3]});
}

/* ---- Plain arithmetic ---- */

struct sizes {
    int64_t batch, heads, kv_heads, queries, keys, depth;
};

/* One query [depth] against the keys and values [keys, depth], of which it sees the first `seen`. */
static void attend(const struct sizes *s, const double *q, const double *k, const double *v, int64_t seen, double scale,
                   double *out) {
    double most = -INFINITY, total = 0;
    for (int64_t d = 0; d < s->depth; d++) out[d] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = 0; j < seen; j++) {
            double score = 0;
            for (int64_t d = 0; d < s->depth; d++) score += q[d] * k[j * s->depth + d];
            score *= scale;
            if (pass == 0) {
                most = fmax(most, score);
                continue;
            }
            const double p = exp(score - most);
            total += p;
            for (int64_t d = 0; d < s->depth; d++) out[d] += p * v[j * s->depth + d];
        }
    for (int64_t d = 0; d < s->depth && total > 0; d++) out[d] /= total;
}

static void attention(const struct hk_case *c, const double *const *in, double *out, bool causal, double scale,
                      int64_t position) {
    const int64_t *q = c->inputs[0].shape.size, *k = c->inputs[1].shape.size;
    const struct sizes s = {q[0], q[1], k[1], q[2], k[2], q[3]};
    const int64_t exist = position >= 0 && position + s.queries < s.keys ? position + s.queries : s.keys;
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t t = 0; t < s.queries; t++) {
                const int64_t kv = (b * s.kv_heads + h / (s.heads / s.kv_heads)) * s.keys * s.depth;
                const int64_t row = ((b * s.heads + h) * s.queries + t) * s.depth;
                int64_t seen = causal ? t + 1 + exist - s.queries : exist;
                if (seen < 0) seen = 0;
                if (seen > exist) seen = exist;
                attend(&s, in[0] + row, in[1] + kv, in[2] + kv, seen, scale, out + row);
            }
}

static double usual_scale(const struct hk_case *c) { return 1 / sqrt((double)c->inputs[0].shape.size[3]); }

static void all_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, false, usual_scale(c), -1);
}
static void causal_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, usual_scale(c), -1);
}
static void scaled_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, 1.7, -1);
}
static void positioned_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, usual_scale(c), (int64_t)in[3][0]);
}

/* ---- Cases ---- */

static const struct hk_case cases[] = {
    {.name = "all keys", QKV(F32(2, 3, 17, 16), F32(2, 3, 17, 16)), .build = build, .reference = all_of},
    {.name = "causal", QKV(F32(2, 3, 17, 16), F32(2, 3, 17, 16)), .build = build_causal, .reference = causal_of},
    {.name = "own scale", QKV(F32(1, 2, 9, 8), F32(1, 2, 9, 8)), .build = build_scaled, .reference = scaled_of},
    {.name = "grouped heads", QKV(F32(2, 6, 11, 16), F32(2, 2, 11, 16)), .build = build_causal, .reference = causal_of},
    {.name = "more keys than queries",
     QKV(F32(1, 2, 7, 16), F32(1, 2, 40, 16)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "queries that see no key",
     QKV(F32(1, 2, 40, 16), F32(1, 2, 7, 16)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "one query", QKV(F32(2, 4, 1, 64), F32(2, 2, 300, 64)), .build = build_causal, .reference = causal_of},
    {.name = "one query, several blocks",
     QKV(F32(2, 4, 1, 16), F32(2, 4, 1000, 16)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "one key", QKV(F32(1, 1, 5, 8), F32(1, 1, 1, 8)), .build = build, .reference = all_of},
    {.name = "depth 1", QKV(F32(1, 2, 6, 1), F32(1, 2, 6, 1)), .build = build_causal, .reference = causal_of},
    {.name = "depth 33, no multiple of anything",
     QKV(F32(1, 2, 35, 33), F32(1, 2, 35, 33)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "depth 64, several blocks",
     QKV(F32(1, 2, 70, 64), F32(1, 1, 600, 64)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "depth 128, several tiles",
     QKV(F32(1, 1, 300, 128), F32(1, 1, 300, 128)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "depth 256", QKV(F32(1, 1, 20, 256), F32(1, 1, 33, 256)), .build = build, .reference = all_of},
    {.name = "heads of projections", QKV(F32(2, 19, 4, 16), F32(2, 19, 2, 16)), .build = build_heads},
    {.name = "no queries", QKV(F32(1, 2, 0, 8), F32(1, 2, 5, 8)), .build = build},
    {.name = "no keys", QKV(F32(1, 2, 5, 8), F32(1, 2, 0, 8)), .build = build, .reference = all_of},
    {.name = "a cache with room",
     .inputs = {F32(1, 2, 3, 16),
                F32(1, 2, 30, 16),
                F32(1, 2, 30, 16),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 12, .high = 13}},
     .n_inputs = 4,
     .build = build_positioned,
     .reference = positioned_of},
    {.name = "a full cache",
     .inputs = {F32(1, 2, 9, 16),
                F32(1, 2, 30, 16),
                F32(1, 2, 30, 16),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 21, .high = 22}},
     .n_inputs = 4,
     .build = build_positioned,
     .reference = positioned_of},
};

static const struct hk_case backward_cases[] = {
    {.name = "all keys", QKV(F32(1, 2, 7, 8), F32(1, 2, 7, 8)), .build = build, .gradient = true},
    {.name = "causal", QKV(F32(2, 2, 9, 16), F32(2, 2, 9, 16)), .build = build_causal, .gradient = true},
    {.name = "own scale", QKV(F32(1, 1, 6, 4), F32(1, 1, 6, 4)), .build = build_scaled, .gradient = true},
    {.name = "grouped heads", QKV(F32(1, 6, 5, 8), F32(1, 2, 5, 8)), .build = build_causal, .gradient = true},
    {.name = "more keys than queries", QKV(F32(1, 2, 3, 8), F32(1, 2, 11, 8)), .build = build_causal, .gradient = true},
    {.name = "queries that see no key", QKV(F32(1, 1, 9, 8), F32(1, 1, 4, 8)), .build = build_causal, .gradient = true},
    {.name = "depth 33", QKV(F32(1, 1, 35, 33), F32(1, 1, 35, 33)), .build = build_causal, .gradient = true},
    {.name = "depth 64, several blocks",
     QKV(F32(1, 2, 40, 64), F32(1, 1, 300, 64)),
     .build = build_causal,
     .gradient = true},
    {.name = "depth 128", QKV(F32(1, 1, 33, 128), F32(1, 1, 33, 128)), .build = build_causal, .gradient = true},
    {.name = "depth 136, of several workgroups",
     QKV(F32(1, 2, 5, 136), F32(1, 1, 70, 136)),
     .build = build_causal,
     .gradient = true},
    {.name = "depth 256", QKV(F32(1, 1, 9, 256), F32(1, 1, 9, 256)), .build = build, .gradient = true},
    {.name = "heads of projections", QKV(F32(2, 19, 4, 16), F32(2, 19, 2, 16)), .build = build_heads, .gradient = true},
    {.name = "one tensor for all", .inputs = {F32(1, 2, 9, 8)}, .n_inputs = 1, .build = build_self, .gradient = true},
};

static const struct hk_refusal refusals[] = {
    {"three dimensions",
     {F32(2, 3, 4), F32(2, 3, 4), F32(2, 3, 4)},
     3,
     build,
     "attention: q, k and v need four dimensions"},
    {"k and v differ",
     {F32(1, 2, 3, 4), F32(1, 2, 3, 4), F32(1, 2, 5, 4)},
     3,
     build,
     "attention: k and v differ in shape"},
    {"depths differ", {F32(1, 2, 3, 4), F32(1, 2, 3, 8), F32(1, 2, 3, 8)}, 3, build, "attention: head depths differ"},
    {"batches differ", {F32(1, 2, 3, 4), F32(2, 2, 3, 4), F32(2, 2, 3, 4)}, 3, build, "attention: batch sizes differ"},
    {"heads that are no multiple",
     {F32(1, 5, 3, 4), F32(1, 2, 3, 4), F32(1, 2, 3, 4)},
     3,
     build,
     "attention: query heads must be a multiple of key heads"},
    {"too deep",
     {F32(1, 1, 3, 260), F32(1, 1, 3, 260), F32(1, 1, 3, 260)},
     3,
     build,
     "attention: heads deeper than 256 are not supported"},
    {"a position that is no integer",
     {F32(1, 1, 3, 4), F32(1, 1, 3, 4), F32(1, 1, 3, 4), F32(1)},
     4,
     build_positioned,
     "attention: position must be i32 [1], not f32 [1]"},
};

const struct hk_case_set hk_cases_attention = {cases, sizeof cases / sizeof *cases, refusals,
                                               sizeof refusals / sizeof *refusals};
const struct hk_case_set hk_cases_attention_backward = {backward_cases, sizeof backward_cases / sizeof *backward_cases,
                                                        NULL, 0};
