/* The call that a group of calls becomes, op/fused.h: what it reads and makes, whether a kernel can do it, and its steps. */
#include "graph/fuse.h"
#include <string.h>

static int number_of(struct hk_value *const *list, int count, const struct hk_value *value) {
    for (int i = 0; i < count; i++)
        if (list[i] == value) return i;
    return -1;
}

static bool add_distinct(struct hk_value **list, int *count, int most, struct hk_value *value) {
    if (number_of(list, *count, value) >= 0) return true;
    if (*count == most) return false;
    list[(*count)++] = value;
    return true;
}

/* Whether the call's shape can be that of all. */
static bool agree_on_shape(struct outline *o, const struct hk_call *call, const struct hk_value *in) {
    const struct hk_value *out = call->outputs[0];
    const int64_t elements = hk_elements(in);
    if (elements == 1 || (elements == hk_elements(out) && hk_is_dense(in))) return true;
    if (!o->shape) o->shape = out;
    return hk_same_shape(o->shape, out);
}

/* A head reads nothing that its group makes. */
static bool add_head(const struct fuser *f, int head, int a, int b, struct outline *o) {
    const struct hk_call *call = call_at(f, head);
    for (int k = 0; k < call->n_inputs; k++) {
        if (is_member(f, maker_of(f, call->inputs[k]), a, b)) return false;
        o->inputs[o->n_inputs++] = call->inputs[k];
    }
    o->head = call, o->n_head = call->n_inputs;
    o->keeps = used_outside(f, call->outputs[0], a, b);
    if (o->keeps) o->outputs[o->n_outputs++] = call->outputs[0];
    return true;
}

/* A tail reads all of what one call of its group makes. */
static bool add_tail(const struct fuser *f, int tail, int a, int b, struct outline *o) {
    struct hk_call *call = call_at(f, tail);
    struct hk_value *in = call->inputs[0];
    o->tail = call;
    o->keeps = used_outside(f, in->root, a, b);
    o->outputs[o->n_outputs++] = call->outputs[0];
    if (a == b && f->groups[a].n_members == 1) o->inputs[o->n_inputs++] = in;
    else if (!is_member(f, maker_of(f, in), a, b) || !is_whole(in)) return false;
    return true;
}

static bool is_end(const struct outline *o, const struct hk_call *call) { return call == o->head || call == o->tail; }

/* What the elementwise calls of group g read from outside of both, and make for it. False: more than one kernel takes, or one
   reads what another makes in another order. */
static bool add_group(const struct fuser *f, int g, int a, int b, struct outline *o) {
    const int most = HK_FUSED_INPUTS - (o->head != NULL);
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) {
        const struct hk_call *call = call_at(f, m);
        if (is_end(o, call)) continue;
        for (int k = 0; k < call->n_inputs; k++) {
            struct hk_value *in = call->inputs[k];
            const bool inside = is_member(f, maker_of(f, in), a, b);
            int n = o->n_inputs - o->n_head;
            if (inside ? !is_whole(in) || in->root->call == o->tail : !agree_on_shape(o, call, in)) return false;
            if (!inside && !add_distinct(o->inputs + o->n_head, &n, most, in)) return false;
            o->n_inputs = o->n_head + n;
        }
        if (used_outside(f, call->outputs[0], a, b) &&
            !add_distinct(o->outputs, &o->n_outputs, HK_FUSED_OUTPUTS, call->outputs[0]))
            return false;
    }
    return true;
}

/* The value as one of the group's shape, where it has as many elements. */
static struct hk_value in_shape(const struct hk_value *value, const struct hk_value *shape) {
    struct hk_value result = *value;
    if (hk_same_shape(value, shape) || !hk_is_dense(value) || hk_elements(value) != hk_elements(shape)) return result;
    result.rank = shape->rank;
    memcpy(result.shape, shape->shape, sizeof result.shape);
    hk_dense_strides(result.rank, result.shape, result.stride);
    return result;
}

/* The outputs that come before those of the elementwise calls. */
static int first_output(const struct outline *o) { return o->tail || (o->head && o->keeps); }

/* What the elementwise calls are given and asked for as steps: the head's result too, and what the tail reads. */
static int step_inputs(const struct outline *o) { return o->n_inputs - o->n_head + (o->head != NULL); }

