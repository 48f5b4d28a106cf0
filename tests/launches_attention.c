/* Of attention's launches and its gradients': each kernel has all rows of all heads once, and finds its operands. */
#include "launches.h"
#include "op/attention.h"
#include <stdlib.h>
#include <string.h>

/* As shaders/attention.glsl has them. */
struct push {
    uint32_t base[8];
    uint32_t queries, keys, heads, shared_by;
    uint32_t tiles, groups;
    float scale;
    uint32_t key_parts;
    uint32_t q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row;
};

enum { D = 1, CAUSAL, POSITION, CHUNK, PARTS, TYPE, FIRST }; /* constants */
enum pass { FORWARD, COMBINE, DELTA, DQ, DKV, PASSES };

struct launch {
    const struct launches *l;
    const struct hk_dispatch *d;
    struct push p;
    enum pass pass;
    const struct hk_operand *q, *k, *v, *g; /* g: the gradient of the result */
    int64_t depth, batch, first; /* batch: items of it that the launch has, from first on */
    bool in_parts;               /* what it writes, or reads, is parts' */
};

static enum pass pass_of(const struct hk_dispatch *d) {
    if (launch_is(d, "attention_parts")) return COMBINE;
    if (launch_is(d, "attention_delta")) return DELTA;
    return strstr(d->shader, "_dq") ? DQ : strstr(d->shader, "_dkv") ? DKV : FORWARD;
}

static bool is_forward(const struct launches *l) { return l->call->n_outputs == 2; }

/* ---- Kernels ---- */

static bool is_dense_by_16(const struct launch *x, int binding, const struct hk_operand *o) {
    const struct launch_side at = launch_side(x->l, x->d, binding, o, 0);
    const int64_t byte = (int64_t)o->offset + at.first * 2;
    bool whole = byte % 16 == 0 && at.index % 8 == 0 && x->depth % 8 == 0;
    for (int i = 0; i < 3; i++) whole = whole && (o->shape[i] == 1 || o->stride[i] % 8 == 0);
    return whole;
}

static bool reads_by_16(const struct launch *x) {
    return is_dense_by_16(x, 0, x->q) && is_dense_by_16(x, 1, x->k) && is_dense_by_16(x, 2, x->v) &&
           (x->pass == FORWARD || is_dense_by_16(x, 3, x->g));
}

static bool writes_by_16(const struct launch *x) {
    const struct hk_operand *const out = x->l->out;
    if (x->pass == FORWARD) return is_dense_by_16(x, 4, &out[ATTENTION_OUT]);
    if (x->pass == DQ) return is_dense_by_16(x, 6, &out[BACKWARD_DQ]);
    return is_dense_by_16(x, 6, &out[BACKWARD_DK]) && is_dense_by_16(x, 7, &out[BACKWARD_DV]);
}

static bool has_dtype(const struct launch *x) {
    return x->q->dtype != HK_F32 && !strstr(x->d->shader, "_bf16") == (x->q->dtype == HK_F16);
}

/* Of shaders/attention_cooperative.glsl and its kernels. */
static uint32_t subgroups_shared(const struct launch *x) {
    const uint32_t rows = 16 * x->d->spec[FIRST], columns = 32, step = 16 * x->d->spec[PARTS];
    const uint32_t padded = ((uint32_t)x->depth + step - 1) / step * step, pitch = 2 * (padded + 8);
    const uint32_t common = rows * (2 * (columns + 8) + 4 * (columns + 4) + 4);
    const uint32_t staged = (x->pass == FORWARD ? 1 : 2) * (rows + columns) * pitch;
    return common + staged + (x->pass == DKV ? 2 * 4 * columns : 0);
}

