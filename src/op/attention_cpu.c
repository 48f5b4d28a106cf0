/* Attention on the CPU, block by block with a running softmax (Dao et al., 2022).

   Scores lie transposed, [keys, queries]: queries are lanes, so that maxima and sums of the softmax need no sums across
   a vector. A tile is as many queries as the register tile has columns, and its scores lie that far apart: products
   read them as they lie, with queries as rows (GEMM_ACROSS) or keys as rows (GEMM_ALONG). */
#ifdef HK_ISA_NAME
#include "op/attention.h"
#include "op/gemm.h"
#include <float.h>

#define TILE GEMM_COLUMNS /* queries */
#define TILES 8           /* per job */
#define KEYS ATTENTION_CPU_KEYS /* per block */

/* The step's operands and sizes. Of 16 bits are all operands (but lse) or none; sums are f32. */
struct attention {
    const struct hk_step *step;
    enum hk_dtype type;
    int64_t batch, heads, kv_heads, queries, keys, depth;
    int64_t offset; /* query t sees keys up to t + offset */
    float scale;
    char *workspace;
    size_t workspace_bytes;
};

static struct attention read_step(const struct hk_step *step, const struct cpu *cpu) {
    const struct hk_operand *q = &step->inputs[ATTENTION_Q], *k = &step->inputs[ATTENTION_K];
    const struct attention_attrs *attrs = step->attrs;
    return (struct attention){.step = step,
                              .type = q->dtype,
                              .batch = q->shape[0],
                              .heads = q->shape[1],
                              .kv_heads = k->shape[1],
                              .queries = q->shape[2],
                              .keys = k->shape[2],
                              .depth = q->shape[3],
                              .scale = attrs->scale,
                              .offset = attrs->causal ? k->shape[2] - q->shape[2] : INT32_MAX,
                              .workspace = cpu->workspace,
                              .workspace_bytes = cpu->workspace_bytes};
}

static float *take(float **workspace, int64_t floats) {
    float *p = *workspace;
    *workspace += (floats + GEMM_SLACK + 15) / 16 * 16;
    return p;
}

/* The columns of packed rows [.., depth]. */
static int64_t padded(int64_t depth) { return (depth + TILE - 1) / TILE * TILE; }

/* Rows of a head from row t on. */
static void *rows_at(const struct hk_operand *o, int64_t b, int64_t h, int64_t t) {
    const int64_t element = b * o->stride[0] + h * o->stride[1] + t * o->stride[2];
    return (char *)cpu_data(o) + element * (int64_t)hk_dtype_size(o->dtype);
}

/* ---- Products of packed strips ---- */

static int64_t strip_count(int64_t rows) { return (rows + GEMM_ROWS - 1) / GEMM_ROWS; }

/* Packs a left operand [rows, k] strip after strip; multiply() reads it. */
static void pack_left(float *packed, const void *source, enum hk_dtype type, int64_t rows, int64_t k,
                      int64_t row_stride, int64_t k_stride) {
    const int64_t strips = strip_count(rows);
    for (int64_t s = 0; s < strips; s++) {
        const int64_t from = s * rows / strips, height = (s + 1) * rows / strips - from;
        gemm_pack_any(packed + from * k, height, gemm_at(source, type, from * row_stride), type, height, k, row_stride,
                      k_stride);
    }
}

/* Scores [rows of the strips that begin before `until`, width] = left right, the left operand packed as [rows, k].
   width is one strip of the right operand. */
static void multiply(const float *left, int64_t rows, int64_t until, int64_t k, const float *right, int64_t width,
                     float *scores) {
    const int64_t strips = strip_count(rows);
    for (int64_t s = 0; s < strips; s++) {
        const int64_t from = s * rows / strips, height = (s + 1) * rows / strips - from;
        if (from >= until) break;
        gemm_tile((int)height, width, k, left + from * k, GEMM_PACKED, right, scores + from * TILE, TILE, GEMM_SET,
                  NULL);
    }
}

