/* Graphs: values, calls, leaves, and the first error. */
#include "graph/graph.h"
#include "op/op.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Graphs and their status ---- */

struct hk_graph *hk_graph_create(void) {
    struct hk_graph *graph = calloc(1, sizeof *graph);
    if (!graph) hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    return graph;
}

void hk_graph_destroy(struct hk_graph **graph) {
    if (!graph || !*graph) return;
    struct hk_graph *g = *graph;
    for (int i = 0; i < g->n_leaves; i++) hk_storage_release(g->leaves[i]->storage);
    free(g->leaves);
    free(g->calls);
    hk_arena_free(&g->arena);
    free(g);
    *graph = NULL;
}

hk_status hk_graph_status(const struct hk_graph *graph) {
    if (!graph) return hk_fail(HK_ERROR_INVALID, "the graph is NULL");
    return graph->status ? hk_fail(graph->status, "%s", graph->message) : HK_OK;
}

struct hk_value *hk_graph_fail(struct hk_graph *graph, hk_status status, const char *format, ...) {
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    hk_fail(status, "%s", message);
    if (graph && !graph->status) {
        graph->status = status;
        memcpy(graph->message, message, sizeof message);
    }
    return NULL;
}

struct hk_value *hk_graph_refuse(struct hk_graph *graph, hk_status status, const char *message) {
    return hk_graph_fail(graph, status ? status : HK_ERROR_INVALID, "%s", message ? message : "");
}

static struct hk_value *out_of_memory(struct hk_graph *graph) {
    return hk_graph_fail(graph, HK_ERROR_OUT_OF_MEMORY, "out of host memory while building a graph");
}

struct hk_graph *hk_graph_of(struct hk_value *const *values, int count) {
    struct hk_graph *graph = NULL;
    bool missing = false;
    for (int i = 0; i < count; i++) {
        if (!values[i]) {
            missing = true;
        } else if (!graph) {
            graph = values[i]->graph;
        } else if (values[i]->graph != graph) {
            hk_graph_fail(values[i]->graph, HK_ERROR_INVALID, "an op was given values of two graphs");
            hk_graph_fail(graph, HK_ERROR_INVALID, "an op was given values of two graphs");
            return NULL;
        }
    }
    if (!missing) return graph;
    if (graph) hk_graph_fail(graph, HK_ERROR_INVALID, "an op was given NULL where a value belongs");
    return NULL;
}

uint32_t hk_graph_stream(struct hk_graph *graph) { return graph->streams++; }

/* ---- Values ---- */

enum hk_dtype hk_value_dtype(const struct hk_value *value) { return value ? value->dtype : HK_F32; }

struct hk_shape hk_value_shape(const struct hk_value *value) {
    struct hk_shape shape = {0};
    if (!value) return shape;
    shape.rank = value->rank;
    memcpy(shape.size, value->shape, sizeof shape.size);
    return shape;
}

struct hk_graph *hk_value_graph(const struct hk_value *value) { return value ? value->graph : NULL; }

int64_t hk_elements(const struct hk_value *value) {
    int64_t n = 1;
    for (int i = 0; i < value->rank; i++) n *= value->shape[i];
    return n;
}

bool hk_is_dense(const struct hk_value *value) {
    int64_t stride = 1;
    if (hk_elements(value) == 0) return true;
    for (int i = value->rank - 1; i >= 0; i--) {
        if (value->shape[i] != 1 && value->stride[i] != stride) return false;
        stride *= value->shape[i];
    }
    return true;
}

bool hk_is_float(enum hk_dtype dtype) { return dtype == HK_F32 || dtype == HK_F16 || dtype == HK_BF16; }

bool hk_same_shape(const struct hk_value *a, const struct hk_value *b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

bool hk_share_tensor(const struct hk_value *x, const struct hk_value *y) {
    const struct hk_value *a = x->root, *b = y->root;
    return a->storage && a->storage == b->storage &&
           a->storage_offset < b->storage_offset + (uint64_t)b->extent * hk_dtype_size(b->dtype) &&
           b->storage_offset < a->storage_offset + (uint64_t)a->extent * hk_dtype_size(a->dtype);
}

const char *hk_shape_text(const struct hk_value *value) {
    static _Thread_local char buffers[6][160];
    static _Thread_local unsigned turn;
    char *text = buffers[turn++ % HK_LENGTH(buffers)];
    size_t n = (size_t)snprintf(text, sizeof *buffers, "[");
    for (int i = 0; i < value->rank; i++)
        n += (size_t)snprintf(text + n, sizeof *buffers - n, "%s%lld", i ? ", " : "", (long long)value->shape[i]);
    snprintf(text + n, sizeof *buffers - n, "]");
    return text;
}

int hk_axis(struct hk_value *x, int axis, const char *op_name) {
    const int positive = axis < 0 ? axis + x->rank : axis;
    if (positive >= 0 && positive < x->rank) return positive;
    hk_graph_fail(x->graph, HK_ERROR_INVALID, "%s: axis %d is out of range for %s", op_name, axis, hk_shape_text(x));
    return -1;
}

static struct hk_value *new_value(struct hk_graph *graph) {
    struct hk_value *value = hk_arena_alloc(&graph->arena, sizeof *value);
    if (!value) return out_of_memory(graph);
    value->graph = graph;
    value->root = value;
    value->id = graph->n_values++;
    return value;
}

int64_t hk_dense_strides(int rank, const int64_t *shape, int64_t *stride) {
    int64_t elements = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = elements;
        elements *= shape[i];
    }
    return elements;
}