static uint32_t subgroups_rows(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST, *const matrix = s + 1;
    const uint32_t parts = x->d->spec[PARTS];
    LAUNCH_REQUIRE(x->l, x->d, has_dtype(x) && launch_has_matrix(x->l, x->q->dtype, 0, matrix[0], matrix[1], matrix[2]));
    for (int i = 0; i < 3; i++) LAUNCH_REQUIRE(x->l, x->d, matrix[i] == 8 || matrix[i] == 16);
    LAUNCH_REQUIRE(x->l, x->d, x->d->subgroup_size && x->d->spec[0] == s[0] * x->d->subgroup_size);
    LAUNCH_REQUIRE(x->l, x->d, subgroups_shared(x) <= x->l->recorder.limits->shared_memory);
    LAUNCH_REQUIRE(x->l, x->d, s[4] == 2 || (s[4] == 8 && reads_by_16(x)));
    LAUNCH_REQUIRE(x->l, x->d, parts == 1 || x->pass == DKV);
    return 16 * s[0];
}

static uint32_t workgroup_rows(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST, rows = s[0], columns = s[1], depth = s[2];
    LAUNCH_REQUIRE(x->l, x->d, has_dtype(x) && depth >= x->depth && x->d->spec[PARTS] == 1);
    LAUNCH_REQUIRE(x->l, x->d, launch_has_matrix(x->l, x->q->dtype, x->d->spec[0], rows, columns, depth));
    LAUNCH_REQUIRE(x->l, x->d, launch_has_matrix(x->l, x->q->dtype, x->d->spec[0], rows, depth, columns));
    LAUNCH_REQUIRE(x->l, x->d, reads_by_16(x) && writes_by_16(x));
    return rows;
}

static uint32_t few_rows(const struct launch *x) {
    const uint32_t block = x->d->spec[FIRST];
    LAUNCH_REQUIRE(x->l, x->d, block == x->d->spec[0] && (block & (block - 1)) == 0 && block % x->d->spec[CHUNK] == 0);
    LAUNCH_REQUIRE(x->l, x->d, x->d->spec[PARTS] == x->p.key_parts);
    return 1;
}

/* Of a workgroup. */
static uint32_t rows_of(const struct launch *x) {
    static const char *const plain[] = {"attention", "attention_dq", "attention_dkv"};
    if (x->pass == COMBINE || x->pass == DELTA) return x->d->spec[0];
    if (launch_is(x->d, "attention_few")) return few_rows(x);
    LAUNCH_REQUIRE(x->l, x->d, x->p.key_parts == 1 || x->pass != FORWARD);
    if (strstr(x->d->shader, "cooperative2")) return workgroup_rows(x);
    if (strstr(x->d->shader, "cooperative")) return subgroups_rows(x);
    if (strstr(x->d->shader, "rows")) return x->d->spec[0];
    for (size_t i = 0; i < HK_LENGTH(plain); i++)
        if (launch_is(x->d, plain[i])) return x->d->spec[0] == 256 ? 64 : 0;
    return 0;
}

/* ---- Operands ---- */

/* Items first .. first + batch of an operand. */
static void require_slice(const struct launch *x, int binding, const struct hk_operand *o) {
    const struct launch_side at = launch_side(x->l, x->d, binding, o, 0);
    int64_t last = (x->batch - 1) * o->stride[0];
    for (int i = 1; i < o->rank; i++) last += (o->shape[i] - 1) * o->stride[i];
    LAUNCH_REQUIRE(x->l, x->d, at.first == x->first * o->stride[0] && at.index + last < at.limit);
}

/* `each` dense elements per item, f32; in scratch memory from element `begin` on. */
static void require_dense(const struct launch *x, int binding, const struct hk_operand *o, int64_t begin, int64_t each) {
    const struct launch_side at = launch_side(x->l, x->d, binding, o, 0);
    LAUNCH_REQUIRE(x->l, x->d, at.first == begin + x->first * each && at.index + x->batch * each <= at.limit);
}

/* A result that kernels write as [B, rows, heads, D], and its first item. */
static void require_result(const struct launch *x, int binding, const struct hk_operand *o) {
    require_slice(x, binding, o);
    LAUNCH_REQUIRE(x->l, x->d, o->stride[3] == 1 && o->stride[1] == x->depth && o->stride[2] == o->shape[1] * x->depth);
    LAUNCH_REQUIRE(x->l, x->d, o->stride[0] == o->shape[1] * o->shape[2] * x->depth);
}