/* Packs rows [count, depth] as a right operand, strip after strip of columns; multiply_scores() reads it. */
static void pack_rows(float *packed, const void *source, enum hk_dtype type, int64_t count, int64_t depth,
                      int64_t row_stride) {
    for (int64_t d = 0; d < depth; d += GEMM_COLUMNS) {
        const int64_t columns = HK_MIN(depth - d, GEMM_COLUMNS);
        gemm_pack_any(packed + d * count, gemm_vectors(columns) * VW, gemm_at(source, type, d), type, columns, count, 1,
                      row_stride);
    }
}

/* c [rows, depth] (+)= scores times the first k of the packed rows [count, depth]. The scores' rows are queries where
   they lie across, else keys. */
static void multiply_scores(const float *scores, enum gemm_left left, int64_t rows, int64_t k, const float *packed,
                            int64_t count, int64_t depth, float *c, int64_t c_row, enum gemm_start start) {
    const int64_t strips = strip_count(rows);
    for (int64_t s = 0; s < strips; s++) {
        const int64_t from = s * rows / strips, height = (s + 1) * rows / strips - from;
        for (int64_t d = 0; d < depth; d += GEMM_COLUMNS)
            gemm_tile((int)height, HK_MIN(depth - d, GEMM_COLUMNS), k,
                      scores + (left == GEMM_ACROSS ? from : from * TILE), left, packed + d * count,
                      c + from * c_row + d, c_row, start, NULL);
    }
}

/* ---- Queries of one tile ---- */

struct tile {
    int64_t first, width; /* queries */
    int vectors, lanes;   /* lanes = vectors * VW >= width, at most TILE */
};

static struct tile tile_at(int64_t first, int64_t queries) {
    const int64_t width = HK_MIN(queries - first, TILE);
    return (struct tile){first, width, gemm_vectors(width), gemm_vectors(width) * VW};
}

/* How many of the keys first .. first + count any query of the tile sees. */
static int64_t visible(const struct attention *p, const struct tile *tile, int64_t first, int64_t count) {
    const int64_t end = tile->first + tile->width + p->offset;
    return HK_MAX(HK_MIN(end - first, count), 0);
}

/* The last key that each lane's query sees. */
static vi last_seen(const struct attention *p, const struct tile *tile, int vector) {
    const int64_t first = HK_MIN(tile->first + p->offset, INT32_MAX - 2 * VW);
    vi last;
    for (int i = 0; i < VW; i++) last[i] = (int32_t)(first + vector * VW + i);
    return last;
}

/* ---- Forward ---- */

/* A tile's running softmax: maximum and sum of each lane, and the unnormalized output [queries, depth]: where f32, the
   output itself. */
struct running {
    vf max[2], sum[2];
    float *out;
    int64_t out_row;
};

/* Scores [keys, TILE] to exp(score - max), the running maximum and sum updated; factor = how the old sums shrink. */
static inline __attribute__((always_inline)) void softmax_lanes(const struct attention *p, const struct tile *tile,
                                                                int vectors, float *scores, int64_t first,
                                                                int64_t count, struct running *r, vf *factor) {
    const vf scale = v_set(p->scale);
    const int64_t clear = HK_MIN(HK_MAX(tile->first + p->offset + 1 - first, 0), count); /* keys that all lanes see */
    vf max[2] = {r->max[0], r->max[1]}, sum[2] = {{0}};
    vi last[2];
    for (int v = 0; v < vectors; v++) last[v] = last_seen(p, tile, v);
    for (int64_t key = 0; key < count; key++)
        for (int v = 0; v < vectors; v++) {
            float *at = scores + key * TILE + v * VW;
            vf s = v_load(at) * scale;
            if (key >= clear) s = v_select(last[v] >= (int32_t)(first + key), s, v_set(-INFINITY));
            max[v] = v_max(s, max[v]);
            v_store(at, s);
        }
    for (int64_t key = 0; key < count; key++)
        for (int v = 0; v < vectors; v++) {
            float *at = scores + key * TILE + v * VW;
            const vf e = v_exp(v_load(at) - max[v]);
            sum[v] += e;
            v_store(at, e);
        }
    for (int v = 0; v < vectors; v++) {
        factor[v] = v_exp(r->max[v] - max[v]);
        r->sum[v] = r->sum[v] * factor[v] + sum[v];
        r->max[v] = max[v];
    }
}

