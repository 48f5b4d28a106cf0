/* Cases of attention. Caches with a position on the device are in test_sequence.c. */
#include "cases.h"
#include <math.h>
#include <stdlib.h>

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

static struct hk_value *build_positioned_all(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.position = in[3]});
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

enum { WHOLE = INT32_MAX }; /* for a position: all keys exist */
static void attention(const struct hk_case *c, const double *const *in, double *out, bool causal, double scale,
                      int64_t position) {
    const int64_t *q = c->inputs[0].shape.size, *k = c->inputs[1].shape.size;
    const struct sizes s = {q[0], q[1], k[1], q[2], k[2], q[3]};
    const int64_t filled = position + s.queries < 0 ? 0 : position + s.queries; /* of a cache */
    const int64_t exist = position != WHOLE && filled < s.keys ? filled : s.keys;
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
    attention(c, in, out, false, usual_scale(c), WHOLE);
}
static void causal_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, usual_scale(c), WHOLE);
}
static void scaled_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, 1.7, WHOLE);
}
static void positioned_all_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, false, usual_scale(c), (int64_t)in[3][0]);
}
static void positioned_of(const struct hk_case *c, const double *const *in, double *out) {
    attention(c, in, out, true, usual_scale(c), (int64_t)in[3][0]);
}

/* ---- Operands of 16 bits ---- */

static double rounded(double x, enum hk_dtype dtype) {
    return (double)(dtype == HK_F16 ? hk_f32_from_f16(hk_f16_from_f32((float)x))
                                    : hk_f32_from_bf16(hk_bf16_from_f32((float)x)));
}

static void round_inputs(const struct hk_case *c, const double *const *in, enum hk_dtype dtype, int count, double **to) {
    for (int i = 0; i < count; i++) {
        int64_t n = 1;
        for (int d = 0; d < c->inputs[i].shape.rank; d++) n *= c->inputs[i].shape.size[d];
        to[i] = malloc((size_t)(n + 1) * sizeof **to);
        if (!to[i]) abort();
        for (int64_t k = 0; k < n; k++) to[i][k] = rounded(in[i][k], dtype);
    }
}

static void narrow_attention(const struct hk_case *c, const double *const *in, double *out, enum hk_dtype dtype, bool causal,
                             int64_t position) {
    double *x[3];
    round_inputs(c, in, dtype, 3, x);
    attention(c, (const double *const *)x, out, causal, usual_scale(c), position);
    for (int i = 0; i < 3; i++) free(x[i]);
}

/* dq, dk or dv (which) of sum(out * dout), dout being in[3]. */
static void gradient(const struct hk_case *c, const double *const *in, double *out, int which, bool causal) {
    const int64_t *q = c->inputs[0].shape.size, *k = c->inputs[1].shape.size, *o = c->inputs[which].shape.size;
    const int64_t heads = q[1], queries = q[2], keys = k[2], depth = q[3];
    const double scale = usual_scale(c);
    double *p = malloc((size_t)(2 * keys) * sizeof *p), *dp = p + keys;
    if (!p) abort();
    for (int64_t i = 0; i < o[0] * o[1] * o[2] * o[3]; i++) out[i] = 0;
    for (int64_t row = 0; row < q[0] * heads * queries; row++) {
        const int64_t b = row / queries / heads, h = row / queries % heads, t = row % queries;
        const int64_t kv = (b * k[1] + h / (heads / k[1])) * keys, seen = causal ? t + 1 + keys - queries : keys;
        const double *query = in[0] + row * depth, *key = in[1] + kv * depth, *value = in[2] + kv * depth,
                     *dout = in[3] + row * depth;
        double most = -INFINITY, total = 0, delta = 0;
        for (int pass = 0; pass < 4; pass++)
            for (int64_t j = 0; j < seen && j < keys; j++) {
                if (pass == 0) {
                    p[j] = dp[j] = 0;
                    for (int64_t d = 0; d < depth; d++) {
                        p[j] += query[d] * key[j * depth + d] * scale;
                        dp[j] += dout[d] * value[j * depth + d];
                    }
                    most = fmax(most, p[j]);
                } else if (pass == 1) {
                    total += p[j] = exp(p[j] - most);
                } else if (pass == 2) {
                    delta += (p[j] /= total) * dp[j];
                } else {
                    const double ds = p[j] * (dp[j] - delta) * scale;
                    for (int64_t d = 0; d < depth; d++)
                        if (which == 0) out[row * depth + d] += ds * key[j * depth + d];
                        else if (which == 1) out[(kv + j) * depth + d] += ds * query[d];
                        else out[(kv + j) * depth + d] += p[j] * dout[d];
                }
            }
    }
    free(p);
}