static void require_strides(const struct launch *x, const struct hk_operand *o, const uint32_t *strides) {
    for (int i = 0; i < 3; i++) LAUNCH_REQUIRE(x->l, x->d, o->shape[i] == 1 || strides[i] == o->stride[i]);
    LAUNCH_REQUIRE(x->l, x->d, o->shape[3] == 1 || o->stride[3] == 1);
}

static void require_inputs(const struct launch *x) {
    require_slice(x, 0, x->q);
    require_slice(x, 1, x->k);
    require_slice(x, 2, x->v);
    require_strides(x, x->q, &x->p.q_batch);
    require_strides(x, x->k, &x->p.k_batch);
    require_strides(x, x->v, &x->p.v_batch);
}

static void check_operands(const struct launch *x) {
    const struct hk_operand *const in = x->l->in, *const out = x->l->out;
    const int64_t rows = x->q->shape[1] * x->q->shape[2], parts = x->p.key_parts, all = x->q->shape[0];
    const int64_t lse = all * parts * rows * x->depth; /* where it begins in the scratch memory */
    if (x->pass == FORWARD || x->pass == DQ || x->pass == DKV) require_inputs(x);
    if (x->pass != FORWARD && x->pass != COMBINE) require_strides(x, x->g, &x->p.g_batch);
    switch (x->pass) {
    case FORWARD:
        LAUNCH_REQUIRE(x->l, x->d, x->d->spec[POSITION] == (x->l->call->n_inputs > ATTENTION_POSITION));
        if (x->d->spec[POSITION])
            LAUNCH_REQUIRE(x->l, x->d, launch_side(x->l, x->d, 3, &in[ATTENTION_POSITION], 0).first == 0);
        if (x->in_parts) {
            require_dense(x, 4, NULL, 0, parts * rows * x->depth);
            require_dense(x, 5, NULL, lse, parts * rows);
        } else {
            require_result(x, 4, &out[ATTENTION_OUT]);
            require_dense(x, 5, &out[ATTENTION_LSE], 0, rows);
        }
        break;
    case COMBINE:
        require_dense(x, 0, NULL, 0, parts * rows * x->depth);
        require_dense(x, 1, NULL, lse, parts * rows);
        require_result(x, 2, &out[ATTENTION_OUT]);
        require_dense(x, 3, &out[ATTENTION_LSE], 0, rows);
        break;
    case DELTA:
        require_result(x, 0, &in[BACKWARD_OUT]);
        require_slice(x, 1, x->g);
        require_dense(x, 2, NULL, 0, rows);
        break;
    case DQ:
    case DKV:
        require_slice(x, 3, x->g);
        require_dense(x, 4, &in[BACKWARD_LSE], 0, rows);
        require_dense(x, 5, NULL, 0, rows);
        require_result(x, 6, &out[x->pass == DQ ? BACKWARD_DQ : BACKWARD_DK]);
        if (x->pass == DKV) require_result(x, 7, &out[BACKWARD_DV]);
        break;
    case PASSES: break;
    }
}

/* ---- Launches ---- */

/* The first item of the batch is found by what the launch writes. */
static int64_t first_item(const struct launch *x) {
    static const int binding[] = {[FORWARD] = 4, [COMBINE] = 2, [DELTA] = 2, [DQ] = 6, [DKV] = 6};
    const struct hk_operand *const out = x->l->out;
    const struct hk_operand *const written = x->in_parts && x->pass == FORWARD ? NULL : x->pass == DELTA ? NULL :
        &out[x->pass == DKV ? BACKWARD_DK : 0];
    const int64_t rows = x->q->shape[1] * x->q->shape[2];
    const int64_t each = written ? written->stride[0] : x->pass == DELTA ? rows : x->p.key_parts * rows * x->depth;
    const int64_t at = launch_side(x->l, x->d, binding[x->pass], written, 0).first;
    LAUNCH_REQUIRE(x->l, x->d, at % each == 0);
    return at / each;
}

