#include "case_run.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const layout_names[LAYOUT_COUNT] = {"dense", "padded rows", "permuted"};

/* ---- Inputs on the host ---- */

bool case_inputs_make(const struct hk_case *c, uint64_t *random, struct case_inputs *inputs) {
    *inputs = (struct case_inputs){{0}};
    for (int i = 0; i < c->n_inputs; i++) {
        const struct hk_case_input *in = &c->inputs[i];
        const bool is_default = in->low == 0 && in->high == 0;
        const double low = is_default ? -1.5 : (double)in->low, high = is_default ? 1.5 : (double)in->high;
        const int64_t n = test_elements(in->shape);
        inputs->data[i] = malloc((size_t)(n + 1) * sizeof(float));
        if (!inputs->data[i]) return false;
        for (int64_t k = 0; k < n; k++) {
            if (in->dtype == HK_F32) {
                const float x = (float)test_uniform(random, low, high);
                ((float *)inputs->data[i])[k] = (double)x < high ? x : (float)low;
            } else {
                ((int32_t *)inputs->data[i])[k] = (int32_t)floor(test_uniform(random, ceil(low), ceil(high)));
            }
        }
    }
    return true;
}

void case_inputs_free(struct case_inputs *inputs) {
    for (int i = 0; i < HK_CASE_MAX_INPUTS; i++) free(inputs->data[i]);
    *inputs = (struct case_inputs){{0}};
}

void case_results_free(struct case_results *results) {
    free(results->result);
    for (int i = 0; i < HK_CASE_MAX_INPUTS; i++) free(results->grads[i]);
    *results = (struct case_results){0};
}

/* ---- Where an input's elements lie in its tensor ---- */

static struct placement place(struct hk_shape shape, enum layout layout) {
    struct placement p = {.rank = shape.rank ? shape.rank : 1, .dense = layout == LAYOUT_DENSE};
    const int last = p.rank - 1;
    for (int i = 0; i <= last; i++) {
        const int64_t size = shape.rank ? shape.size[i] : 1;
        const int d = p.dimension[i] = layout != LAYOUT_PERMUTED ? i : (i + 1) % p.rank;
        const bool gap = layout != LAYOUT_DENSE && (d == last || d == 0);
        p.begin[d] = gap;
        p.step[d] = layout == LAYOUT_PERMUTED && d == last ? 2 : 1;
        p.size[d] = p.begin[d] + size * p.step[d] + gap;
    }
    return p;
}

static struct hk_shape memory_shape(const struct placement *p) {
    struct hk_shape shape = {.rank = p->rank};
    memcpy(shape.size, p->size, sizeof shape.size);
    return shape;
}

/* The input as a view of the tensor. */
static struct hk_value *view_input(struct hk_value *value, struct hk_shape shape, const struct placement *p) {
    struct hk_axes order = {.count = p->rank};
    bool repeated = false, permuted = false;
    for (int i = 0; i < p->rank; i++) {
        const int d = order.axis[i] = p->dimension[i];
        const int64_t size = p->repeated[d] ? 1 : shape.rank ? shape.size[i] : 1, end = p->begin[d] + size * p->step[d];
        repeated |= p->repeated[d], permuted |= d != i;
        if (p->begin[d] || p->step[d] > 1 || p->size[d] != size)
            value = hk_slice(value, d, p->begin[d], end < p->size[d] ? end : p->size[d], p->step[d]);
    }
    if (permuted) value = hk_permute(value, order);
    if (repeated) value = hk_broadcast_to(value, shape);
    return shape.rank == 0 ? hk_reshape(value, shape) : value;
}