static int step_outputs(const struct outline *o) { return o->n_outputs - first_output(o) + (o->tail && !o->keeps); }

/* The operands of the group's call: values as they are for the head, and the others in the shape of all. */
static void shape_operands(const struct outline *o, struct hk_value *inputs, struct hk_value *outputs) {
    for (int k = 0; k < o->n_inputs; k++)
        inputs[k] = k < o->n_head ? *o->inputs[k] : in_shape(o->inputs[k], o->shape);
    for (int k = 0; k < o->n_outputs; k++)
        outputs[k] = o->tail && k == 0 ? *o->outputs[k] : in_shape(o->outputs[k], o->shape);
}

static const struct hk_op *op_of(const struct outline *o) {
    return o->head ? o->head->op->followed : o->tail ? o->tail->op->preceded : &hk_op_fused;
}

/* The attributes of the group's call, in memory that has room for them, all but the steps and a tail's own. Where the steps
   are to be. */
static struct hk_fused *begin_attrs(const struct outline *o, void *attrs) {
    const struct hk_fused none = {.n_inputs = step_inputs(o), .n_outputs = step_outputs(o)};
    struct hk_followed *followed = attrs;
    struct hk_preceded *preceded = attrs;
    struct hk_fused *fused = attrs;
    if (o->head) {
        *followed = (struct hk_followed){.n_inputs = o->n_head, .keeps = o->keeps, .steps = none};
        return &followed->steps;
    }
    if (o->tail) {
        const struct hk_value *read = o->tail->inputs[0];
        const int last = o->keeps ? number_of(o->outputs + 1, o->n_outputs - 1, read->root) : o->n_outputs - 1;
        *preceded = (struct hk_preceded){.shape = hk_value_shape(o->shape), .read = hk_value_shape(read), .last = last,
                                         .keeps = o->keeps, .steps = none};
        return &preceded->steps;
    }
    *fused = none;
    return fused;
}

/* Whether the device's kernels can do it, and gain. */
static bool fits(const struct fuser *f, const struct outline *o) {
    struct hk_value inputs[HK_LENGTH(o->inputs)], outputs[HK_LENGTH(o->outputs)];
    struct hk_value *in[HK_LENGTH(o->inputs)], *out[HK_LENGTH(o->outputs)];
    union {
        struct hk_fused fused;
        struct hk_followed followed;
        struct hk_preceded preceded;
    } attrs;
    const struct hk_call call = {.op = op_of(o), .inputs = in, .n_inputs = o->n_inputs, .outputs = out,
                                 .n_outputs = o->n_outputs, .attrs = &attrs};
    if (!call.op->fits) return true;
    begin_attrs(o, &attrs);
    shape_operands(o, inputs, outputs);
    for (int k = 0; k < o->n_inputs; k++) in[k] = &inputs[k];
    for (int k = 0; k < o->n_outputs; k++) out[k] = &outputs[k];
    return call.op->fits(&call, f->layout->limits);
}

bool hk_fuse_outline(const struct fuser *f, int a, int b, struct outline *o) {
    const struct group *first = &f->groups[a], *other = &f->groups[b];
    const int head = HK_MAX(first->head, other->head), tail = HK_MAX(first->tail, other->tail);
    *o = (struct outline){0};
    if (head >= 0 && !add_head(f, head, a, b, o)) return false;
    if (tail >= 0 && !add_tail(f, tail, a, b, o)) return false;
    if (!add_group(f, a, a, b, o) || (a != b && !add_group(f, b, a, b, o))) return false;
    if (step_inputs(o) + step_outputs(o) > HK_FUSED_OPERANDS) return false;
    if (!o->shape) o->shape = o->tail ? made_by(f, a) : result_at(f, f->groups[b].last);
    return a == b || fits(f, o);
}

/* ---- The steps ---- */

/* The number of a value for the steps: inputs, of which the head's result is the first, then what steps before made. A view
   that is all of its root, as it is, is that. */
static int number_for_step(const struct outline *o, struct hk_value *const *results, int n_results,
                           const struct hk_value *value) {
    const struct hk_value *const whole = is_whole(value) ? value->root : value;
    const int made = number_of(results, n_results, whole);
    if (o->head && whole == o->head->outputs[0]) return 0;
    if (made >= 0) return step_inputs(o) + made;
    return (o->head != NULL) + number_of(o->inputs + o->n_head, o->n_inputs - o->n_head, value);
}