static void softmax_block(const struct attention *p, const struct tile *tile, float *scores, int64_t first,
                          int64_t count, struct running *r, vf *factor) {
    if (tile->vectors == 2) softmax_lanes(p, tile, 2, scores, first, count, r, factor);
    else softmax_lanes(p, tile, 1, scores, first, count, r, factor);
}

/* x [queries of the tile, depth], each row times its lane's factor. */
static void scale_rows(float *x, int64_t row, int64_t depth, const struct tile *tile, const vf *factor) {
    float by[TILE];
    for (int v = 0; v < tile->vectors; v++) v_store(by + v * VW, factor[v]);
    for (int64_t t = 0; t < tile->width; t++)
        for (int64_t d = 0; d < depth; d++) x[t * row + d] *= by[t];
}

static void clear_rows(float *x, int64_t row, int64_t depth, const struct tile *tile) {
    for (int64_t t = 0; t < tile->width; t++) memset(x + t * row, 0, (size_t)depth * sizeof *x);
}

static void finish_tile(const struct attention *p, const struct tile *tile, struct running *r, int64_t b, int64_t h) {
    const struct hk_operand *out = &p->step->outputs[ATTENTION_OUT];
    float *lse = (float *)cpu_data(&p->step->outputs[ATTENTION_LSE]) + (b * p->heads + h) * p->queries + tile->first;
    vf inverse[2];
    for (int v = 0; v < tile->vectors; v++) { /* a query that sees no key: 0 */
        const vi some = r->sum[v] != v_set(0.0f);
        const vf sum = v_select(some, r->max[v] + v_log(r->sum[v]), v_set(0.0f));
        if (tile->width - v * VW >= VW) v_store(lse + v * VW, sum);
        else v_store_part(lse + v * VW, sum, tile->width - v * VW);
        inverse[v] = v_select(some, v_set(1.0f) / r->sum[v], v_set(0.0f));
    }
    scale_rows(r->out, r->out_row, p->depth, tile, inverse);
    for (int64_t t = 0; t < tile->width && p->type != HK_F32; t++)
        gemm_narrow(rows_at(out, b, h, tile->first + t), r->out + t * r->out_row, p->type, p->depth);
}

/* Some tiles of queries of one head against all keys. */
static void forward_tiles(const struct attention *p, int64_t b, int64_t h, int64_t begin, int64_t end,
                          float *workspace) {
    const struct hk_operand *q = &p->step->inputs[ATTENTION_Q], *k = &p->step->inputs[ATTENTION_K],
                            *v = &p->step->inputs[ATTENTION_V], *o = &p->step->outputs[ATTENTION_OUT];
    const int64_t depth = p->depth, kv_head = h / (p->heads / p->kv_heads);
    float *const keys = take(&workspace, KEYS * depth), *const values = take(&workspace, KEYS * padded(depth));
    float *const scores = take(&workspace, (KEYS + GEMM_ROWS) * TILE);
    float *query[TILES];
    struct running running[TILES];
    struct tile tile[TILES];
    int tiles = 0;
    for (int64_t t = begin; t < end; t += TILE, tiles++) {
        tile[tiles] = tile_at(t, end);
        query[tiles] = take(&workspace, depth * TILE);
        struct running *r = &running[tiles];
        *r = (struct running){.max = {v_set(-FLT_MAX), v_set(-FLT_MAX)}};
        if (p->type == HK_F32) r->out = rows_at(o, b, h, t), r->out_row = o->stride[2];
        else r->out = take(&workspace, depth * TILE), r->out_row = depth;
        gemm_pack_any(query[tiles], tile[tiles].lanes, rows_at(q, b, h, t), p->type, tile[tiles].width, depth,
                      q->stride[2], 1);
        if (!visible(p, &tile[tiles], 0, HK_MIN(p->keys, 1))) clear_rows(r->out, r->out_row, depth, &tile[tiles]);
    }
    for (int64_t first = 0; first < p->keys && visible(p, &tile[tiles - 1], first, 1); first += KEYS) {
        const int64_t count = HK_MIN(p->keys - first, KEYS);
        pack_left(keys, rows_at(k, b, kv_head, first), p->type, count, depth, k->stride[2], 1);
        pack_rows(values, rows_at(v, b, kv_head, first), p->type, count, depth, v->stride[2]);
        for (int i = 0; i < tiles; i++) {
            const int64_t seen = visible(p, &tile[i], first, count);
            struct running *r = &running[i];
            vf factor[2];
            if (seen == 0) continue;
            multiply(keys, count, seen, depth, query[i], tile[i].lanes, scores);
            softmax_block(p, &tile[i], scores, first, seen, r, factor);
            if (first > 0) scale_rows(r->out, r->out_row, depth, &tile[i], factor);
            multiply_scores(scores, GEMM_ACROSS, tile[i].width, seen, values, count, depth, r->out, r->out_row,
                            first > 0 ? GEMM_ADD : GEMM_SET);
        }
    }
    for (int i = 0; i < tiles; i++) finish_tile(p, &tile[i], &running[i], b, h);
}