/* Copies 4-byte elements to their places. */
static void scatter(const struct placement *p, struct hk_shape shape, const uint32_t *from, uint32_t *to) {
    const int64_t n = test_elements(shape);
    for (int64_t k = 0; k < n; k++) {
        int64_t rest = k, offset = 0, index[HK_MAX_RANK] = {0};
        for (int i = shape.rank - 1; i >= 0; rest /= shape.size[i--]) index[p->dimension[i]] = rest % shape.size[i];
        for (int d = 0; d < p->rank; d++)
            offset = offset * p->size[d] + p->begin[d] + (p->repeated[d] ? 0 : index[d] * p->step[d]);
        to[offset] = from[k];
    }
}

/* ---- Programs ---- */

struct case_run {
    const struct hk_case *c;
    struct placement placements[HK_CASE_MAX_INPUTS];
    struct hk_tensor *inputs[HK_CASE_MAX_INPUTS], *grads[HK_CASE_MAX_INPUTS], *result, *weights;
    float *weight_data;
    struct hk_program *program;
};

static bool has_gradient(const struct hk_case *c, int i) { return c->gradient && c->inputs[i].dtype == HK_F32; }

static bool make_weights(struct case_run *run, struct hk_device *device, struct hk_shape shape) {
    const int64_t n = test_elements(shape);
    uint64_t random = test_hash(run->c->name, 7);
    run->weights = hk_tensor_create(device, HK_F32, shape);
    run->weight_data = malloc((size_t)(n + 1) * sizeof(float));
    if (!run->weights || !run->weight_data) return false;
    for (int64_t i = 0; i < n; i++) run->weight_data[i] = (float)test_uniform(&random, -1, 1);
    return !hk_tensor_write(run->weights, run->weight_data, (size_t)n * sizeof(float));
}

/* Adds what makes the gradients of sum(result * weights). */
static bool add_gradients(struct case_run *run, struct hk_device *device, struct hk_value *result,
                          struct hk_value *const *in) {
    struct hk_value *wrt[HK_CASE_MAX_INPUTS], *grads[HK_CASE_MAX_INPUTS];
    int of[HK_CASE_MAX_INPUTS], n = 0;
    if (!make_weights(run, device, hk_value_shape(result))) return false;
    for (int i = 0; i < run->c->n_inputs; i++)
        if (has_gradient(run->c, i)) of[n] = i, wrt[n++] = in[i];
    struct hk_value *weighted = hk_mul(result, hk_leaf(hk_value_graph(result), run->weights));
    if (hk_gradients(hk_sum(weighted, HK_ALL_AXES, false), wrt, n, grads)) return false;
    for (int k = 0; k < n; k++) {
        run->grads[of[k]] = hk_tensor_create(device, HK_F32, run->c->inputs[of[k]].shape);
        if (!run->grads[of[k]]) return false;
        hk_store(run->grads[of[k]], grads[k]);
    }
    return true;
}

static bool build(struct case_run *run, struct hk_device *device, struct hk_graph *graph) {
    struct hk_value *in[HK_CASE_MAX_INPUTS] = {0};
    for (int i = 0; i < run->c->n_inputs; i++) {
        const struct hk_case_input *input = &run->c->inputs[i];
        const struct placement *p = &run->placements[i];
        run->inputs[i] = hk_tensor_create(device, input->dtype, p->dense ? input->shape : memory_shape(p));
        if (!run->inputs[i]) return false;
        in[i] = hk_leaf(graph, run->inputs[i]);
        if (!p->dense) in[i] = view_input(in[i], input->shape, p);
    }
    struct hk_value *result = run->c->build(graph, in);
    if (!result || hk_graph_status(graph)) return false;
    run->result = hk_tensor_create(device, hk_value_dtype(result), hk_value_shape(result));
    if (!run->result) return false;
    hk_store(run->result, result);
    if (run->c->gradient && !add_gradients(run, device, result, in)) return false;
    run->program = hk_compile(device, graph, &(struct hk_compile_params){.name = run->c->name});
    return run->program != NULL;
}

