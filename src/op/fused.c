/* fused: a group of elementwise calls in one pass over memory. Its steps run one after another on runs of elements that
   stay in the processor's nearest cache, by the chunk functions of their own ops: the bits are those of the calls. */
#ifdef HK_ISA_NAME
#include "op/fused_cpu.h"

enum { FUSED_GRAIN = 8192 };

static void *output_at(const struct fused_job *job, int output, int64_t begin, uint32_t *apart) {
    const struct hk_operand *o = &job->operands[output];
    return o->buffer ? (char *)cpu_data(o) + begin * (int64_t)hk_dtype_size(o->dtype) : (void *)apart;
}

/* Elements [begin, begin + n) of all outputs. */
static void run_steps(const struct fused_job *job, int64_t begin, int64_t n, uint32_t *apart, uint32_t (*gathered)[CPU_RUN],
                      uint32_t (*buffers)[CPU_RUN]) {
    const struct hk_fused *fused = job->fused;
    const void *values[HK_FUSED_INPUTS + HK_FUSED_STEPS];
    for (int k = 0; k < fused->n_inputs; k++) {
        const int o = fused->n_outputs + k;
        values[k] = cpu_fetch(&job->operands[o], job->dense[o], begin, n, gathered[k]);
    }
    for (int s = 0; s < fused->n_steps; s++) {
        const struct hk_fused_step *step = &fused->steps[s];
        const struct hk_chunk chunk = {(const char *)fused + step->attrs, step->n_inputs, step->from, step->to};
        const void *in[HK_CHUNK_INPUTS] = {0};
        for (int k = 0; k < step->n_inputs; k++) in[k] = values[step->inputs[k]];
        void *out = job->buffer[s] < 0 ? output_at(job, step->output, begin, apart) : buffers[job->buffer[s]];
        step->op->chunk[CPU_ISA](&chunk, out, in, n);
        values[fused->n_inputs + s] = out;
    }
    for (int s = 0; s < fused->n_steps; s++) {
        const struct hk_fused_step *step = &fused->steps[s];
        if (step->output >= 0 && job->buffer[s] >= 0)
            memcpy(output_at(job, step->output, begin, apart), buffers[job->buffer[s]], (size_t)n * hk_dtype_size(step->to));
    }
}

void fused_run(const struct fused_job *job, int64_t begin, int64_t end, void *apart) {
    const int64_t first = begin;
    uint32_t gathered[HK_FUSED_INPUTS][CPU_RUN] __attribute__((aligned(64)));
    uint32_t buffers[HK_FUSED_STEPS][CPU_RUN] __attribute__((aligned(64)));
    while (begin < end) {
        const int64_t n = cpu_run_length(&job->operands[0], job->all_dense, begin, end);
        run_steps(job, begin, n, apart ? (uint32_t *)apart + (begin - first) : NULL, gathered, buffers);
        begin += n;
    }
}

static bool reads(const struct hk_fused_step *step, int value) {
    for (int k = 0; k < step->n_inputs; k++)
        if (step->inputs[k] == value) return true;
    return false;
}

/* The step's output lies where an input does that a later step reads: it is written when all of them have run. */
static bool must_wait(const struct fused_job *job, int s) {
    const struct hk_fused *fused = job->fused;
    const struct hk_operand *out = &job->operands[fused->steps[s].output], *in = &job->operands[fused->n_outputs];
    for (int k = 0; k < fused->n_inputs; k++) {
        if (in[k].buffer != out->buffer || in[k].offset != out->offset) continue;
        for (int later = s + 1; later < fused->n_steps; later++)
            if (reads(&fused->steps[later], k)) return true;
    }
    return false;
}

/* Each buffer is used again when nobody reads it any more: few of them stay in the cache. */
static void choose_buffers(struct fused_job *job) {
    int busy[HK_FUSED_STEPS] = {0}; /* until which step; 0: from the beginning on it is free */
    for (int s = 0; s < job->fused->n_steps; s++) {
        const struct hk_fused_step *step = &job->fused->steps[s];
        const bool output = step->output >= 0;
        int b = 0;
        job->buffer[s] = -1;
        if (output && !must_wait(job, s)) continue;
        while (busy[b] > s) b++;
        busy[b] = output ? HK_FUSED_STEPS : step->last + 1;
        job->buffer[s] = b;
    }
}

struct fused_job fused_begin(const struct hk_step *step) {
    const int n = step->n_inputs + step->n_outputs;
    struct fused_job job = {.fused = step->attrs, .all_dense = true};
    for (int k = 0; k < step->n_outputs; k++) job.operands[k] = step->outputs[k];
    for (int k = 0; k < step->n_inputs; k++)
        job.operands[step->n_outputs + k] = hk_broadcast_operand(&step->inputs[k], &step->outputs[0]);
    cpu_simplify(job.operands, n);
    for (int k = 0; k < n; k++) {
        job.dense[k] = cpu_is_dense(&job.operands[k]);
        job.all_dense = job.all_dense && job.dense[k];
    }
    choose_buffers(&job);
    return job;
}

static void body(void *context, int64_t begin, int64_t end) {
    const struct fused_job *const *job = context;
    fused_run(*job, begin, end, NULL);
}

void fused_run_all(const struct fused_job *job, const struct cpu *cpu, int64_t elements) {
    cpu_for(cpu, elements, FUSED_GRAIN, body, &job);
}

CPU_KERNEL(fused) {
    const int64_t elements = cpu_elements(&step->outputs[0]);
    if (elements == 0) return;
    const struct fused_job job = fused_begin(step);
    fused_run_all(&job, cpu, elements);
}

#else
#include "op/fused.h"

CPU_DECLARE(fused);

static struct hk_cost cost(const struct hk_step *step) {
    double flops = ((const struct hk_fused *)step->attrs)->n_steps;
    for (int i = 0; i < step->outputs[0].rank; i++) flops *= (double)step->outputs[0].shape[i];
    return (struct hk_cost){.flops = flops};
}

const struct hk_op hk_op_fused = {
    .name = "fused",
    .min_inputs = 1,
    .max_inputs = HK_FUSED_INPUTS,
    .n_outputs = HK_FUSED_OUTPUTS,
    .flags = HK_OP_IN_PLACE,
    .cost = cost,
    .cpu = CPU_KERNELS(fused),
    .fits = hk_fused_fits,
    .gpu = hk_fused_gpu,
};
#endif
