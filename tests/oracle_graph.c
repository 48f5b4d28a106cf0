/* Random graphs. Tensors are views at random places of a few storages, so that leaves, stores, caches and updates overlap in
   every way. What an op needs is looked for among the last values; where there is none, another op is tried. */
#include "oracle.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_ELEMENTS = 4096, STORAGE_ELEMENTS = 4800 };

static int64_t pick(struct world *w, int64_t count) { return (int64_t)(test_random(&w->random) % (uint64_t)count); }
static bool chance(struct world *w, int percent) { return pick(w, 100) < percent; }

/* ---- Values ---- */

/* Keeps numbers small, so that those made of them stay exact. */
static struct hk_value *keep_small(struct world *w, struct hk_value *v) {
    double *x = numbers_of(w->numbers, v), most = 0;
    for (int64_t i = 0, n = hk_elements(v); i < n; i++) most = x[i] > most ? x[i] : -x[i] > most ? -x[i] : most;
    free(x);
    if (most <= 60) return v;
    const double limit = 20 + (double)pick(w, 20);
    v = hk_minimum(v, hk_fill(w->graph, v->dtype, HK_SCALAR, limit));
    return hk_maximum(v, hk_fill(w->graph, v->dtype, HK_SCALAR, -limit));
}

static void add(struct world *w, struct hk_value *v) {
    if (!v || w->n_values == WORLD_VALUES || hk_elements(v) > MOST_ELEMENTS || hk_elements(v) == 0) return;
    if (w->exact) {
        numbers_follow(w->numbers);
        if (numbers_lost(w->numbers, NULL)) return;
        v = keep_small(w, v);
        numbers_follow(w->numbers);
    }
    w->values[w->n_values++] = v;
}

/* Mostly one of the last few, so that most values are soon read for the last time and their memory is free. */
static struct hk_value *any(struct world *w) {
    const int64_t count = chance(w, 75) && w->n_values > 4 ? 4 : w->n_values;
    return w->values[w->n_values - 1 - pick(w, count)];
}

/* One of the dtype, with at least so many dimensions; NULL where a few looks find none. */
static struct hk_value *of(struct world *w, enum hk_dtype dtype, int rank) {
    for (int i = 0; i < 30; i++) {
        struct hk_value *v = any(w);
        if (v->dtype == dtype && v->rank >= rank) return v;
    }
    return NULL;
}

static bool broadcasts(const struct hk_value *a, const struct hk_value *b) {
    for (int i = a->rank - 1, k = b->rank - 1; i >= 0 && k >= 0; i--, k--)
        if (a->shape[i] != b->shape[k] && a->shape[i] != 1 && b->shape[k] != 1) return false;
    return true;
}

static struct hk_value *partner(struct world *w, const struct hk_value *a) {
    for (int i = 0; i < 30; i++) {
        struct hk_value *v = any(w);
        if (v->dtype == a->dtype && broadcasts(a, v)) return v;
    }
    return NULL;
}

static struct hk_shape shape_of(const struct hk_value *v) { return hk_value_shape(v); }

/* ---- Tensors ---- */

static struct hk_tensor *view(struct world *w, int storage, struct hk_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++) n *= shape.size[i];
    if (n > STORAGE_ELEMENTS || w->n_views == WORLD_VIEWS) return NULL;
    /* mostly at one of a few places, so that many are the same */
    const int64_t room = STORAGE_ELEMENTS - n;
    int64_t first = pick(w, 3) * 640;
    if (chance(w, 30) || first > room) first = pick(w, room + 1);
    return w->views[w->n_views++] = hk_tensor_view(w->storages[storage], first, shape);
}

static int storage_of(struct world *w, enum hk_dtype dtype) {
    return dtype == HK_I32 ? WORLD_STORAGES - 1 : (int)pick(w, WORLD_STORAGES - 1);
}

static struct hk_shape random_shape(struct world *w) {
    const int64_t a = chance(w, 80) ? w->d0 : 1, b = w->d1;
    switch (pick(w, 6)) {
    case 0: return HK_SHAPE(b);
    case 1: return HK_SHAPE(a, 1);
    case 2: return HK_SHAPE(2, a, b);
    case 3: return HK_SHAPE(b, a);
    default: return HK_SHAPE(a, b);
    }
}