/* One query at a time, for generation: reading keys and values once is all the work. */
static void forward_query(const struct attention *p, int64_t b, int64_t h, int64_t t, float *workspace) {
    const struct hk_operand *q = &p->step->inputs[ATTENTION_Q], *k = &p->step->inputs[ATTENTION_K],
                            *v = &p->step->inputs[ATTENTION_V], *o = &p->step->outputs[ATTENTION_OUT];
    const int64_t depth = p->depth, kv_head = h / (p->heads / p->kv_heads);
    const int64_t seen = HK_MAX(HK_MIN(t + p->offset + 1, p->keys), 0);
    float *const scores = take(&workspace, KEYS), *const query = take(&workspace, depth);
    float *const out = take(&workspace, depth), *const row = take(&workspace, depth);
    float max = -FLT_MAX, sum = 0;
    gemm_widen(query, rows_at(q, b, h, t), p->type, depth);
    memset(out, 0, (size_t)depth * sizeof(float));
    for (int64_t first = 0; first < seen; first += KEYS) {
        const int64_t count = HK_MIN(seen - first, KEYS);
        const float old = max;
        const struct gemm dots = {.m = 1,
                                  .n = count,
                                  .k = depth,
                                  .a = query,
                                  .a_row = 1,
                                  .a_column = 1,
                                  .b = rows_at(k, b, kv_head, first),
                                  .b_type = p->type,
                                  .b_row = 1,
                                  .b_column = k->stride[2],
                                  .c = scores,
                                  .c_row = 1};
        gemm_few(&dots);
        for (int64_t i = 0; i < count; i++) {
            scores[i] *= p->scale;
            max = HK_MAX(max, scores[i]);
        }
        for (int64_t i = 0; i < count; i += VW) v_store(scores + i, v_exp(v_load(scores + i) - v_set(max)));
        const float factor = expf(old - max);
        sum *= factor;
        for (int64_t i = 0; i < count; i++) sum += scores[i];
        for (int64_t d = 0; d < depth; d++) out[d] *= factor;
        for (int64_t i = 0; i < count; i++) {
            const float *value = rows_at(v, b, kv_head, first + i);
            if (p->type != HK_F32) gemm_widen(row, value, p->type, depth), value = row;
            for (int64_t d = 0; d < depth; d++) out[d] += scores[i] * value[d];
        }
    }
    for (int64_t d = 0; d < depth; d++) out[d] = sum != 0 ? out[d] / sum : 0.0f;
    gemm_narrow(rows_at(o, b, h, t), out, p->type, depth);
    float *lse = cpu_data(&p->step->outputs[ATTENTION_LSE]);
    lse[(b * p->heads + h) * p->queries + t] = sum != 0 ? max + logf(sum) : 0.0f;
}

