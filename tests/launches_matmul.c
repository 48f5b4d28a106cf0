/* Of matmul's launches: together they add, for every element of c, the products of all k once and in order, and once the
   bias. */
#include "launches.h"
#include <stdlib.h>
#include <string.h>

/* As shaders/matmul_push.glsl has them: read anew here, not taken from the code that is tested. */
struct push {
    uint32_t base_a, base_b, base_c, base_bias;
    uint32_t rest_a, rest_b;
    uint32_t m, n, k;
    uint32_t a_row, a_column, b_row, b_column, c_row;
    uint32_t a_outer, a_inner, b_outer, b_inner, c_outer, c_inner;
    uint32_t inner;
    uint32_t tiles_m, tiles_n, groups, after[4];
};

/* And shaders/matmul_parts.comp. */
struct sum_push {
    uint32_t base_parts, base_c, base_bias;
    uint32_t parts, elements, m, n, c_batch, c_row, after[4];
};

enum { A_ALONG_K = 1, B_ALONG_N, BIAS, ACCUMULATE, A_TYPE, B_TYPE, FIRST }; /* constants */

/* What one launch adds to one item of the batch of c. */
struct box {
    int64_t item, m0, m1, n0, n1, k0, k1;
    bool sets, biased;
    int before; /* the box of the same item that was added before it; -1: none */
};

struct boxes {
    struct box *items;
    int count, capacity;
    int last[64]; /* of each item */
};

/* An operand of a launch: elements [outer, inner, rows, columns], and how far apart they are. */
struct block {
    struct launch_side at;
    int64_t size[4], stride[4];
};

static int64_t reach(const struct block *b) {
    int64_t last = 0;
    for (int i = 0; i < 4; i++) last += (b->size[i] - 1) * b->stride[i];
    return last;
}

static bool one_of(const struct block *b, int axis) { return b->size[axis] == 1; }

/* Whether `unit` elements along the axis are always a vector that lies aligned. */
static bool in_units(const struct block *b, int axis, int64_t unit) {
    const int64_t size = b->at.operand ? (int64_t)hk_dtype_size(b->at.operand->dtype) : 4;
    const int64_t byte = (b->at.operand ? (int64_t)b->at.operand->offset : 0) + b->at.first * size;
    bool whole = b->at.index % unit == 0 && byte % (unit * size) == 0 && b->size[axis] % unit == 0 &&
                 (b->stride[axis] == 1 || one_of(b, axis));
    for (int i = 0; i < 4; i++) whole = whole && (i == axis || one_of(b, i) || b->stride[i] % unit == 0);
    return whole;
}

/* ---- Kernels ---- */

struct launch {
    const struct launches *l;
    const struct hk_dispatch *d;
    struct push p;
    struct block a, b, c;
    int64_t outer; /* size of that batch dimension; p.inner is the other's */
};

/* Rows of a tile, its columns, and bytes of shared memory. */
struct shape {
    uint32_t m, n, shared;
};

/* Of what a kernel claims of its operands: widths of vectors. */
static void require_units(const struct launch *x, const struct block *b, int axis, uint32_t unit) {
    LAUNCH_REQUIRE(x->l, x->d, unit <= 1 || in_units(b, axis, unit));
}

static int dense_a(const struct launch *x) { return x->d->spec[A_ALONG_K] ? 3 : 2; }
static int dense_b(const struct launch *x) { return x->d->spec[B_ALONG_N] ? 3 : 2; }

static struct shape plain_shape(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST;
    LAUNCH_REQUIRE(x->l, x->d, x->d->spec[0] == s[0] / s[3] * (s[1] / s[4]));
    require_units(x, &x->a, dense_a(x), x->d->spec[13] ? 4 : 1);
    require_units(x, &x->b, dense_b(x), x->d->spec[14] ? 4 : 1);
    require_units(x, &x->c, 3, x->d->spec[15] ? 4 : 1);
    return (struct shape){s[0], s[1], 16 * s[2] * (s[0] / 4 + 1 + s[1] / 4 + 1)};
}