static void add_leaf(struct world *w) {
    const enum hk_dtype dtype = chance(w, 20) ? HK_I32 : HK_F32;
    struct hk_tensor *tensor = view(w, storage_of(w, dtype), random_shape(w));
    if (tensor) add(w, hk_leaf(w->graph, tensor));
}

static void add_store(struct world *w) {
    struct hk_value *v = any(w);
    if (v->dtype != HK_F32 && v->dtype != HK_I32) return;
    struct hk_tensor *tensor = view(w, storage_of(w, v->dtype), shape_of(v));
    if (!tensor) return;
    hk_store(tensor, v);
    w->stores++;
}

/* ---- Ops on whole numbers ---- */

static void add_unary(struct world *w) {
    struct hk_value *v = any(w);
    if (v->dtype != HK_F32 && v->dtype != HK_I32) return;
    const bool f32 = v->dtype == HK_F32;
    switch (pick(w, f32 ? 6 : 3)) {
    case 0: add(w, hk_neg(v)); break;
    case 1: add(w, hk_abs(v)); break;
    case 2: add(w, hk_square(v)); break;
    case 3: add(w, hk_relu(v)); break;
    default: add(w, hk_affine(v, (float)(pick(w, 5) - 2), (float)(pick(w, 9) - 4)));
    }
}

static void add_binary(struct world *w) {
    struct hk_value *a = any(w), *b = partner(w, a);
    if (!b || (a->dtype != HK_F32 && a->dtype != HK_I32)) return;
    if (chance(w, 50)) { /* the order decides which is taken over in place */
        struct hk_value *swap = a;
        a = b, b = swap;
    }
    switch (pick(w, 8)) {
    case 0: case 1: add(w, hk_add(a, b)); break;
    case 2: case 3: add(w, hk_sub(a, b)); break;
    case 4: add(w, hk_mul(a, b)); break;
    case 5: add(w, hk_maximum(a, b)); break;
    case 6: add(w, hk_minimum(a, b)); break;
    default: add(w, hk_where(hk_less(a, b), chance(w, 50) ? a : b, hk_add(a, b)));
    }
}

static void add_comparison(struct world *w) {
    struct hk_value *a = any(w), *b = partner(w, a);
    if (!b || (a->dtype != HK_F32 && a->dtype != HK_I32)) return;
    add(w, chance(w, 50) ? hk_greater_equal(a, b) : hk_not_equal(a, b));
}

static void add_matmul(struct world *w) {
    struct hk_value *a = of(w, HK_F32, 2);
    if (!a) return;
    for (int i = 0; i < 30; i++) {
        struct hk_value *b = of(w, HK_F32, 2);
        if (!b || b->rank > 2) continue;
        if (b->shape[0] != a->shape[a->rank - 1]) b = hk_transpose(b);
        if (b->shape[0] != a->shape[a->rank - 1]) continue;
        add(w, hk_matmul(a, b));
        return;
    }
}

static void add_reduction(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 1);
    if (!v) return;
    const struct hk_axes axes = chance(w, 15) ? HK_ALL_AXES : HK_AXES((int)pick(w, v->rank));
    const bool keep = chance(w, 60);
    const int64_t kind = pick(w, 8);
    add(w, kind == 0 ? hk_max(v, axes, keep) : kind == 1 ? hk_argmax(v, axes, keep) : hk_sum(v, axes, keep));
}

static void add_slice(struct world *w, struct hk_value *v) {
    const int axis = (int)pick(w, v->rank);
    const int64_t size = v->shape[axis], begin = pick(w, size), end = begin + 1 + pick(w, size - begin);
    add(w, hk_slice(v, axis, begin, end, 1 + pick(w, 3)));
}

static void add_shape(struct world *w) {
    struct hk_value *v = any(w);
    const int64_t n = hk_elements(v);
    struct hk_shape wide = shape_of(v);
    if (v->rank == 0) return;
    switch (pick(w, 6)) {
    case 0: add(w, v->rank > 1 ? hk_transpose(v) : hk_reshape(v, HK_SHAPE(1, n))); break;
    case 1: case 2: add_slice(w, v); break;
    case 3: add(w, hk_reshape(v, n % w->d1 ? HK_SHAPE(n) : HK_SHAPE(n / w->d1, w->d1))); break;
    case 4:
        if (v->rank == HK_MAX_RANK) break;
        for (int i = 0; i < wide.rank; i++) wide.size[i] = wide.size[i] == 1 ? 2 : wide.size[i];
        add(w, hk_broadcast_to(v, wide));
        break;
    default: add(w, v->rank > 2 ? hk_permute(v, HK_AXES(1, 2, 0)) : hk_reshape(v, HK_SHAPE(-1)));
    }
}

