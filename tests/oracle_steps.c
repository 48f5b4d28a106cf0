/* The steps of programs: kept as a backend is given them, run one by one, and held to what they declare. */
#include "oracle.h"
#include <hekla/graph.h>
#include <stdlib.h>
#include <string.h>

static const struct hk_backend *backend_of(struct hk_device *device) { return ((struct hk_device_base *)device)->backend; }

int64_t operand_elements(const struct hk_operand *o) {
    int64_t n = 1;
    for (int i = 0; i < o->rank; i++) n *= o->shape[i];
    return n;
}

uint64_t operand_byte(const struct hk_operand *o, int64_t i) {
    int64_t at = 0;
    for (int d = o->rank - 1; d >= 0; d--) {
        at += i % o->shape[d] * o->stride[d];
        i /= o->shape[d];
    }
    return o->offset + (uint64_t)at * hk_dtype_size(o->dtype);
}

/* ---- Copies of plans ---- */

static void note_buffer(struct steps *s, struct hk_buffer *buffer) {
    for (int i = 0; i < s->n_buffers; i++)
        if (s->buffers[i] == buffer) return;
    if (buffer && s->n_buffers < COUNT(s->buffers)) s->buffers[s->n_buffers++] = buffer;
}

static void copy_plan(struct steps *s, const struct hk_plan *plan) {
    size_t n = 0;
    for (int i = 0; i < plan->n_steps; i++) n += (size_t)(plan->steps[i].n_inputs + plan->steps[i].n_outputs);
    *s = (struct steps){.count = plan->n_steps};
    s->items = malloc((size_t)(s->count + 1) * sizeof *s->items);
    struct hk_operand *next = s->operands = malloc((n + 1) * sizeof *s->operands);
    for (int i = 0; i < s->count; i++) {
        struct hk_step *step = &s->items[i];
        *step = plan->steps[i];
        memcpy(next, step->inputs, (size_t)step->n_inputs * sizeof *next);
        step->inputs = next, next += step->n_inputs;
        memcpy(next, step->outputs, (size_t)step->n_outputs * sizeof *next);
        step->outputs = next, next += step->n_outputs;
        for (int k = 0; k < step->n_inputs; k++) note_buffer(s, step->inputs[k].buffer);
        for (int k = 0; k < step->n_outputs; k++) note_buffer(s, step->outputs[k].buffer);
        note_buffer(s, step->scratch.buffer);
    }
}

void steps_free(struct steps *s) {
    free(s->items);
    free(s->operands);
    *s = (struct steps){0};
}

/* ---- The spy ---- */

struct spy {
    struct hk_backend table; /* first: the device sees this */
    const struct hk_backend *real;
    struct hk_device *device;
    struct steps *into;
    void (*keep)(void *context, const struct hk_plan *plan);
    void *context;
};

static hk_status create_program(struct hk_device *device, const struct hk_plan *plan, struct hk_program_info *info,
                                struct hk_backend_program **program) {
    struct spy *spy = (struct spy *)(uintptr_t)backend_of(device);
    if (spy->into) copy_plan(spy->into, plan);
    if (spy->keep) spy->keep(spy->context, plan);
    return spy->real->program_create(device, plan, info, program);
}

struct spy *spy_create(struct hk_device *device) {
    struct spy *spy = calloc(1, sizeof *spy);
    spy->device = device;
    spy->real = backend_of(device);
    spy->table = *spy->real;
    spy->table.program_create = create_program;
    ((struct hk_device_base *)device)->backend = &spy->table;
    return spy;
}

void spy_destroy(struct spy *spy) {
    ((struct hk_device_base *)spy->device)->backend = spy->real;
    free(spy);
}

struct hk_program *spy_compile(struct spy *spy, struct hk_graph *graph, struct steps *steps) {
    spy->into = steps;
    struct hk_program *program = hk_compile(spy->device, graph, NULL);
    spy->into = NULL;
    return program;
}

void spy_watch(struct spy *spy, void (*keep)(void *context, const struct hk_plan *plan), void *context) {
    spy->keep = keep;
    spy->context = context;
}

/* ---- Running steps one by one ---- */

static hk_status run_step(struct hk_device *device, const struct hk_step *step) {
    const struct hk_backend *backend = backend_of(device);
    const struct hk_plan plan = {.name = step->op->name, .steps = step, .n_steps = 1};
    struct hk_program_info info = {0};
    struct hk_backend_program *program;
    hk_status status = backend->program_create(device, &plan, &info, &program);
    if (status) return status;
    status = backend->program_run(device, program);
    if (!status) status = backend->wait(device);
    backend->program_destroy(device, program);
    return status;
}