static struct shape few_shape(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST;
    LAUNCH_REQUIRE(x->l, x->d, x->p.m <= s[0] && x->d->spec[0] <= 256 && x->d->spec[0] % s[1] == 0);
    require_units(x, &x->a, dense_a(x), x->d->spec[13] ? 4 : 1);
    require_units(x, &x->b, dense_b(x), x->d->spec[14] ? 4 : 1);
    return (struct shape){s[0], x->d->spec[0] / s[1], 4 * 256};
}

static struct shape direct_shape(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST;
    LAUNCH_REQUIRE(x->l, x->d, x->l->recorder.limits->software);
    LAUNCH_REQUIRE(x->l, x->d, !s[4] || x->d->spec[B_TYPE] != HK_F32);
    require_units(x, &x->a, 3, !s[3] ? 1 : x->d->spec[A_TYPE] == HK_F32 ? 4 : 2);
    require_units(x, &x->b, 2, s[4] ? 2 : 1);
    return (struct shape){s[0], s[1] * x->d->spec[0], 0};
}

static bool matrices_have(const struct launch *x, enum hk_dtype dtype) {
    return x->d->spec[A_TYPE] == dtype && x->d->spec[B_TYPE] == dtype && !strstr(x->d->shader, "_bf16") == (dtype == HK_F16);
}

static struct shape subgroups_shape(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST, *const matrix = s + 5;
    const uint32_t subgroups = s[0] / s[3] * (s[1] / s[4]);
    const enum hk_dtype dtype = x->a.at.operand->dtype;
    LAUNCH_REQUIRE(x->l, x->d, matrices_have(x, dtype) && launch_has_matrix(x->l, dtype, 0, matrix[0], matrix[1], matrix[2]));
    LAUNCH_REQUIRE(x->l, x->d, x->d->subgroup_size && x->d->spec[0] == subgroups * x->d->subgroup_size);
    LAUNCH_REQUIRE(x->l, x->d, s[3] % matrix[0] == 0 && s[4] % matrix[1] == 0 && s[2] % matrix[2] == 0);
    LAUNCH_REQUIRE(x->l, x->d, matrix[0] % 8 == 0 && matrix[1] % 8 == 0 && matrix[2] % 8 == 0);
    require_units(x, &x->a, dense_a(x), s[8]);
    require_units(x, &x->b, dense_b(x), s[9]);
    require_units(x, &x->c, 3, s[10] ? 4 : 1);
    require_units(x, &x->c, 3, s[11] ? 4 : 1);
    LAUNCH_REQUIRE(x->l, x->d, !s[10] || (!x->d->spec[BIAS] && !x->d->spec[ACCUMULATE]));
    const uint32_t a = x->d->spec[A_ALONG_K] ? s[0] * (s[2] + 8) : s[2] * (s[0] + 8);
    const uint32_t b = x->d->spec[B_ALONG_N] ? s[2] * (s[1] + 8) : s[1] * (s[2] + 8);
    return (struct shape){s[0], s[1], 2 * (a + b) + 4 * subgroups * matrix[0] * matrix[1]};
}

/* Every item of the batch begins at a multiple of 16 bytes, as the driver's loads of tensors want it; rows may begin
   anywhere, but must not overlap. */
static void require_tensor(const struct launch *x, const struct block *b, int dense, uint32_t width) {
    const int64_t size = b->at.operand ? (int64_t)hk_dtype_size(b->at.operand->dtype) : 4, unit = 16 / size;
    const struct block items = {b->at, {b->size[0], b->size[1], 1, unit}, {b->stride[0], b->stride[1], 0, 1}};
    const int64_t row = b->stride[5 - dense];
    LAUNCH_REQUIRE(x->l, x->d, in_units(&items, 3, unit));
    LAUNCH_REQUIRE(x->l, x->d, row >= b->size[dense] && row % width == 0);
}

static struct shape workgroup_shape(const struct launch *x) {
    const uint32_t *const s = x->d->spec + FIRST;
    const enum hk_dtype dtype = x->a.at.operand->dtype;
    LAUNCH_REQUIRE(x->l, x->d, matrices_have(x, dtype) && launch_has_matrix(x->l, dtype, x->d->spec[0], s[0], s[1], s[2]));
    require_tensor(x, &x->a, dense_a(x), s[5]);
    require_tensor(x, &x->b, dense_b(x), s[6]);
    require_tensor(x, &x->c, 3, s[7]);
    return (struct shape){s[0], s[1], 0};
}