/* Halves of one value change places, or two values lie side by side. */
static void add_concat(struct world *w) {
    struct hk_value *v = any(w);
    if (v->rank == 0) return;
    const int axis = (int)pick(w, v->rank);
    const int64_t size = v->shape[axis], cut = 1 + pick(w, size);
    struct hk_value *parts[3] = {v, v, v};
    if (cut < size && chance(w, 60)) {
        parts[0] = hk_slice(v, axis, cut, size, 1), parts[1] = hk_slice(v, axis, 0, cut, 1);
        add(w, hk_concat(parts, 2, axis));
        return;
    }
    struct hk_value *other = partner(w, v);
    if (other && hk_same_shape(other, v)) parts[1] = other;
    add(w, hk_concat(parts, 2 + chance(w, 30), axis));
}

static void add_pad(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 1);
    int64_t before[HK_MAX_RANK], after[HK_MAX_RANK];
    if (!v) return;
    for (int i = 0; i < v->rank; i++) before[i] = pick(w, 3), after[i] = pick(w, 3);
    add(w, hk_pad(v, before, after, (float)pick(w, 3)));
}

static void add_cast(struct world *w) {
    struct hk_value *v = any(w);
    if (w->exact) {
        add(w, v->dtype == HK_F32 ? hk_cast(v, HK_I32) : hk_cast(v, HK_F32));
        return;
    }
    static const enum hk_dtype small[] = {HK_F16, HK_BF16, HK_U8, HK_I32, HK_I8};
    struct hk_value *cast = hk_cast(v, v->dtype == HK_F32 ? small[pick(w, 5)] : HK_F32);
    add(w, cast);
    if (cast && cast->dtype != HK_F32 && chance(w, 80)) add(w, hk_cast(cast, HK_F32));
}

static void add_embedding(struct world *w) {
    struct hk_value *table = of(w, HK_F32, 2), *index = of(w, HK_I32, 1);
    if (!table || !index || table->rank != 2 || index->rank > 2 || hk_elements(index) * table->shape[1] > MOST_ELEMENTS) return;
    index = hk_minimum(index, hk_fill(w->graph, HK_I32, HK_SCALAR, (double)(table->shape[0] - 1)));
    index = hk_maximum(index, hk_fill(w->graph, HK_I32, HK_SCALAR, 0));
    add(w, hk_embedding(table, index));
}

/* ---- Ops that write tensors ---- */

static void add_cache(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 2);
    if (!v || v->rank != 2 || v->shape[0] % 2) return;
    const int64_t T = v->shape[0] / 2, S = T + pick(w, 3), D = v->shape[1];
    struct hk_value *rows = hk_reshape(v, HK_SHAPE(1, 2, T, D));
    struct hk_tensor *cache = view(w, storage_of(w, HK_F32), HK_SHAPE(1, 2, S, D));
    if (!cache) return;
    add(w, hk_cache_write(cache, rows, hk_leaf(w->graph, w->position)));
    w->caches++;
}

/* Of four parts of one storage, or of two storages, that do not overlap. */
static void add_update(struct world *w) {
    enum { PART = STORAGE_ELEMENTS / 4 };
    const int64_t count = 1 + pick(w, PART), first = pick(w, PART - count + 1);
    struct hk_tensor *t[4];
    if (w->n_views + 4 > WORLD_VIEWS) return;
    for (int i = 0; i < 4; i++)
        t[i] = w->views[w->n_views++] =
            hk_tensor_view(w->storages[i == 1 ? 1 : 0], i * PART + first, HK_SHAPE(count));
    struct hk_value *hyper = hk_leaf(w->graph, w->hyper);
    struct hk_value *norm = w->exact ? NULL : hk_global_norm(w->graph, (struct hk_tensor *[]){t[1], t[3]}, 2);
    const struct hk_optimizer_slab plain = {.parameters = t[0], .gradients = t[1]};
    const struct hk_optimizer_slab all = {
        .parameters = t[0], .gradients = t[1], .moment1 = t[2], .moment2 = t[3], .decayed = count / 2};
    if (w->exact) hk_optimizer_update(HK_SGD, &plain, hyper, NULL);
    else hk_optimizer_update(chance(w, 50) ? HK_ADAMW : HK_NESTEROV, &all, hyper, norm);
    w->updates++;
}

