#include "launches.h"
#include "op/gpu.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SCRATCH_BEGIN = 512 /* where it lies in its buffer */ };

/* ---- Recording ---- */

static hk_status keep(struct hk_recorder *recorder, const struct hk_dispatch *dispatch) {
    struct launches *l = (struct launches *)recorder;
    if (!hk_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items)) abort();
    l->items[l->count++] = *dispatch;
    return HK_OK;
}

static int choose(struct hk_recorder *recorder, const struct hk_choice *choice) {
    struct launches *l = (struct launches *)recorder;
    if (choice->standard < 0 || choice->standard >= choice->count) fail_msg("%s: no standard kernel", choice->work);
    for (int i = 0; i < choice->count; i++)
        for (int k = 0; k < i; k++)
            if (!strcmp(choice->names[i], choice->names[k])) fail_msg("%s: %s twice", choice->work, choice->names[i]);
    l->choice = *choice;
    l->most_kernels = HK_MAX(l->most_kernels, choice->count);
    return l->take >= 0 && l->take < choice->count ? l->take : choice->standard;
}

/* Roots lie at multiples of 256 bytes. */
static struct hk_operand operand_of(const struct hk_value *value, struct hk_buffer *buffer, int number) {
    struct hk_operand o = hk_operand_of(value);
    o.buffer = buffer;
    o.offset = 256 * (uint64_t)number + (uint64_t)value->offset * hk_dtype_size(value->dtype);
    return o;
}

void launches_record(struct launches *l, const struct hk_call *call, const struct hk_limits *limits, int take) {
    *l = (struct launches){.recorder = {.limits = limits, .record = keep, .choose = choose}, .call = call, .take = take};
    for (int i = 0; i < call->n_inputs; i++) l->in[i] = operand_of(call->inputs[i], &l->memory[i], i);
    for (int i = 0; i < call->n_outputs; i++)
        l->out[i] = operand_of(call->outputs[i], &l->memory[LAUNCH_OPERANDS + i], i);
    l->scratch_bytes = hk_call_scratch(call, limits);
    const struct hk_step step = {.op = call->op, .attrs = call->attrs, .n_inputs = call->n_inputs, .n_outputs = call->n_outputs,
                                 .inputs = l->in, .outputs = l->out,
                                 .scratch = {.buffer = &l->scratch, .offset = SCRATCH_BEGIN, .dtype = HK_U8, .rank = 1,
                                             .stride = {1}}};
    if (call->op->gpu(&step, &l->recorder)) fail_msg("%s: %s", call->op->name, hk_error_message());
}

void launches_free(struct launches *l) { free(l->items); }

void launches_fail(const struct launches *l, const struct hk_dispatch *d, const char *condition, int line) {
    fail_msg("line %d: not so of %s, launch %d of %d, kernel %d for %s: %s", line, d->shader, (int)(d - l->items), l->count,
             l->take, l->choice.work, condition);
}

/* ---- What shaders declare ---- */

/* The largest constant_id in a file of shaders/ and what it includes; -1: none. */
static int last_constant(const char *file) {
    const char *const source = getenv("HEKLA_SOURCE");
    char path[512], name[64], *text;
    size_t bytes;
    int last = -1;
    snprintf(path, sizeof path, "%s/shaders/%s", source ? source : ".", file);
    if (hk_file_read(path, &text, &bytes)) fail_msg("%s", hk_error_message());
    for (const char *at = text; (at = strstr(at, "layout(constant_id = ")); at++)
        last = HK_MAX(last, (int)strtol(at + strlen("layout(constant_id = "), NULL, 10));
    for (const char *at = text; (at = strstr(at, "\n#include \"")); at++)
        if (sscanf(at, "\n#include \"%63[^\"]", name) == 1) {
            const int there = last_constant(name);
            last = HK_MAX(last, there);
        }
    free(text);
    return last;
}

/* The same of a shader, which is read once. */
static int constants_of(const char *shader) {
    static struct {
        char shader[64];
        int last;
    } known[64];
    static int count;
    char file[80];
    for (int i = 0; i < count; i++)
        if (!strcmp(known[i].shader, shader)) return known[i].last + 1;
    const size_t length = strlen(shader), base = length > 5 && !strcmp(shader + length - 5, "_bf16") ? length - 5 : length;
    if (count == (int)HK_LENGTH(known)) fail_msg("more shaders than expected");
    snprintf(file, sizeof file, "%.*s.comp", (int)base, shader);
    snprintf(known[count].shader, sizeof known[count].shader, "%s", shader);
    known[count].last = last_constant(file);
    return known[count++].last + 1;
}

/* ---- Of any op ---- */

static const struct hk_operand *operand_in(const struct launches *l, const struct hk_buffer *buffer, bool *output) {
    const ptrdiff_t i = buffer - l->memory;
    *output = i >= LAUNCH_OPERANDS;
    return *output ? &l->out[i - LAUNCH_OPERANDS] : &l->in[i];
}

