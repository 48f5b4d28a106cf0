/* Every op of truth/ops.safetensors, outputs and gradients, against PyTorch's answers in double precision
   (make_truth.py says what is in the file). The numbers printed are the largest errors as a share of 1e-5 max|ref| +
   1e-4 |ref|. */
#include "support.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 8 };

/* ---- From attributes to builders ---- */

typedef struct hk_value *builder(struct hk_value *const *in, const cJSON *attrs);

static double number(const cJSON *attrs, const char *key, double otherwise) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(attrs, key);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}
static bool flag(const cJSON *attrs, const char *key) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(attrs, key));
}

/* The list of whole numbers under key. */
static struct hk_axes list(const cJSON *attrs, const char *key) {
    struct hk_axes axes = {0};
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(attrs, key)) axes.axis[axes.count++] = item->valueint;
    return axes;
}
static struct hk_shape shape_of(const cJSON *attrs) {
    const struct hk_axes sizes = list(attrs, "shape");
    struct hk_shape shape = {.rank = sizes.count};
    for (int i = 0; i < sizes.count; i++) shape.size[i] = sizes.axis[i];
    return shape;
}

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *build_##name(struct hk_value *const *in, const cJSON *attrs) {                             \
        (void)attrs;                                                                                                   \
        return expression;                                                                                             \
    }
#define UNARY(name) BUILD(name, hk_##name(in[0]))
#define BINARY(name) BUILD(name, hk_##name(in[0], in[1]))
#define REDUCTION(name) BUILD(name, hk_##name(in[0], list(attrs, "axes"), flag(attrs, "keepdims")))

UNARY(neg)
UNARY(exp) UNARY(log) UNARY(sqrt) UNARY(rsqrt) UNARY(square) UNARY(abs) UNARY(sin) UNARY(cos) UNARY(tanh) UNARY(sigmoid)
    UNARY(relu) UNARY(silu) UNARY(softplus) UNARY(gelu_tanh) BUILD(gelu_erf, hk_gelu(in[0])) BUILD(
        elu, hk_elu(in[0], 1)) BUILD(leaky_relu, hk_leaky_relu(in[0], 0.01f)) BINARY(add) BINARY(sub) BINARY(mul)
        BINARY(div) BINARY(maximum) BINARY(minimum) BINARY(matmul) REDUCTION(sum) REDUCTION(mean) REDUCTION(max) BUILD(
            matmul_nt, hk_matmul(in[0], hk_transpose(in[1]))) BUILD(matmul_tn, hk_matmul(hk_transpose(in[0]), in[1]))
            BUILD(linear, hk_linear(in[0], in[1], in[2])) BUILD(permute, hk_permute(in[0], list(attrs, "axes")))
                BUILD(reshape,
                      hk_reshape(in[0], shape_of(attrs))) BUILD(concat, hk_concat(in, 2, (int)number(attrs, "axis", 0)))
                    BUILD(broadcast_to, hk_broadcast_to(in[0], shape_of(attrs)))
                        BUILD(where,
                              hk_where(hk_greater(in[0], hk_fill(hk_value_graph(in[0]), HK_F32, HK_SCALAR, 0)), in[1],
                                       in[2])) BUILD(softmax, hk_softmax(in[0], (int)number(attrs, "axis", -1)))
                            BUILD(log_softmax, hk_log_softmax(in[0], (int)number(attrs, "axis", -1)))
                                BUILD(mse_loss, hk_mse_loss(in[0], in[1]))
                                    BUILD(bce_with_logits, hk_bce_with_logits(in[0], in[1]))
                                        BUILD(layer_norm,
                                              hk_layer_norm(in[0], in[1], in[2], (float)number(attrs, "eps", 0)))
                                            BUILD(rms_norm, hk_rms_norm(in[0], in[1], (float)number(attrs, "eps", 0)))
                                                BUILD(embedding, hk_embedding(in[0], in[1]))
                                                    BUILD(attention, hk_attention(in[0], in[1], in[2],
                                                                                  &(struct hk_attention_params){
                                                                                      .causal = flag(attrs, "causal")}))

                                                        static struct hk_value *build_slice(struct hk_value *const *in,
                                                                                            const cJSON *attrs) {
    const struct hk_axes axes = list(attrs, "axes"), begin = list(attrs, "begin"), end = list(attrs, "end"),
                         step = list(attrs, "step");
    struct hk_value *x = in[0];
    for (int i = 0; i < axes.count; i++) x = hk_slice(x, axes.axis[i], begin.axis[i], end.axis[i], step.axis[i]);
    return x;
}

static struct hk_value *build_cross_entropy(struct hk_value *const *in, const cJSON *attrs) {
    const struct hk_cross_entropy_params params = {
        .ignore = cJSON_HasObjectItem(attrs, "ignore_index"),
        .ignore_index = (int32_t)number(attrs, "ignore_index", 0),
        .label_smoothing = (float)number(attrs, "label_smoothing", 0),
    };
    return hk_cross_entropy(in[0], in[1], &params);
}

