/* fused_reduce: elementwise ops and a sum, mean or maximum of what they make (struct hk_preceded), in one pass over what they
   read. What is reduced has memory only where others read it too. The bits are those of the ops one by one, but
   for the sign of a NaN that is made of two. */
#ifdef HK_ISA_NAME
#include "op/reduce_cpu.h"
#else
#include "op/fused_glsl.h"
#include "op/reduce.h"
#include "op/strided.h"
#endif

/* The step in two: the elementwise steps, whose last output has no buffer where it is not kept, and the reduction of it. */
struct halves {
    struct hk_step steps, last;
    struct hk_operand outputs[HK_FUSED_OUTPUTS], read;
};

static void halve(const struct hk_step *step, struct halves *h) {
    const struct hk_preceded *attrs = step->attrs;
    for (int k = 1; k < step->n_outputs; k++) h->outputs[k - 1] = step->outputs[k];
    if (!attrs->keeps) h->outputs[attrs->last] = hk_dense_operand(HK_F32, attrs->shape.rank, attrs->shape.size);
    h->read = hk_dense_operand(HK_F32, attrs->read.rank, attrs->read.size);
    h->read.buffer = h->outputs[attrs->last].buffer, h->read.offset = h->outputs[attrs->last].offset;
    h->steps = (struct hk_step){.op = step->op, .attrs = &attrs->steps, .inputs = step->inputs, .n_inputs = step->n_inputs,
                                .outputs = h->outputs, .n_outputs = attrs->steps.n_outputs};
    h->last = (struct hk_step){.op = step->op, .attrs = (const char *)attrs + attrs->attrs, .inputs = &h->read, .n_inputs = 1,
                               .outputs = step->outputs, .n_outputs = 1, .scratch = step->scratch};
}

#ifdef HK_ISA_NAME
CPU_KERNEL(fused_reduce) {
    struct halves h;
    halve(step, &h);
    const struct fused_job first = fused_begin(&h.steps);
    reduce_run(&h.last, cpu, &first);
}

#else
CPU_DECLARE(fused_reduce);

/* Of any call: inputs, then outputs. */
enum { OPERANDS = HK_FUSED_INPUTS + HK_FUSED_OUTPUTS };

static uint64_t scratch(const struct hk_call *call, const struct hk_limits *limits) {
    struct hk_operand operands[OPERANDS];
    const struct hk_step step = hk_step_of(call, operands);
    struct halves h;
    (void)limits;
    halve(&step, &h);
    return hk_reduce_scratch(&h.last);
}

static struct hk_cost cost(const struct hk_step *step) {
    const struct hk_preceded *attrs = step->attrs;
    double flops = attrs->steps.n_steps + 1;
    for (int i = 0; i < attrs->shape.rank; i++) flops *= (double)attrs->shape.size[i];
    return (struct hk_cost){.flops = flops};
}

/* ---- The beginning of a reduction's kernel ---- */

bool hk_start_fits(const struct hk_start *start, int words, int bindings, const struct hk_limits *limits) {
    const int n_outputs = start->steps->n_outputs, count = n_outputs + start->steps->n_inputs;
    int rank = 0, strided = 0;
    for (int i = 0; i < start->operands[0].rank; i++) rank += start->operands[0].shape[i] != 1;
    for (int k = 0; k < count; k++) {
        const struct hk_operand *o = &start->operands[k];
        const size_t size = hk_dtype_size(o->dtype);
        if (size == 1 || (k < n_outputs && size != 4)) return false;
        if (hk_operand_span(o) > limits->max_range - limits->offset_align) return false;
        strided += hk_lie_of(o) == STRIDED;
    }
    return bindings + count - 1 <= HK_MAX_BINDINGS && 4 * (words + hk_fused_words(rank, count, strided)) <= HK_MAX_PUSH_BYTES;
}

/* Functions that give element i of what is reduced, and four from i on: both are there, whichever is called. */
static void write_load(struct fused_kernel *k, const struct hk_start *start) {
    hk_write(&k->body, "float load(uint i) {\n");
    hk_write_body(k);
    hk_write(&k->body, "    const float made = uintBitsToFloat(v%d);\n", hk_fused_value(k->fused, start->last));
    if (start->keeps) hk_write(&k->body, "    x[p.base_x + i] = made;\n");
    hk_write(&k->body, "    return made;\n}\n");
    hk_write(&k->body, "vec4 load_four(uint i) { return vec4(load(i), load(i + 1), load(i + 2), load(i + 3)); }\n");
}

