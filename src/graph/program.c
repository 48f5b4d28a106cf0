/* Programs: a graph's layout with real memory behind it, given to the device's backend. */
#include "graph/plan.h"
#include "op/op.h"
#include <stdlib.h>
#include <string.h>

struct hk_program {
    struct hk_device *device;
    struct hk_backend_program *backend;
    struct hk_program_info info;
    struct hk_storage *arena[HK_MAX_BLOCKS];
    int n_blocks;
    struct hk_storage **tensors; /* retained: the program's leaves */
    int n_tensors;
    struct hk_arena attrs; /* copies: the graph may be gone */
};

static const struct hk_backend *backend_of(const struct hk_device *device) {
    return ((const struct hk_device_base *)device)->backend;
}

void hk_program_destroy(struct hk_program **program) {
    if (!program || !*program) return;
    struct hk_program *p = *program;
    if (p->backend) backend_of(p->device)->program_destroy(p->device, p->backend);
    for (int i = 0; i < p->n_blocks; i++) hk_storage_release(p->arena[i]);
    for (int i = 0; i < p->n_tensors; i++) hk_storage_release(p->tensors[i]);
    free(p->tensors);
    hk_arena_free(&p->attrs);
    free(p);
    *program = NULL;
}

/* ---- Memory ---- */

/* What the device can still give: the smallest of the caller's limit, the device's limit, and what it reported free. */
static uint64_t memory_left(struct hk_device *device, uint64_t limit) {
    const struct hk_device_base *base = (const struct hk_device_base *)device;
    struct hk_stats stats;
    base->backend->stats(device, &stats);
    uint64_t left = base->info.memory_free > stats.bytes ? base->info.memory_free - stats.bytes : 0;
    if (base->memory_limit) left = HK_MIN(left, base->memory_limit > stats.bytes ? base->memory_limit - stats.bytes : 0);
    return limit ? HK_MIN(left, limit) : left;
}

/* Block i of the program whose arena is shared, where it holds the bytes. */
static struct hk_storage *shared_block(const struct hk_program *share, int i, uint64_t bytes) {
    return share && i < share->n_blocks && share->arena[i]->bytes >= bytes ? share->arena[i] : NULL;
}

static hk_status allocate_arena(struct hk_program *program, const struct hk_layout *layout, const char *name,
                                const struct hk_compile_params *params) {
    uint64_t needed = 0;
    for (int i = 0; i < layout->n_blocks; i++) {
        program->info.arena_bytes += layout->blocks[i];
        if (!shared_block(params->share, i, layout->blocks[i])) needed += layout->blocks[i];
    }
    const uint64_t left = memory_left(program->device, params->memory_limit);
    if (needed > left)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY,
                       "%s needs %llu bytes (%.1f MiB) between its tensors, but has %llu (%.1f MiB): use a smaller batch or model",
                       name, (unsigned long long)needed, (double)needed / 0x1p20,
                       (unsigned long long)left, (double)left / 0x1p20);
    for (int i = 0; i < layout->n_blocks; i++) {
        struct hk_storage *storage = shared_block(params->share, i, layout->blocks[i]);
        if (storage) {
            program->arena[program->n_blocks++] = hk_storage_retain(storage);
            continue;
        }
        storage = calloc(1, sizeof *storage);
        if (!storage) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
        *storage = (struct hk_storage){.device = program->device, .bytes = layout->blocks[i], .references = 1};
        const hk_status status = backend_of(program->device)->arena_create(program->device, storage->bytes, &storage->buffer);
        if (status) {
            free(storage);
            return status;
        }
        program->arena[program->n_blocks++] = storage;
    }
    return HK_OK;
}

static hk_status check_devices(const struct hk_program *program, const struct hk_graph *graph) {
    for (int i = 0; i < graph->n_leaves; i++)
        if (graph->leaves[i]->storage->device != program->device)
            return hk_fail(HK_ERROR_INVALID, "hk_compile: the graph uses a tensor %s of another device",
                           hk_shape_text(graph->leaves[i]));
    return HK_OK;
}

static void retain_tensor(struct hk_program *program, struct hk_storage *storage) {
    for (int k = 0; k < program->n_tensors; k++)
        if (program->tensors[k] == storage) return;
    program->tensors[program->n_tensors++] = hk_storage_retain(storage);
    program->info.tensor_bytes += storage->bytes;
}

/* Those that the calls use: leaves, and what is computed where it would be stored. */
static hk_status retain_tensors(struct hk_program *program, const struct hk_graph *graph, const struct hk_layout *layout) {
    program->tensors = malloc((size_t)(graph->n_leaves + 1) * sizeof *program->tensors);
    if (!program->tensors) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    for (int i = 0; i < layout->n_calls; i++)
        for (int k = 0; k < layout->calls[i]->n_inputs; k++) {
            struct hk_storage *storage = layout->calls[i]->inputs[k]->root->storage;
            if (storage) retain_tensor(program, storage);
        }
    for (int i = 0; i < layout->n_memories; i++)
        if (layout->memories[i].storage) retain_tensor(program, layout->memories[i].storage);
    return HK_OK;
}

/* ---- Steps ---- */

static void resolve(const struct hk_program *program, const struct hk_layout *layout, const struct hk_value *value,
                    struct hk_operand *operand) {
    const struct hk_value *root = value->root;
    const int m = layout->memory_of[root->id];
    const uint64_t skip = (uint64_t)value->offset * hk_dtype_size(value->dtype);
    *operand = hk_operand_of(value);
    if (m < 0) {
        operand->buffer = root->storage->buffer;
        operand->offset = root->storage_offset + skip;
        return;
    }
    const struct hk_memory *memory = &layout->memories[m];
    operand->buffer = memory->storage ? memory->storage->buffer : program->arena[memory->lifetime.block]->buffer;
    operand->offset = (memory->storage ? memory->offset : memory->lifetime.offset) + skip;
}