static struct launch read_launch(const struct launches *l, const struct hk_dispatch *d) {
    struct launch x = {.l = l, .d = d, .pass = pass_of(d), .q = &l->in[ATTENTION_Q], .k = &l->in[ATTENTION_K],
                       .v = &l->in[ATTENTION_V], .g = is_forward(l) ? &l->in[ATTENTION_Q] : &l->in[BACKWARD_DOUT]};
    const struct push *const p = &x.p;
    const struct attention_attrs *const attrs = l->call->attrs;
    LAUNCH_REQUIRE(l, d, d->push_bytes == sizeof x.p);
    memcpy(&x.p, d->push, sizeof x.p);
    x.depth = x.q->shape[3];
    x.in_parts = x.pass == COMBINE || (x.pass == FORWARD && p->key_parts > 1);
    LAUNCH_REQUIRE(l, d, d->spec[D] == x.depth && d->spec[CAUSAL] == (uint32_t)attrs->causal && d->spec[TYPE] == x.q->dtype);
    LAUNCH_REQUIRE(l, d, p->queries == x.q->shape[2] && p->keys == x.k->shape[2] && p->heads == x.q->shape[1]);
    LAUNCH_REQUIRE(l, d, p->shared_by * x.k->shape[1] == x.q->shape[1] && p->key_parts >= 1 && p->scale == attrs->scale);
    return x;
}

/* Sets batch and first. */
static void check_launch(struct launch *x) {
    const struct push *const p = &x->p;
    const int64_t pairs = (x->depth + 1) / 2;
    const int64_t rows = x->pass == DKV ? p->keys : x->pass == COMBINE ? p->queries * pairs : p->queries;
    const uint32_t tile = rows_of(x), parts = x->pass == COMBINE || x->pass == DELTA ? 1 : x->d->spec[PARTS];
    const uint32_t each = p->tiles * (x->pass == DKV ? p->heads / p->shared_by : p->heads) * parts;
    LAUNCH_REQUIRE(x->l, x->d, tile && parts && each && p->groups % each == 0);
    LAUNCH_REQUIRE(x->l, x->d, (p->tiles - 1) * tile < rows && rows <= (int64_t)p->tiles * tile);
    x->batch = p->groups / each;
    x->first = first_item(x);
    launch_check_groups(x->l, x->d, p->groups);
    check_operands(x);
}

/* Which passes there are, and each goes over the batch in order; parts are combined right after they are made. */
void launches_check_attention(const struct launches *l) {
    const struct hk_dispatch *const end = l->items + l->count;
    const int64_t all = l->in[ATTENTION_Q].shape[0];
    int64_t done[PASSES] = {0};
    struct launch before = {0};
    launches_check(l);
    for (const struct hk_dispatch *d = l->items; d < end; d++) {
        struct launch x = read_launch(l, d);
        check_launch(&x);
        LAUNCH_REQUIRE(l, d, (x.pass <= COMBINE) == is_forward(l));
        LAUNCH_REQUIRE(l, d, (x.pass == COMBINE) == (before.in_parts && before.pass == FORWARD));
        if (x.pass == COMBINE) LAUNCH_REQUIRE(l, d, x.first == before.first && x.batch == before.batch);
        else LAUNCH_REQUIRE(l, d, x.first == done[x.pass]);
        done[x.pass] = x.first + x.batch;
        if (x.pass == DQ || x.pass == DKV) LAUNCH_REQUIRE(l, d, done[x.pass] <= done[DELTA]);
        before = x;
    }
    LAUNCH_REQUIRE(l, end - 1, !before.in_parts || before.pass == COMBINE);
    if (is_forward(l)) LAUNCH_REQUIRE(l, end - 1, done[FORWARD] == all);
    else LAUNCH_REQUIRE(l, end - 1, done[DELTA] == all && done[DQ] == all && done[DKV] == all);
}