static struct hk_value *narrow_of(struct hk_value *const *in, enum hk_dtype dtype, bool causal, struct hk_value *position) {
    return hk_attention(hk_cast(in[0], dtype), hk_cast(in[1], dtype), hk_cast(in[2], dtype),
                        &(struct hk_attention_params){.causal = causal, .position = position});
}
/* Rounding has no gradient of its own, so no finite differences. */
static struct hk_value *narrow_gradient(struct hk_value *const *in, enum hk_dtype dtype, int which, bool causal) {
    struct hk_value *x[3], *grad = NULL;
    for (int i = 0; i < 3; i++) x[i] = hk_cast(in[i], dtype);
    struct hk_value *y = narrow_of(x, dtype, causal, NULL);
    if (!y || hk_value_dtype(y) != dtype) return NULL;
    hk_gradients(hk_sum(hk_mul(hk_cast(y, HK_F32), in[3]), HK_ALL_AXES, false), &x[which], 1, &grad);
    return grad && hk_value_dtype(grad) == dtype ? grad : NULL;
}
#define NARROW(name, dtype)                                                                                            \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return narrow_of(in, dtype, true, NULL);                                                                       \
    }                                                                                                                  \
    static struct hk_value *name##_all(struct hk_graph *graph, struct hk_value *const *in) {                           \
        (void)graph;                                                                                                   \
        return narrow_of(in, dtype, false, NULL);                                                                      \
    }                                                                                                                  \
    static struct hk_value *name##_positioned(struct hk_graph *graph, struct hk_value *const *in) {                    \
        (void)graph;                                                                                                   \
        return narrow_of(in, dtype, true, in[3]);                                                                      \
    }                                                                                                                  \
    static void name##_positioned_of(const struct hk_case *c, const double *const *in, double *out) {                  \
        narrow_attention(c, in, out, dtype, true, (int64_t)in[3][0]);                                                  \
    }                                                                                                                  \
    static void name##_all_of(const struct hk_case *c, const double *const *in, double *out) {                         \
        narrow_attention(c, in, out, dtype, false, WHOLE);                                                             \
    }                                                                                                                  \
    static void name##_of(const struct hk_case *c, const double *const *in, double *out) {                             \
        narrow_attention(c, in, out, dtype, true, WHOLE);                                                              \
    }
NARROW(f16, HK_F16)
NARROW(bf16, HK_BF16)
#define NARROW_GRADIENT(name, dtype, which, causal)                                                                    \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return narrow_gradient(in, dtype, which, causal);                                                              \
    }                                                                                                                  \
    static void name##_of(const struct hk_case *c, const double *const *in, double *out) {                             \
        double *x[4];                                                                                                  \
        round_inputs(c, in, dtype, 4, x);                                                                              \
        gradient(c, (const double *const *)x, out, which, causal);                                                     \
        for (int i = 0; i < 4; i++) free(x[i]);                                                                        \
    }
NARROW_GRADIENT(dq_f16, HK_F16, 0, true)
NARROW_GRADIENT(dk_f16, HK_F16, 1, true)
NARROW_GRADIENT(dv_f16, HK_F16, 2, true)
NARROW_GRADIENT(dq_bf16, HK_BF16, 0, true)
NARROW_GRADIENT(dk_bf16, HK_BF16, 1, true)
NARROW_GRADIENT(dv_bf16, HK_BF16, 2, true)
NARROW_GRADIENT(dq_all, HK_F16, 0, false)
NARROW_GRADIENT(dk_all, HK_F16, 1, false)
NARROW_GRADIENT(dv_all, HK_F16, 2, false)

