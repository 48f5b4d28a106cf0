/* Gradients: reverse-mode differentiation that turns a graph into a longer graph, and checkpointing, which repeats a part of
   the forward ops where the backward ops need them. */
#include "graph/graph.h"
#include "op/op.h"
#include <stdlib.h>
#include <string.h>

/* ---- Views that mean something to gradients alone ---- */

static const struct hk_op stop_gradient_op = {
    .name = "stop_gradient", .min_inputs = 1, .max_inputs = 1, .n_outputs = 1, .flags = HK_OP_VIEW};

struct hk_value *hk_stop_gradient(struct hk_value *x) {
    if (!x) return NULL;
    return hk_call_view(&stop_gradient_op, x, x->rank, x->shape, x->stride, 0, NULL, 0);
}

/* x, stand_in -> stand_in */
static bool straight_through_infer(struct hk_call *call) {
    const struct hk_value *x = call->inputs[0], *stand_in = call->inputs[1];
    struct hk_value *view = call->outputs[0];
    if (!hk_same_shape(x, stand_in) || !hk_is_float(x->dtype) || !hk_is_float(stand_in->dtype))
        return hk_graph_fail(call->graph, HK_ERROR_INVALID,
                             "straight_through: x is %s %s and its stand-in %s %s: they must be of one shape, and f32, f16 or bf16",
                             hk_dtype_name(x->dtype), hk_shape_text(x), hk_dtype_name(stand_in->dtype), hk_shape_text(stand_in));
    view->dtype = stand_in->dtype;
    view->rank = stand_in->rank;
    memcpy(view->shape, stand_in->shape, sizeof view->shape);
    memcpy(view->stride, stand_in->stride, sizeof view->stride);
    view->offset = stand_in->offset;
    view->root = stand_in->root;
    return true;
}

static void straight_through_backward(struct hk_backward *b) { b->results[0] = hk_cast(b->grads[0], b->call->inputs[0]->dtype); }

static const struct hk_op straight_through_op = {
    .name = "straight_through", .min_inputs = 2, .max_inputs = 2, .n_outputs = 1, .flags = HK_OP_VIEW,
    .infer = straight_through_infer, .backward = straight_through_backward};

struct hk_value *hk_straight_through(struct hk_value *x, struct hk_value *stand_in) {
    return hk_call_op(NULL, &straight_through_op, (struct hk_value *[]){x, stand_in}, 2, NULL, 0);
}

struct hk_value *hk_checkpoint(struct hk_value *value) {
    if (!value) return NULL;
    value->kept = true;
    value->graph->segment++;
    return value;
}

/* ---- The pass ---- */

/* The gradients that have arrived at one value and are not added yet. */
struct arrivals {
    struct hk_value **grads;
    int count, capacity;
};

struct pass {
    struct hk_graph *graph;
    int n_values, n_calls;      /* of the forward graph: what the pass adds comes after */
    struct arrivals *arrivals;  /* by value id */
    bool *depends;              /* by value id: on any of wrt */
    struct hk_call **repeated;  /* by call index: the call that computes the same again, or NULL */
    int last_segment;           /* is not repeated */
    int last_write;             /* index of the last call that writes a tensor; -1: none does */
};