static struct hk_value *build_rope(struct hk_value *const *in, const cJSON *attrs) {
    const char *style = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(attrs, "style"));
    const struct hk_rope_params params = {
        .style = style && !strcmp(style, "adjacent") ? HK_ROPE_ADJACENT : HK_ROPE_HALF,
        .base = (float)number(attrs, "base", 0),
        .start = (int32_t)number(attrs, "start", 0),
    };
    return hk_rope(in[0], &params);
}

static const struct known {
    const char *op;
    builder *build;
} known[] = {
#define ROW(name)                                                                                                      \
    { #name, build_##name }
    ROW(neg),           ROW(exp),      ROW(log),         ROW(sqrt),      ROW(rsqrt),
    ROW(square),        ROW(abs),      ROW(sin),         ROW(cos),       ROW(tanh),
    ROW(sigmoid),       ROW(relu),     ROW(silu),        ROW(softplus),  ROW(gelu_tanh),
    ROW(gelu_erf),      ROW(elu),      ROW(leaky_relu),  ROW(add),       ROW(sub),
    ROW(mul),           ROW(div),      ROW(maximum),     ROW(minimum),   ROW(matmul),
    ROW(sum),           ROW(mean),     ROW(max),         ROW(matmul_nt), ROW(matmul_tn),
    ROW(linear),        ROW(permute),  ROW(reshape),     ROW(concat),    ROW(broadcast_to),
    ROW(where),         ROW(softmax),  ROW(log_softmax), ROW(mse_loss),  ROW(bce_with_logits),
    ROW(layer_norm),    ROW(rms_norm), ROW(embedding),   ROW(attention), ROW(slice),
    ROW(cross_entropy), ROW(rope),
#undef ROW
};

/* In the file, and not in Hekla yet. */
static const char *const later[] = {"group_norm", "batch_norm", "conv2d", "conv_transpose2d",
                                    "max_pool2d", "avg_pool2d", "lstm",   "gru"};

/* ---- Cases ---- */

struct truth {
    struct hk_safetensors *file;
    struct hk_device *device;
    int failures, cases;
};

struct truth_case {
    const char *id, *op;
    const cJSON *attrs;
    const char *inputs[MAX_INPUTS], *dinputs[MAX_INPUTS]; /* names in the file; "" where there is no gradient */
    const char *output, *dout;
    int n_inputs;
};

static const char *text(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static bool parse_case(const cJSON *row, struct truth_case *c) {
    const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(row, "inputs");
    const cJSON *dinputs = cJSON_GetObjectItemCaseSensitive(row, "dinputs");
    *c = (struct truth_case){.id = text(row, "id"), .op = text(row, "op"), .n_inputs = cJSON_GetArraySize(inputs)};
    c->attrs = cJSON_GetObjectItemCaseSensitive(row, "attrs");
    c->output = cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(row, "outputs"), 0));
    c->dout = cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(row, "dout"), 0));
    if (!c->id || !c->op || !c->output || !c->dout || c->n_inputs > MAX_INPUTS) return false;
    for (int i = 0; i < c->n_inputs; i++) {
        c->inputs[i] = cJSON_GetStringValue(cJSON_GetArrayItem(inputs, i));
        c->dinputs[i] = cJSON_GetStringValue(cJSON_GetArrayItem(dinputs, i));
        if (!c->inputs[i] || !c->dinputs[i]) return false;
    }
    return true;
}

static struct hk_tensor *upload(struct truth *t, const char *name) {
    const struct hk_safetensors_entry *entry = hk_safetensors_find(t->file, name);
    struct hk_tensor *tensor = entry ? hk_tensor_create(t->device, entry->dtype, entry->shape) : NULL;
    if (!tensor || hk_tensor_write(tensor, entry->data, entry->bytes)) {
        fprintf(stderr, "%s: %s\n", name, entry ? hk_error_message() : "not in the file");
        exit(1);
    }
    return tensor;
}

/* The error of what the device holds against the file's tensor. */
static double error_of(struct truth *t, const struct truth_case *c, struct hk_tensor *tensor, const char *name) {
    const struct hk_safetensors_entry *entry = hk_safetensors_find(t->file, name);
    const int64_t n = hk_tensor_elements(tensor);
    const size_t bytes = hk_tensor_bytes(tensor);
    double *x = malloc((size_t)(n + 1) * sizeof *x), *ref = malloc((size_t)(n + 1) * sizeof *ref), error = INFINITY;
    void *data = malloc(bytes + 1);
    int64_t at;
    if (!x || !ref || !data) abort();
    if (!entry || entry->bytes != bytes) {
        fprintf(stderr, "FAILED %s: %s has another size than the result\n", c->id, name);
    } else if (hk_tensor_read(tensor, data, bytes)) {
        fprintf(stderr, "FAILED %s: %s\n", c->id, hk_error_message());
    } else {
        test_to_doubles(x, HK_F32, data, n);
        test_to_doubles(ref, HK_F32, entry->data, n);
        error = test_error(x, ref, n, &at);
        if (error > 1)
            fprintf(stderr, "FAILED %s on %s: %s[%lld] is %.9g, not %.9g\n", c->id, test_device_name(t->device), name,
                    (long long)at, x[at], ref[at]);
    }
    free(x);
    free(ref);
    free(data);
    t->failures += !(error <= 1);
    return error;
}

