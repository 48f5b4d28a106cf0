/* fused_reduce: elementwise ops and a sum, mean or maximum of what they make (struct hk_preceded), in one pass over what they
   read. What is reduced has memory only where others read it too. The bits are those of the ops one by one, but
   for the sign of a NaN that is made of two. */
#ifdef HK_ISA_NAME
#include "op/reduce_cpu.h"
#else
#include "op/fused.h"
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
