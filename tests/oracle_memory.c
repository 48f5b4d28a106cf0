/* Each unit of memory holds a symbol that says what was written there: which element of which result of which call, or of
   which tensor before the program. The graph in its own order, every value in memory of its own, says which symbols each call
   reads; the program's steps, on the memory that was planned, must read the same ones. */
#include "oracle.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TENSORS = 256 };

/* Symbols of a range of memory; 0: nothing that anybody may read. */
struct image {
    const struct hk_storage *storage; /* of a tensor, else NULL */
    const struct hk_buffer *buffer;
    uint32_t *symbols;
    uint64_t units;
};

struct follower {
    const struct hk_graph *graph;
    const struct hk_layout *layout;
    const struct steps *steps;
    uint64_t unit;       /* bytes of one symbol: the smallest element's */
    uint32_t next;       /* symbol that was never used */
    uint32_t **roots;    /* by value id: each in memory of its own */
    uint64_t **read;     /* by call index and input: a hash of the symbols that the graph says are read */
    uint32_t **written;  /* by call index: the first symbol of each output, then of each input */
    struct image tensors[MOST_TENSORS]; /* as the graph has them */
    int n_tensors;
    struct image images[HK_MAX_BLOCKS + 64]; /* as the program has its buffers */
    char *message;
    size_t size;
};

static bool complain(struct follower *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(f->message, f->size, format, args);
    va_end(args);
    return false;
}

/* ---- Memory ---- */

static uint64_t find_unit(const struct hk_graph *graph) {
    uint64_t unit = 4;
    for (int i = 0; i < graph->n_calls; i++)
        for (int k = 0; k < graph->calls[i]->n_outputs; k++)
            unit = HK_MIN(unit, hk_dtype_size(graph->calls[i]->outputs[k]->dtype));
    for (int i = 0; i < graph->n_leaves; i++) unit = HK_MIN(unit, hk_dtype_size(graph->leaves[i]->dtype));
    return unit;
}

static uint32_t take_symbols(struct follower *f, uint64_t count) {
    const uint32_t first = f->next;
    f->next += (uint32_t)count;
    return first;
}

static void fresh(uint32_t *symbols, uint64_t count, uint32_t first) {
    for (uint64_t i = 0; i < count; i++) symbols[i] = first + (uint32_t)i;
}

static struct image *tensor_image(struct follower *f, const struct hk_storage *storage) {
    for (int i = 0; i < f->n_tensors; i++)
        if (f->tensors[i].storage == storage) return &f->tensors[i];
    struct image *image = &f->tensors[f->n_tensors++];
    *image = (struct image){.storage = storage, .buffer = storage->buffer, .units = storage->buffer->bytes / f->unit};
    image->symbols = malloc((image->units + 1) * sizeof *image->symbols);
    fresh(image->symbols, image->units, take_symbols(f, image->units));
    return image;
}

/* The program's buffers begin as the graph's tensors do; the arena with nothing. */
static void make_images(struct follower *f) {
    for (int i = 0; i < f->graph->n_leaves; i++) tensor_image(f, f->graph->leaves[i]->storage);
    for (int b = 0; b < f->steps->n_buffers; b++) {
        struct image *image = &f->images[b];
        *image = (struct image){.buffer = f->steps->buffers[b], .units = f->steps->buffers[b]->bytes / f->unit};
        image->symbols = calloc(image->units + 1, sizeof *image->symbols);
        for (int t = 0; t < f->n_tensors; t++) {
            if (f->tensors[t].buffer != image->buffer) continue;
            image->storage = f->tensors[t].storage;
            memcpy(image->symbols, f->tensors[t].symbols, image->units * sizeof *image->symbols);
        }
    }
}

/* ---- The graph, in its own order ---- */

static uint64_t units_of(const struct follower *f, const struct hk_value *root) {
    return (uint64_t)root->extent * hk_dtype_size(root->dtype) / f->unit;
}

/* The symbols of the root that the value sees. */
static uint32_t *memory_of(struct follower *f, const struct hk_value *value) {
    const struct hk_value *root = value->root;
    return root->storage ? tensor_image(f, root->storage)->symbols + root->storage_offset / f->unit : f->roots[root->id];
}

static struct hk_operand as_operand(const struct hk_value *v) {
    struct hk_operand o = {.dtype = v->dtype, .rank = v->rank, .offset = (uint64_t)v->offset * hk_dtype_size(v->dtype)};
    memcpy(o.shape, v->shape, sizeof o.shape);
    memcpy(o.stride, v->stride, sizeof o.stride);
    return o;
}

