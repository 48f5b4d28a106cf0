/* fused_matmul: a product and elementwise ops on it (struct hk_followed): bias, activation, residual, scaling, casts and what
   else there may be, in one pass over the result. The bits are those of the ops one by one, where the product's kernel is the same. */
#ifdef HK_ISA_NAME
#include "op/matmul_cpu.h"
#else
#include "op/fused_glsl.h"
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

/* ---- The end of a product's kernel ---- */

/* How an operand lies beside c: element i at word i, all at word 0, the elements of a row, or one for each row. */
enum beside { SAME, NUMBER, ROW, COLUMN, OTHERWISE };

static enum beside beside(const struct hk_operand *o, int64_t columns) {
    const int last = o->rank - 1;
    int64_t stride = 1;
    const enum lie lie = hk_lie_of(o);
    if (lie != STRIDED) return lie == DENSE ? SAME : NUMBER;
    bool row = o->shape[last] == columns && o->stride[last] == 1, column = o->shape[last] == columns && o->stride[last] == 0;
    for (int i = last - 1; i >= 0; i--) {
        if (o->shape[i] == 1) continue;
        row = row && o->stride[i] == 0;
        column = column && o->stride[i] == stride;
        stride *= o->shape[i];
    }
    return row ? ROW : column ? COLUMN : OTHERWISE;
}

/* Whether a kernel can have operands that lie as these do. Sets fours. */
static bool finish_fits(struct hk_finish *finish, const struct hk_limits *limits) {
    const int count = finish->steps->n_outputs + finish->steps->n_inputs - 1;
    finish->fours = finish->columns % 4 == 0;
    for (int k = 0; k < count; k++) {
        const struct hk_operand *o = &finish->operands[k];
        const size_t size = hk_dtype_size(o->dtype);
        const enum beside lies = beside(o, finish->columns);
        if (lies == OTHERWISE || size == 1 || (size == 2 && (lies != SAME || hk_binding_rest(o)))) return false;
        if (hk_operand_span(o) > limits->max_range - limits->offset_align) return false;
        finish->fours = finish->fours && (lies != SAME || hk_binds_fours(limits, o));
    }
    return count <= HK_FINISH_OPERANDS;
}

static bool is_small(const struct hk_operand *o) { return hk_dtype_size(o->dtype) == 2; }

/* Whether operand k lies as c does. */
static bool lies_as_c(const struct hk_finish *f, int k) { return beside(&f->operands[k], f->columns) == SAME; }

/* The bits of operand k beside c's element i, or if it does not lie as c does beside element i + e. */
static void write_beside(struct hk_written *t, const struct hk_finish *f, int k, int e) {
    switch (beside(&f->operands[k], f->columns)) {
    case SAME:
        if (!is_small(&f->operands[k])) hk_write(t, "w%d[p.after[%d] + i]", k, k);
        else hk_write(t, "bitfieldExtract(w%d[p.after[%d] + i / 2], int(i %% 2) * 16, 16)", k, k);
        break;
    case ROW: hk_write(t, "w%d[p.after[%d] + column + %d]", k, k, e); break;
    case COLUMN: hk_write(t, "w%d[p.after[%d] + i / p.n]", k, k); break;
    default: hk_write(t, "w%d[p.after[%d]]", k, k);
    }
}

/* The results for element e of a unit, whose sum is `sum`: r0_e ... An operand that lies as c does has been read by fours. */
static void write_finish_call(struct hk_written *t, const struct hk_finish *f, const char *sum, int e, bool fours) {
    static const char component[] = "xyzw";
    const int n_outputs = f->steps->n_outputs;
    for (int o = 0; o < n_outputs; o++) hk_write(t, "%s r%d_%d", o ? "," : "    uint", o, e);
    hk_write(t, ";\n    make(floatBitsToUint(%s) ^ NOTHING, ", sum);
    for (int k = n_outputs; k < n_outputs + f->steps->n_inputs - 1; k++) {
        if (!fours || !lies_as_c(f, k)) write_beside(t, f, k, e);
        else if (is_small(&f->operands[k])) hk_write(t, "bitfieldExtract(x%d.%c, %d, 16)", k, component[e / 2], e % 2 * 16);
        else hk_write(t, "x%d.%c", k, component[e]);
        hk_write(t, ", ");
    }
    for (int o = 0; o < n_outputs; o++) hk_write(t, "%sr%d_%d", o ? ", " : "", o, e);
    hk_write(t, ");\n");
}

