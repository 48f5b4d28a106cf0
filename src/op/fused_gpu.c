/* Elementwise steps on a GPU: a kernel of their own, and what they are at the end of a product's and at the beginning of a
   reduction's.

   fused: a kernel written for the group, one invocation for an element of each operand, or for two where a
   result has 16-bit elements: it then makes whole words, and of those at the ends the part that is its own. Where all
   operands have runs of whole units of four elements (eight, where some have 16 bits), one makes a unit, by reading and
   writing four words at once. The text depends on the steps and on how the operands lie, not on sizes, strides or the ops'
   numbers: those are push and specialization constants. */
#ifndef HK_ISA_NAME
#include "op/fused.h"
#include "op/matmul.h"
#include "op/reduce.h"
#include "op/strided.h"
#include "op/written.h"
#include <stdio.h>

enum { PUSH_WORDS = HK_MAX_PUSH_BYTES / 4 };

struct job {
    const struct hk_fused *fused;
    struct hk_recorder *recorder;
};

/* How an operand lies: element i at word i, all elements at word 0, or by strides. */
enum lie { DENSE, ONE, STRIDED };

static enum lie lie_of(const struct hk_operand *o) {
    bool dense = true, one = true;
    int64_t stride = 1;
    for (int i = o->rank - 1; i >= 0; i--) {
        if (o->shape[i] == 1) continue;
        dense = dense && o->stride[i] == stride;
        one = one && o->stride[i] == 0;
        stride *= o->shape[i];
    }
    return dense ? DENSE : one ? ONE : STRIDED;
}

/* Words of push constants that a kernel needs: for operands of which so many are neither dense nor one number, in so many
   dimensions of more than 1. */
static int count_push_words(int rank, int n_operands, int n_strided) {
    return n_strided ? HK_MAX(rank, 1) + n_operands + n_strided * rank : 1 + n_operands;
}

/* ---- The text ---- */

/* The push constants w: the count of elements; sizes of dimensions but the outermost, innermost first, where an operand
   has strides; each operand's base; strides of those that have some. */
struct kernel {
    const struct hk_fused *fused;
    int rank, n_operands, n_strided;
    enum lie lies[HK_FUSED_OPERANDS];
    bool small[HK_FUSED_OPERANDS];    /* 16-bit elements ... */
    uint32_t rest[HK_FUSED_OPERANDS]; /* ... and the first is the second one of its word */
    int unit;                         /* elements of an invocation, of which sizes and strides are then; 1: see above */
    bool single[HK_FUSED_OPERANDS];   /* with units: all elements of one are the same */
    int n_small_outputs;
    uint32_t out_rest; /* of all outputs with small elements */
    int base, strides; /* the first words of these */
    int apart;         /* the output that is no operand, in a kernel that reduces it; -1: none */
    int first_binding;
    struct hk_written body, all;
};

/* The operand's element that belongs to element i. */
static void write_element(struct kernel *k, int operand, int *stride_word) {
    if (k->lies[operand] != STRIDED) hk_write(&k->body, k->lies[operand] == DENSE ? "i" : "0u");
    for (int d = 0; k->lies[operand] == STRIDED && d < k->rank; d++)
        hk_write(&k->body, "%si%d * p.w[%d]", d ? " + " : "", d, (*stride_word)++);
}

static void write_input(struct kernel *k, int value, int *stride_word) {
    const int o = k->fused->n_outputs + value;
    if (!k->small[o]) {
        hk_write(&k->body, "    const uint v%d = b%d[p.w[%d] + ", value, o, k->base + o);
        write_element(k, o, stride_word);
        hk_write(&k->body, "];\n");
        return;
    }
    hk_write(&k->body, "    const uint e%d = %uu + ", value, k->rest[o]);
    write_element(k, o, stride_word);
    hk_write(&k->body, ";\n    const uint v%d = bitfieldExtract(b%d[p.w[%d] + e%d / 2], int(e%d %% 2) * 16, 16);\n",
             value, o, k->base + o, value, value);
}

static void write_output(struct kernel *k, int o, int value, int *stride_word) {
    if (k->small[o]) {
        hk_write(&k->body, "    h%d |= v%d << (16 * lane);\n", o, value);
        return;
    }
    hk_write(&k->body, "    b%d[p.w[%d] + ", o, k->base + o);
    write_element(k, o, stride_word);
    hk_write(&k->body, "] = v%d;\n", value);
}

