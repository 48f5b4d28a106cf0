/* Which calls run, which memory each value has: dead calls out, results put where they are wanted, memory used twice. */
#include "graph/plan.h"
#include "op/op.h"
#include <stdlib.h>
#include <string.h>

void hk_layout_free(struct hk_layout *layout) {
    free(layout->calls);
    free(layout->memories);
    free(layout->memory_of);
    free(layout->scratch_of);
    hk_arena_free(&layout->arena);
    *layout = (struct hk_layout){0};
}

/* ---- Dead calls ---- */

/* Calls that write tensors, and all that they need, in their order. Views run nothing and are left out. */
static void collect_live_calls(const struct hk_graph *graph, struct hk_layout *layout, bool *live) {
    for (int i = graph->n_calls - 1; i >= 0; i--) {
        const struct hk_call *call = graph->calls[i];
        live[i] |= call->op->writes != 0;
        for (int k = 0; live[i] && k < call->n_inputs; k++) {
            const struct hk_call *maker = call->inputs[k]->root->call;
            if (maker) live[maker->index] = true;
        }
    }
    for (int i = 0; i < graph->n_calls; i++)
        if (live[i] && !(graph->calls[i]->op->flags & HK_OP_VIEW)) layout->calls[layout->n_calls++] = graph->calls[i];
}

/* ---- Lifetimes ---- */

static bool add_memory(struct hk_layout *layout, int *capacity, uint64_t bytes, int step, int *index) {
    if (!hk_grow(&layout->memories, capacity, layout->n_memories + 1, sizeof *layout->memories)) return false;
    *index = layout->n_memories++;
    layout->memories[*index] = (struct hk_memory){.lifetime = {.bytes = bytes, .first = step, .last = step}};
    layout->value_bytes += (bytes + HK_MEMORY_ALIGN - 1) / HK_MEMORY_ALIGN * HK_MEMORY_ALIGN;
    return true;
}

static bool find_lifetimes(struct hk_layout *layout, int *capacity) {
    for (int i = 0; i < layout->n_calls; i++) {
        const struct hk_call *call = layout->calls[i];
        for (int k = 0; k < call->n_inputs; k++) {
            const int m = layout->memory_of[call->inputs[k]->root->id];
            if (m >= 0) layout->memories[m].lifetime.last = i;
        }
        for (int k = 0; k < call->n_outputs; k++) {
            const struct hk_value *out = call->outputs[k];
            const uint64_t bytes = (uint64_t)out->extent * hk_dtype_size(out->dtype);
            if (!add_memory(layout, capacity, HK_MAX(bytes, 4u), i, &layout->memory_of[out->id])) return false;
        }
        const uint64_t scratch = hk_call_scratch(call, layout->limits);
        if (scratch && !add_memory(layout, capacity, scratch, i, &layout->scratch_of[i])) return false;
    }
    return true;
}

/* ---- Results computed where they are stored ---- */

/* The value is the whole of its root's memory, in the order that a dense output has. */
static bool covers_root(const struct hk_value *value) {
    return value->offset == 0 && hk_is_dense(value) && hk_elements(value) == value->root->extent;
}

/* A range of a tensor's memory. */
struct range {
    const struct hk_storage *storage;
    uint64_t offset, bytes;
};

static struct range range_of_leaf(const struct hk_value *leaf) {
    return (struct range){leaf->storage, leaf->storage_offset, (uint64_t)leaf->extent * hk_dtype_size(leaf->dtype)};
}

static struct range range_of_memory(const struct hk_memory *memory) {
    return (struct range){memory->storage, memory->offset, memory->lifetime.bytes};
}