/* Bytes that a step's attributes take: the next ones are aligned. */
static uint32_t attrs_room(const struct hk_call *call) { return (uint32_t)(call->attrs_bytes + 15) / 16 * 16; }

/* Adds the steps of the group's elementwise calls, and behind them their attributes. Where these end, in bytes. */
static uint32_t write_steps(const struct fuser *f, int g, const struct outline *o, struct hk_fused *fused) {
    struct hk_value *results[HK_FUSED_STEPS];
    uint32_t end = sizeof *fused;
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) {
        const struct hk_call *call = call_at(f, m);
        if (is_end(o, call)) continue;
        const int s = fused->n_steps++;
        struct hk_fused_step *step = &fused->steps[s];
        *step = (struct hk_fused_step){.op = call->op, .attrs = end, .n_inputs = call->n_inputs, .last = s};
        step->from = call->inputs[0]->dtype, step->to = call->outputs[0]->dtype;
        step->output = number_of(o->outputs + first_output(o), o->n_outputs - first_output(o), call->outputs[0]);
        if (o->tail && o->tail->inputs[0]->root == call->outputs[0] && !o->keeps) step->output = fused->n_outputs - 1;
        for (int k = 0; k < call->n_inputs; k++) {
            step->inputs[k] = number_for_step(o, results, s, call->inputs[k]);
            if (step->inputs[k] >= fused->n_inputs) fused->steps[step->inputs[k] - fused->n_inputs].last = s;
        }
        results[s] = call->outputs[0];
        memcpy((char *)fused + end, call->attrs, call->attrs_bytes);
        end += attrs_room(call);
    }
    return end;
}

/* The attributes of the group's call, in memory that has room for them. */
static void write_attrs(const struct fuser *f, int g, const struct outline *o, void *attrs) {
    const uint32_t end = write_steps(f, g, o, begin_attrs(o, attrs));
    struct hk_preceded *preceded = attrs;
    if (!o->tail) return;
    preceded->attrs = (uint32_t)offsetof(struct hk_preceded, steps) + end;
    memcpy((char *)attrs + preceded->attrs, o->tail->attrs, o->tail->attrs_bytes);
}

/* ---- The call ---- */

/* Pointers to the values, in the arena as these are where they have got another shape. NULL when out of memory. */
static struct hk_value **keep_values(struct hk_arena *arena, struct hk_value *const *values, const struct hk_value *shaped,
                                     int count) {
    struct hk_value **pointers = hk_arena_copy(arena, values, (size_t)count * sizeof *pointers);
    for (int k = 0; pointers && k < count; k++)
        if (!hk_same_shape(&shaped[k], values[k]) && !(pointers[k] = hk_arena_copy(arena, &shaped[k], sizeof *shaped)))
            return NULL;
    return pointers;
}

struct hk_call *hk_fuse_call(const struct fuser *f, int g) {
    struct hk_arena *arena = &f->layout->arena;
    struct outline o;
    struct hk_value inputs[HK_LENGTH(o.inputs)], outputs[HK_LENGTH(o.outputs)];
    size_t bytes = 0;
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) bytes += attrs_room(call_at(f, m));
    hk_fuse_outline(f, g, g, &o);
    bytes += o.head ? sizeof(struct hk_followed) : o.tail ? sizeof(struct hk_preceded) : sizeof(struct hk_fused);
    struct hk_call *call = hk_arena_alloc(arena, sizeof *call);
    void *attrs = hk_arena_alloc(arena, bytes);
    if (!call || !attrs) return NULL;
    write_attrs(f, g, &o, attrs);
    shape_operands(&o, inputs, outputs);
    *call = (struct hk_call){.op = op_of(&o),
                             .graph = result_at(f, g)->graph,
                             .n_inputs = o.n_inputs,
                             .n_outputs = o.n_outputs,
                             .attrs = attrs,
                             .attrs_bytes = bytes,
                             .index = -1};
    call->inputs = keep_values(arena, o.inputs, inputs, o.n_inputs);
    call->outputs = keep_values(arena, o.outputs, outputs, o.n_outputs);
    return call->inputs && call->outputs ? call : NULL;
}
