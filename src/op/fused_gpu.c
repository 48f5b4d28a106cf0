/* Elementwise steps as a kernel of their own on a GPU: one invocation for an element of each operand, or for two where a
   result has 16-bit elements: it then makes whole words, and of those at the ends the part that is its own. Where all
   operands have runs of whole units of four elements (eight, where some have 16 bits), one makes a unit, by reading and
   writing four words at once. */
#ifndef HK_ISA_NAME
#include "op/fused_glsl.h"
#include "op/strided.h"

struct job {
    const struct hk_fused *fused;
    struct hk_recorder *recorder;
};

/* Of one element or unit. */
static void write_main(struct fused_kernel *k) {
    if (k->unit > 1) hk_write_make(k);
    hk_write(&k->body, "void main() {\n    const uint i = item();\n    if (i >= p.w[0]) return;\n");
    hk_write_body(k);
    hk_write(&k->body, "}\n");
}

/* Of the two elements of a word, the first result being at half `rest` of one: what is no element (before the first and after
   the last) is not touched. */
static void write_main_of_pairs(struct fused_kernel *k, int rest) {
    hk_write(&k->body, "void main() {\n    const uint word = item();\n    uint mask = 0");
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (k->small[o]) hk_write(&k->body, ", h%d = 0", o);
    hk_write(&k->body, ";\n    for (uint lane = 0; lane < 2; lane++) {\n    const uint i = 2 * word + lane - %du;\n", rest);
    hk_write(&k->body, "    if (i >= p.w[0]) continue;\n    mask |= 0xffffu << (16 * lane);\n");
    hk_write_body(k);
    hk_write(&k->body, "    }\n    if (mask == 0) return;\n");
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (k->small[o])
            hk_write(&k->body, "    b%d[p.w[%d] + word] = mask == 0xffffffffu ? h%d : (b%d[p.w[%d] + word] & ~mask) | h%d;\n",
                     o, k->base + o, o, o, k->base + o, o);
    hk_write(&k->body, "}\n");
}

static void write_all(const struct fused_kernel *k, struct hk_written *all) {
    hk_write(all, "#version 450\n#include \"common.glsl\"\n");
    hk_write_includes(k, all);
    hk_write(all, "layout(push_constant) uniform Push { uint w[%d]; } p;\n", k->words);
    hk_write(all, "#define NOTHING (p.w[0] >> 31)\n"); /* of a count below 2^31 */
    hk_write_declarations(k, all);
    hk_write(all, "%s", k->body.text);
}

/* rest: at which half of a word results of 16 bits begin; -1: there are none. */
static hk_status launch(const struct job *job, struct fused_kernel *k, int rest, const struct hk_operand *o) {
    struct hk_dispatch d = {.spec = {HK_ELEMENTWISE_GROUP}, .n_spec = 1};
    struct hk_written all = {.length = 0};
    const bool pairs = rest >= 0 && k->unit == 1;
    uint64_t count = 1;
    k->body.first_constant = d.n_spec;
    if (pairs) write_main_of_pairs(k, rest);
    else write_main(k);
    write_all(k, &all);
    const hk_status status = hk_fused_source(k, "fused", &all, &d);
    if (status) return status;
    hk_fused_push(k, o, &d);
    for (int i = 0; i < k->rank; i++) count *= (uint64_t)o[0].shape[i];
    if (count >> 31) return hk_fail(HK_ERROR_INTERNAL, "fused: %llu elements at once", (unsigned long long)count);
    count = pairs ? (count + (uint64_t)rest + 1) / 2 : count / (uint64_t)k->unit;
    hk_groups(job->recorder, &d, (count + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
    return job->recorder->record(job->recorder, &d);
}

/* One launch each for the elements of the outermost dimension. */
static hk_status record_piece(void *context, const struct hk_operand *operands);
static hk_status record_outer(const struct job *job, const struct hk_operand *operands, int count) {
    struct hk_operand part[HK_FUSED_OPERANDS];
    for (int64_t i = 0; i < operands[0].shape[0]; i++) {
        for (int k = 0; k < count; k++) part[k] = hk_inner_operand(&operands[k], i);
        const hk_status status = record_piece((void *)(uintptr_t)job, part);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status record_piece(void *context, const struct hk_operand *operands) {
    const struct job *job = context;
    struct fused_kernel k = hk_fused_kernel(job->fused, job->recorder, operands);
    bool dense = true; /* results of 16 bits */
    int rest = -1;
    for (int i = 0; i < job->fused->n_outputs; i++) {
        if (!k.small[i]) continue;
        if (rest >= 0 && rest != (int)k.rest[i])
            return hk_fail(HK_ERROR_INTERNAL, "fused: results begin at different halves of words");
        dense = dense && k.lies[i] == DENSE;
        rest = (int)k.rest[i];
    }
    const bool fits = (dense || k.unit > 1) && 4 * k.words <= HK_MAX_PUSH_BYTES;
    return fits ? launch(job, &k, rest, operands) : record_outer(job, operands, k.n_operands);
}

hk_status hk_fused_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct job job = {step->attrs, recorder};
    struct hk_operand operands[HK_FUSED_OPERANDS];
    for (int k = 0; k < step->n_outputs; k++) operands[k] = step->outputs[k];
    for (int k = 0; k < step->n_inputs; k++)
        operands[step->n_outputs + k] = hk_broadcast_operand(&step->inputs[k], &step->outputs[0]);
    return hk_for_pieces(recorder, operands, step->n_outputs + step->n_inputs, record_piece, (void *)(uintptr_t)&job);
}

bool hk_fused_fits(const struct hk_call *call, const struct hk_limits *limits) {
    const struct hk_value *out = call->outputs[0];
    int rank = 0, strided = 0;
    if (!limits) return true;
    for (int i = 0; i < out->rank; i++) rank += out->shape[i] != 1;
    for (int k = 0; k < call->n_inputs + call->n_outputs; k++) {
        const struct hk_value *value = k < call->n_inputs ? call->inputs[k] : call->outputs[k - call->n_inputs];
        if (hk_dtype_size(value->dtype) == 1) return false;
        strided += hk_elements(value) != 1 && !(hk_is_dense(value) && hk_same_shape(value, out));
    }
    return 4 * hk_fused_words(rank, call->n_inputs + call->n_outputs, strided) <= HK_MAX_PUSH_BYTES;
}
#endif
