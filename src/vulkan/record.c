/* From the steps of a plan to launches. */
#include "vulkan/record.h"
#include "op/gpu.h"
#include <stdlib.h>

struct recorder {
    struct hk_recorder base; /* first: ops see this */
    struct vk_device *device;
    struct vk_chooser *chooser;
    const struct hk_op *op;
    const struct hk_step *step;
    struct vk_launches *launches;
};

static hk_status defect(const struct recorder *r, const struct hk_dispatch *d, const char *what, uint64_t number) {
    return hk_fail(HK_ERROR_INTERNAL, "%s: shader %s: %s (%llu)", r->op->name, d->shader, what, (unsigned long long)number);
}

static hk_status check_dispatch(const struct recorder *r, const struct hk_dispatch *d) {
    const struct hk_limits *limits = &r->device->limits;
    if (d->n_spec < 0 || d->n_spec > HK_MAX_SPEC) return defect(r, d, "too many specialization constants", (uint64_t)d->n_spec);
    if (d->push_bytes > HK_MAX_PUSH_BYTES || d->push_bytes % 4) return defect(r, d, "push constants of a bad size", d->push_bytes);
    if (d->n_bindings < 0 || d->n_bindings > HK_MAX_BINDINGS) return defect(r, d, "too many bindings", (uint64_t)d->n_bindings);
    if (d->n_spec && d->spec[0] > limits->max_invocations) return defect(r, d, "too many invocations", d->spec[0]);
    for (int i = 0; i < 3; i++)
        if (d->groups[i] > limits->max_groups) return defect(r, d, "too many workgroups", d->groups[i]);
    return HK_OK;
}

static hk_status check_binding(const struct recorder *r, const struct hk_dispatch *d, const struct hk_binding *b) {
    if (!b->buffer) return defect(r, d, "a binding without a buffer", (uint64_t)(b - d->bindings));
    if (b->offset % 4 || b->bytes % 4 || !b->bytes) return defect(r, d, "a binding that is not made of words", b->bytes);
    if (b->bytes > r->device->limits.max_range) return defect(r, d, "a binding over the device's limit of bytes", b->bytes);
    if (b->offset > b->buffer->bytes || b->bytes > b->buffer->bytes - b->offset)
        return defect(r, d, "a binding that leaves its buffer", b->offset + b->bytes);
    if (b->push_word < 0 || 4 * (uint32_t)b->push_word >= d->push_bytes)
        return defect(r, d, "a base outside of the push constants", (uint64_t)b->push_word);
    return HK_OK;
}

/* Rounds the binding's start down and tells the kernel how far. */
static void align_binding(const struct vk_device *device, struct hk_dispatch *d, struct hk_binding *b) {
    const uint32_t rest = (uint32_t)(b->offset % device->binding_align);
    uint32_t base;
    memcpy(&base, d->push + 4 * b->push_word, 4);
    base += rest / 4;
    memcpy(d->push + 4 * b->push_word, &base, 4);
    b->offset -= rest;
    b->bytes += rest;
}

static hk_status record(struct hk_recorder *base, const struct hk_dispatch *dispatch) {
    struct recorder *r = (struct recorder *)base;
    struct vk_launches *l = r->launches;
    const struct vk_shader *shader = dispatch->source ? NULL : vk_shader_find(dispatch->shader);
    if (!shader && !dispatch->source)
        return hk_fail(HK_ERROR_INTERNAL, "%s: no shader named %s", r->op->name, dispatch->shader);
    hk_status status = check_dispatch(r, dispatch);
    if (!status && dispatch->source) status = vk_written_find(r->device, dispatch->source, &shader);
    for (int i = 0; i < dispatch->n_bindings && !status; i++) status = check_binding(r, dispatch, &dispatch->bindings[i]);
    if (status) return status;
    if (!dispatch->groups[0] || !dispatch->groups[1] || !dispatch->groups[2]) return HK_OK;
    if (!hk_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items))
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while recording");
    struct vk_launch *launch = &l->items[l->count++];
    *launch = (struct vk_launch){.dispatch = *dispatch, .op = r->op, .shader = shader};
    launch->dispatch.shader = shader->name;
    launch->dispatch.source = NULL;
    for (int i = 0; i < dispatch->n_bindings; i++)
        align_binding(r->device, &launch->dispatch, &launch->dispatch.bindings[i]);
    return HK_OK;
}

static int choose(struct hk_recorder *base, const struct hk_choice *choice) {
    struct recorder *r = (struct recorder *)base;
    return r->chooser->choose(r->chooser, r->step, choice);
}

static struct hk_cost step_cost(const struct hk_step *step) {
    struct hk_cost cost = {0};
    if (step->op->cost) cost = step->op->cost(step);
    for (int i = 0; i < step->n_outputs && !step->op->cost; i++)
        cost.flops += (double)hk_operand_span(&step->outputs[i]) / (double)hk_dtype_size(step->outputs[i].dtype);
    if (cost.bytes > 0) return cost;
    for (int i = 0; i < step->n_inputs; i++) cost.bytes += (double)hk_operand_span(&step->inputs[i]);
    for (int i = 0; i < step->n_outputs; i++) cost.bytes += (double)hk_operand_span(&step->outputs[i]);
    return cost;
}

/* What launches from `first` on do not say of their cost is an equal share of the step's. */
static void share_cost(struct vk_launches *l, int first, const struct hk_step *step) {
    const struct hk_cost cost = step_cost(step);
    const double count = HK_MAX(l->count - first, 1);
    for (int i = first; i < l->count; i++) {
        struct hk_dispatch *d = &l->items[i].dispatch;
        if (d->flops <= 0) d->flops = cost.flops / count;
        if (d->bytes <= 0) d->bytes = cost.bytes / count;
    }
}

hk_status vk_record(struct vk_device *device, const struct hk_plan *plan, struct vk_chooser *chooser,
                    struct vk_launches *launches) {
    struct recorder r = {.base = {&device->limits, record, chooser ? choose : NULL},
                         .device = device,
                         .chooser = chooser,
                         .launches = launches};
    for (int i = 0; i < plan->n_steps; i++) {
        const struct hk_step *step = &plan->steps[i];
        const int first = launches->count;
        r.op = step->op;
        r.step = step;
        if (!step->op->gpu) return hk_fail(HK_ERROR_UNSUPPORTED, "%s has no GPU kernel", step->op->name);
        const hk_status status = step->op->gpu(step, &r.base);
        if (status) return status;
        share_cost(launches, first, step);
    }
    return HK_OK;
}

void vk_launches_free(struct vk_launches *launches) {
    free(launches->items);
    *launches = (struct vk_launches){0};
}