/* All but the first and last element of each row, and head: rows that begin in the middle of a word. */
static struct hk_value *build_inner(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *x[3];
    (void)graph;
    for (int i = 0; i < 3; i++) x[i] = hk_slice(hk_cast(in[i], HK_BF16), 3, 1, -1, 1);
    return hk_attention(x[0], x[1], x[2], NULL);
}
/* The same with two elements on each side: rows of whole words that are not aligned as vectors are. */
static struct hk_value *build_words(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *x[3];
    (void)graph;
    for (int i = 0; i < 3; i++) x[i] = hk_slice(hk_cast(in[i], HK_F16), 3, 2, -2, 1);
    return hk_attention(x[0], x[1], x[2], NULL);
}
/* As build_heads, of one projection's parts. */
static struct hk_value *build_heads_f16(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *head[3];
    (void)graph;
    for (int i = 0; i < 3; i++)
        head[i] = hk_permute(hk_slice(hk_cast(in[0], HK_F16), 2, 4 * i, 4 * i + 4, 1), HK_AXES(0, 2, 1, 3));
    struct hk_value *y = hk_attention(head[0], head[1], head[2], &(struct hk_attention_params){.causal = true});
    return hk_reshape(hk_permute(y, HK_AXES(0, 2, 1, 3)), HK_SHAPE(2, 19, 64));
}

/* ---- Cases ---- */

/* Results of two devices may be a unit in the last place apart, 2^-10 or 2^-7 of what they are: 10 and 80 times the usual. Kernels
   with cooperative matrices round probabilities besides, and gradients are made of the rounded result: half a unit of all
   that is summed, where the sum may be all but 0. */
enum { TOLERANCE_F16 = 40, TOLERANCE_BF16 = 320 };
#define GRADIENT_CASES(title, which, q, kv)                                                                            \
    {.name = title " f16",                                                                                             \
     .inputs = {q, kv, kv, q},                                                                                         \
     .n_inputs = 4,                                                                                                    \
     .build = which##_f16,                                                                                             \
     .reference = which##_f16_of,                                                                                      \
     .tolerance = TOLERANCE_F16},                                                                                      \
    {                                                                                                                  \
        .name = title " bf16", .inputs = {q, kv, kv, q}, .n_inputs = 4, .build = which##_bf16,                         \
        .reference = which##_bf16_of, .tolerance = TOLERANCE_BF16                                                      \
    }