static struct shape shape_of(const struct launch *x) {
    if (launch_is(x->d, "matmul")) return plain_shape(x);
    if (launch_is(x->d, "matmul_few")) return few_shape(x);
    if (launch_is(x->d, "matmul_direct")) return direct_shape(x);
    if (launch_is(x->d, "matmul_cooperative")) return subgroups_shape(x);
    LAUNCH_REQUIRE(x->l, x->d, launch_is(x->d, "matmul_cooperative2"));
    return workgroup_shape(x);
}

/* ---- Launches ---- */

static void require_within(const struct launch *x, const struct block *b) {
    LAUNCH_REQUIRE(x->l, x->d, b->at.index + reach(b) < b->at.limit);
}

/* c: NULL where that is scratch memory. */
static struct launch read_launch(const struct launches *l, const struct hk_dispatch *d, const struct hk_operand *c) {
    struct launch x = {.l = l, .d = d};
    struct push *const p = &x.p;
    LAUNCH_REQUIRE(l, d, d->push_bytes == sizeof *p && d->n_bindings == 4);
    memcpy(p, d->push, sizeof *p);
    LAUNCH_REQUIRE(l, d, p->tiles_m && p->tiles_n && p->inner && p->groups % (p->tiles_m * p->tiles_n * p->inner) == 0);
    x.outer = p->groups / (p->tiles_m * p->tiles_n * p->inner);
    x.a = (struct block){launch_side(l, d, 0, &l->in[0], p->rest_a), {x.outer, p->inner, p->m, p->k},
                         {p->a_outer, p->a_inner, p->a_row, p->a_column}};
    x.b = (struct block){launch_side(l, d, 1, &l->in[1], p->rest_b), {x.outer, p->inner, p->k, p->n},
                         {p->b_outer, p->b_inner, p->b_row, p->b_column}};
    x.c = (struct block){launch_side(l, d, 2, c, 0), {x.outer, p->inner, p->m, p->n}, {p->c_outer, p->c_inner, p->c_row, 1}};
    return x;
}

static void check_launch(const struct launch *x) {
    const struct push *const p = &x->p;
    const struct shape shape = shape_of(x);
    LAUNCH_REQUIRE(x->l, x->d, shape.shared <= x->l->recorder.limits->shared_memory);
    LAUNCH_REQUIRE(x->l, x->d, (p->tiles_m - 1) * shape.m < p->m && p->m <= (uint64_t)p->tiles_m * shape.m);
    LAUNCH_REQUIRE(x->l, x->d, (p->tiles_n - 1) * shape.n < p->n && p->n <= (uint64_t)p->tiles_n * shape.n);
    LAUNCH_REQUIRE(x->l, x->d, x->d->spec[A_TYPE] == x->l->in[0].dtype && x->d->spec[B_TYPE] == x->l->in[1].dtype);
    LAUNCH_REQUIRE(x->l, x->d, one_of(&x->a, dense_a(x)) || x->a.stride[dense_a(x)] == 1);
    LAUNCH_REQUIRE(x->l, x->d, one_of(&x->b, dense_b(x)) || x->b.stride[dense_b(x)] == 1);
    launch_check_groups(x->l, x->d, p->groups);
    require_within(x, &x->a);
    require_within(x, &x->b);
    require_within(x, &x->c);
}

/* ---- What is added where ---- */

/* Where batch item `item` of c begins in an operand. */
static int64_t item_offset(const struct hk_operand *o, const struct hk_operand *c, int64_t item) {
    int64_t offset = 0;
    for (int i = c->rank - 3; i >= 0; i--) offset += item % c->shape[i] * o->stride[i], item /= c->shape[i];
    return offset;
}