static bool overlap(struct range a, struct range b) {
    return a.storage == b.storage && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

static bool touches(const struct hk_value *value, struct range range) { return overlap(range_of_leaf(value->root), range); }

/* The op may compute the output where any of its inputs lies. */
static bool is_in_place(const struct hk_call *call, const struct hk_value *out) {
    return call->op->flags & (out == call->outputs[0] ? HK_OP_IN_PLACE : HK_OP_IN_PLACE | HK_OP_REST_IN_PLACE);
}

/* All that the call reads of the range, as a tensor or as a value that was put there, is the elementwise input that its
   output `out` replaces. */
static bool reads_in_place(const struct hk_layout *layout, const struct hk_call *call, const struct hk_value *out,
                           struct range range) {
    if (!is_in_place(call, out)) return false;
    for (int k = 0; k < call->n_inputs; k++) {
        const struct hk_value *in = call->inputs[k];
        const int m = layout->memory_of[in->root->id];
        const struct range own = m < 0 ? range_of_leaf(in->root) : range_of_memory(&layout->memories[m]);
        const bool same = own.offset == range.offset && own.bytes == range.bytes && covers_root(in);
        if (overlap(own, range) && !(same && hk_dtype_size(in->dtype) == hk_dtype_size(out->dtype))) return false;
    }
    return true;
}

/* No step from first to last, but for `except`, uses the range, nor does a value that was put into it. */
static bool range_is_free(const struct hk_layout *layout, struct range range, int first, int last, int except) {
    for (int i = first; i <= last; i++)
        for (int k = 0; i != except && k < layout->calls[i]->n_inputs; k++)
            if (touches(layout->calls[i]->inputs[k], range)) return false;
    for (int i = 0; i < layout->n_memories; i++) {
        const struct hk_memory *m = &layout->memories[i];
        if (m->lifetime.first <= last && first <= m->lifetime.last && overlap(range_of_memory(m), range)) return false;
    }
    return true;
}

/* Puts what step stores into the tensor from its first byte on, if nobody else uses the tensor meanwhile. */
static bool compute_in_tensor(struct hk_layout *layout, int step) {
    const struct hk_call *call = layout->calls[step];
    const struct hk_value *tensor = call->inputs[0], *value = call->inputs[1];
    const int m = layout->memory_of[value->root->id];
    if (m < 0 || layout->memories[m].storage || !covers_root(value)) return false;
    struct hk_memory *memory = &layout->memories[m];
    const struct range range = range_of_leaf(tensor);
    const int first = memory->lifetime.first, last = memory->lifetime.last;
    const bool in_place = reads_in_place(layout, layout->calls[first], value->root, range);
    if (!range_is_free(layout, range, in_place ? first + 1 : first, last, step)) return false;
    memory->storage = tensor->storage;
    memory->offset = tensor->storage_offset;
    return true;
}

/* Puts the input whose place the step's output could take into the tensor in which that output lies. */
static void extend_in_tensor(struct hk_layout *layout, int step, int output, int input) {
    const struct hk_call *call = layout->calls[step];
    const int to = layout->memory_of[call->outputs[output]->id];
    int *from = &layout->memory_of[call->inputs[input]->root->id];
    struct hk_memory *own = &layout->memories[to], *other = &layout->memories[*from];
    const struct range range = {own->storage, own->offset, own->lifetime.bytes};
    const struct hk_storage *storage = own->storage;
    own->storage = NULL; /* it is not in its own way */
    const bool is_free = range_is_free(layout, range, other->lifetime.first, step, -1);
    own->storage = (struct hk_storage *)storage;
    if (!is_free) return;
    own->lifetime.first = other->lifetime.first;
    other->lifetime.bytes = 0; /* nobody's now */
    *from = to;
}

/* ---- In place ---- */

/* Another input is of the same memory, and is read in another order, or (only the first is known to be read element by
   element) in any. */
static bool used_otherwise(const struct hk_call *call, int input) {
    for (int k = 0; k < call->n_inputs; k++)
        if (k != input && call->inputs[k]->root == call->inputs[input]->root &&
            (call->op->flags & HK_OP_FIRST_IN_PLACE || !covers_root(call->inputs[k])))
            return true;
    return false;
}

/* The input's memory is in the arena, not needed after step, nor in another way by it, and as large as the output's. */
static bool can_take(const struct hk_layout *layout, int step, int output, int input) {
    const struct hk_call *call = layout->calls[step];
    const struct hk_value *in = call->inputs[input], *out = call->outputs[output];
    const int m = layout->memory_of[in->root->id];
    return m >= 0 && !layout->memories[m].storage && layout->memories[m].lifetime.last == step && covers_root(in) &&
           hk_is_dense(out) && hk_elements(in) == hk_elements(out) &&
           hk_dtype_size(in->dtype) == hk_dtype_size(out->dtype) && !used_otherwise(call, input);
}

/* The input whose memory the output of step may take, -1 where none. */
static int find_input_to_take(const struct hk_layout *layout, int step, int output) {
    const struct hk_call *call = layout->calls[step];
    const bool first = call->op->flags & HK_OP_FIRST_IN_PLACE && output == 0;
    const int candidates = is_in_place(call, call->outputs[output]) ? call->n_inputs : first ? HK_MIN(call->n_inputs, 1) : 0;
    for (int k = 0; k < candidates; k++)
        if (can_take(layout, step, output, k)) return k;
    return -1;
}

static void take_input(struct hk_layout *layout, int step, int output) {
    const struct hk_call *call = layout->calls[step];
    const int k = find_input_to_take(layout, step, output);
    int *own = &layout->memory_of[call->outputs[output]->id];
    if (k < 0 || layout->memories[*own].storage) return;
    const int from = layout->memory_of[call->inputs[k]->root->id];
    layout->memories[from].lifetime.last = layout->memories[*own].lifetime.last;
    layout->memories[*own].lifetime.bytes = 0;
    *own = from;
}

static void use_memory_twice(struct hk_layout *layout, bool *left_out) {
    for (int i = 0; i < layout->n_calls; i++)
        if (layout->calls[i]->op->flags & HK_OP_STORE) left_out[i] = compute_in_tensor(layout, i);
    for (int i = layout->n_calls - 1; i >= 0; i--)
        for (int o = 0; !left_out[i] && o < layout->calls[i]->n_outputs; o++) {
            const int k = find_input_to_take(layout, i, o);
            const int m = layout->memory_of[layout->calls[i]->outputs[o]->id];
            if (k >= 0 && layout->memories[m].storage) extend_in_tensor(layout, i, o, k);
        }
    for (int i = 0; i < layout->n_calls; i++)
        for (int o = 0; !left_out[i] && o < layout->calls[i]->n_outputs; o++) take_input(layout, i, o);
}

static void remove_calls(struct hk_layout *layout, const bool *left_out) {
    int n = 0;
    for (int i = 0; i < layout->n_calls; i++) {
        if (left_out[i]) continue;
        layout->calls[n] = layout->calls[i];
        layout->scratch_of[n++] = layout->scratch_of[i];
    }
    layout->n_calls = n;
}

/* ---- The arena ---- */

static hk_status place_memories(struct hk_layout *layout, uint64_t max_block) {
    struct hk_lifetime *lifetimes = malloc((size_t)(layout->n_memories + 1) * sizeof *lifetimes);
    int *back = malloc((size_t)(layout->n_memories + 1) * sizeof *back);
    hk_status status;
    int n = 0;
    if (!lifetimes || !back) {
        status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while planning");
        goto done;
    }
    for (int i = 0; i < layout->n_memories; i++) {
        const struct hk_memory *m = &layout->memories[i];
        if (m->storage || !m->lifetime.bytes) continue;
        back[n] = i;
        lifetimes[n++] = m->lifetime;
    }
    status = hk_place(lifetimes, n, max_block, layout->blocks, &layout->n_blocks);
    for (int i = 0; !status && i < n; i++) layout->memories[back[i]].lifetime = lifetimes[i];
done:
    free(lifetimes);
    free(back);
    return status;
}

static hk_status make_layout(const struct hk_graph *graph, const struct hk_device_base *device, enum hk_fusing fusing,
                             enum hk_ends ends, struct hk_layout *layout) {
    const size_t n_calls = (size_t)graph->n_calls + 1, n_values = (size_t)graph->n_values + 1;
    int capacity = 0;
    hk_status status = HK_OK;
    *layout = (struct hk_layout){.limits = device->limits};
    bool *flags = calloc(n_calls, 1);
    layout->calls = malloc(n_calls * sizeof *layout->calls);
    layout->memory_of = malloc(n_values * sizeof *layout->memory_of);
    layout->scratch_of = malloc(n_calls * sizeof *layout->scratch_of);
    if (!flags || !layout->calls || !layout->memory_of || !layout->scratch_of) goto memory;
    memset(layout->memory_of, 0xff, n_values * sizeof *layout->memory_of);
    memset(layout->scratch_of, 0xff, n_calls * sizeof *layout->scratch_of);
    collect_live_calls(graph, layout, flags);
    memset(flags, 0, n_calls);
    hk_store_early(layout);
    if (fusing && !hk_fuse(graph, fusing, ends, layout)) goto memory;
    if (!find_lifetimes(layout, &capacity)) goto memory;
    use_memory_twice(layout, flags);
    remove_calls(layout, flags);
    status = place_memories(layout, device->info.max_buffer);
    if (status) goto fail;
    free(flags);
    return HK_OK;
memory:
    status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while planning");
fail:
    free(flags);
    hk_layout_free(layout);
    return status;
}

static uint64_t arena_bytes(const struct hk_layout *layout) {
    uint64_t bytes = 0;
    for (int i = 0; i < layout->n_blocks; i++) bytes += layout->blocks[i];
    return bytes;
}

/* Groups are made so as to hold no more, but what lives when also decides how well it can be placed: the one that fuses the most
   is taken of those that need no more memory than those that fuse less. */
hk_status hk_layout_make(const struct hk_graph *graph, const struct hk_device_base *device, struct hk_layout *layout) {
    static const enum hk_ends ends[] = {HK_NO_ENDS, HK_CAREFUL_HEADS, HK_CAREFUL_ENDS, HK_ALL_ENDS};
    struct hk_layout other;
    hk_status status = make_layout(graph, device, HK_FUSE_NOTHING, HK_NO_ENDS, layout);
    for (int i = 0; device->fusing && !status && i < (int)HK_LENGTH(ends); i++) {
        status = make_layout(graph, device, device->fusing, ends[i], &other);
        if (status) {
            hk_layout_free(layout);
            break;
        }
        const bool better = arena_bytes(&other) <= arena_bytes(layout);
        hk_layout_free(better ? layout : &other);
        if (better) *layout = other;
    }
    return status;
}