/* i0, i1 ...: the coordinates of element i, innermost first. */
static void write_coordinates(struct kernel *k) {
    hk_write(&k->body, "    uint rest = i;\n");
    for (int d = 0; d + 1 < k->rank; d++)
        hk_write(&k->body, "    const uint i%d = rest %% p.w[%d];\n    rest /= p.w[%d];\n", d, 1 + d, 1 + d);
    hk_write(&k->body, "    const uint i%d = rest;\n", k->rank - 1);
}

/* Each op's result goes through NOTHING, which compilers do not know to be 0, and so does an input that it reads once more: so
   they make of an op what they make of it alone, where x - x is NaN of NaN, and the bits are the same. */
static void write_step(struct kernel *k, int s) {
    const struct hk_fused_step *step = &k->fused->steps[s];
    const struct hk_chunk chunk = {(const char *)k->fused + step->attrs, step->n_inputs, step->from, step->to};
    char names[HK_CHUNK_INPUTS][24];
    const char *in[HK_CHUNK_INPUTS] = {0};
    for (int i = 0; i < step->n_inputs; i++) {
        bool again = false;
        for (int j = 0; j < i; j++) again = again || step->inputs[j] == step->inputs[i];
        snprintf(names[i], sizeof names[i], again ? "(v%d ^ NOTHING)" : "v%d", step->inputs[i]);
        in[i] = names[i];
    }
    hk_write(&k->body, "    const uint v%d = ", k->fused->n_inputs + s);
    step->op->glsl(&chunk, in, &k->body);
    hk_write(&k->body, " ^ NOTHING;\n");
}

/* The step that makes an output. */
static int maker_of(const struct hk_fused *fused, int output) {
    int s = 0;
    while (fused->steps[s].output != output) s++;
    return s;
}

static void write_body(struct kernel *k) {
    const struct hk_fused *fused = k->fused;
    int word = k->strides, out_word = k->strides; /* outputs' strides come first */
    for (int o = 0; o < fused->n_outputs; o++) word += k->lies[o] == STRIDED ? k->rank : 0;
    if (k->n_strided) write_coordinates(k);
    for (int i = 0; i < fused->n_inputs; i++) write_input(k, i, &word);
    for (int s = 0; s < fused->n_steps; s++) write_step(k, s);
    for (int o = 0; o < fused->n_outputs; o++)
        if (o != k->apart) write_output(k, o, fused->n_inputs + maker_of(fused, o), &out_word);
}

/* One element. */
static void write_main(struct kernel *k) {
    hk_write(&k->all, "void main() {\n    const uint i = item();\n    if (i >= p.w[0]) return;\n%s}\n", k->body.text);
}

/* The two elements of a word: what is no element (before the first and after the last) is not touched. */
static void write_main_of_pairs(struct kernel *k) {
    hk_write(&k->all, "void main() {\n    const uint word = item();\n    uint mask = 0");
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (k->small[o]) hk_write(&k->all, ", h%d = 0", o);
    hk_write(&k->all, ";\n    for (uint lane = 0; lane < 2; lane++) {\n    const uint i = 2 * word + lane - %uu;\n",
             k->out_rest);
    hk_write(&k->all, "    if (i >= p.w[0]) continue;\n    mask |= 0xffffu << (16 * lane);\n%s    }\n", k->body.text);
    hk_write(&k->all, "    if (mask == 0) return;\n");
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (k->small[o])
            hk_write(&k->all,
                     "    b%d[p.w[%d] + word] = mask == 0xffffffffu ? h%d : (b%d[p.w[%d] + word] & ~mask) | h%d;\n", o,
                     k->base + o, o, o, k->base + o, o);
    hk_write(&k->all, "}\n");
}

/* ---- The text of a kernel that makes units ---- */

static int fours_of(const struct kernel *k, int operand) { return k->unit / (k->small[operand] ? 8 : 4); }

static int first_stride(const struct kernel *k, int operand) {
    int word = k->strides;
    for (int o = 0; o < operand; o++) word += k->lies[o] == STRIDED ? k->rank : 0;
    return word;
}