/* ---- Leaves ---- */

static bool is_leaf_of(const struct hk_value *leaf, const struct hk_tensor *tensor) {
    return leaf->storage == tensor->storage && leaf->storage_offset == tensor->offset && leaf->dtype == tensor->dtype &&
           leaf->rank == tensor->shape.rank &&
           !memcmp(leaf->shape, tensor->shape.size, (size_t)leaf->rank * sizeof *leaf->shape);
}

struct hk_value *hk_leaf(struct hk_graph *graph, struct hk_tensor *tensor) {
    if (!graph) return hk_graph_fail(NULL, HK_ERROR_INVALID, "hk_leaf: the graph is NULL");
    if (!tensor) return hk_graph_fail(graph, HK_ERROR_INVALID, "hk_leaf: the tensor is NULL");
    /* one value per tensor, so that gradients find every use of it */
    for (int i = 0; i < graph->n_leaves; i++)
        if (is_leaf_of(graph->leaves[i], tensor)) return graph->leaves[i];
    struct hk_value *leaf = new_value(graph);
    if (!leaf) return NULL;
    if (!hk_grow(&graph->leaves, &graph->leaves_capacity, graph->n_leaves + 1, sizeof *graph->leaves))
        return out_of_memory(graph);
    graph->leaves[graph->n_leaves++] = leaf;
    leaf->storage = hk_storage_retain(tensor->storage);
    leaf->storage_offset = tensor->offset;
    leaf->dtype = tensor->dtype;
    leaf->rank = tensor->shape.rank;
    memcpy(leaf->shape, tensor->shape.size, sizeof leaf->shape);
    leaf->extent = hk_dense_strides(leaf->rank, leaf->shape, leaf->stride);
    return leaf;
}

/* ---- Calls ---- */

static struct hk_call *new_call(struct hk_graph *graph, const struct hk_op *op, struct hk_value *const *inputs, int n_inputs,
                                const void *attrs, size_t attrs_bytes) {
    struct hk_call *call = hk_arena_alloc(&graph->arena, sizeof *call);
    if (!call || !hk_grow(&graph->calls, &graph->calls_capacity, graph->n_calls + 1, sizeof *graph->calls)) goto memory;
    call->op = op;
    call->graph = graph;
    call->n_inputs = n_inputs;
    call->n_outputs = op->n_outputs;
    call->inputs = hk_arena_copy(&graph->arena, inputs, (size_t)n_inputs * sizeof *inputs);
    call->outputs = hk_arena_alloc(&graph->arena, (size_t)op->n_outputs * sizeof *call->outputs);
    call->attrs = hk_arena_copy(&graph->arena, attrs, attrs_bytes);
    call->attrs_bytes = attrs_bytes;
    call->segment = graph->segment;
    if (!call->inputs || !call->outputs || !call->attrs) goto memory;
    for (int i = 0; i < op->n_outputs; i++) {
        struct hk_value *value = new_value(graph);
        if (!value) return NULL;
        value->call = call;
        value->output = i;
        call->outputs[i] = value;
    }
    return call;
memory:
    out_of_memory(graph);
    return NULL;
}

static void append_call(struct hk_call *call) {
    call->index = call->graph->n_calls;
    call->graph->calls[call->graph->n_calls++] = call;
}

struct hk_value *hk_call_op(struct hk_graph *graph, const struct hk_op *op, struct hk_value *const *inputs, int n_inputs,
                            const void *attrs, size_t attrs_bytes) {
    if (n_inputs && !(graph = hk_graph_of(inputs, n_inputs))) return NULL;
    if (!graph) return hk_graph_fail(NULL, HK_ERROR_INVALID, "%s: the graph is NULL", op->name);
    if (n_inputs < op->min_inputs || (op->max_inputs >= 0 && n_inputs > op->max_inputs))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "%s: %d inputs", op->name, n_inputs);
    struct hk_call *call = new_call(graph, op, inputs, n_inputs, attrs, attrs_bytes);
    if (!call || !op->infer(call) || graph->status) return NULL;
    append_call(call);
    return call->n_outputs ? call->outputs[0] : NULL;
}