/* Output and gradients of sum(output * dout), stored to out and grads. */
static struct hk_program *compile_case(struct truth *t, const struct truth_case *c, builder *build,
                                       struct hk_graph *graph, struct hk_tensor *const *inputs, struct hk_tensor *dout,
                                       struct hk_tensor *out, struct hk_tensor *const *grads) {
    struct hk_value *in[MAX_INPUTS], *wrt[MAX_INPUTS], *results[MAX_INPUTS];
    int n = 0;
    for (int i = 0; i < c->n_inputs; i++) {
        in[i] = hk_leaf(graph, inputs[i]);
        if (grads[i]) wrt[n++] = in[i];
    }
    struct hk_value *result = build(in, c->attrs);
    hk_store(out, result);
    hk_gradients(hk_sum(hk_mul(result, hk_leaf(graph, dout)), HK_ALL_AXES, false), wrt, n, results);
    for (int i = 0, k = 0; i < c->n_inputs; i++)
        if (grads[i]) hk_store(grads[i], results[k++]);
    return hk_compile(t->device, graph, &(struct hk_compile_params){.name = c->id});
}

static double run_case(struct truth *t, const struct truth_case *c, builder *build) {
    struct hk_tensor *inputs[MAX_INPUTS] = {0}, *grads[MAX_INPUTS] = {0}, *dout = upload(t, c->dout);
    struct hk_tensor *out = hk_tensor_create(t->device, HK_F32, hk_tensor_shape(dout));
    struct hk_graph *graph = hk_graph_create();
    double error = INFINITY;
    for (int i = 0; i < c->n_inputs; i++) {
        inputs[i] = upload(t, c->inputs[i]);
        if (*c->dinputs[i]) grads[i] = hk_tensor_create(t->device, HK_F32, hk_tensor_shape(inputs[i]));
    }
    struct hk_program *program = compile_case(t, c, build, graph, inputs, dout, out, grads);
    if (!program || hk_program_run(program)) {
        fprintf(stderr, "FAILED %s on %s: %s\n", c->id, test_device_name(t->device), hk_error_message());
        t->failures++;
    } else {
        error = error_of(t, c, out, c->output);
        for (int i = 0; i < c->n_inputs; i++)
            if (grads[i]) error = fmax(error, error_of(t, c, grads[i], c->dinputs[i]));
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    for (int i = 0; i < c->n_inputs; i++) hk_tensor_destroy(&inputs[i]), hk_tensor_destroy(&grads[i]);
    hk_tensor_destroy(&out);
    hk_tensor_destroy(&dout);
    return error;
}

static builder *find_builder(const char *op) {
    for (int i = 0; i < COUNT(known); i++)
        if (!strcmp(known[i].op, op)) return known[i].build;
    return NULL;
}

static bool comes_later(const char *op) {
    for (int i = 0; i < COUNT(later); i++)
        if (!strcmp(later[i], op)) return true;
    return false;
}

/* Runs a row of the file; prints the op's largest error after its last row. */
static void check_row(struct truth *t, const cJSON *row, double *largest) {
    struct truth_case c;
    const char *next = row->next ? text(row->next, "op") : NULL;
    if (!parse_case(row, &c)) {
        fprintf(stderr, "FAILED: a row of \"cases\" is malformed\n");
        t->failures++;
        return;
    }
    builder *build = find_builder(c.op);
    const bool last = !next || strcmp(next, c.op) != 0;
    if (build) {
        *largest = fmax(*largest, run_case(t, &c, build));
        t->cases++;
        if (last) printf("%-18s %.3f\n", c.op, *largest);
    } else if (comes_later(c.op)) {
        if (last) printf("%-18s skipped: Hekla does not have it yet\n", c.op);
    } else {
        fprintf(stderr, "FAILED %s: the op %s is unknown\n", c.id, c.op);
        t->failures++;
    }
    if (last) *largest = 0;
}

int main(void) {
    struct hk_device *devices[TEST_MAX_DEVICES];
    const int n_devices = test_devices_open(devices);
    struct truth t = {.file = hk_safetensors_open(TRUTH_DIR "/ops.safetensors")};
    const char *metadata = t.file ? hk_safetensors_metadata(t.file, "cases") : NULL;
    cJSON *rows = metadata ? cJSON_Parse(metadata) : NULL;
    if (!cJSON_IsArray(rows)) {
        fprintf(stderr, "FAILED: %s\n", t.file ? "no list \"cases\" in the file" : hk_error_message());
        return 1;
    }
    for (int i = 0; i < n_devices; i++) {
        const cJSON *row;
        double largest = 0;
        t.device = devices[i];
        printf("---- %s ----\n", test_device_name(t.device));
        cJSON_ArrayForEach(row, rows) check_row(&t, row, &largest);
    }
    printf("%d cases on %d devices, %d failures\n", t.cases, n_devices, t.failures);
    cJSON_Delete(rows);
    hk_safetensors_destroy(&t.file);
    const bool silent = test_devices_close(devices, n_devices);
    return t.failures || !silent || !t.cases;
}