#define FEW_QUERIES 4

static void forward_jobs(void *context, int thread, int64_t begin, int64_t end) {
    const struct attention *p = context;
    float *workspace = (float *)(void *)(p->workspace + (size_t)thread * p->workspace_bytes);
    const int64_t parts = (p->queries + TILES * TILE - 1) / (TILES * TILE);
    for (int64_t job = begin; job < end; job++) {
        const int64_t head = job / parts, first = job % parts * TILES * TILE;
        const int64_t last = HK_MIN(first + TILES * TILE, p->queries), b = head / p->heads, h = head % p->heads;
        if (p->queries > FEW_QUERIES) forward_tiles(p, b, h, first, last, workspace);
        else
            for (int64_t t = first; t < last; t++) forward_query(p, b, h, t, workspace);
    }
}

CPU_KERNEL(attention) {
    struct attention p = read_step(step, cpu);
    if (cpu_elements(&step->outputs[ATTENTION_OUT]) == 0) return;
    if (step->n_inputs > ATTENTION_POSITION) {
        const int64_t position = *(const int32_t *)cpu_data(&step->inputs[ATTENTION_POSITION]);
        p.keys = HK_MIN(HK_MAX(position + p.queries, 0), p.keys);
        if (p.offset != INT32_MAX) p.offset = p.keys - p.queries;
    }
    const int64_t parts = (p.queries + TILES * TILE - 1) / (TILES * TILE);
    cpu_for_threads(cpu, p.batch * p.heads * parts, 1, forward_jobs, &p);
}

/* ---- Backward ---- */

/* One block of keys of one head, and the workspace of the tiles that go over it. */
struct block {
    int64_t b, kv_head, first, count;
    float *keys, *values;          /* left operands [count, depth] */
    float *key_rows;               /* packed rows [count, depth] */
    float *query, *dout;           /* right operands [depth, lanes] of the tile */
    float *query_rows, *dout_rows; /* packed rows [width, depth] */
    float *p, *ds;                 /* [count, TILE] */
    float *dq;                     /* sums [width, depth], of 16 bits */
    float *dk, *dv;                /* sums [count, depth]: where f32, the outputs themselves */
    int64_t dk_row, dv_row;
};

static struct block block_at(const struct attention *p, int64_t b, int64_t kv_head, int64_t first, float *workspace) {
    const struct hk_operand *k = &p->step->inputs[ATTENTION_K], *v = &p->step->inputs[ATTENTION_V];
    const int64_t depth = p->depth;
    struct block block = {.b = b, .kv_head = kv_head, .first = first, .count = HK_MIN(p->keys - first, KEYS)};
    block.keys = take(&workspace, KEYS * depth), block.values = take(&workspace, KEYS * depth);
    block.key_rows = take(&workspace, KEYS * padded(depth));
    block.query = take(&workspace, depth * TILE), block.dout = take(&workspace, depth * TILE);
    block.query_rows = take(&workspace, padded(depth) * TILE), block.dout_rows = take(&workspace, padded(depth) * TILE);
    block.p = take(&workspace, (KEYS + GEMM_ROWS) * TILE), block.ds = take(&workspace, (KEYS + GEMM_ROWS) * TILE);
    const struct hk_operand *dk = &p->step->outputs[BACKWARD_DK], *dv = &p->step->outputs[BACKWARD_DV];
    if (p->type == HK_F32) {
        block.dk = rows_at(dk, b, kv_head, first), block.dk_row = dk->stride[2];
        block.dv = rows_at(dv, b, kv_head, first), block.dv_row = dv->stride[2];
    } else {
        block.dq = take(&workspace, TILE * depth);
        block.dk = take(&workspace, KEYS * depth), block.dv = take(&workspace, KEYS * depth);
        block.dk_row = block.dv_row = depth;
    }
    const void *key = rows_at(k, b, kv_head, first), *value = rows_at(v, b, kv_head, first);
    pack_left(block.keys, key, p->type, block.count, depth, k->stride[2], 1);
    pack_left(block.values, value, p->type, block.count, depth, v->stride[2], 1);
    pack_rows(block.key_rows, key, p->type, block.count, depth, k->stride[2]);
    return block;
}