/* ---- Gradients ---- */

static void add_checkpoint(struct world *w) {
    hk_checkpoint(any(w));
    w->checkpoints++;
}

static void add_gradient(struct world *w) {
    enum { WRT = 3 };
    struct hk_value *loss = NULL, *wrt[WRT], *grads[WRT];
    for (int i = 0; i < 2; i++) {
        struct hk_value *v = of(w, HK_F32, 0);
        if (!v) return;
        v = w->exact ? hk_sum(v, HK_ALL_AXES, false) : hk_mean(hk_square(v), HK_ALL_AXES, false);
        loss = loss ? hk_add(loss, v) : v;
    }
    for (int i = 0; i < WRT; i++)
        if (!(wrt[i] = of(w, HK_F32, 1))) return;
    if (hk_gradients(loss, wrt, WRT, grads)) return;
    w->gradients++;
    for (int i = 0; i < WRT; i++) {
        add(w, grads[i]);
        struct hk_tensor *tensor = chance(w, 50) ? view(w, storage_of(w, HK_F32), shape_of(grads[i])) : NULL;
        if (tensor) hk_store(tensor, hk_add(hk_leaf(w->graph, tensor), grads[i]));
    }
}

/* ---- Ops whose results are rounded ---- */

static void add_rowwise(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 2);
    if (!v) return;
    const int64_t C = v->shape[v->rank - 1];
    struct hk_value *one = hk_fill(w->graph, HK_F32, HK_SHAPE(C), 1.5);
    switch (pick(w, 5)) {
    case 0: add(w, hk_softmax(v, -1)); break;
    case 1: add(w, hk_log_softmax(v, chance(w, 70) ? -1 : 0)); break;
    case 2: add(w, hk_layer_norm(v, one, chance(w, 50) ? one : NULL, 1e-5f)); break;
    case 3: add(w, hk_rms_norm(v, one, 1e-5f)); break;
    default: add(w, hk_reshape(hk_cross_entropy(v, hk_argmax(v, HK_AXES(-1), false), NULL), HK_SHAPE(1)));
    }
}

static void add_curve(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 0);
    if (!v) return;
    switch (pick(w, 5)) {
    case 0: add(w, hk_gelu(v)); break;
    case 1: add(w, hk_tanh(v)); break;
    case 2: add(w, hk_sigmoid(v)); break;
    case 3: add(w, hk_dropout(v, 0.25f, hk_leaf(w->graph, w->rng))); break;
    default: add(w, hk_random_normal(hk_leaf(w->graph, w->rng), shape_of(v), 0, 1));
    }
}

static void add_attention(struct world *w) {
    struct hk_value *v = of(w, HK_F32, 2);
    if (!v || v->rank != 2 || v->shape[1] % 4 || v->shape[1] > 512) return;
    const int64_t T = v->shape[0], C = v->shape[1];
    const struct hk_axes heads = HK_AXES(0, 2, 1, 3);
    struct hk_value *q = hk_permute(hk_reshape(v, HK_SHAPE(1, T, 2, C / 2)), heads), *k = hk_rope(q, NULL), *y;
    y = hk_attention(chance(w, 50) ? k : q, k, chance(w, 50) ? q : hk_neg(q), &(struct hk_attention_params){.causal = chance(w, 70)});
    add(w, hk_reshape(hk_permute(y, heads), HK_SHAPE(T, C)));
}

/* ---- Graphs ---- */

static const struct {
    void (*add)(struct world *w);
    int weight;
    bool rounds; /* not for whole numbers */
} kinds[] = {
    {add_unary, 12, false},     {add_binary, 20, false}, {add_comparison, 3, false}, {add_matmul, 6, false},
    {add_reduction, 6, false},  {add_shape, 14, false},  {add_concat, 5, false},     {add_pad, 3, false},
    {add_cast, 5, false},       {add_leaf, 6, false},    {add_store, 12, false},     {add_cache, 3, false},
    {add_update, 2, false},     {add_embedding, 3, false}, {add_checkpoint, 3, false}, {add_gradient, 2, false},
    {add_rowwise, 10, true},    {add_curve, 8, true},    {add_attention, 5, true},
};

static void add_op(struct world *w) {
    int total = 0;
    for (int i = 0; i < COUNT(kinds); i++) total += kinds[i].rounds && w->exact ? 0 : kinds[i].weight;
    int64_t at = pick(w, total);
    for (int i = 0; i < COUNT(kinds); i++) {
        if (kinds[i].rounds && w->exact) continue;
        if ((at -= kinds[i].weight) >= 0) continue;
        kinds[i].add(w);
        return;
    }
}

