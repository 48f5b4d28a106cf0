/* Optimizers: gradients into slabs, their norm, and one fused step over each slab. */
#include "base/base.h" /* hk_fail */
#include <hekla/nn.h>
#include <math.h>
#include <stdlib.h>

enum { MOMENTS = 2 };

struct hk_optimizer {
    struct hk_params *params;
    struct hk_optimizer_params how; /* defaults filled in */
    int64_t step;
    struct hk_tensor *hyper;   /* f32 [HK_HYPER_COUNT] */
    struct hk_tensor *norm;    /* f32 [1] */
    struct hk_tensor *scaling; /* f32 [HK_SCALING_COUNT]; NULL: the loss is not scaled */
    struct hk_tensor **moment; /* [slab * MOMENTS + m], NULL where the kind has none */
};

static int moments_of(const struct hk_optimizer_params *how) {
    switch (how->kind) {
    case HK_SGD:
        return how->momentum > 0;
    case HK_NESTEROV:
        return 1;
    case HK_ADAM:
    case HK_ADAMW:
        return 2;
    }
    return 0;
}

/* Not written as comparisons that a NaN would pass. */
static hk_status check(const struct hk_optimizer_params *how) {
    if ((unsigned)how->kind > HK_ADAMW)
        return hk_fail(HK_ERROR_INVALID, "optimizer: there is no kind %d", (int)how->kind);
    if (!(how->momentum >= 0 && how->momentum < 1))
        return hk_fail(HK_ERROR_INVALID, "optimizer: momentum (%g) must be in [0, 1)", (double)how->momentum);
    if (!(how->beta1 >= 0 && how->beta1 < 1 && how->beta2 >= 0 && how->beta2 < 1))
        return hk_fail(HK_ERROR_INVALID, "optimizer: beta1 (%g) and beta2 (%g) must be in [0, 1)", (double)how->beta1,
                       (double)how->beta2);
    if (!(how->epsilon >= 0 && how->weight_decay >= 0 && how->clip >= 0))
        return hk_fail(HK_ERROR_INVALID,
                       "optimizer: epsilon (%g), weight_decay (%g) and clip (%g) must not be negative",
                       (double)how->epsilon, (double)how->weight_decay, (double)how->clip);
    int exponent;
    const float scale = how->loss_scale;
    if (scale != 0 && !(scale >= 0x1p-24f && scale <= 0x1p40f && frexpf(scale, &exponent) == 0.5f))
        return hk_fail(HK_ERROR_INVALID, "optimizer: loss_scale (%g) must be a power of two from 2^-24 to 2^40, or 0",
                       (double)scale);
    if (how->scale_growth < 0 || how->scale_growth > 1 << 24)
        return hk_fail(HK_ERROR_INVALID, "optimizer: scale_growth (%lld) must be from 1 to 2^24, or 0",
                       (long long)how->scale_growth);
    return HK_OK;
}

static struct hk_tensor *make_scaling(struct hk_device *device, float scale) {
    const float first[HK_SCALING_COUNT] = {
        [HK_SCALING_SCALE] = scale, [HK_SCALING_POWER1] = 1, [HK_SCALING_POWER2] = 1};
    return hk_tensor_from(device, HK_F32, HK_SHAPE(HK_SCALING_COUNT), first);
}

struct hk_optimizer *hk_optimizer_create(struct hk_params *params, const struct hk_optimizer_params *how) {
    static const struct hk_optimizer_params defaults = {0};
    if (!how) how = &defaults;
    if (hk_params_status(params) || check(how)) return NULL;
    const int slabs = hk_params_slab_count(params);
    if (!slabs)
        return hk_fail(HK_ERROR_INVALID, "hk_optimizer_create: the parameters are not allocated, or none"), NULL;
    struct hk_device *device = hk_params_device(params);
    struct hk_optimizer *o = calloc(1, sizeof *o);
    if (!o || !(o->moment = calloc((size_t)slabs * MOMENTS, sizeof(struct hk_tensor *)))) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
        goto fail;
    }
    o->params = params;
    o->how = *how;
    if (o->how.beta1 == 0) o->how.beta1 = 0.9f;
    if (o->how.beta2 == 0) o->how.beta2 = 0.999f;
    if (o->how.epsilon == 0) o->how.epsilon = 1e-8f;
    if (o->how.scale_growth == 0) o->how.scale_growth = 2000;
    o->hyper = hk_tensor_create(device, HK_F32, HK_SHAPE(HK_HYPER_COUNT));
    o->norm = o->hyper ? hk_tensor_create(device, HK_F32, HK_SHAPE(1)) : NULL;
    if (!o->norm) goto fail;
    if (how->loss_scale > 0 && !(o->scaling = make_scaling(device, how->loss_scale))) goto fail;
    for (int s = 0; s < slabs; s++)
        for (int m = 0; m < moments_of(how); m++)
            if (!(o->moment[s * MOMENTS + m] =
                      hk_tensor_create(device, HK_F32, hk_tensor_shape(hk_params_slab(params, s)))))
                goto fail;
    return o;