#define NARROW_CASES(title, q, kv)                                                                                     \
    {.name = title " f16",                                                                                             \
     .inputs = {q, kv, kv},                                                                                            \
     .n_inputs = 3,                                                                                                    \
     .build = f16,                                                                                                     \
     .reference = f16_of,                                                                                              \
     .tolerance = TOLERANCE_F16},                                                                                      \
    {                                                                                                                  \
        .name = title " bf16", .inputs = {q, kv, kv}, .n_inputs = 3, .build = bf16, .reference = bf16_of,              \
        .tolerance = TOLERANCE_BF16                                                                                    \
    }

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
    {.name = "no key exists yet",
     .inputs = {F32(1, 1, 8, 16),
                F32(1, 1, 30, 16),
                F32(1, 1, 30, 16),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = -8, .high = -7}},
     .n_inputs = 4,
     .build = build_positioned_all,
     .reference = positioned_all_of},
    NARROW_CASES("tokens,", F32(2, 3, 17, 16), F32(2, 3, 17, 16)),
    NARROW_CASES("grouped heads,", F32(2, 6, 11, 32), F32(2, 2, 11, 32)),
    NARROW_CASES("one query,", F32(2, 4, 1, 64), F32(2, 2, 300, 64)),
    NARROW_CASES("queries that see no key,", F32(1, 2, 40, 16), F32(1, 2, 7, 16)),
    NARROW_CASES("odd depth,", F32(1, 2, 35, 33), F32(1, 2, 35, 33)),
    NARROW_CASES("several blocks,", F32(1, 2, 70, 64), F32(1, 1, 600, 64)),
    NARROW_CASES("depth 48,", F32(1, 2, 80, 48), F32(1, 1, 80, 48)),
    NARROW_CASES("depth 64, many queries,", F32(1, 1, 100, 64), F32(1, 1, 100, 64)),
    NARROW_CASES("depth 128,", F32(1, 1, 150, 128), F32(1, 1, 150, 128)),
    NARROW_CASES("depth 256,", F32(1, 1, 20, 256), F32(1, 1, 33, 256)),
    {.name = "rows between words, bf16",
     QKV(F32(1, 2, 9, 10), F32(1, 2, 9, 10)),
     .build = build_inner,
     .tolerance = TOLERANCE_BF16},
    {.name = "rows of whole words, f16",
     QKV(F32(1, 2, 35, 20), F32(1, 2, 70, 20)),
     .build = build_words,
     .tolerance = TOLERANCE_F16},
    {.name = "all keys, depth 20, f16",
     QKV(F32(1, 2, 35, 20), F32(1, 1, 70, 20)),
     .build = f16_all,
     .reference = f16_all_of,
     .tolerance = TOLERANCE_F16},
    {.name = "all keys, depth 64, bf16",
     QKV(F32(1, 2, 70, 64), F32(1, 1, 50, 64)),
     .build = bf16_all,
     .reference = bf16_all_of,
     .tolerance = TOLERANCE_BF16},
    {.name = "heads of a projection, f16",
     .inputs = {F32(2, 19, 12, 16)},
     .n_inputs = 1,
     .build = build_heads_f16,
     .tolerance = TOLERANCE_F16},
    {.name = "no keys, f16", QKV(F32(1, 2, 5, 8), F32(1, 2, 0, 8)), .build = f16, .reference = f16_of},
    {.name = "a cache with room, bf16",
     .inputs = {F32(1, 2, 3, 16),
                F32(1, 2, 30, 16),
                F32(1, 2, 30, 16),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 12, .high = 13}},
     .n_inputs = 4,
     .build = bf16_positioned,
     .reference = bf16_positioned_of,
     .tolerance = TOLERANCE_BF16},
    {.name = "a cache with room, f16",
     .inputs = {F32(1, 2, 1, 64),
                F32(1, 2, 300, 64),
                F32(1, 2, 300, 64),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 212, .high = 213}},
     .n_inputs = 4,
     .build = f16_positioned,
     .reference = f16_positioned_of,
     .tolerance = TOLERANCE_F16},
    /* few queries and many keys: on devices with many processors workgroups have parts of these */
    {.name = "parts, one query", QKV(F32(2, 4, 1, 64), F32(2, 2, 1100, 64)), .build = build, .reference = all_of},
    {.name = "parts, four queries, causal",
     QKV(F32(1, 2, 4, 33), F32(1, 2, 1030, 33)),
     .build = build_causal,
     .reference = causal_of},
    {.name = "parts, depth 1", QKV(F32(1, 2, 2, 1), F32(1, 1, 600, 1)), .build = build_causal, .reference = causal_of},
    {.name = "parts, depth 256", QKV(F32(1, 2, 1, 256), F32(1, 1, 1500, 256)), .build = build, .reference = all_of},
    NARROW_CASES("parts,", F32(1, 6, 2, 64), F32(1, 2, 2100, 64)),
    NARROW_CASES("parts, depth 128,", F32(2, 1, 1, 128), F32(2, 1, 513, 128)),
    {.name = "parts, a cache with room",
     .inputs = {F32(1, 2, 1, 64),
                F32(1, 2, 1100, 64),
                F32(1, 2, 1100, 64),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 700, .high = 701}},
     .n_inputs = 4,
     .build = build_positioned,
     .reference = positioned_of},
    {.name = "parts, a cache with few keys",
     .inputs = {F32(1, 2, 3, 64),
                F32(1, 1, 1100, 64),
                F32(1, 1, 1100, 64),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 40, .high = 41}},
     .n_inputs = 4,
     .build = build_positioned,
     .reference = positioned_of},
    {.name = "parts, no key exists yet",
     .inputs = {F32(1, 2, 2, 16),
                F32(1, 2, 1100, 16),
                F32(1, 2, 1100, 16),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = -2, .high = -1}},
     .n_inputs = 4,
     .build = build_positioned_all,
     .reference = positioned_all_of},
    {.name = "parts, a cache with room, f16",
     .inputs = {F32(2, 2, 1, 64),
                F32(2, 1, 1100, 64),
                F32(2, 1, 1100, 64),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 1030, .high = 1031}},
     .n_inputs = 4,
     .build = f16_positioned,
     .reference = f16_positioned_of,
     .tolerance = TOLERANCE_F16},
    {.name = "parts, a cache with few keys, bf16",
     .inputs = {F32(1, 2, 2, 32),
                F32(1, 1, 1100, 32),
                F32(1, 1, 1100, 32),
                {.dtype = HK_I32, .shape = HK_SHAPE(1), .low = 130, .high = 131}},
     .n_inputs = 4,
     .build = bf16_positioned,
     .reference = bf16_positioned_of,
     .tolerance = TOLERANCE_BF16},
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
    GRADIENT_CASES("dq,", dq, F32(2, 4, 19, 16), F32(2, 2, 19, 16)),
    GRADIENT_CASES("dk,", dk, F32(2, 4, 19, 16), F32(2, 2, 19, 16)),
    GRADIENT_CASES("dv,", dv, F32(2, 4, 19, 16), F32(2, 2, 19, 16)),
    GRADIENT_CASES("dq of several blocks,", dq, F32(1, 2, 40, 64), F32(1, 1, 300, 64)),
    GRADIENT_CASES("dk of several blocks,", dk, F32(1, 2, 40, 64), F32(1, 1, 300, 64)),
    GRADIENT_CASES("dv of several blocks,", dv, F32(1, 2, 40, 64), F32(1, 1, 300, 64)),
    GRADIENT_CASES("dq, queries that see no key,", dq, F32(1, 1, 9, 8), F32(1, 1, 4, 8)),
    GRADIENT_CASES("dq of depth 136,", dq, F32(1, 2, 5, 136), F32(1, 1, 70, 136)),
    GRADIENT_CASES("dk of depth 136,", dk, F32(1, 2, 5, 136), F32(1, 1, 70, 136)),
    GRADIENT_CASES("dk of depth 80,", dk, F32(1, 1, 35, 80), F32(1, 1, 35, 80)),
    GRADIENT_CASES("dv of depth 48,", dv, F32(1, 2, 67, 48), F32(1, 1, 70, 48)),
#define ALL_KEYS(which)                                                                                                \
    {                                                                                                                  \
        .name = #which " of all keys, depth 20",                                                                       \
        .inputs = {F32(1, 2, 35, 20), F32(1, 1, 70, 20), F32(1, 1, 70, 20), F32(1, 2, 35, 20)}, .n_inputs = 4,         \
        .build = which##_all, .reference = which##_all_of, .tolerance = TOLERANCE_F16                                  \
    }
    ALL_KEYS(dq),
    ALL_KEYS(dk),
    ALL_KEYS(dv),
};

static struct hk_value *build_two_dtypes(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], hk_cast(in[1], HK_F16), in[2], NULL);
}

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
    {"dtypes differ",
     {F32(1, 2, 3, 4), F32(1, 2, 3, 4), F32(1, 2, 3, 4)},
     3,
     build_two_dtypes,
     "attention: q, k and v must be f32, f16 or bf16, and the same"},
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
