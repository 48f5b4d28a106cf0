/* fused_matmul: a product and elementwise ops on it (struct hk_followed): bias, activation, residual, scaling, casts and what
   else there may be, in one pass over the result. The bits are those of the ops one by one, where the product's kernel is the same. */
#ifdef HK_ISA_NAME
#include "op/matmul_cpu.h"
#else
#include "op/matmul.h"
#include "op/strided.h"
#endif

/* The product's result, dense, as a and b have it. */
static struct hk_operand sums_of(const struct hk_operand *a, const struct hk_operand *b) {
    int64_t shape[HK_MAX_RANK];
    memcpy(shape, a->shape, sizeof shape);
    shape[a->rank - 1] = b->shape[b->rank - 1];
    return hk_dense_operand(HK_F32, a->rank, shape);
}

/* Rounded up, so that nothing begins off a multiple of 256. */
static uint64_t bytes_of(const struct hk_operand *sums) {
    return ((uint64_t)(sums->stride[0] * sums->shape[0]) * sizeof(float) + 255) / 256 * 256;
}

/* The output that the sums may lie in until the steps have run: itself what is kept, or of the same dtype. -1: none. */
static int output_of_sums(const struct hk_operand *outputs, int count) {
    for (int i = 0; i < count; i++)
        if (outputs[i].dtype == HK_F32) return i;
    return -1;
}

/* The step in two: the product, whose sums lie in an output, or at the end of the scratch memory, and the steps on them. */
struct halves {
    struct hk_step product, rest;
    struct hk_operand sums, inputs[HK_FUSED_INPUTS];
};

static void halve(const struct hk_step *step, struct halves *h) {
    const struct hk_followed *attrs = step->attrs;
    const int in_output = output_of_sums(step->outputs, step->n_outputs);
    const struct hk_operand *const place = in_output >= 0 ? &step->outputs[in_output] : &step->scratch;
    h->sums = sums_of(&step->inputs[0], &step->inputs[1]);
    h->sums.buffer = place->buffer, h->sums.offset = place->offset;
    if (in_output < 0) h->sums.offset += (uint64_t)step->scratch.shape[0] - bytes_of(&h->sums);
    h->product = (struct hk_step){.op = step->op, .inputs = step->inputs, .n_inputs = attrs->n_inputs, .outputs = &h->sums,
                                  .n_outputs = 1, .scratch = step->scratch};
    h->rest = (struct hk_step){.op = step->op, .attrs = &attrs->steps, .inputs = h->inputs, .n_inputs = attrs->steps.n_inputs,
                               .outputs = step->outputs + attrs->keeps, .n_outputs = attrs->steps.n_outputs};
    h->inputs[0] = h->rest.outputs[0]; /* the same elements in the shape of the steps */
    h->inputs[0].buffer = h->sums.buffer, h->inputs[0].offset = h->sums.offset, h->inputs[0].dtype = HK_F32;
    for (int k = 1; k < h->rest.n_inputs; k++) h->inputs[k] = step->inputs[attrs->n_inputs + k - 1];
}

#ifdef HK_ISA_NAME
CPU_KERNEL(fused_matmul) {
    struct halves h;
    halve(step, &h);
    if (bytes_of(&h.sums) == 0) return;
    const struct fused_job steps = fused_begin(&h.rest);
    matmul_run(&h.product, cpu, &steps);
}

#else
CPU_DECLARE_BF16(fused_matmul);

/* Of any call: inputs, then outputs. */
enum { OPERANDS = HK_CHUNK_INPUTS + HK_FUSED_INPUTS + HK_FUSED_OUTPUTS };

/* What the product needs, and at the end the sums where no output has room for them: GPUs' kernels may keep them in registers,
   but not all do. */
static uint64_t scratch(const struct hk_call *call, const struct hk_limits *limits) {
    struct hk_operand operands[OPERANDS];
    const struct hk_step step = hk_step_of(call, operands);
    struct halves h;
    halve(&step, &h);
    const uint64_t own = (hk_matmul_scratch(&h.product, limits) + 255) / 256 * 256;
    return own + (output_of_sums(step.outputs, step.n_outputs) < 0 ? bytes_of(&h.sums) : 0);
}

static struct hk_cost cost(const struct hk_step *step) {
    double flops = ((const struct hk_followed *)step->attrs)->steps.n_steps;
    struct halves h;
    halve(step, &h);
    for (int i = 0; i < h.sums.rank; i++) flops *= (double)h.sums.shape[i];
    return (struct hk_cost){.flops = flops + hk_matmul_cost(&h.product).flops};
}

/* ---- GPU ---- */

/* Whether one kernel does all of it. operands: HK_FUSED_OPERANDS, for *finish. */
static bool make_finish(const struct halves *h, bool keeps, const struct hk_limits *limits, struct hk_finish *finish,
                        struct hk_operand *operands) {
    const struct hk_step *rest = &h->rest;
    for (int k = 0; k < rest->n_outputs; k++) operands[k] = rest->outputs[k];
    for (int k = 1; k < rest->n_inputs; k++)
        operands[rest->n_outputs + k - 1] = hk_broadcast_operand(&rest->inputs[k], &rest->outputs[0]);
    *finish = (struct hk_finish){.steps = rest->attrs, .keeps = keeps, .columns = h->sums.shape[h->sums.rank - 1],
                                 .operands = operands};
    return hk_finish_fits(finish, limits) && hk_matmul_finishes(&h->product, finish, limits);
}

/* As far as sizes and dtypes say: where memory begins off a multiple of its unit, gpu() still takes two kernels. */
static bool fits(const struct hk_call *call, const struct hk_limits *limits) {
    const struct hk_followed *attrs = call->attrs;
    struct hk_operand own[OPERANDS], operands[HK_FUSED_OPERANDS];
    struct hk_finish finish;
    struct halves h;
    if (!limits) return true;
    const struct hk_step step = hk_step_of(call, own);
    halve(&step, &h);
    return make_finish(&h, attrs->keeps, limits, &finish, operands);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct hk_followed *attrs = step->attrs;
    struct hk_operand operands[HK_FUSED_OPERANDS];
    struct hk_finish finish;
    struct halves h;
    halve(step, &h);
    if (make_finish(&h, attrs->keeps, recorder->limits, &finish, operands)) return hk_matmul_record(&h.product, &finish, recorder);
    const hk_status status = hk_matmul_record(&h.product, NULL, recorder);
    return status ? status : hk_fused_gpu(&h.rest, recorder);
}

const struct hk_op hk_op_fused_matmul = {
    .name = "fused_matmul",
    .min_inputs = 2,
    .max_inputs = HK_CHUNK_INPUTS + HK_FUSED_INPUTS,
    .n_outputs = HK_FUSED_OUTPUTS,
    .scratch = scratch,
    .cost = cost,
    .cpu = CPU_KERNELS_BF16(fused_matmul),
    .fits = fits,
    .gpu = gpu,
};
#endif