/* Scores to probabilities p, and dp to ds = p * (dp - delta) * scale. lse and delta [lanes]. */
static void differentiate(const struct attention *a, const struct tile *tile, const struct block *block, int64_t seen,
                          const float *lse, const float *delta) {
    const vf scale = v_set(a->scale);
    for (int v = 0; v < tile->vectors; v++) {
        const vf l = v_load(lse + v * VW), d = v_load(delta + v * VW);
        const vi last = last_seen(a, tile, v);
        for (int64_t key = 0; key < seen; key++) {
            float *p = block->p + key * TILE + v * VW, *ds = block->ds + key * TILE + v * VW;
            const vf e = v_exp(v_load(p) * scale - l);
            const vf x = v_select(last >= (int32_t)(block->first + key), e, v_set(0.0f));
            v_store(p, x);
            v_store(ds, x * (v_load(ds) - d) * scale);
        }
    }
}

/* lse and delta = sum of dout * out of the tile's queries; 0 in the lanes that have none. */
static void read_statistics(const struct attention *a, const struct tile *tile, int64_t b, int64_t h, float *lse,
                            float *delta) {
    const struct hk_operand *o = &a->step->inputs[BACKWARD_OUT], *g = &a->step->inputs[BACKWARD_DOUT];
    const float *from =
        (const float *)cpu_data(&a->step->inputs[BACKWARD_LSE]) + (b * a->heads + h) * a->queries + tile->first;
    for (int64_t i = 0; i < tile->lanes; i++) {
        float wide[2][ATTENTION_MAX_DEPTH];
        lse[i] = delta[i] = 0;
        if (i >= tile->width) continue;
        const float *out = rows_at(o, b, h, tile->first + i), *dout = rows_at(g, b, h, tile->first + i);
        if (a->type != HK_F32) {
            gemm_widen(wide[0], out, a->type, a->depth), gemm_widen(wide[1], dout, a->type, a->depth);
            out = wide[0], dout = wide[1];
        }
        vf sum = {0};
        int64_t d = 0;
        for (; d + VW <= a->depth; d += VW) sum += v_load(out + d) * v_load(dout + d);
        delta[i] = v_sum(sum);
        for (; d < a->depth; d++) delta[i] += out[d] * dout[d];
        lse[i] = from[i];
    }
}

/* Where a tile's dq is summed: where f32, in the output. Of 16 bits, in the workspace, or, if there are several blocks of
   keys, in the scratch memory. */
static float *sums_of_dq(const struct attention *a, const struct block *block, int64_t h, const struct tile *tile,
                         int64_t *row) {
    const struct hk_operand *dq = &a->step->outputs[BACKWARD_DQ];
    *row = a->type == HK_F32 ? dq->stride[2] : a->depth;
    if (a->type == HK_F32) return rows_at(dq, block->b, h, tile->first);
    if (a->keys <= KEYS) return block->dq;
    return (float *)cpu_data(&a->step->scratch) + ((block->b * a->heads + h) * a->queries + tile->first) * a->depth;
}

/* After the last block, sums of 16 bits become the output. */
static void finish_dq(const struct attention *a, const struct block *block, int64_t h, const struct tile *tile,
                      const float *sums) {
    if (a->type == HK_F32 || block->first + block->count < a->keys) return;
    for (int64_t t = 0; t < tile->width; t++)
        gemm_narrow(rows_at(&a->step->outputs[BACKWARD_DQ], block->b, h, tile->first + t), sums + t * a->depth, a->type,
                    a->depth);
}