static struct hk_cost default_cost(const struct hk_step *step) {
    struct hk_cost cost = {0};
    for (int i = 0; i < step->n_outputs; i++) {
        double n = 1;
        for (int d = 0; d < step->outputs[i].rank; d++) n *= (double)step->outputs[i].shape[d];
        cost.flops += n;
    }
    return cost;
}

static double operand_bytes(const struct hk_operand *operands, int count) {
    double bytes = 0;
    for (int i = 0; i < count; i++) {
        double n = (double)hk_dtype_size(operands[i].dtype);
        for (int d = 0; d < operands[i].rank; d++)
            if (operands[i].stride[d]) n *= (double)operands[i].shape[d];
        bytes += n;
    }
    return bytes;
}

static void add_cost(struct hk_program_info *info, const struct hk_step *step) {
    const struct hk_cost cost = step->op->cost ? step->op->cost(step) : default_cost(step);
    info->flops += cost.flops;
    info->bytes += cost.bytes > 0 ? cost.bytes
                                  : operand_bytes(step->inputs, step->n_inputs) + operand_bytes(step->outputs, step->n_outputs);
}

static hk_status make_steps(struct hk_program *program, const struct hk_layout *layout, const char *name) {
    size_t n_operands = 0;
    hk_status status = HK_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < layout->n_calls; i++) n_operands += (size_t)(layout->calls[i]->n_inputs + layout->calls[i]->n_outputs);
    struct hk_step *steps = calloc((size_t)layout->n_calls + 1, sizeof *steps);
    struct hk_operand *operands = calloc(n_operands + 1, sizeof *operands), *next = operands;
    if (!steps || !operands) goto memory;
    for (int i = 0; i < layout->n_calls; i++) {
        const struct hk_call *call = layout->calls[i];
        struct hk_step *step = &steps[i];
        *step = (struct hk_step){.op = call->op, .n_inputs = call->n_inputs, .n_outputs = call->n_outputs};
        step->attrs = hk_arena_copy(&program->attrs, call->attrs, call->attrs_bytes);
        if (!step->attrs) goto memory;
        step->inputs = next;
        for (int k = 0; k < call->n_inputs; k++) resolve(program, layout, call->inputs[k], next++);
        step->outputs = next;
        for (int k = 0; k < call->n_outputs; k++) resolve(program, layout, call->outputs[k], next++);
        if (layout->scratch_of[i] >= 0) {
            const struct hk_lifetime *life = &layout->memories[layout->scratch_of[i]].lifetime;
            step->scratch = (struct hk_operand){.buffer = program->arena[life->block]->buffer, .offset = life->offset,
                                                .dtype = HK_U8, .rank = 1,
                                                .shape = {(int64_t)hk_call_scratch(call, layout->limits)},
                                                .stride = {1}};
        }
        add_cost(&program->info, step);
    }
    const struct hk_plan plan = {.name = name, .steps = steps, .n_steps = layout->n_calls};
    program->info.ops = layout->n_calls;
    program->info.fused = layout->n_fused;
    status = backend_of(program->device)->program_create(program->device, &plan, &program->info, &program->backend);
    goto done;
memory:
    hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling %s", name);
done:
    free(steps);
    free(operands);
    return status;
}

/* ---- The interface ---- */

struct hk_program *hk_compile(struct hk_device *device, struct hk_graph *graph, const struct hk_compile_params *params) {
    static const struct hk_compile_params defaults = {0};
    struct hk_layout layout = {0};
    if (!params) params = &defaults;
    const char *name = params->name ? params->name : "the program";
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_compile: the device is NULL"), NULL;
    if (hk_graph_status(graph)) return NULL;
    struct hk_program *program = calloc(1, sizeof *program);
    if (!program) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
    program->device = device;
    if (params->share && params->share->device != device) {
        hk_fail(HK_ERROR_INVALID, "hk_compile: the program whose memory is to be shared is another device's");
        goto fail;
    }
    if (check_devices(program, graph)) goto fail;
    if (hk_layout_make(graph, (const struct hk_device_base *)device, &layout)) goto fail;
    if (layout.n_calls == 0) {
        hk_fail(HK_ERROR_INVALID, "hk_compile: the graph stores nothing (hk_store), so there is nothing to run");
        goto fail;
    }
    if (retain_tensors(program, graph, &layout)) goto fail;
    if (allocate_arena(program, &layout, name, params)) goto fail;
    program->info.value_bytes = layout.value_bytes;
    program->info.peak_bytes = program->info.arena_bytes + program->info.tensor_bytes;
    if (make_steps(program, &layout, name)) goto fail;
    hk_layout_free(&layout);
    return program;
fail:
    hk_layout_free(&layout);
    hk_program_destroy(&program);
    return NULL;
}

/* So that a kernel which reads what none has written in this run gives NaN. */
static hk_status poison(struct hk_program *program) {
    struct hk_device *device = program->device;
    hk_status status = HK_OK;
    for (int i = 0; i < program->n_blocks && ((struct hk_device_base *)device)->poison && !status; i++)
        status = backend_of(device)->poison(device, program->arena[i]->buffer);
    return status;
}

hk_status hk_program_run(struct hk_program *program) {
    if (!program) return hk_fail(HK_ERROR_INVALID, "hk_program_run: the program is NULL");
    const hk_status status = poison(program);
    return status ? status : backend_of(program->device)->program_run(program->device, program->backend);
}

const struct hk_program_info *hk_program_get_info(const struct hk_program *program) {
    return program ? &program->info : NULL;
}