static void check_binding(const struct launches *l, const struct hk_dispatch *d, const struct hk_binding *b) {
    const struct hk_limits *const limits = l->recorder.limits;
    bool output;
    uint64_t begin = SCRATCH_BEGIN, end = SCRATCH_BEGIN + l->scratch_bytes;
    if (b->buffer != &l->scratch) {
        const struct hk_operand *o = operand_in(l, b->buffer, &output);
        begin = o->offset / 4 * 4, end = (o->offset + hk_operand_span(o) + 3) / 4 * 4;
        LAUNCH_REQUIRE(l, d, output == ((b->access & HK_WRITE) != 0));
    }
    LAUNCH_REQUIRE(l, d, b->bytes > 0 && b->offset % 4 == 0 && b->bytes % 4 == 0);
    LAUNCH_REQUIRE(l, d, b->offset >= begin && b->offset + b->bytes <= end);
    LAUNCH_REQUIRE(l, d, b->offset % limits->offset_align + b->bytes <= limits->max_range);
    LAUNCH_REQUIRE(l, d, b->push_word >= 0 && 4 * (uint32_t)b->push_word < d->push_bytes);
    LAUNCH_REQUIRE(l, d, launch_word(d, b->push_word) == 0);
}

void launches_check(const struct launches *l) {
    const struct hk_limits *const limits = l->recorder.limits;
    for (const struct hk_dispatch *d = l->items; d < l->items + l->count; d++) {
        LAUNCH_REQUIRE(l, d, constants_of(d->shader) <= d->n_spec && d->n_spec <= HK_MAX_SPEC);
        LAUNCH_REQUIRE(l, d, d->spec[0] > 0 && d->spec[0] <= limits->max_invocations);
        LAUNCH_REQUIRE(l, d, !d->subgroup_size ||
                                 (d->subgroup_size == limits->cooperative_subgroup && d->spec[0] % d->subgroup_size == 0));
        LAUNCH_REQUIRE(l, d, d->groups[0] > 0 && d->groups[0] <= limits->max_groups);
        LAUNCH_REQUIRE(l, d, d->groups[1] > 0 && d->groups[1] <= limits->max_groups && d->groups[2] == 1);
        for (int i = 0; i < d->n_bindings; i++) check_binding(l, d, &d->bindings[i]);
    }
}

/* ---- For the checks ---- */

uint32_t launch_word(const struct hk_dispatch *d, int word) {
    uint32_t x;
    memcpy(&x, d->push + 4 * word, 4);
    return x;
}

struct launch_side launch_side(const struct launches *l, const struct hk_dispatch *d, int binding,
                               const struct hk_operand *operand, uint32_t rest) {
    const struct hk_binding *b = &d->bindings[binding];
    const int64_t size = operand ? (int64_t)hk_dtype_size(operand->dtype) : 4;
    const int64_t begin = operand ? (int64_t)operand->offset : SCRATCH_BEGIN;
    const int64_t within = (int64_t)(b->offset % l->recorder.limits->offset_align);
    const int64_t byte = (int64_t)b->offset - begin + rest * size;
    LAUNCH_REQUIRE(l, d, b->buffer == (operand ? operand->buffer : &l->scratch));
    LAUNCH_REQUIRE(l, d, byte >= 0 && byte % size == 0);
    return (struct launch_side){operand, byte / size, within / size + rest, (within + (int64_t)b->bytes) / size};
}

bool launch_is(const struct hk_dispatch *d, const char *shader) {
    const size_t length = strlen(shader);
    return !strncmp(d->shader, shader, length) && (!d->shader[length] || !strcmp(d->shader + length, "_bf16"));
}

void launch_check_groups(const struct launches *l, const struct hk_dispatch *d, uint64_t count) {
    const uint64_t all = (uint64_t)d->groups[0] * d->groups[1];
    LAUNCH_REQUIRE(l, d, count <= UINT32_MAX);
    LAUNCH_REQUIRE(l, d, all >= count && all < count + d->groups[1]);
}

bool launch_has_matrix(const struct launches *l, enum hk_dtype dtype, uint32_t invocations, uint32_t m, uint32_t n,
                       uint32_t k) {
    const struct hk_limits *const limits = l->recorder.limits;
    bool found = false;
    for (const struct hk_cooperative *i = limits->cooperative; i < limits->cooperative + limits->n_cooperative; i++) {
        const bool fits = invocations ? m % i->m == 0 && n % i->n == 0 && k % i->k == 0 : m == i->m && n == i->n && k == i->k;
        found = found || (i->dtype == dtype && i->invocations == invocations && fits);
    }
    return found && (!invocations || HK_MAX(HK_MAX(m, n), k) <= limits->cooperative_largest);
}