/* make(v0, v1 ..., r0, r1 ...): the group's results for one element. */
static void write_make(struct kernel *k) {
    const struct hk_fused *fused = k->fused;
    hk_write(&k->body, "void make(");
    for (int i = 0; i < fused->n_inputs; i++) hk_write(&k->body, "uint v%d, ", i);
    for (int o = 0; o < fused->n_outputs; o++) hk_write(&k->body, "%sout uint r%d", o ? ", " : "", o);
    hk_write(&k->body, ") {\n");
    for (int s = 0; s < fused->n_steps; s++) write_step(k, s);
    for (int s = 0; s < fused->n_steps; s++)
        if (fused->steps[s].output >= 0) hk_write(&k->body, "    r%d = v%d;\n", fused->steps[s].output, fused->n_inputs + s);
    hk_write(&k->body, "}\n");
}

/* Where the operand's f-th four of the unit is. */
static void write_four(struct kernel *k, int operand, int f) {
    int word = first_stride(k, operand);
    hk_write(&k->body, "f%d[p.w[%d] / 4 + (", operand, k->base + operand);
    write_element(k, operand, &word);
    hk_write(&k->body, ") * %d + %d]", fours_of(k, operand), f);
}

/* x0, x1 ...: numbers that are the same in all of the unit; x0_0, x0_1 ...: fours. */
static void write_unit_input(struct kernel *k, int value) {
    const int o = k->fused->n_outputs + value;
    int word = first_stride(k, o);
    for (int f = 0; !k->single[o] && f < fours_of(k, o); f++) {
        hk_write(&k->body, "    const uvec4 x%d_%d = ", value, f);
        write_four(k, o, f);
        hk_write(&k->body, ";\n");
    }
    if (!k->single[o]) return;
    hk_write(&k->body, "    const uint e%d = %uu + ", value, k->rest[o]);
    write_element(k, o, &word);
    if (k->small[o])
        hk_write(&k->body, ";\n    const uint x%d = bitfieldExtract(b%d[p.w[%d] + e%d / 2], int(e%d %% 2) * 16, 16);\n", value,
                 o, k->base + o, value, value);
    else hk_write(&k->body, ";\n    const uint x%d = b%d[p.w[%d] + e%d];\n", value, o, k->base + o, value);
}

/* The results for element e of the unit: r0_e, r1_e ... */
static void write_call(struct kernel *k, int e) {
    static const char component[] = "xyzw";
    const int n_outputs = k->fused->n_outputs;
    for (int o = 0; o < n_outputs; o++) hk_write(&k->body, "%s r%d_%d", o ? "," : "    uint", o, e);
    hk_write(&k->body, ";\n    make(");
    for (int v = 0; v < k->fused->n_inputs; v++) {
        const int o = n_outputs + v;
        if (k->single[o]) hk_write(&k->body, "x%d, ", v);
        else if (k->small[o])
            hk_write(&k->body, "bitfieldExtract(x%d_0.%c, %d, 16), ", v, component[e / 2], e % 2 * 16);
        else hk_write(&k->body, "x%d_%d.%c, ", v, e / 4, component[e % 4]);
    }
    for (int o = 0; o < n_outputs; o++) hk_write(&k->body, "%sr%d_%d", o ? ", " : "", o, e);
    hk_write(&k->body, ");\n");
}

static void write_unit_output(struct kernel *k, int o) {
    for (int f = 0; f < fours_of(k, o); f++) {
        hk_write(&k->body, "    ");
        write_four(k, o, f);
        hk_write(&k->body, " = uvec4(");
        for (int c = 0; c < 4; c++) {
            if (k->small[o]) hk_write(&k->body, "%sr%d_%d | r%d_%d << 16", c ? ", " : "", o, 2 * c, o, 2 * c + 1);
            else hk_write(&k->body, "%sr%d_%d", c ? ", " : "", o, 4 * f + c);
        }
        hk_write(&k->body, ");\n");
    }
}

/* Of unit i. */
static void write_body_of_units(struct kernel *k) {
    if (k->n_strided) write_coordinates(k);
    for (int i = 0; i < k->fused->n_inputs; i++) write_unit_input(k, i);
    for (int e = 0; e < k->unit; e++) write_call(k, e);
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (o != k->apart) write_unit_output(k, o);
}

static void write_main_of_units(struct kernel *k) {
    hk_write(&k->body, "void main() {\n    const uint i = item();\n    if (i >= p.w[0]) return;\n");
    write_body_of_units(k);
    hk_write(&k->body, "}\n");
}