static uint64_t hash_symbols(const struct follower *f, const uint32_t *memory, const struct hk_operand *o) {
    const uint64_t per_element = hk_dtype_size(o->dtype) / f->unit;
    uint64_t hash = 1;
    for (int64_t i = 0, n = operand_elements(o); i < n; i++) {
        const uint32_t *at = memory + operand_byte(o, i) / f->unit;
        for (uint64_t u = 0; u < per_element; u++) hash = (hash ^ at[u]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    }
    return hash;
}

/* Both of one shape. By way of a copy: they may overlap. */
static void copy_symbols(const struct follower *f, uint32_t *to_memory, const struct hk_operand *to, const uint32_t *from_memory,
                         const struct hk_operand *from) {
    const uint64_t per_element = hk_dtype_size(to->dtype) / f->unit;
    const int64_t n = operand_elements(to);
    uint32_t *copy = malloc(((size_t)n * per_element + 1) * sizeof *copy);
    for (int64_t i = 0; i < n; i++)
        memcpy(copy + (uint64_t)i * per_element, from_memory + operand_byte(from, i) / f->unit, per_element * sizeof *copy);
    for (int64_t i = 0; i < n; i++)
        memcpy(to_memory + operand_byte(to, i) / f->unit, copy + (uint64_t)i * per_element, per_element * sizeof *copy);
    free(copy);
}

static void follow_call(struct follower *f, const struct hk_call *call) {
    uint64_t *read = f->read[call->index] = calloc((size_t)call->n_inputs + 1, sizeof *read);
    uint32_t *written = f->written[call->index] = calloc((size_t)(call->n_inputs + call->n_outputs) + 1, sizeof *written);
    for (int k = 0; k < call->n_inputs; k++) {
        const struct hk_operand o = as_operand(call->inputs[k]);
        read[k] = hash_symbols(f, memory_of(f, call->inputs[k]), &o);
    }
    for (int k = 0; k < call->n_outputs; k++) {
        const struct hk_value *out = call->outputs[k];
        f->roots[out->id] = malloc((units_of(f, out) + 1) * sizeof(uint32_t));
        fresh(f->roots[out->id], units_of(f, out), written[k] = take_symbols(f, units_of(f, out)));
    }
    if (call->op->flags & HK_OP_STORE) {
        const struct hk_operand to = as_operand(call->inputs[0]), from = as_operand(call->inputs[1]);
        copy_symbols(f, memory_of(f, call->inputs[0]), &to, memory_of(f, call->inputs[1]), &from);
        return;
    }
    for (int k = 0; k < call->n_inputs; k++) { /* a leaf: the whole of it is new */
        const struct hk_value *root = call->inputs[k]->root;
        if (!(call->op->writes >> k & 1)) continue;
        fresh(memory_of(f, root), units_of(f, root), written[call->n_outputs + k] = take_symbols(f, units_of(f, root)));
    }
}

/* ---- What one step touches ---- */

static uint64_t span(const struct hk_operand *o) {
    int64_t last = 0;
    for (int i = 0; i < o->rank; i++) {
        if (o->shape[i] == 0) return 0;
        last += (o->shape[i] - 1) * o->stride[i];
    }
    return (uint64_t)(last + 1) * hk_dtype_size(o->dtype);
}

/* Some byte belongs to both. */
static bool share_bytes(const struct hk_operand *a, const struct hk_operand *b) {
    if (!a->buffer || a->buffer != b->buffer || a->offset >= b->offset + span(b) || b->offset >= a->offset + span(a)) return false;
    const uint64_t size_a = hk_dtype_size(a->dtype), size_b = hk_dtype_size(b->dtype);
    unsigned char *map = calloc(span(a) + 1, 1);
    bool shared = false;
    for (int64_t i = 0, n = operand_elements(a); i < n; i++) memset(map + (operand_byte(a, i) - a->offset), 1, size_a);
    for (int64_t i = 0, n = operand_elements(b); i < n && !shared; i++)
        for (uint64_t k = 0; k < size_b; k++) {
            const uint64_t byte = operand_byte(b, i) + k;
            if (byte >= a->offset && byte < a->offset + span(a) && map[byte - a->offset]) shared = true;
        }
    free(map);
    return shared;
}

static bool is_dense(const struct hk_operand *o) {
    int64_t stride = 1;
    for (int i = o->rank - 1; i >= 0; i--) {
        if (o->shape[i] != 1 && o->stride[i] != stride) return false;
        stride *= o->shape[i];
    }
    return true;
}

/* Element i of one is where element i of the other is. */
static bool same_place(const struct hk_operand *a, const struct hk_operand *b) {
    return a->buffer == b->buffer && a->offset == b->offset && is_dense(a) && is_dense(b) &&
           operand_elements(a) == operand_elements(b) && hk_dtype_size(a->dtype) == hk_dtype_size(b->dtype);
}

/* The result may lie where the input is: the op's row says so, and they lie alike. */
static bool in_place(const struct hk_step *step, int output, int input) {
    const uint32_t flags = step->op->flags;
    const bool may = flags & HK_OP_IN_PLACE || (flags & HK_OP_FIRST_IN_PLACE && input == 0 && output == 0) ||
                     (flags & HK_OP_REST_IN_PLACE && output > 0);
    return may && same_place(&step->outputs[output], &step->inputs[input]);
}

static bool check_output(struct follower *f, int i, int k) {
    const struct hk_step *step = &f->steps->items[i];
    const struct hk_operand *out = &step->outputs[k];
    for (int n = 0; n < step->n_inputs; n++)
        if (share_bytes(out, &step->inputs[n]) && !in_place(step, k, n))
            return complain(f, "step %d, %s: output %d overwrites input %d", i, step->op->name, k, n);
    for (int n = 0; n < k; n++)
        if (share_bytes(out, &step->outputs[n]))
            return complain(f, "step %d, %s: outputs %d and %d overlap", i, step->op->name, n, k);
    if (share_bytes(out, &step->scratch)) return complain(f, "step %d, %s: output %d is in the scratch", i, step->op->name, k);
    return true;
}

static bool check_written_input(struct follower *f, int i, int k) {
    const struct hk_step *step = &f->steps->items[i];
    const struct hk_operand *to = &step->inputs[k];
    for (int n = 0; n < step->n_inputs; n++) {
        if (n == k || !share_bytes(to, &step->inputs[n])) continue;
        if (step->op->flags & HK_OP_STORE && same_place(to, &step->inputs[n])) continue;
        if (step->op->writes >> n & 1 && same_place(to, &step->inputs[n])) continue; /* one operand, given twice */
        return complain(f, "step %d, %s: input %d is written over input %d", i, step->op->name, k, n);
    }
    return true;
}

static bool check_overlaps(struct follower *f, int i) {
    const struct hk_step *step = &f->steps->items[i];
    for (int k = 0; k < step->n_outputs; k++)
        if (!check_output(f, i, k)) return false;
    for (int k = 0; k < step->n_inputs; k++) {
        if (step->op->writes >> k & 1 && !check_written_input(f, i, k)) return false;
        if (share_bytes(&step->inputs[k], &step->scratch))
            return complain(f, "step %d, %s: input %d is in the scratch", i, step->op->name, k);
    }
    return true;
}

/* ---- The steps, in theirs ---- */

static struct image *image_of(struct follower *f, const struct hk_buffer *buffer) {
    for (int b = 0; b < f->steps->n_buffers; b++)
        if (f->images[b].buffer == buffer) return &f->images[b];
    return NULL;
}

static bool check_inside(struct follower *f, int i, const struct hk_operand *o) {
    if (!o->buffer || o->offset + span(o) <= o->buffer->bytes) return true;
    return complain(f, "step %d, %s: an operand leaves its buffer", i, f->steps->items[i].op->name);
}

/* The root's memory becomes what the graph says that the call writes there. */
static void write_root(struct follower *f, const struct hk_operand *o, const struct hk_value *value, uint32_t first) {
    struct image *image = image_of(f, o->buffer);
    const uint64_t begin = o->offset - (uint64_t)value->offset * hk_dtype_size(value->dtype);
    fresh(image->symbols + begin / f->unit, units_of(f, value->root), first);
}

/* A step of several calls of the graph makes what their own results are. */
static void write_outputs(struct follower *f, const struct hk_step *step, const struct hk_call *call) {
    for (int k = 0; k < step->n_outputs; k++) {
        const struct hk_value *out = call->outputs[k];
        write_root(f, &step->outputs[k], out, f->written[out->call->index][out->output]);
    }
}

static void write_step(struct follower *f, const struct hk_step *step, const struct hk_call *call) {
    if (step->scratch.buffer) {
        struct image *image = image_of(f, step->scratch.buffer);
        memset(image->symbols + step->scratch.offset / f->unit, 0,
               ((size_t)step->scratch.shape[0] + f->unit - 1) / f->unit * sizeof *image->symbols);
    }
    write_outputs(f, step, call);
    if (step->op->flags & HK_OP_STORE) {
        copy_symbols(f, image_of(f, step->inputs[0].buffer)->symbols, &step->inputs[0],
                     image_of(f, step->inputs[1].buffer)->symbols, &step->inputs[1]);
        return;
    }
    for (int k = 0; k < step->n_inputs; k++)
        if (step->op->writes >> k & 1)
            write_root(f, &step->inputs[k], call->inputs[k], f->written[call->index][call->n_outputs + k]);
}

/* The same elements in the same order, perhaps in another shape. */
static bool is_same(const struct hk_value *a, const struct hk_value *b) {
    return a == b || (a->root == b->root && a->offset == b->offset && hk_is_dense(a) && hk_is_dense(b) &&
                      hk_elements(a) == hk_elements(b));
}

static bool is_input(const struct hk_call *call, const struct hk_value *value) {
    for (int k = 0; k < call->n_inputs; k++)
        if (is_same(call->inputs[k], value)) return true;
    return false;
}

/* What the graph says that `call` and those of the same step that make its inputs read as `value` are the symbols of this
   hash. *seen: some of them read it. */
static bool reads_symbols(const struct follower *f, const struct hk_call *step, const struct hk_call *call,
                          const struct hk_value *value, uint64_t hash, bool *seen) {
    for (int k = 0; k < call->n_inputs; k++) {
        const struct hk_value *in = call->inputs[k];
        if (is_same(in, value) && f->read[call->index][k] != hash) return false;
        *seen |= is_same(in, value);
        if (is_input(step, in)) continue;
        if (!in->root->call || !reads_symbols(f, step, in->root->call, value, hash, seen)) return false;
    }
    return true;
}

static bool check_read(const struct follower *f, const struct hk_call *step, int k, uint64_t hash) {
    bool seen = false;
    if (step->index >= 0) return f->read[step->index][k] == hash;
    for (int i = 0; i < step->n_outputs; i++)
        if (!reads_symbols(f, step, step->outputs[i]->call, step->inputs[k], hash, &seen)) return false;
    return seen;
}

static bool follow_step(struct follower *f, int i) {
    const struct hk_step *step = &f->steps->items[i];
    const struct hk_call *call = f->layout->calls[i];
    if (step->op != call->op) return complain(f, "step %d is %s, not %s", i, step->op->name, call->op->name);
    if (!check_inside(f, i, &step->scratch)) return false;
    for (int k = 0; k < step->n_outputs; k++)
        if (!check_inside(f, i, &step->outputs[k])) return false;
    for (int k = 0; k < step->n_inputs; k++) {
        const struct hk_operand *in = &step->inputs[k];
        if (!check_inside(f, i, in)) return false;
        if (!check_read(f, call, k, hash_symbols(f, image_of(f, in->buffer)->symbols, in)))
            return complain(f, "step %d, %s: input %d is not what the graph says", i, step->op->name, k);
    }
    if (!check_overlaps(f, i)) return false;
    write_step(f, step, call);
    return true;
}

/* Tensors hold at the end what the graph says. */
static bool check_ends(struct follower *f) {
    for (int b = 0; b < f->steps->n_buffers; b++) {
        const struct image *got = &f->images[b];
        if (!got->storage) continue;
        const struct image *expected = tensor_image(f, got->storage);
        for (uint64_t u = 0; u < got->units; u++)
            if (got->symbols[u] != expected->symbols[u])
                return complain(f, "byte %llu of a tensor is not what the graph says", (unsigned long long)(u * f->unit));
    }
    return true;
}

static void free_follower(struct follower *f) {
    for (int i = 0; i < f->graph->n_values; i++) free(f->roots[i]);
    for (int i = 0; i < f->graph->n_calls; i++) free(f->read[i]), free(f->written[i]);
    for (int i = 0; i < f->n_tensors; i++) free(f->tensors[i].symbols);
    for (int i = 0; i < f->steps->n_buffers; i++) free(f->images[i].symbols);
    free(f->roots);
    free(f->read);
    free(f->written);
}

bool check_memory(const struct hk_graph *graph, const struct hk_layout *layout, const struct steps *steps, char *message,
                  size_t size) {
    struct follower f = {.graph = graph, .layout = layout, .steps = steps, .unit = find_unit(graph), .next = 1,
                         .message = message, .size = size};
    f.roots = calloc((size_t)graph->n_values + 1, sizeof *f.roots);
    f.read = calloc((size_t)graph->n_calls + 1, sizeof *f.read);
    f.written = calloc((size_t)graph->n_calls + 1, sizeof *f.written);
    make_images(&f);
    for (int i = 0; i < graph->n_calls; i++)
        if (!(graph->calls[i]->op->flags & HK_OP_VIEW)) follow_call(&f, graph->calls[i]);
    bool ok = layout->n_calls == steps->count || complain(&f, "%d calls, but %d steps", layout->n_calls, steps->count);
    for (int i = 0; i < steps->count && ok; i++) ok = follow_step(&f, i);
    ok = ok && check_ends(&f);
    free_follower(&f);
    return ok;
}