static uint64_t round_up(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

/* Where each root lies when each has its own place; the sum of all. */
static uint64_t place_roots(const struct hk_graph *graph, uint64_t *places) {
    uint64_t end = 0;
    for (int i = 0; i < graph->n_calls; i++) {
        const struct hk_call *call = graph->calls[i];
        for (int k = 0; k < call->n_outputs && !(call->op->flags & HK_OP_VIEW); k++) {
            const struct hk_value *out = call->outputs[k];
            places[out->id] = end;
            end += round_up((uint64_t)out->extent * hk_dtype_size(out->dtype) + 4);
        }
    }
    return end;
}

static struct hk_operand operand_of(const struct hk_value *v, struct hk_buffer *buffer, const uint64_t *places) {
    const struct hk_value *root = v->root;
    struct hk_operand o = {.buffer = root->storage ? root->storage->buffer : buffer, .dtype = v->dtype, .rank = v->rank};
    o.offset = (root->storage ? root->storage_offset : places[root->id]) + (uint64_t)v->offset * hk_dtype_size(v->dtype);
    memcpy(o.shape, v->shape, sizeof o.shape);
    memcpy(o.stride, v->stride, sizeof o.stride);
    return o;
}

static uint64_t scratch_bytes(struct hk_device *device, const struct hk_call *call) {
    return hk_call_scratch(call, ((struct hk_device_base *)device)->limits);
}

enum { MOST_OPERANDS = 64 };

static hk_status run_call(struct hk_device *device, const struct hk_call *call, struct hk_buffer *buffer, const uint64_t *places,
                          struct hk_operand scratch) {
    struct hk_operand in[MOST_OPERANDS], out[8];
    if (call->n_inputs > COUNT(in)) return HK_ERROR_UNSUPPORTED;
    for (int k = 0; k < call->n_inputs; k++) in[k] = operand_of(call->inputs[k], buffer, places);
    for (int k = 0; k < call->n_outputs; k++) out[k] = operand_of(call->outputs[k], buffer, places);
    struct hk_step step = {.op = call->op, .attrs = call->attrs, .n_inputs = call->n_inputs, .n_outputs = call->n_outputs,
                           .inputs = in, .outputs = out};
    scratch.shape[0] = (int64_t)scratch_bytes(device, call);
    if (scratch.shape[0]) step.scratch = scratch;
    return run_step(device, &step);
}

hk_status run_alone(struct hk_device *device, const struct hk_graph *graph) {
    uint64_t *places = calloc((size_t)graph->n_values + 1, sizeof *places);
    const uint64_t bytes = place_roots(graph, places);
    uint64_t scratch = 0;
    struct hk_buffer *buffer;
    for (int i = 0; i < graph->n_calls; i++)
        scratch = HK_MAX(scratch, scratch_bytes(device, graph->calls[i]));
    hk_status status = backend_of(device)->buffer_create(device, bytes + round_up(scratch) + 256, &buffer);
    const struct hk_operand rest = {.buffer = buffer, .offset = bytes, .dtype = HK_U8, .rank = 1, .stride = {1}};
    for (int i = 0; i < graph->n_calls && !status; i++)
        if (!(graph->calls[i]->op->flags & HK_OP_VIEW)) status = run_call(device, graph->calls[i], buffer, places, rest);
    if (buffer) backend_of(device)->buffer_destroy(device, buffer);
    free(places);
    return status;
}

/* ---- The arena ---- */

static bool is_tensor(const struct hk_graph *graph, const struct hk_buffer *buffer) {
    for (int i = 0; i < graph->n_leaves; i++)
        if (graph->leaves[i]->storage->buffer == buffer) return true;
    return false;
}

static void fill(unsigned char *data, uint64_t bytes, uint32_t word) {
    for (uint64_t i = 0; i < bytes; i++) data[i] = (unsigned char)(word >> 8 * (i % 4));
}

void poison_arena(struct hk_device *device, const struct hk_graph *graph, const struct steps *steps, uint32_t word) {
    for (int b = 0; b < steps->n_buffers; b++) {
        struct hk_buffer *buffer = steps->buffers[b];
        if (is_tensor(graph, buffer)) continue;
        unsigned char *data = malloc(buffer->bytes);
        fill(data, buffer->bytes, word);
        backend_of(device)->write(device, buffer, 0, data, buffer->bytes);
        free(data);
    }
}

/* ---- Footprints ---- */

enum { READS = 1, WRITES = 2, SCRATCH = 4 };

/* All buffers of a program side by side. */
struct footprint {
    struct hk_device *device;
    const struct steps *steps;
    uint64_t begin[HK_MAX_BLOCKS + 65]; /* of each buffer in the images */
    unsigned char *content; /* as the program would have it */
    unsigned char *flags, *before, *after[2];
};

static uint64_t place_of(const struct footprint *f, const struct hk_buffer *buffer) {
    int i = 0;
    while (f->steps->buffers[i] != buffer) i++;
    return f->begin[i];
}

static void mark(struct footprint *f, const struct hk_operand *o, unsigned char flags) {
    const uint64_t base = place_of(f, o->buffer), size = hk_dtype_size(o->dtype);
    for (int64_t i = 0, n = operand_elements(o); i < n; i++)
        for (uint64_t b = 0, at = base + operand_byte(o, i); b < size; b++) f->flags[at + b] |= flags;
}

static void mark_step(struct footprint *f, const struct hk_step *step) {
    memset(f->flags, 0, f->begin[f->steps->n_buffers]);
    for (int k = 0; k < step->n_inputs; k++) mark(f, &step->inputs[k], step->op->writes >> k & 1 ? READS | WRITES : READS);
    for (int k = 0; k < step->n_outputs; k++) mark(f, &step->outputs[k], WRITES);
    if (step->scratch.buffer) mark(f, &step->scratch, SCRATCH);
}

static hk_status transfer(struct footprint *f, unsigned char *image, bool to_device) {
    const struct hk_backend *backend = backend_of(f->device);
    for (int b = 0; b < f->steps->n_buffers; b++) {
        struct hk_buffer *buffer = f->steps->buffers[b];
        unsigned char *data = image + f->begin[b];
        const hk_status status = to_device ? backend->write(f->device, buffer, 0, data, buffer->bytes)
                                           : backend->read(f->device, buffer, 0, data, buffer->bytes);
        if (status) return status;
    }
    return HK_OK;
}

/* The step with everything that it does not read set to a pattern. */
static bool run_poisoned(struct footprint *f, int i, int round, char *message, size_t size) {
    const uint64_t bytes = f->begin[f->steps->n_buffers];
    const struct hk_step *step = &f->steps->items[i];
    fill(f->before, bytes, round ? 0x3f8ccccdu : 0x7fc0deadu);
    for (uint64_t b = 0; b < bytes; b++)
        if (f->flags[b] & READS) f->before[b] = f->content[b];
    if (transfer(f, f->before, true) || run_step(f->device, step) || transfer(f, f->after[round], false)) {
        snprintf(message, size, "step %d, %s: %s", i, step->op->name, hk_error_message());
        return false;
    }
    for (uint64_t b = 0; b < bytes; b++) {
        if (f->flags[b] & (WRITES | SCRATCH) || f->before[b] == f->after[round][b]) continue;
        snprintf(message, size, "step %d, %s: writes byte %llu, which is not its", i, step->op->name, (unsigned long long)b);
        return false;
    }
    return true;
}

static bool check_step(struct footprint *f, int i, char *message, size_t size) {
    const uint64_t bytes = f->begin[f->steps->n_buffers];
    const struct hk_step *step = &f->steps->items[i];
    mark_step(f, step);
    for (int round = 0; round < 2; round++)
        if (!run_poisoned(f, i, round, message, size)) return false;
    for (uint64_t b = 0; b < bytes; b++) {
        if (!(f->flags[b] & WRITES)) continue;
        f->content[b] = f->after[0][b];
        if (f->after[0][b] == f->after[1][b]) continue;
        snprintf(message, size, "step %d, %s: byte %llu of its result depends on what it does not say it reads", i,
                 step->op->name, (unsigned long long)b);
        return false;
    }
    return true;
}

bool check_footprints(struct hk_device *device, const struct steps *steps, char *message, size_t size) {
    struct footprint f = {.device = device, .steps = steps};
    for (int b = 0; b < steps->n_buffers; b++) f.begin[b + 1] = f.begin[b] + steps->buffers[b]->bytes;
    const uint64_t bytes = f.begin[steps->n_buffers];
    unsigned char *images = malloc(5 * bytes);
    f.content = images, f.flags = images + bytes, f.before = images + 2 * bytes;
    f.after[0] = images + 3 * bytes, f.after[1] = images + 4 * bytes;
    bool ok = transfer(&f, f.content, false) == HK_OK;
    for (int i = 0; i < steps->count && ok; i++) ok = check_step(&f, i, message, size);
    if (ok) ok = transfer(&f, f.content, true) == HK_OK;
    free(images);
    return ok;
}