/* Results of 16 bits are made by fours alone. */
static void write_finish(struct hk_written *t, const struct hk_finish *f) {
    hk_write(t, "void finish(uint i, uint column, float x) {\n");
    write_finish_call(t, f, "x", 0, false);
    if (f->keeps) hk_write(t, "    c[p.base_c + i] = x;\n");
    for (int o = 0; o < f->steps->n_outputs; o++)
        if (!is_small(&f->operands[o])) hk_write(t, "    w%d[p.after[%d] + i] = r%d_0;\n", o, o, o);
    hk_write(t, "}\n");
}

static void write_finish_four(struct hk_written *t, const struct hk_finish *f) {
    static const char *const sums[] = {"x.x", "x.y", "x.z", "x.w"};
    const int n_outputs = f->steps->n_outputs;
    hk_write(t, "void finish_four(uint i, uint column, vec4 x) {\n");
    for (int k = n_outputs; k < n_outputs + f->steps->n_inputs - 1; k++) {
        if (!lies_as_c(f, k)) continue;
        if (is_small(&f->operands[k])) hk_write(t, "    const uvec2 x%d = t%d[(p.after[%d] + i / 2) / 2];\n", k, k, k);
        else hk_write(t, "    const uvec4 x%d = f%d[(p.after[%d] + i) / 4];\n", k, k, k);
    }
    for (int e = 0; e < 4; e++) write_finish_call(t, f, sums[e], e, true);
    if (f->keeps) hk_write(t, "    c4[(p.base_c + i) / 4] = x;\n");
    for (int o = 0; o < n_outputs; o++) {
        if (is_small(&f->operands[o]))
            hk_write(t, "    t%d[(p.after[%d] + i / 2) / 2] = uvec2(r%d_0 | r%d_1 << 16, r%d_2 | r%d_3 << 16);\n", o, o, o, o,
                     o, o);
        else hk_write(t, "    f%d[(p.after[%d] + i) / 4] = uvec4(r%d_0, r%d_1, r%d_2, r%d_3);\n", o, o, o, o, o, o);
    }
    hk_write(t, "}\n");
}

hk_status hk_finish_add(const struct hk_finish *finish, const char *define, bool fours, int push_word, struct hk_written *text,
                        struct hk_dispatch *d) {
    const int n_outputs = finish->steps->n_outputs, count = n_outputs + finish->steps->n_inputs - 1;
    struct fused_kernel k = {.fused = finish->steps, .apart = -1};
    k.body.first_constant = d->n_spec;
    hk_write_make(&k);
    hk_write(text, "#version 450\n#define FOLLOWED\n");
    if (define) hk_write(text, "#define %s\n", define);
    hk_write(text, "#include \"%s.comp\"\n#define NOTHING (p.m >> 31)\n", d->shader);
    hk_write_includes(&k, text);
    hk_write_declarations(&k, text); /* of constants: k has no operands of its own */
    for (int o = 0; o < count; o++) hk_write(text, "WORDS(%d, w%d);\n", d->n_bindings + o, o);
    for (int o = 0; o < count && fours; o++)
        if (lies_as_c(finish, o))
            hk_write(text, is_small(&finish->operands[o]) ? "WORD_TWOS(%d, t%d);\n" : "WORD_FOURS(%d, f%d);\n",
                     d->n_bindings + o, o);
    hk_write(text, "%s", k.body.text);
    write_finish(text, finish);
    if (fours) write_finish_four(text, finish);
    for (int o = 0; o < count; o++)
        hk_bind(d, &finish->operands[o], o < n_outputs ? HK_WRITE : HK_READ, push_word + o);
    return hk_fused_source(&k, "fused_matmul", text, d);
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
    return finish_fits(finish, limits) && hk_matmul_finishes(&h->product, finish, limits);
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