static void make_storages(struct world *w) {
    static double as_doubles[STORAGE_ELEMENTS];
    for (int s = 0; s < WORLD_STORAGES; s++) {
        const bool i32 = s == WORLD_STORAGES - 1;
        float *numbers = w->initial[s] = malloc(STORAGE_ELEMENTS * sizeof(float));
        for (int i = 0; i < STORAGE_ELEMENTS; i++) {
            as_doubles[i] = w->exact || i32 ? (double)pick(w, 21) - 10 : test_uniform(&w->random, -1, 1);
            const int32_t whole = (int32_t)as_doubles[i];
            numbers[i] = (float)as_doubles[i];
            if (i32) memcpy(&numbers[i], &whole, 4);
        }
        w->storages[s] = hk_tensor_create(w->device, i32 ? HK_I32 : HK_F32, HK_SHAPE(STORAGE_ELEMENTS));
        numbers_set(w->numbers, w->storages[s]->storage, as_doubles, STORAGE_ELEMENTS);
    }
}

static void make_settings(struct world *w) {
    const int32_t position = (int32_t)pick(w, 3), rng[4] = {7, 0, 1, 0};
    const float hyper[HK_HYPER_COUNT] = {w->exact ? 1 : 0.01f, 0.9f, 0.99f, 1e-8f, w->exact ? 0 : 0.1f, 0.5f, 0.5f, 1};
    const double as_double = position;
    double hypers[HK_HYPER_COUNT];
    w->position = hk_tensor_from(w->device, HK_I32, HK_SHAPE(1), &position);
    w->rng = hk_tensor_from(w->device, HK_I32, HK_SHAPE(4), rng);
    w->hyper = hk_tensor_from(w->device, HK_F32, HK_SHAPE(HK_HYPER_COUNT), hyper);
    for (int i = 0; i < HK_HYPER_COUNT; i++) hypers[i] = (double)hyper[i];
    numbers_set(w->numbers, w->position->storage, &as_double, 1);
    numbers_set(w->numbers, w->hyper->storage, hypers, HK_HYPER_COUNT);
}

bool world_create(struct world *w, struct hk_device *device, uint64_t seed, bool exact, int steps) {
    static const int64_t sizes[] = {3, 8, 12, 16, 20, 33, 40, 64};
    *w = (struct world){.device = device, .seed = seed, .random = seed * 2 + exact, .exact = exact};
    w->graph = hk_graph_create();
    w->numbers = numbers_create(w->graph);
    w->d0 = sizes[pick(w, COUNT(sizes) - 1)], w->d1 = sizes[pick(w, COUNT(sizes))];
    if (2 * w->d0 * w->d1 > MOST_ELEMENTS) w->d0 = 8;
    make_storages(w);
    make_settings(w);
    for (int i = 0; i < 3; i++) add_leaf(w);
    while (w->n_values == 0) add_leaf(w);
    for (int i = 0; i < steps && !w->graph->status; i++) add_op(w);
    for (int i = 0; i < 3; i++) add_store(w);
    if (w->exact) numbers_follow(w->numbers);
    return !w->graph->status && w->stores && !(w->exact && numbers_lost(w->numbers, NULL));
}

void world_destroy(struct world *w) {
    hk_graph_destroy(&w->graph);
    numbers_destroy(w->numbers);
    for (int i = 0; i < w->n_views; i++) hk_tensor_destroy(&w->views[i]);
    for (int s = 0; s < WORLD_STORAGES; s++) {
        hk_tensor_destroy(&w->storages[s]);
        free(w->initial[s]);
    }
    hk_tensor_destroy(&w->position);
    hk_tensor_destroy(&w->rng);
    hk_tensor_destroy(&w->hyper);
}

void world_reset(struct world *w) {
    for (int s = 0; s < WORLD_STORAGES; s++)
        hk_tensor_write(w->storages[s], w->initial[s], hk_tensor_bytes(w->storages[s]));
}

const char *world_name(const struct world *w) {
    static char text[400];
    snprintf(text, sizeof text, "seed %llu, %s, on %s", (unsigned long long)w->seed,
             w->exact ? "whole numbers" : "any numbers", test_device_name(w->device));
    return text;
}