fail:
    hk_optimizer_destroy(&o);
    return NULL;
}

void hk_optimizer_destroy(struct hk_optimizer **optimizer) {
    if (!optimizer || !*optimizer) return;
    struct hk_optimizer *o = *optimizer;
    for (int i = 0; o->moment && i < hk_params_slab_count(o->params) * MOMENTS; i++) hk_tensor_destroy(&o->moment[i]);
    free(o->moment);
    hk_tensor_destroy(&o->hyper);
    hk_tensor_destroy(&o->norm);
    hk_tensor_destroy(&o->scaling);
    free(o);
    *optimizer = NULL;
}

/* ---- What goes into graphs ---- */

/* NULL is what a failed creation gave: its message becomes the graph's. */
static bool is_missing(const struct hk_optimizer *o, struct hk_graph *graph) {
    if (!o) hk_graph_refuse(graph, hk_error_status(), hk_error_status() ? hk_error_message() : "the optimizer is NULL");
    return !o;
}

static struct hk_value *scaled(const struct hk_optimizer *o, struct hk_value *loss) {
    if (!o->scaling) return loss;
    struct hk_value *all = hk_leaf(hk_value_graph(loss), o->scaling);
    struct hk_value *scale = hk_slice(all, 0, HK_SCALING_SCALE, HK_SCALING_SCALE + 1, 1);
    return hk_mul(loss, hk_reshape(scale, hk_value_shape(loss)));
}

/* Gradients of all parameters, also of those that the loss does not depend on (zero), into the slabs: put there, or
   added to what is there. */