/* k of the element whose distance from k = 0 is that; both operands must say the same. */
static int64_t find_k(const struct launch *x, int64_t distance, int64_t stride, int64_t size) {
    LAUNCH_REQUIRE(x->l, x->d, size == 1 || stride > 0);
    LAUNCH_REQUIRE(x->l, x->d, size == 1 ? distance == 0 : distance >= 0 && distance % stride == 0);
    return size == 1 ? 0 : distance / stride;
}

static int64_t corner(const struct block *b, int64_t outer, int64_t inner) {
    return b->at.first + outer * b->stride[0] + inner * b->stride[1];
}

static bool steps(const struct block *b, int axis, int64_t stride) { return one_of(b, axis) || b->stride[axis] == stride; }

/* The box of a batch item of the launch, whose first element is that one of c. */
static struct box find_box(const struct launch *x, int64_t outer, int64_t inner, int64_t at_c) {
    const struct hk_operand *const a = &x->l->in[0], *const b = &x->l->in[1], *const c = &x->l->out[0];
    const int r = c->rank;
    const int64_t m = c->shape[r - 2], n = c->shape[r - 1], k = a->shape[r - 1];
    struct box box = {.item = at_c / (m * n), .m0 = at_c / n % m, .n0 = at_c % n};
    const int64_t at_a = corner(&x->a, outer, inner) - item_offset(a, c, box.item) - box.m0 * a->stride[r - 2];
    const int64_t at_b = corner(&x->b, outer, inner) - item_offset(b, c, box.item) - box.n0 * b->stride[r - 1];
    box.k0 = find_k(x, at_a, a->stride[r - 1], k);
    LAUNCH_REQUIRE(x->l, x->d, box.k0 == find_k(x, at_b, b->stride[r - 2], k));
    LAUNCH_REQUIRE(x->l, x->d, steps(&x->a, 2, a->stride[r - 2]) && steps(&x->a, 3, a->stride[r - 1]));
    LAUNCH_REQUIRE(x->l, x->d, steps(&x->b, 2, b->stride[r - 2]) && steps(&x->b, 3, b->stride[r - 1]));
    box.m1 = box.m0 + x->p.m, box.n1 = box.n0 + x->p.n, box.k1 = box.k0 + x->p.k;
    LAUNCH_REQUIRE(x->l, x->d, box.m1 <= m && box.n1 <= n && box.k1 <= k);
    return box;
}

static void check_bias(const struct launches *l, const struct hk_dispatch *d, int binding, const struct box *box) {
    const struct launch_side bias = launch_side(l, d, binding, &l->in[2], 0);
    LAUNCH_REQUIRE(l, d, bias.first == box->n0 && bias.index + box->n1 - box->n0 <= bias.limit);
}

static void add_box(struct boxes *boxes, const struct box *box) {
    if (!hk_grow(&boxes->items, &boxes->capacity, boxes->count + 1, sizeof *boxes->items)) abort();
    if (box->item >= (int64_t)HK_LENGTH(boxes->last)) abort();
    boxes->items[boxes->count] = *box;
    boxes->items[boxes->count].before = boxes->last[box->item];
    boxes->last[box->item] = boxes->count++;
}

/* A launch that writes c. */
static void add_whole(const struct launches *l, const struct hk_dispatch *d, struct boxes *boxes) {
    const struct launch x = read_launch(l, d, &l->out[0]);
    check_launch(&x);
    LAUNCH_REQUIRE(l, d, steps(&x.c, 2, l->out[0].stride[l->out[0].rank - 2]));
    LAUNCH_REQUIRE(l, d, d->bindings[2].access == (d->spec[ACCUMULATE] ? HK_READ | HK_WRITE : HK_WRITE));
    for (int64_t i = 0; i < x.outer * x.p.inner; i++) {
        struct box box = find_box(&x, i / x.p.inner, i % x.p.inner, corner(&x.c, i / x.p.inner, i % x.p.inner));
        box.sets = !d->spec[ACCUMULATE], box.biased = d->spec[BIAS];
        if (box.biased) check_bias(l, d, 3, &box);
        add_box(boxes, &box);
    }
}

/* One that writes products of parts of k to the scratch memory, [parts, items, m, n], and the launch after it, which adds
   them. */
