/* What steps are in GLSL, and the constants and bindings that this text reads. */
#ifndef HK_ISA_NAME
#include "op/fused_glsl.h"
#include <stdio.h>

enum lie hk_lie_of(const struct hk_operand *o) {
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

int hk_fused_words(int rank, int n_operands, int n_strided) {
    return (n_strided ? HK_MAX(rank, 1) : 1) + n_operands + n_strided * rank;
}

/* Sets unit and single. On a processor, loads of four words are no faster. */
static void choose_unit(struct fused_kernel *k, const struct hk_recorder *recorder, const struct hk_operand *operands) {
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

struct fused_kernel hk_fused_kernel(const struct hk_fused *fused, const struct hk_recorder *recorder,
                                    const struct hk_operand *operands) {
    struct fused_kernel k = {.fused = fused, .rank = operands[0].rank, .n_operands = fused->n_inputs + fused->n_outputs,
                             .apart = -1};
    for (int i = 0; i < k.n_operands; i++) {
        k.lies[i] = hk_lie_of(&operands[i]);
        k.n_strided += k.lies[i] == STRIDED;
        k.small[i] = hk_dtype_size(operands[i].dtype) == 2;
        k.rest[i] = k.small[i] ? hk_binding_rest(&operands[i]) : 0;
    }
    k.words = hk_fused_words(k.rank, k.n_operands, k.n_strided);
    k.strides = k.words - k.n_strided * k.rank;
    k.base = k.strides - k.n_operands;
    choose_unit(&k, recorder, operands);
    return k;
}

/* ---- Elements ---- */

static int first_stride(const struct fused_kernel *k, int operand) {
    int word = k->strides;
    for (int o = 0; o < operand; o++) word += k->lies[o] == STRIDED ? k->rank : 0;
    return word;
}

/* The operand's element that belongs to element i. */
static void write_element(struct fused_kernel *k, int operand) {
    const int word = first_stride(k, operand);
    if (k->lies[operand] != STRIDED) hk_write(&k->body, k->lies[operand] == DENSE ? "i" : "0u");
    for (int d = 0; k->lies[operand] == STRIDED && d < k->rank; d++)
        hk_write(&k->body, "%si%d * p.w[%d]", d ? " + " : "", d, word + d);
}

static void write_input(struct fused_kernel *k, int value) {
    const int o = k->fused->n_outputs + value;
    if (!k->small[o]) {
        hk_write(&k->body, "    const uint v%d = b%d[p.w[%d] + ", value, o, k->base + o);
        write_element(k, o);
        hk_write(&k->body, "];\n");
        return;
    }
    hk_write(&k->body, "    const uint e%d = %uu + ", value, k->rest[o]);
    write_element(k, o);
    hk_write(&k->body, ";\n    const uint v%d = bitfieldExtract(b%d[p.w[%d] + e%d / 2], int(e%d %% 2) * 16, 16);\n",
             value, o, k->base + o, value, value);
}

int hk_fused_value(const struct hk_fused *fused, int output) {
    int s = 0;
    while (fused->steps[s].output != output) s++;
    return fused->n_inputs + s;
}

static void write_output(struct fused_kernel *k, int o) {
    const int value = hk_fused_value(k->fused, o);
    if (k->small[o]) {
        hk_write(&k->body, "    h%d |= v%d << (16 * lane);\n", o, value);
        return;
    }
    hk_write(&k->body, "    b%d[p.w[%d] + ", o, k->base + o);
    write_element(k, o);
    hk_write(&k->body, "] = v%d;\n", value);
}

/* i0, i1 ...: the coordinates of element i, innermost first. */
static void write_coordinates(struct fused_kernel *k) {
    hk_write(&k->body, "    uint rest = i;\n");
    for (int d = 0; d + 1 < k->rank; d++)
        hk_write(&k->body, "    const uint i%d = rest %% p.w[%d];\n    rest /= p.w[%d];\n", d, 1 + d, 1 + d);
    hk_write(&k->body, "    const uint i%d = rest;\n", k->rank - 1);
}

/* Each op's result goes through NOTHING, which compilers do not know to be 0, and so does an input that it reads once more: so
   they make of an op what they make of it alone, where x - x is NaN of NaN, and the bits are the same. */
static void write_step(struct fused_kernel *k, int s) {
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

static void write_elements(struct fused_kernel *k) {
    const struct hk_fused *fused = k->fused;
    if (k->n_strided) write_coordinates(k);
    for (int i = 0; i < fused->n_inputs; i++) write_input(k, i);
    for (int s = 0; s < fused->n_steps; s++) write_step(k, s);
    for (int o = 0; o < fused->n_outputs; o++)
        if (o != k->apart) write_output(k, o);
}

/* ---- Units ---- */

static int fours_of(const struct fused_kernel *k, int operand) { return k->unit / (k->small[operand] ? 8 : 4); }

void hk_write_make(struct fused_kernel *k) {
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
static void write_four(struct fused_kernel *k, int operand, int f) {
    hk_write(&k->body, "f%d[p.w[%d] / 4 + (", operand, k->base + operand);
    write_element(k, operand);
    hk_write(&k->body, ") * %d + %d]", fours_of(k, operand), f);
}

/* x0, x1 ...: numbers that are the same in all of the unit; x0_0, x0_1 ...: fours. */
static void write_unit_input(struct fused_kernel *k, int value) {
    const int o = k->fused->n_outputs + value;
    for (int f = 0; !k->single[o] && f < fours_of(k, o); f++) {
        hk_write(&k->body, "    const uvec4 x%d_%d = ", value, f);
        write_four(k, o, f);
        hk_write(&k->body, ";\n");
    }
    if (!k->single[o]) return;
    hk_write(&k->body, "    const uint e%d = %uu + ", value, k->rest[o]);
    write_element(k, o);
    if (k->small[o])
        hk_write(&k->body, ";\n    const uint x%d = bitfieldExtract(b%d[p.w[%d] + e%d / 2], int(e%d %% 2) * 16, 16);\n", value,
                 o, k->base + o, value, value);
    else hk_write(&k->body, ";\n    const uint x%d = b%d[p.w[%d] + e%d];\n", value, o, k->base + o, value);
}

/* The results for element e of the unit: r0_e, r1_e ... */
static void write_call(struct fused_kernel *k, int e) {
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

static void write_unit_output(struct fused_kernel *k, int o) {
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

static void write_units(struct fused_kernel *k) {
    if (k->n_strided) write_coordinates(k);
    for (int i = 0; i < k->fused->n_inputs; i++) write_unit_input(k, i);
    for (int e = 0; e < k->unit; e++) write_call(k, e);
    for (int o = 0; o < k->fused->n_outputs; o++)
        if (o != k->apart) write_unit_output(k, o);
}

void hk_write_body(struct fused_kernel *k) {
    if (k->unit > 1) write_units(k);
    else write_elements(k);
}

/* ---- What is around them ---- */

void hk_write_includes(const struct fused_kernel *k, struct hk_written *all) {
    for (int s = 0; s < k->fused->n_steps; s++)
        if (k->fused->steps[s].op->glsl_file) hk_write(all, "#include \"%s\"\n", k->fused->steps[s].op->glsl_file);
}

void hk_write_declarations(const struct fused_kernel *k, struct hk_written *all) {
    for (int c = 0; c < k->body.n_constants; c++)
        hk_write(all, "layout(constant_id = %d) const float number%d = 0.0;\n", k->body.first_constant + c, c);
    for (int o = 0, binding = k->first_binding; o < k->n_operands; o++) {
        if (o == k->apart) continue;
        hk_write(all, "WORDS(%d, b%d);\n", binding, o);
        if (k->unit > 1) hk_write(all, "WORD_FOURS(%d, f%d);\n", binding, o);
        binding++;
    }
}

hk_status hk_fused_source(const struct fused_kernel *k, const char *name, const struct hk_written *text,
                          struct hk_dispatch *d) {
    if (k->body.length >= sizeof k->body.text || text->length >= sizeof text->text)
        return hk_fail(HK_ERROR_INTERNAL, "%s: the kernel's text has %zu bytes", name, text->length);
    d->shader = name;
    d->source = text->text;
    memcpy(d->spec + d->n_spec, k->body.constants, sizeof(uint32_t) * (size_t)k->body.n_constants);
    d->n_spec += k->body.n_constants;
    return HK_OK;
}

void hk_fused_push(const struct fused_kernel *k, const struct hk_operand *o, struct hk_dispatch *d) {
    const int first = (int)d->push_bytes / 4;
    uint32_t words[HK_MAX_PUSH_BYTES / 4] = {1};
    int next = k->strides;
    for (int i = 0; i < k->rank; i++) {
        const uint32_t size = (uint32_t)(o[0].shape[k->rank - 1 - i] / (i ? 1 : k->unit));
        words[0] *= size;
        if (k->n_strided && i + 1 < k->rank) words[1 + i] = size;
    }
    for (int n = 0; n < k->n_operands; n++)
        for (int i = 0; k->lies[n] == STRIDED && i < k->rank; i++)
            words[next++] = (uint32_t)(o[n].stride[k->rank - 1 - i] / (i && !k->single[n] ? k->unit : 1));
    memcpy(d->push + d->push_bytes, words, (size_t)k->words * 4);
    d->push_bytes += (uint32_t)k->words * 4;
    for (int n = 0; n < k->n_operands; n++)
        if (n != k->apart) hk_bind(d, &o[n], n < k->fused->n_outputs ? HK_WRITE : HK_READ, first + k->base + n);
}
#endif