/* A tile of queries of head h against the block: adds to dq, dk and dv, of which the first to come sets them. */
static void backward_tile(const struct attention *a, const struct block *block, int64_t h, const struct tile *tile,
                          enum gemm_start start) {
    const struct hk_operand *q = &a->step->inputs[ATTENTION_Q], *g = &a->step->inputs[BACKWARD_DOUT];
    const int64_t depth = a->depth, seen = visible(a, tile, block->first, block->count), lanes = tile->lanes;
    float lse[TILE], delta[TILE];
    int64_t dq_row;
    float *const dq = sums_of_dq(a, block, h, tile, &dq_row);
    if (seen == 0) {
        if (block->first == 0) clear_rows(dq, dq_row, depth, tile);
        finish_dq(a, block, h, tile, dq);
        return;
    }
    const void *query = rows_at(q, block->b, h, tile->first), *dout = rows_at(g, block->b, h, tile->first);
    gemm_pack_any(block->query, lanes, query, a->type, tile->width, depth, q->stride[2], 1);
    gemm_pack_any(block->dout, lanes, dout, a->type, tile->width, depth, g->stride[2], 1);
    pack_rows(block->query_rows, query, a->type, tile->width, depth, q->stride[2]);
    pack_rows(block->dout_rows, dout, a->type, tile->width, depth, g->stride[2]);
    read_statistics(a, tile, block->b, h, lse, delta);

    multiply(block->keys, block->count, seen, depth, block->query, lanes, block->p);
    multiply(block->values, block->count, seen, depth, block->dout, lanes, block->ds);
    differentiate(a, tile, block, seen, lse, delta);
    multiply_scores(block->p, GEMM_ALONG, seen, tile->width, block->dout_rows, tile->width, depth,
                    block->dv, block->dv_row, start);
    multiply_scores(block->ds, GEMM_ALONG, seen, tile->width, block->query_rows, tile->width, depth,
                    block->dk, block->dk_row, start);
    multiply_scores(block->ds, GEMM_ACROSS, tile->width, seen, block->key_rows, block->count, depth, dq, dq_row,
                    block->first > 0 ? GEMM_ADD : GEMM_SET);
    finish_dq(a, block, h, tile, dq);
}

/* Sums that are no outputs become such. */
static void finish_block(const struct attention *a, const struct block *block) {
    if (a->type == HK_F32) return;
    for (int64_t i = 0; i < block->count; i++) {
        gemm_narrow(rows_at(&a->step->outputs[BACKWARD_DK], block->b, block->kv_head, block->first + i),
                    block->dk + i * block->dk_row, a->type, a->depth);
        gemm_narrow(rows_at(&a->step->outputs[BACKWARD_DV], block->b, block->kv_head, block->first + i),
                    block->dv + i * block->dv_row, a->type, a->depth);
    }
}

/* One head of keys and values, with all heads of queries that share it. The last queries, which see all keys, first. */
static void backward_jobs(void *context, int thread, int64_t begin, int64_t end) {
    const struct attention *a = context;
    float *workspace = (float *)(void *)(a->workspace + (size_t)thread * a->workspace_bytes);
    const int64_t group = a->heads / a->kv_heads;
    for (int64_t job = begin; job < end; job++) {
        const int64_t b = job / a->kv_heads, kv_head = job % a->kv_heads, first_head = kv_head * group;
        for (int64_t first = 0; first < a->keys; first += KEYS) {
            const struct block block = block_at(a, b, kv_head, first, workspace);
            enum gemm_start start = GEMM_SET;
            for (int64_t h = first_head; h < first_head + group; h++)
                for (int64_t t = (a->queries - 1) / TILE * TILE; t >= 0; t -= TILE, start = GEMM_ADD) {
                    const struct tile tile = tile_at(t, a->queries);
                    backward_tile(a, &block, h, &tile, start);
                }
            finish_block(a, &block);
        }
    }
}

CPU_KERNEL(attention_backward) {
    struct attention a = read_step(step, cpu);
    cpu_for_threads(cpu, a.batch * a.kv_heads, 1, backward_jobs, &a);
}
#endif