static bool receive(struct pass *p, struct hk_value *value, struct hk_value *grad) {
    struct arrivals *a = &p->arrivals[value->id];
    if (!hk_grow(&a->grads, &a->capacity, a->count + 1, sizeof *a->grads)) {
        hk_graph_fail(p->graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while differentiating");
        return false;
    }
    a->grads[a->count++] = grad;
    return true;
}

/* 16-bit gradients are added in f32; the sum is f32 too where one of them is. */
static struct hk_value *add_all(struct hk_value *const *grads, int count) {
    enum hk_dtype dtype = hk_value_dtype(grads[0]);
    const enum hk_dtype wide = dtype == HK_F16 || dtype == HK_BF16 ? HK_F32 : dtype;
    for (int i = 1; i < count; i++)
        if (hk_value_dtype(grads[i]) != dtype) dtype = wide;
    struct hk_value *sum = hk_cast(grads[0], wide);
    for (int i = 1; i < count; i++) sum = hk_add(sum, hk_cast(grads[i], wide));
    return hk_cast(sum, dtype);
}

/* The sum of what arrived, NULL where nothing did. */
static struct hk_value *total(struct pass *p, const struct hk_value *value) {
    struct arrivals *a = &p->arrivals[value->id];
    if (a->count == 0) return NULL;
    if (a->count > 1) {
        struct hk_value *sum = NULL;
        for (int i = 0; i < a->count && !sum; i++) {
            const struct hk_call *maker = a->grads[i] ? a->grads[i]->call : NULL;
            if (maker && maker->op->merge) sum = maker->op->merge(a->grads, a->count, i);
        }
        a->grads[0] = sum ? sum : add_all(a->grads, a->count);
        a->count = 1;
    }
    return a->grads[0];
}

/* depends[] and the ops' order make one sweep enough. */
static void find_dependents(struct pass *p) {
    for (int i = 0; i < p->n_calls; i++) {
        const struct hk_call *call = p->graph->calls[i];
        bool any = false;
        if (call->op == &stop_gradient_op) continue;
        for (int k = 0; k < call->n_inputs; k++) any |= p->depends[call->inputs[k]->id];
        for (int k = 0; any && k < call->n_outputs; k++) p->depends[call->outputs[k]->id] = true;
    }
}

/* ---- Tensors that have changed since ---- */

/* The call after `from` that writes the tensor of which the value is; NULL where none does. */
static const struct hk_call *find_writer(const struct pass *p, const struct hk_value *value, int from) {
    for (int i = from + 1; !value->root->call && i <= p->last_write; i++) {
        const struct hk_call *call = p->graph->calls[i];
        for (int k = 0; k < call->n_inputs; k++)
            if (call->op->writes >> k & 1 && hk_share_tensor(call->inputs[k], value)) return call;
    }
    return NULL;
}

/* What a new call reads of tensors is still what the forward call that it is for read. */
static bool check_call(struct pass *p, const struct hk_call *forward, const struct hk_call *call) {
    for (int k = 0; k < call->n_inputs; k++) {
        const struct hk_call *writer = find_writer(p, call->inputs[k], forward->index);
        if (!writer) continue;
        hk_graph_fail(p->graph, HK_ERROR_INVALID, "hk_gradients: the gradient of %s needs a tensor %s as it was, but %s has "
                      "changed it: add gradients before the ops that write what the loss depends on", forward->op->name,
                      hk_shape_text(call->inputs[k]->root), writer->op->name);
        return false;
    }
    return true;
}

/* The same of all new calls from index `first` on. */
static bool check_reads(struct pass *p, const struct hk_call *forward, int first) {
    for (int i = first; i < p->graph->n_calls; i++)
        if (!check_call(p, forward, p->graph->calls[i])) return false;
    return true;
}

/* ---- Checkpointing: segment s is all calls made between the marks s - 1 and s ---- */

static struct hk_value *repeated_value(void *context, struct hk_value *value) {
    struct pass *p = context;
    const struct hk_call *call = value->call;
    if (value->kept || !call || call->index >= p->n_calls || !p->repeated[call->index]) return value;
    return p->repeated[call->index]->outputs[value->output];
}

/* Repeats a segment's calls; those that turn out not to be needed are removed when the graph is compiled. */
static void repeat_segment(struct pass *p, int segment) {
    for (int i = 0; i < p->n_calls; i++) {
        struct hk_call *call = p->graph->calls[i];
        if (call->segment != segment || call->op->writes) continue;
        p->repeated[i] = hk_graph_repeat(call, repeated_value, p);
        if (!p->repeated[i]) return;
    }
}

/* Repeated calls that a gradient needs, and no others, must find the tensors that they read unchanged. */
static void check_repeated(struct pass *p) {
    const int n = p->graph->n_calls - p->n_calls;
    const struct hk_call **original = calloc((size_t)n + 1, sizeof *original); /* by new call: the one that it repeats */
    bool *needed = calloc((size_t)n + 1, 1);
    if (!original || !needed) {
        hk_graph_fail(p->graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while differentiating");
        goto done;
    }
    for (int i = 0; i < p->n_calls; i++)
        if (p->repeated[i]) original[p->repeated[i]->index - p->n_calls] = p->graph->calls[i];
    for (int i = n - 1; i >= 0; i--) {
        const struct hk_call *call = p->graph->calls[p->n_calls + i];
        if (original[i] && (!needed[i] || call->op->flags & HK_OP_VIEW)) continue;
        if (original[i] && !check_call(p, original[i], call)) break;
        for (int k = 0; k < call->n_inputs; k++) {
            const struct hk_call *maker = call->inputs[k]->root->call;
            if (maker && maker->index >= p->n_calls) needed[maker->index - p->n_calls] = true;
        }
    }
done:
    free(original);
    free(needed);
}

static struct hk_call *call_for_backward(struct pass *p, struct hk_call *call) {
    if (call->segment >= p->last_segment) return call;
    if (!p->repeated[call->index]) repeat_segment(p, call->segment);
    return p->repeated[call->index] ? p->repeated[call->index] : call;
}

/* ---- Cheap values: large ones are computed again from what is kept anyway, without a mark ---- */

/* Smaller ones may still be in a cache when the backward pass comes to them, and save little. */
#define CHEAP_BYTES ((int64_t)4 << 20)

static bool is_cheap(const struct pass *p, const struct hk_value *root) {
    const struct hk_call *call = root->call;
    if (!call || root->output || root->kept || call->index >= p->n_calls) return false;
    if (call->op->flags & HK_OP_CHEAP_TOO) return is_cheap(p, call->inputs[0]->root);
    if (!(call->op->flags & HK_OP_CHEAP)) return false;
    if (call->segment < p->last_segment || !p->depends[root->id]) return false;
    if (hk_elements(root) * (int64_t)hk_dtype_size(root->dtype) < CHEAP_BYTES) return false;
    /* an input without a gradient would be kept for this alone, and one that has changed since gives something else */
    for (int k = 0; k < call->n_inputs; k++)
        if (!p->depends[call->inputs[k]->id] || find_writer(p, call->inputs[k], call->index)) return false;
    return true;
}

/* The same value of a repeated call where it, or what it is a view of, is cheap; else the value itself. */
static struct hk_value *again(void *context, struct hk_value *value) {
    struct pass *p = context;
    struct hk_call *call = value->call;
    if (!is_cheap(p, value->root)) return value;
    if (!p->repeated[call->index]) {
        for (int k = 0; k < call->n_inputs; k++) again(p, call->inputs[k]); /* these first */
        p->repeated[call->index] = hk_graph_repeat(call, again, p);
    }
    return p->repeated[call->index] ? p->repeated[call->index]->outputs[value->output] : value;
}

/* A forward call as its backward rule sees it: some inputs are others that hold the same. Room for them is given. */
static struct hk_call with_cheap_inputs(struct pass *p, const struct hk_call *call, struct hk_value **inputs) {
    struct hk_call seen = *call;
    seen.inputs = inputs;
    for (int k = 0; k < call->n_inputs; k++) inputs[k] = again(p, call->inputs[k]);
    return seen;
}

/* ---- One call ---- */

static bool differentiate_call(struct pass *p, struct hk_call *call) {
    struct hk_value *grads[8] = {0}, *few_results[16] = {0}, *few_inputs[16], **results = few_results;
    bool few_needed[16], *needed = few_needed, any_grad = false, any_needed = false, ok = false;
    if (call->n_inputs > 16) {
        results = calloc((size_t)call->n_inputs, sizeof *results);
        needed = calloc((size_t)call->n_inputs, sizeof *needed);
        if (!results || !needed) {
            hk_graph_fail(p->graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while differentiating");
            goto done;
        }
    }
    for (int i = 0; i < call->n_outputs; i++) any_grad |= p->arrivals[call->outputs[i]->id].count > 0;
    for (int i = 0; i < call->n_inputs; i++) any_needed |= needed[i] = p->depends[call->inputs[i]->id];
    ok = true;
    if (!any_grad || !any_needed || call->op == &stop_gradient_op) goto done;
    ok = false;
    if (!call->op->backward) {
        hk_graph_fail(p->graph, HK_ERROR_INVALID, "hk_gradients: the loss depends on a parameter through %s, which has no gradient",
                      call->op->name);
        goto done;
    }
    for (int i = 0; i < call->n_outputs; i++) grads[i] = total(p, call->outputs[i]);
    struct hk_call seen = *call_for_backward(p, call);
    if (call->n_inputs <= 16) seen = with_cheap_inputs(p, &seen, few_inputs);
    const int first = p->graph->n_calls; /* what is repeated is looked at in the end, where it is needed */
    call->op->backward(&(struct hk_backward){.call = &seen, .grads = grads, .results = results, .needed = needed});
    if (!check_reads(p, call, first)) goto done;
    for (int i = 0; i < call->n_inputs; i++) {
        if (!results[i] || !needed[i]) continue;
        if (!hk_same_shape(results[i], call->inputs[i])) {
            hk_graph_fail(p->graph, HK_ERROR_INTERNAL, "the gradient of %s's input %d is %s, not %s", call->op->name, i,
                          hk_shape_text(results[i]), hk_shape_text(call->inputs[i]));
            goto done;
        }
        if (!receive(p, call->inputs[i], results[i])) goto done;
    }
    ok = p->graph->status == HK_OK;
done:
    if (results != few_results) free(results);
    if (needed != few_needed) free(needed);
    return ok;
}

static void free_pass(struct pass *p) {
    for (int i = 0; p->arrivals && i < p->n_values; i++) free(p->arrivals[i].grads);
    free(p->arrivals);
    free(p->depends);
    free(p->repeated);
}

static struct hk_value *zeros_like(struct hk_value *value) {
    return hk_fill(value->graph, value->dtype, hk_value_shape(value), 0);
}

hk_status hk_gradients(struct hk_value *loss, struct hk_value *const *wrt, int count, struct hk_value **grads) {
    struct hk_graph *graph = hk_graph_of(&loss, 1);
    if (graph && (count < 0 || (count && (!wrt || !grads)))) {
        hk_graph_fail(graph, HK_ERROR_INVALID, "hk_gradients: %d values are asked for, or an array is NULL", count);
        return hk_graph_status(graph);
    }
    for (int i = 0; grads && i < count; i++) grads[i] = NULL;
    if (!graph || (count && !hk_graph_of(wrt, count)) || graph->status) {
        if (graph) return hk_graph_status(graph);
        return hk_error_status() ? hk_error_status() : hk_fail(HK_ERROR_INVALID, "hk_gradients: the loss is NULL");
    }
    if (loss->dtype != HK_F32 || hk_elements(loss) != 1) {
        hk_graph_fail(graph, HK_ERROR_INVALID, "hk_gradients: the loss must be one f32 number, but is %s %s",
                      hk_dtype_name(loss->dtype), hk_shape_text(loss));
        return hk_graph_status(graph);
    }
    struct pass p = {.graph = graph, .n_values = graph->n_values, .n_calls = graph->n_calls};
    p.arrivals = calloc((size_t)p.n_values, sizeof *p.arrivals);
    p.depends = calloc((size_t)p.n_values, sizeof *p.depends);
    p.repeated = calloc((size_t)p.n_calls + 1, sizeof *p.repeated);
    p.last_segment = graph->segment;
    p.last_write = p.n_calls - 1;
    while (p.last_write >= 0 && !graph->calls[p.last_write]->op->writes) p.last_write--;
    if (!p.arrivals || !p.depends || !p.repeated) {
        hk_graph_fail(graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while differentiating");
        goto done;
    }
    for (int i = 0; i < count; i++) p.depends[wrt[i]->id] = true;
    find_dependents(&p);
    if (p.depends[loss->id]) {
        if (!receive(&p, loss, hk_fill(graph, HK_F32, hk_value_shape(loss), 1))) goto done;
        for (int i = loss->call ? loss->call->index : -1; i >= 0; i--)
            if (!differentiate_call(&p, graph->calls[i])) goto done;
    }
    for (int i = 0; i < count; i++) {
        grads[i] = hk_cast(total(&p, wrt[i]), wrt[i]->dtype); /* that of a 16-bit value may be f32 until here */
        if (!grads[i]) grads[i] = zeros_like(wrt[i]);
    }
    if (!graph->status) check_repeated(&p);
done:
    free_pass(&p);
    return graph->status ? hk_graph_status(graph) : HK_OK;
}