static void write_load_four(struct fused_kernel *k, const struct hk_start *start) {
    const int o = start->last;
    hk_write_make(k);
    hk_write(&k->body, "vec4 load_four(uint first) {\n    const uint i = first / 4;\n");
    hk_write_body(k);
    hk_write(&k->body, "    const vec4 made = uintBitsToFloat(uvec4(r%d_0, r%d_1, r%d_2, r%d_3));\n", o, o, o, o);
    if (start->keeps) hk_write(&k->body, "    x_fours[(p.base_x + first) / 4] = made;\n");
    hk_write(&k->body, "    return made;\n}\nfloat load(uint i) { return 0.0; }\n");
}

hk_status hk_start_add(const struct hk_start *start, bool fours, const struct hk_recorder *recorder, struct hk_written *text,
                       struct hk_dispatch *d) {
    struct fused_kernel k = hk_fused_kernel(start->steps, recorder, start->operands);
    if (!fours || k.unit != 4) k.unit = 1;
    k.apart = start->last, k.first_binding = d->n_bindings;
    k.body.first_constant = d->n_spec;
    if (k.unit > 1) write_load_four(&k, start);
    else write_load(&k, start);
    hk_write(text, "#version 450\n#define PRECEDED %d\n#include \"%s.comp\"\n", k.words, d->shader);
    hk_write(text, "#define NOTHING (p.w[0] >> 31)\n");
    hk_write_includes(&k, text);
    hk_write_declarations(&k, text);
    hk_write(text, "%s", k.body.text);
    hk_fused_push(&k, start->operands, d);
    for (int o = 0; o < k.n_operands; o++)
        if (o != k.apart) d->bytes += (double)hk_operand_span(&start->operands[o]);
    return hk_fused_source(&k, "fused_reduce", text, d);
}

/* ---- GPU ---- */

/* operands: those of the steps, HK_FUSED_OPERANDS at most. */
static struct hk_start start_of(const struct hk_step *step, const struct halves *h, struct hk_operand *operands) {
    const struct hk_preceded *attrs = step->attrs;
    const int n_outputs = h->steps.n_outputs;
    for (int k = 0; k < n_outputs; k++) operands[k] = h->outputs[k];
    for (int k = 0; k < step->n_inputs; k++) operands[n_outputs + k] = hk_broadcast_operand(&step->inputs[k], &h->outputs[0]);
    return (struct hk_start){.steps = &attrs->steps, .last = attrs->last, .keeps = attrs->keeps, .operands = operands};
}

/* On the CPU the columns of a few short rows would be made in runs of a few elements. */
static bool fits(const struct hk_call *call, const struct hk_limits *limits) {
    enum { SHORT = 256 };
    const int64_t *const read = ((const struct hk_preceded *)call->attrs)->read.size, columns = read[2];
    struct hk_operand own[OPERANDS], operands[HK_FUSED_OPERANDS];
    struct halves h;
    if (!limits) return columns == 1 || read[1] * columns >= SHORT;
    const struct hk_step step = hk_step_of(call, own);
    halve(&step, &h);
    const struct hk_start start = start_of(&step, &h, operands);
    return hk_reduce_starts(&h.last, &start, limits);
}

struct recording {
    const struct halves *halves;
    struct hk_start start;
    struct hk_recorder *recorder;
};

static hk_status record_all(void *context, const struct hk_operand *operands) {
    struct recording *r = context;
    r->start.operands = operands;
    return hk_reduce_record(&r->halves->last, &r->start, r->recorder);
}

/* In one piece, as fits() has found: hk_for_pieces only merges dimensions. */
static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct hk_operand operands[HK_FUSED_OPERANDS];
    struct halves h;
    halve(step, &h);
    struct recording r = {&h, start_of(step, &h, operands), recorder};
    return hk_for_pieces(recorder, operands, h.steps.n_outputs + h.steps.n_inputs, record_all, &r);
}

const struct hk_op hk_op_fused_reduce = {
    .name = "fused_reduce",
    .min_inputs = 1,
    .max_inputs = HK_FUSED_INPUTS,
    .n_outputs = HK_FUSED_OUTPUTS,
    .flags = HK_OP_REST_IN_PLACE,
    .scratch = scratch,
    .cost = cost,
    .cpu = CPU_KERNELS(fused_reduce),
    .fits = fits,
    .gpu = gpu,
};
#endif