static void add_parts(const struct launches *l, const struct hk_dispatch *d, struct boxes *boxes) {
    const struct hk_dispatch *const sum = d + 1;
    const struct launch x = read_launch(l, d, NULL);
    struct sum_push p;
    check_launch(&x);
    LAUNCH_REQUIRE(l, d, sum < l->items + l->count && launch_is(sum, "matmul_parts") && sum->push_bytes == sizeof p);
    LAUNCH_REQUIRE(l, d, !d->spec[BIAS] && !d->spec[ACCUMULATE] && d->bindings[2].access == HK_WRITE);
    memcpy(&p, sum->push, sizeof p);
    const int64_t m = x.p.m, n = x.p.n, items = x.p.inner;
    LAUNCH_REQUIRE(l, sum, p.parts == x.outer && p.elements == items * m * n && p.m == m && p.n == n);
    LAUNCH_REQUIRE(l, sum, x.c.stride[0] == items * m * n && (items == 1 || x.c.stride[1] == m * n) && steps(&x.c, 2, n));
    const struct launch_side parts = launch_side(l, sum, 0, NULL, 0), c = launch_side(l, sum, 1, &l->out[0], 0);
    LAUNCH_REQUIRE(l, sum, parts.first == x.c.at.first && parts.index + (int64_t)p.parts * p.elements <= parts.limit);
    LAUNCH_REQUIRE(l, sum, c.index + (items - 1) * p.c_batch + (m - 1) * p.c_row + n <= c.limit);
    LAUNCH_REQUIRE(l, sum, m == 1 || p.c_row == l->out[0].stride[l->out[0].rank - 2]);
    launch_check_groups(l, sum, (p.elements + sum->spec[0] - 1) / sum->spec[0]);
    for (int64_t i = 0; i < items; i++) {
        struct box box = find_box(&x, 0, i, c.first + i * p.c_batch);
        for (int64_t part = 1; part < x.outer; part++) {
            const struct box next = find_box(&x, part, i, c.first + i * p.c_batch);
            LAUNCH_REQUIRE(l, d, next.k0 == box.k1);
            box.k1 = next.k1;
        }
        box.sets = !sum->spec[2], box.biased = sum->spec[1];
        if (box.biased) check_bias(l, sum, 2, &box);
        add_box(boxes, &box);
    }
}

static bool share_elements(const struct box *a, const struct box *b) {
    return a->m0 < b->m1 && b->m0 < a->m1 && a->n0 < b->n1 && b->n0 < a->n1;
}

/* No product twice, all of them, in the order of k; the first sets c, and has the bias. */
static void check_cover(const struct launches *l, const struct boxes *boxes) {
    const struct hk_operand *const a = &l->in[0], *const c = &l->out[0];
    int64_t all = a->shape[a->rank - 1], sum = 0;
    const struct hk_dispatch *const last = l->items + l->count - 1;
    for (int i = 0; i < c->rank; i++) all *= c->shape[i];
    for (int i = 0; i < boxes->count; i++) {
        const struct box *x = &boxes->items[i];
        sum += (x->m1 - x->m0) * (x->n1 - x->n0) * (x->k1 - x->k0);
        LAUNCH_REQUIRE(l, last, x->sets == (x->k0 == 0));
        LAUNCH_REQUIRE(l, last, x->biased == (x->k0 == 0 && l->call->n_inputs > 2));
        for (int k = x->before; k >= 0; k = boxes->items[k].before)
            LAUNCH_REQUIRE(l, last, !share_elements(&boxes->items[k], x) || boxes->items[k].k1 <= x->k0);
    }
    LAUNCH_REQUIRE(l, last, sum == all);
}

void launches_check_matmul(const struct launches *l) {
    struct boxes boxes = {0};
    memset(boxes.last, -1, sizeof boxes.last);
    launches_check(l);
    for (const struct hk_dispatch *d = l->items; d < l->items + l->count; d++)
        if (d->bindings[2].buffer == &l->scratch) add_parts(l, d++, &boxes);
        else add_whole(l, d, &boxes);
    check_cover(l, &boxes);
    free(boxes.items);
}