/* The sizes but for zeros: so that elements, bytes and strides fit into 63 bits, whichever dimensions are counted. */
static bool can_count(struct hk_graph *graph, const char *op_name, int rank, const int64_t *shape) {
    struct hk_value value = {.rank = rank};
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        value.shape[i] = shape[i];
        if (n && shape[i]) n = n > INT64_MAX / 8 / shape[i] ? 0 : n * shape[i];
    }
    if (!n) hk_graph_fail(graph, HK_ERROR_OUT_OF_MEMORY, "%s: the result %s has too many elements", op_name, hk_shape_text(&value));
    return n != 0;
}

struct hk_value *hk_call_view(const struct hk_op *op, struct hk_value *x, int rank, const int64_t *shape,
                              const int64_t *stride, int64_t offset, const void *attrs, size_t attrs_bytes) {
    if (!x || !can_count(x->graph, op->name, rank, shape)) return NULL;
    struct hk_call *call = new_call(x->graph, op, &x, 1, attrs, attrs_bytes);
    if (!call) return NULL;
    struct hk_value *view = call->outputs[0];
    view->dtype = x->dtype;
    view->rank = rank;
    memcpy(view->shape, shape, (size_t)rank * sizeof *shape);
    memcpy(view->stride, stride, (size_t)rank * sizeof *stride);
    view->offset = x->offset + offset;
    view->root = x->root;
    append_call(call);
    return view;
}

struct hk_value *hk_output(struct hk_value *value, int i) { return value ? value->call->outputs[i] : NULL; }

void hk_infer_output_order(struct hk_call *call, int i, enum hk_dtype dtype, int rank, const int64_t *shape, const int *order) {
    struct hk_value *value = call->outputs[i];
    int64_t stride = 1;
    value->dtype = dtype;
    value->rank = rank;
    for (int d = 0; d < rank; d++) value->shape[d] = shape[d];
    if (!can_count(call->graph, call->op->name, rank, shape)) return;
    for (int d = rank - 1; d >= 0; d--) {
        value->stride[order[d]] = stride;
        stride *= shape[order[d]];
    }
    value->extent = stride;
}

void hk_infer_output(struct hk_call *call, int i, enum hk_dtype dtype, int rank, const int64_t *shape) {
    static const int order[HK_MAX_RANK] = {0, 1, 2, 3, 4, 5};
    hk_infer_output_order(call, i, dtype, rank, shape, order);
}

struct hk_operand hk_operand_of(const struct hk_value *value) {
    struct hk_operand operand = {.dtype = value->dtype, .rank = value->rank};
    memcpy(operand.shape, value->shape, sizeof operand.shape);
    memcpy(operand.stride, value->stride, sizeof operand.stride);
    return operand;
}

struct hk_step hk_step_of(const struct hk_call *call, struct hk_operand *operands) {
    struct hk_operand *const outputs = operands + call->n_inputs;
    for (int i = 0; i < call->n_inputs; i++) operands[i] = hk_operand_of(call->inputs[i]);
    for (int i = 0; i < call->n_outputs; i++) outputs[i] = hk_operand_of(call->outputs[i]);
    return (struct hk_step){.op = call->op, .attrs = call->attrs, .n_inputs = call->n_inputs, .n_outputs = call->n_outputs,
                            .inputs = operands, .outputs = outputs};
}

struct hk_call *hk_graph_repeat(const struct hk_call *call, struct hk_value *(*other)(void *context, struct hk_value *value),
                                void *context) {
    struct hk_call *copy = new_call(call->graph, call->op, call->inputs, call->n_inputs, call->attrs, call->attrs_bytes);
    if (!copy) return NULL;
    for (int i = 0; i < call->n_inputs; i++) copy->inputs[i] = other(context, call->inputs[i]);
    for (int i = 0; i < call->n_outputs; i++) {
        const struct hk_value *from = call->outputs[i];
        struct hk_value *to = copy->outputs[i];
        to->dtype = from->dtype;
        to->rank = from->rank;
        memcpy(to->shape, from->shape, sizeof to->shape);
        memcpy(to->stride, from->stride, sizeof to->stride);
        to->offset = from->offset;
        to->extent = from->extent;
        if (from->root != from) to->root = other(context, from->root);
    }
    append_call(copy);
    return copy;
}