/* ---- All of it ---- */

static void write_includes(const struct kernel *k, struct hk_written *all) {
    for (int s = 0; s < k->fused->n_steps; s++)
        if (k->fused->steps[s].op->glsl_file) hk_write(all, "#include \"%s\"\n", k->fused->steps[s].op->glsl_file);
}

static void write_constants(const struct kernel *k, struct hk_written *all) {
    for (int c = 0; c < k->body.n_constants; c++)
        hk_write(all, "layout(constant_id = %d) const float number%d = 0.0;\n", k->body.first_constant + c, c);
}

static void write_operands(const struct kernel *k, struct hk_written *all) {
    for (int o = 0, binding = k->first_binding; o < k->n_operands; o++) {
        if (o == k->apart) continue;
        hk_write(all, "WORDS(%d, b%d);\n", binding, o);
        if (k->unit > 1) hk_write(all, "WORD_FOURS(%d, f%d);\n", binding, o);
        binding++;
    }
}

static int words_of(const struct kernel *k) { return k->strides + k->n_strided * k->rank; }

static void write_all(struct kernel *k) {
    struct hk_written *all = &k->all;
    hk_write(all, "#version 450\n#include \"common.glsl\"\n");
    write_includes(k, all);
    hk_write(all, "layout(push_constant) uniform Push { uint w[%d]; } p;\n", words_of(k));
    hk_write(all, "#define NOTHING (p.w[0] >> 31)\n"); /* of a count below 2^31 */
    write_constants(k, all);
    write_operands(k, all);
    if (k->unit > 1) hk_write(all, "%s", k->body.text);
    else if (k->n_small_outputs) write_main_of_pairs(k);
    else write_main(k);
}

/* ---- The launch ---- */

/* Behind the push constants that there are. */
static void push_words(const struct kernel *k, const struct hk_operand *o, struct hk_dispatch *d) {
    const int first = (int)d->push_bytes / 4;
    uint32_t words[PUSH_WORDS] = {1};
    int next = k->strides;
    for (int i = 0; i < k->rank; i++) {
        const uint32_t size = (uint32_t)(o[0].shape[k->rank - 1 - i] / (i ? 1 : k->unit));
        words[0] *= size;
        if (k->n_strided && i + 1 < k->rank) words[1 + i] = size;
    }
    for (int n = 0; n < k->n_operands; n++)
        for (int i = 0; k->lies[n] == STRIDED && i < k->rank; i++)
            words[next++] = (uint32_t)(o[n].stride[k->rank - 1 - i] / (i && !k->single[n] ? k->unit : 1));
    d->push_bytes += (uint32_t)next * 4;
    memcpy((char *)d->push + (size_t)first * 4, words, (size_t)next * 4);
    for (int n = 0; n < k->n_operands; n++)
        if (n != k->apart) hk_bind(d, &o[n], n < k->fused->n_outputs ? HK_WRITE : HK_READ, first + k->base + n);
}

/* Makes the text that of the dispatch, and adds the steps' constants. */
static hk_status set_text(struct hk_dispatch *d, const char *name, const struct kernel *k, const struct hk_written *text) {
    if (k->body.length >= sizeof k->body.text || text->length >= sizeof text->text)
        return hk_fail(HK_ERROR_INTERNAL, "%s: the kernel's text has %zu bytes", name, text->length);
    d->shader = name;
    d->source = text->text;
    memcpy(d->spec + d->n_spec, k->body.constants, sizeof(uint32_t) * (size_t)k->body.n_constants);
    d->n_spec += k->body.n_constants;
    return HK_OK;
}