static hk_status store_gradients(struct hk_optimizer *o, struct hk_value *loss, bool add) {
    struct hk_graph *graph = hk_value_graph(loss);
    const int count = hk_params_count(o->params);
    struct hk_value **values = calloc((size_t)count * 2, sizeof(struct hk_value *)), **grads = values + count;
    if (!values) {
        hk_graph_refuse(graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while differentiating");
        return HK_ERROR_OUT_OF_MEMORY;
    }
    for (int i = 0; i < count; i++) values[i] = hk_leaf(graph, hk_params_tensor(o->params, i));
    const hk_status status = hk_gradients(scaled(o, loss), values, count, grads);
    for (int i = 0; !status && i < count; i++) {
        struct hk_tensor *held = hk_params_gradient(o->params, i);
        hk_store(held, add ? hk_add(hk_leaf(graph, held), grads[i]) : grads[i]);
    }
    free(values);
    return status ? status : hk_graph_status(graph);
}

static hk_status add_update(struct hk_optimizer *o, struct hk_graph *graph) {
    const int slabs = hk_params_slab_count(o->params);
    struct hk_tensor **gradients = calloc((size_t)slabs, sizeof(struct hk_tensor *));
    if (!gradients) {
        hk_graph_refuse(graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while building a graph");
        return HK_ERROR_OUT_OF_MEMORY;
    }
    for (int s = 0; s < slabs; s++) gradients[s] = hk_params_gradient_slab(o->params, s);
    struct hk_value *norm = hk_global_norm(graph, gradients, slabs), *hyper = hk_leaf(graph, o->hyper);
    if (o->scaling) hyper = hk_loss_scale(o->how.kind, o->scaling, hyper, norm, o->how.scale_growth, &norm);
    hk_store(o->norm, norm);
    for (int s = 0; s < slabs; s++)
        hk_optimizer_update(o->how.kind,
                            &(struct hk_optimizer_slab){.parameters = hk_params_slab(o->params, s),
                                                        .gradients = gradients[s],
                                                        .moment1 = o->moment[s * MOMENTS],
                                                        .moment2 = o->moment[s * MOMENTS + 1],
                                                        .copy = hk_params_copy_slab(o->params, s),
                                                        .decayed = hk_params_slab_decayed(o->params, s)},
                            hyper, o->how.clip > 0 ? norm : NULL);
    free(gradients);
    return hk_graph_status(graph);
}

hk_status hk_optimizer_minimize(struct hk_optimizer *optimizer, struct hk_value *loss) {
    struct hk_graph *graph = hk_value_graph(loss);
    if (!loss || is_missing(optimizer, graph)) return graph ? hk_graph_status(graph) : HK_ERROR_INVALID;
    const hk_status status = store_gradients(optimizer, loss, false);
    return status ? status : add_update(optimizer, graph);
}

hk_status hk_optimizer_accumulate(struct hk_optimizer *optimizer, struct hk_value *loss, float share) {
    struct hk_graph *graph = hk_value_graph(loss);
    if (!loss || is_missing(optimizer, graph)) return graph ? hk_graph_status(graph) : HK_ERROR_INVALID;
    /* a share of the loss has a share of every gradient, for one multiplication */
    return store_gradients(optimizer, share == 1 ? loss : hk_affine(loss, share, 0), true);
}

hk_status hk_optimizer_update_graph(struct hk_optimizer *optimizer, struct hk_graph *graph) {
    if (!graph) return hk_graph_status(graph);
    if (is_missing(optimizer, graph)) return hk_graph_status(graph);
    const hk_status status = add_update(optimizer, graph);
    for (int s = 0; !status && s < hk_params_slab_count(optimizer->params); s++) {
        struct hk_tensor *gradients = hk_params_gradient_slab(optimizer->params, s);
        hk_store(gradients, hk_fill(graph, HK_F32, hk_tensor_shape(gradients), 0));
    }
    return status ? status : hk_graph_status(graph);
}

/* ---- From step to step ---- */

hk_status hk_optimizer_advance(struct hk_optimizer *optimizer, float lr) {
    if (!optimizer) return hk_fail(HK_ERROR_INVALID, "hk_optimizer_advance: the optimizer is NULL");
    const struct hk_optimizer_params *how = &optimizer->how;
    const bool adaptive = how->kind == HK_ADAM || how->kind == HK_ADAMW;
    const double t = (double)(optimizer->step + 1);
    const float hyper[HK_HYPER_COUNT] = {
        [HK_HYPER_LR] = lr,
        [HK_HYPER_BETA1] = adaptive ? how->beta1 : how->momentum,
        [HK_HYPER_BETA2] = how->beta2,
        [HK_HYPER_EPSILON] = how->epsilon,
        [HK_HYPER_DECAY] = how->weight_decay,
        [HK_HYPER_BIAS1] = adaptive ? (float)(1 - pow((double)how->beta1, t)) : (float)(optimizer->step > 0),
        [HK_HYPER_BIAS2] = (float)(1 - pow((double)how->beta2, t)),
        [HK_HYPER_CLIP] = how->clip,
    };
    const hk_status status = hk_tensor_write(optimizer->hyper, hyper, sizeof hyper);
    if (!status) optimizer->step++;
    return status;
}

int64_t hk_optimizer_step(const struct hk_optimizer *optimizer) { return optimizer->step; }
void hk_optimizer_set_step(struct hk_optimizer *optimizer, int64_t step) { optimizer->step = step; }
struct hk_tensor *hk_optimizer_norm(struct hk_optimizer *optimizer) {
    return optimizer->norm;
}

struct hk_tensor *hk_optimizer_scaling(struct hk_optimizer *optimizer) {
    return optimizer->scaling;
}

struct hk_tensor *hk_optimizer_moment(struct hk_optimizer *optimizer, int m, int slab) {
    const bool is_one = m >= 0 && m < MOMENTS && slab >= 0 && slab < hk_params_slab_count(optimizer->params);
    return is_one ? optimizer->moment[slab * MOMENTS + m] : NULL;
}