struct case_run *case_run_create_placed(struct hk_device *device, const struct hk_case *c,
                                        const struct placement placements[HK_CASE_MAX_INPUTS]) {
    struct case_run *run = calloc(1, sizeof *run);
    struct hk_graph *graph = hk_graph_create();
    if (!run || !graph) abort();
    run->c = c;
    memcpy(run->placements, placements, sizeof run->placements);
    if (!build(run, device, graph)) case_run_destroy(&run);
    hk_graph_destroy(&graph);
    return run;
}

struct case_run *case_run_create(struct hk_device *device, const struct hk_case *c, enum layout layout) {
    struct placement placements[HK_CASE_MAX_INPUTS] = {0};
    for (int i = 0; i < c->n_inputs; i++) placements[i] = place(c->inputs[i].shape, layout);
    return case_run_create_placed(device, c, placements);
}

void case_run_destroy(struct case_run **run) {
    if (!run || !*run) return;
    struct case_run *r = *run;
    hk_program_destroy(&r->program);
    for (int i = 0; i < HK_CASE_MAX_INPUTS; i++) {
        hk_tensor_destroy(&r->inputs[i]);
        hk_tensor_destroy(&r->grads[i]);
    }
    hk_tensor_destroy(&r->result);
    hk_tensor_destroy(&r->weights);
    free(r->weight_data);
    free(r);
    *run = NULL;
}

/* ---- Runs ---- */

static bool write_input(struct case_run *run, int i, const void *data) {
    const size_t bytes = hk_tensor_bytes(run->inputs[i]);
    if (run->placements[i].dense) return !hk_tensor_write(run->inputs[i], data, bytes);
    uint32_t *memory = malloc(bytes + 4);
    if (!memory) abort();
    memset(memory, 0xff, bytes); /* NaN, or -1 */
    scatter(&run->placements[i], run->c->inputs[i].shape, data, memory);
    const hk_status status = hk_tensor_write(run->inputs[i], memory, bytes);
    free(memory);
    return !status;
}

static bool write_nan(struct hk_tensor *tensor) {
    const size_t bytes = hk_tensor_bytes(tensor);
    void *memory = malloc(bytes + 1);
    if (!memory) abort();
    memset(memory, 0xff, bytes);
    const hk_status status = hk_tensor_write(tensor, memory, bytes);
    free(memory);
    return !status;
}

static bool read_tensor(struct hk_tensor *tensor, double **out, uint64_t *bits) {
    const size_t bytes = hk_tensor_bytes(tensor);
    const int64_t n = hk_tensor_elements(tensor);
    unsigned char *memory = malloc(bytes + 1);
    *out = malloc((size_t)(n + 1) * sizeof **out);
    if (!memory || !*out) abort();
    const hk_status status = hk_tensor_read(tensor, memory, bytes);
    for (size_t i = 0; !status && i < bytes; i++) *bits = (*bits ^ memory[i]) * 0x100000001b3u;
    if (!status) test_to_doubles(*out, hk_tensor_dtype(tensor), memory, n);
    free(memory);
    return !status;
}

bool case_run_evaluate(struct case_run *run, const struct case_inputs *inputs, struct case_results *results) {
    *results = (struct case_results){.elements = hk_tensor_elements(run->result)};
    for (int i = 0; i < run->c->n_inputs; i++)
        if (!write_input(run, i, inputs->data[i]) || (run->grads[i] && !write_nan(run->grads[i]))) return false;
    if (!write_nan(run->result) || hk_program_run(run->program)) return false;
    if (!read_tensor(run->result, &results->result, &results->result_bits)) return false;
    results->bits = results->result_bits;
    for (int i = 0; i < run->c->n_inputs; i++)
        if (run->grads[i] && !read_tensor(run->grads[i], &results->grads[i], &results->bits)) return false;
    return true;
}

double case_run_weighted(const struct case_run *run, const struct case_results *results, double *magnitude) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < results->elements; i++) {
        const double term = results->result[i] * (double)run->weight_data[i];
        sum += term;
        squares += term * term;
    }
    *magnitude = sqrt(squares);
    return sum;
}