static hk_status launch(const struct job *job, struct kernel *k, const struct hk_operand *o) {
    struct hk_dispatch d = {.spec = {HK_ELEMENTWISE_GROUP}, .n_spec = 1};
    uint64_t count = 1;
    k->body.first_constant = d.n_spec;
    if (k->unit > 1) {
        write_make(k);
        write_main_of_units(k);
    } else {
        write_body(k);
    }
    write_all(k);
    const hk_status status = set_text(&d, "fused", k, &k->all);
    if (status) return status;
    push_words(k, o, &d);
    for (int i = 0; i < k->rank; i++) count *= (uint64_t)o[0].shape[i];
    if (count >> 31) return hk_fail(HK_ERROR_INTERNAL, "fused: %llu elements at once", (unsigned long long)count);
    if (k->unit > 1) count /= (uint64_t)k->unit;
    else if (k->n_small_outputs) count = (count + k->out_rest + 1) / 2;
    hk_groups(job->recorder, &d, (count + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
    return job->recorder->record(job->recorder, &d);
}

/* Sets unit and single. On a processor, loads of four words are no faster. */
static void choose_unit(struct kernel *k, const struct hk_recorder *recorder, const struct hk_operand *operands) {
    const int last = k->rank - 1;
    int unit = 4;
    bool possible = last >= 0 && !recorder->limits->software;
    for (int n = 0; n < k->n_operands; n++)
        if (k->small[n]) unit = 8;
    for (int n = 0; n < k->n_operands && possible; n++) {
        const struct hk_operand *o = &operands[n];
        k->single[n] = n >= k->fused->n_outputs && o->stride[last] == 0;
        possible = hk_binds_units(recorder, o, unit) || k->single[n];
    }
    k->unit = possible && operands[0].shape[last] % unit == 0 ? unit : 1;
}

/* For all outputs, then all inputs, in one shape: a kernel that makes single elements. */
static struct kernel kernel_of(const struct hk_fused *fused, const struct hk_operand *operands) {
    struct kernel k = {.fused = fused, .rank = operands[0].rank, .n_operands = fused->n_inputs + fused->n_outputs, .unit = 1,
                       .apart = -1};
    for (int i = 0; i < k.n_operands; i++) {
        k.lies[i] = lie_of(&operands[i]);
        k.n_strided += k.lies[i] == STRIDED;
        k.small[i] = hk_dtype_size(operands[i].dtype) == 2;
        k.rest[i] = k.small[i] ? hk_binding_rest(&operands[i]) : 0;
    }
    k.base = k.n_strided ? HK_MAX(k.rank, 1) : 1;
    k.strides = k.base + k.n_operands;
    return k;
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
    const int count = job->fused->n_inputs + job->fused->n_outputs;
    struct kernel k = kernel_of(job->fused, operands);
    bool fits = true;
    for (int i = 0; i < job->fused->n_outputs; i++) {
        if (!k.small[i]) continue;
        fits = fits && k.lies[i] == DENSE;
        if (k.n_small_outputs++ && k.out_rest != k.rest[i])
            return hk_fail(HK_ERROR_INTERNAL, "fused: results begin at different halves of words");
        k.out_rest = k.rest[i];
    }
    choose_unit(&k, job->recorder, operands);
    fits = (fits || k.unit > 1) && count_push_words(k.rank, count, k.n_strided) <= PUSH_WORDS;
    return fits ? launch(job, &k, operands) : record_outer(job, operands, count);
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
    return count_push_words(rank, call->n_inputs + call->n_outputs, strided) <= PUSH_WORDS;
}

/* ---- At the end of a product's kernel ---- */

/* How an operand lies beside c: element i at word i, all at word 0, the elements of a row, or one for each row. */
enum beside { SAME, NUMBER, ROW, COLUMN, OTHERWISE };

static enum beside beside(const struct hk_operand *o, int64_t columns) {
    const int last = o->rank - 1;
    int64_t stride = 1;
    const enum lie lie = lie_of(o);
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

bool hk_finish_fits(struct hk_finish *finish, const struct hk_limits *limits) {
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
            hk_write(t, "    t%d[(p.after[%d] + i / 2) / 2] = uvec2(r%d_0 | r%d_1 << 16, r%d_2 | r%d_3 << 16);\n", o, o, o, o, o, o);
        else hk_write(t, "    f%d[(p.after[%d] + i) / 4] = uvec4(r%d_0, r%d_1, r%d_2, r%d_3);\n", o, o, o, o, o, o);
    }
    hk_write(t, "}\n");
}

hk_status hk_finish_add(const struct hk_finish *finish, const char *define, bool fours, int push_word, struct hk_written *text,
                        struct hk_dispatch *d) {
    const int n_outputs = finish->steps->n_outputs, count = n_outputs + finish->steps->n_inputs - 1;
    struct kernel k = {.fused = finish->steps, .apart = -1};
    k.body.first_constant = d->n_spec;
    write_make(&k);
    hk_write(text, "#version 450\n#define FOLLOWED\n");
    if (define) hk_write(text, "#define %s\n", define);
    hk_write(text, "#include \"%s.comp\"\n#define NOTHING (p.m >> 31)\n", d->shader);
    write_includes(&k, text);
    write_constants(&k, text);
    for (int o = 0; o < count; o++) hk_write(text, "WORDS(%d, w%d);\n", d->n_bindings + o, o);
    for (int o = 0; o < count && fours; o++)
        if (lies_as_c(finish, o))
            hk_write(text, is_small(&finish->operands[o]) ? "WORD_TWOS(%d, t%d);\n" : "WORD_FOURS(%d, f%d);\n", d->n_bindings + o, o);
    hk_write(text, "%s", k.body.text);
    write_finish(text, finish);
    if (fours) write_finish_four(text, finish);
    for (int o = 0; o < count; o++)
        hk_bind(d, &finish->operands[o], o < n_outputs ? HK_WRITE : HK_READ, push_word + o);
    return set_text(d, "fused_matmul", &k, text);
}

/* ---- At the beginning of a reduction's kernel ---- */

bool hk_start_fits(const struct hk_start *start, int words, int bindings, const struct hk_limits *limits) {
    const int n_outputs = start->steps->n_outputs, count = n_outputs + start->steps->n_inputs;
    int rank = 0, strided = 0;
    for (int i = 0; i < start->operands[0].rank; i++) rank += start->operands[0].shape[i] != 1;
    for (int k = 0; k < count; k++) {
        const struct hk_operand *o = &start->operands[k];
        const size_t size = hk_dtype_size(o->dtype);
        if (size == 1 || (k < n_outputs && size != 4)) return false;
        if (hk_operand_span(o) > limits->max_range - limits->offset_align) return false;
        strided += lie_of(o) == STRIDED;
    }
    return bindings + count - 1 <= HK_MAX_BINDINGS && words + count_push_words(rank, count, strided) <= PUSH_WORDS;
}

/* Functions that give element i of what is reduced, and four from i on: both are there, whichever is called. */
static void write_load(struct kernel *k, const struct hk_start *start) {
    hk_write(&k->body, "float load(uint i) {\n");
    write_body(k);
    hk_write(&k->body, "    const float made = uintBitsToFloat(v%d);\n", k->fused->n_inputs + maker_of(k->fused, start->last));
    if (start->keeps) hk_write(&k->body, "    x[p.base_x + i] = made;\n");
    hk_write(&k->body, "    return made;\n}\n");
    hk_write(&k->body, "vec4 load_four(uint i) { return vec4(load(i), load(i + 1), load(i + 2), load(i + 3)); }\n");
}

static void write_load_four(struct kernel *k, const struct hk_start *start) {
    const int o = start->last;
    write_make(k);
    hk_write(&k->body, "vec4 load_four(uint first) {\n    const uint i = first / 4;\n");
    write_body_of_units(k);
    hk_write(&k->body, "    const vec4 made = uintBitsToFloat(uvec4(r%d_0, r%d_1, r%d_2, r%d_3));\n", o, o, o, o);
    if (start->keeps) hk_write(&k->body, "    x_fours[(p.base_x + first) / 4] = made;\n");
    hk_write(&k->body, "    return made;\n}\nfloat load(uint i) { return 0.0; }\n");
}

hk_status hk_start_add(const struct hk_start *start, bool fours, const struct hk_recorder *recorder, struct hk_written *text,
                       struct hk_dispatch *d) {
    struct kernel k = kernel_of(start->steps, start->operands);
    choose_unit(&k, recorder, start->operands);
    if (!fours || k.unit != 4) k.unit = 1;
    k.apart = start->last, k.first_binding = d->n_bindings;
    k.body.first_constant = d->n_spec;
    if (k.unit > 1) write_load_four(&k, start);
    else write_load(&k, start);
    hk_write(text, "#version 450\n#define PRECEDED %d\n#include \"%s.comp\"\n", words_of(&k), d->shader);
    hk_write(text, "#define NOTHING (p.w[0] >> 31)\n");
    write_includes(&k, text);
    write_constants(&k, text);
    write_operands(&k, text);
    hk_write(text, "%s", k.body.text);
    push_words(&k, start->operands, d);
    for (int o = 0; o < k.n_operands; o++)
        if (o != k.apart) d->bytes += (double)hk_operand_span(&start->operands[o]);
    return set_text(d, "fused_reduce", &k, text);
}
#endif
