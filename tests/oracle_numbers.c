/* What a graph of whole numbers computes: each op by its definition, in the order in which they were described, in double. */
#include "oracle.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers are multiples of 2^-8 and their sums stay below 2^15: f32 holds all of that exactly. */
static const double finest = 0x1p-8, largest = 0x1p15;

enum { MAX_STORAGES = 64 };

struct numbers {
    const struct hk_graph *graph;
    int n_calls; /* computed so far */
    double **roots;
    int capacity;
    const struct hk_storage *storages[MAX_STORAGES];
    double *held[MAX_STORAGES];
    int n_storages;
    const char *lost;
};

struct numbers *numbers_create(struct hk_graph *graph) {
    struct numbers *n = calloc(1, sizeof *n);
    n->graph = graph;
    return n;
}

void numbers_destroy(struct numbers *n) {
    if (!n) return;
    for (int i = 0; i < n->capacity; i++) free(n->roots[i]);
    for (int i = 0; i < n->n_storages; i++) free(n->held[i]);
    free(n->roots);
    free(n);
}

bool numbers_lost(const struct numbers *n, const char **why) {
    if (why) *why = n->lost;
    return n->lost != NULL;
}

static void lose(struct numbers *n, const char *why) {
    if (!n->lost) n->lost = why;
}

void numbers_set(struct numbers *n, const struct hk_storage *storage, const double *data, int64_t count) {
    n->storages[n->n_storages] = storage;
    n->held[n->n_storages] = malloc((size_t)(count + 1) * sizeof *data);
    memcpy(n->held[n->n_storages++], data, (size_t)count * sizeof *data);
}

static double *held(const struct numbers *n, const struct hk_storage *storage) {
    for (int i = 0; i < n->n_storages; i++)
        if (n->storages[i] == storage) return n->held[i];
    return NULL;
}

const double *numbers_held(const struct numbers *n, const struct hk_storage *storage) { return held(n, storage); }

/* Where the root's first element is. */
static double *memory(const struct numbers *n, const struct hk_value *root) {
    return root->storage ? held(n, root->storage) + root->storage_offset / 4 : n->roots[root->id];
}

static int64_t element(const struct hk_value *v, int64_t i) {
    int64_t at = v->offset;
    for (int d = v->rank - 1; d >= 0; d--) {
        at += i % v->shape[d] * v->stride[d];
        i /= v->shape[d];
    }
    return at;
}

double *numbers_of(const struct numbers *n, const struct hk_value *v) {
    const int64_t count = hk_elements(v);
    const double *from = memory(n, v->root);
    double *out = malloc((size_t)(count + 1) * sizeof *out);
    for (int64_t i = 0; i < count; i++) out[i] = from[element(v, i)];
    return out;
}

/* ---- One op ---- */

/* An op with its inputs row-major; out is row-major too. */
struct job {
    struct numbers *n;
    const struct hk_call *call;
    double *in[16];
    double *out;
    int64_t count; /* elements of out */
};

static bool is(const struct job *j, const char *name) { return !strcmp(j->call->op->name, name); }

/* The element of an input that broadcasts to the output's element i. */
static double stretched(const struct job *j, int input, int64_t i) {
    const struct hk_value *to = j->call->outputs[0], *from = j->call->inputs[input];
    int64_t at = 0, step = 1;
    for (int d = to->rank - 1, k = from->rank - 1; k >= 0; d--, k--) {
        if (from->shape[k] != 1) at += i % to->shape[d] * step;
        step *= from->shape[k];
        i /= to->shape[d];
    }
    return j->in[input][at];
}

/* The numbers that stand for unary kinds in attributes, learnt from ops that have them. */
static int kind_of_square, kind_of_abs, kind_of_relu;

static void learn_kinds(void) {
    if (kind_of_relu) return;
    struct hk_graph *g = hk_graph_create();
    struct hk_value *x = hk_fill(g, HK_F32, HK_SHAPE(1), 1);
    memcpy(&kind_of_square, hk_square(x)->call->attrs, sizeof(int));
    memcpy(&kind_of_abs, hk_abs(x)->call->attrs, sizeof(int));
    memcpy(&kind_of_relu, hk_relu(x)->call->attrs, sizeof(int));
    hk_graph_destroy(&g);
}

static bool unary(const struct job *j) {
    const struct {
        int kind;
        float a, b;
    } *attrs = j->call->attrs;
    if (j->call->n_inputs != 1 || j->call->n_outputs != 1) return false;
    for (int64_t i = 0; i < j->count; i++) {
        const double x = j->in[0][i];
        if (is(j, "neg")) j->out[i] = -x;
        else if (is(j, "abs")) j->out[i] = fabs(x);
        else if (is(j, "square")) j->out[i] = x * x;
        else if (is(j, "relu")) j->out[i] = x > 0 ? x : 0;
        else if (is(j, "affine")) j->out[i] = (double)attrs->a * x + (double)attrs->b;
        else if (is(j, "copy")) j->out[i] = x;
        else if (is(j, "cast")) j->out[i] = j->call->outputs[0]->dtype == HK_I32 ? trunc(x) : x;
        else return false;
    }
    return true;
}

static bool unary_backward(const struct job *j) {
    if (!is(j, "unary_backward")) return false;
    const int kind = *(const int *)j->call->attrs; /* other ops may have none */
    learn_kinds();
    for (int64_t i = 0; i < j->count; i++) {
        const double x = j->in[0][i], dy = j->in[1][i];
        if (kind == kind_of_square) j->out[i] = 2 * x * dy;
        else if (kind == kind_of_abs) j->out[i] = x > 0 ? dy : x < 0 ? -dy : 0;
        else if (kind == kind_of_relu) j->out[i] = x > 0 ? dy : 0;
        else return false;
    }
    return true;
}

static bool binary(const struct job *j) {
    if (j->call->n_inputs != 2) return false;
    for (int64_t i = 0; i < j->count; i++) {
        const double a = stretched(j, 0, i), b = stretched(j, 1, i);
        if (is(j, "add")) j->out[i] = a + b;
        else if (is(j, "sub")) j->out[i] = a - b;
        else if (is(j, "mul")) j->out[i] = a * b;
        else if (is(j, "maximum")) j->out[i] = a > b ? a : b;
        else if (is(j, "minimum")) j->out[i] = a < b ? a : b;
        else if (is(j, "equal")) j->out[i] = a == b;
        else if (is(j, "not_equal")) j->out[i] = a != b;
        else if (is(j, "less")) j->out[i] = a < b;
        else if (is(j, "less_equal")) j->out[i] = a <= b;
        else if (is(j, "greater")) j->out[i] = a > b;
        else if (is(j, "greater_equal")) j->out[i] = a >= b;
        else return false;
    }
    return true;
}

static bool where(const struct job *j) {
    if (!is(j, "where")) return false;
    for (int64_t i = 0; i < j->count; i++) j->out[i] = stretched(j, 0, i) != 0 ? stretched(j, 1, i) : stretched(j, 2, i);
    return true;
}

static bool source(const struct job *j) {
    const struct {
        enum hk_dtype dtype;
        int rank;
        int64_t shape[HK_MAX_RANK];
        uint32_t bits;
    } *fill = j->call->attrs;
    if (!is(j, "fill")) return false;
    float f;
    int32_t k;
    memcpy(&f, &fill->bits, 4);
    memcpy(&k, &fill->bits, 4);
    for (int64_t i = 0; i < j->count; i++) j->out[i] = fill->dtype == HK_I32 ? k : (double)f;
    return true;
}

/* x [A, R, B] -> [A, B] */
static bool reduction(const struct job *j) {
    const struct {
        int kind;
        float scale;
    } *attrs = j->call->attrs;
    const bool sum = is(j, "sum") || is(j, "mean");
    if (!sum && !is(j, "max") && !is(j, "argmax")) return false;
    const int64_t *shape = j->call->inputs[0]->shape, R = shape[1], B = shape[2];
    for (int64_t i = 0; i < j->count; i++) {
        const double *x = j->in[0] + i / B * R * B + i % B;
        double total = 0, size = 0, best = -INFINITY;
        int64_t at = 0;
        for (int64_t r = 0; r < R; r++) {
            total += x[r * B], size += fabs(x[r * B]);
            if (x[r * B] > best) best = x[r * B], at = r;
        }
        if (sum && size >= largest) lose(j->n, "a large sum");
        j->out[i] = sum ? total * (double)attrs->scale : is(j, "max") ? best : (double)at;
    }
    return true;
}

static bool matmul(const struct job *j) {
    if (!is(j, "matmul")) return false;
    const struct hk_value *a = j->call->inputs[0], *b = j->call->inputs[1];
    const int64_t M = a->shape[a->rank - 2], K = a->shape[a->rank - 1], N = b->shape[b->rank - 1];
    for (int64_t i = 0; i < j->count; i++) {
        const int64_t batch = i / (M * N), m = i / N % M, c = i % N;
        double total = 0, size = 0;
        for (int64_t k = 0; k < K; k++) {
            const double product = j->in[0][(batch * M + m) * K + k] * j->in[1][(batch * K + k) * N + c];
            total += product, size += fabs(product);
        }
        if (size >= largest) lose(j->n, "a large product");
        j->out[i] = total + (j->call->n_inputs > 2 ? j->in[2][c] : 0);
    }
    return true;
}

/* Copies a row-major x to out's elements begin[d] + k * step[d]. */
static void place(const struct job *j, const double *x, const struct hk_value *from, const int64_t *begin, const int64_t *step) {
    const struct hk_value *to = j->call->outputs[0];
    const int64_t count = hk_elements(from);
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, at = 0, stride = 1;
        for (int d = from->rank - 1; d >= 0; d--) {
            at += (begin[d] + rest % from->shape[d] * step[d]) * stride;
            rest /= from->shape[d];
            stride *= to->shape[d];
        }
        j->out[at] = x[i];
    }
}

static bool placement(const struct job *j) {
    int64_t begin[HK_MAX_RANK] = {0}, step[HK_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    const struct hk_value *x = j->call->n_inputs ? j->call->inputs[0] : NULL;
    if (is(j, "concat")) {
        const int axis = *(const int *)j->call->attrs;
        for (int k = 0; k < j->call->n_inputs; k++) {
            place(j, j->in[k], j->call->inputs[k], begin, step);
            begin[axis] += j->call->inputs[k]->shape[axis];
        }
        return true;
    }
    if (is(j, "pad")) {
        const struct {
            int64_t before[HK_MAX_RANK], after[HK_MAX_RANK];
            float value;
        } *attrs = j->call->attrs;
        for (int64_t i = 0; i < j->count; i++) j->out[i] = (double)attrs->value;
        place(j, j->in[0], x, attrs->before, step);
        return true;
    }
    if (!is(j, "slice_backward")) return false;
    const struct {
        int axis;
        int64_t begin, end, step, size;
    } *attrs = j->call->attrs;
    for (int64_t i = 0; i < j->count; i++) j->out[i] = 0;
    begin[attrs->axis] = attrs->begin, step[attrs->axis] = attrs->step;
    place(j, j->in[0], x, begin, step);
    return true;
}

static bool embedding(const struct job *j) {
    const struct hk_value *out = j->call->n_outputs ? j->call->outputs[0] : NULL;
    if (is(j, "embedding")) {
        const int64_t C = out->shape[out->rank - 1];
        for (int64_t i = 0; i < j->count; i++) j->out[i] = j->in[0][(int64_t)j->in[1][i / C] * C + i % C];
        return true;
    }
    if (!is(j, "embedding_backward")) return false;
    const int64_t C = out->shape[1], count = hk_elements(j->call->inputs[1]);
    memcpy(j->out, j->in[0], (size_t)j->count * sizeof *j->out);
    for (int64_t i = 0; i < count; i++) j->out[(int64_t)j->in[2][i / C] * C + i % C] += j->in[1][i];
    return true;
}

/* ---- Ops that write tensors ---- */

static bool writer(const struct job *j) {
    const struct hk_call *call = j->call;
    const struct hk_value *to = call->n_inputs ? call->inputs[0] : NULL;
    if (!call->op->writes) return false;
    double *data = memory(j->n, to->root);
    if (is(j, "store")) {
        for (int64_t i = 0, n = hk_elements(to); i < n; i++) data[element(to, i)] = j->in[1][i];
        return true;
    }
    if (is(j, "sgd")) { /* without decay */
        for (int64_t i = 0, n = hk_elements(to); i < n; i++) data[i] -= j->in[3][HK_HYPER_LR] * j->in[2][i];
        return true;
    }
    if (!is(j, "cache_write")) return false;
    const struct hk_value *rows = call->inputs[1];
    const int64_t S = to->shape[2], T = rows->shape[2], D = rows->shape[3], position = (int64_t)j->in[2][0];
    for (int64_t i = 0, n = hk_elements(rows); i < n; i++) {
        const int64_t at = position + i / D % T;
        if (at >= 0 && at < S) data[(i / D / T * S + at) * D + i % D] = j->in[1][i];
    }
    return true;
}

/* ---- All of them ---- */

static void check_numbers(struct numbers *n, const double *x, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(x[i]) < largest) || x[i] / finest != trunc(x[i] / finest)) lose(n, "a number that f32 may round");
}

static void put_output(struct numbers *n, const struct hk_value *out, const double *x) {
    n->roots[out->id] = calloc((size_t)out->extent + 1, sizeof *x);
    for (int64_t i = 0, count = hk_elements(out); i < count; i++) n->roots[out->id][element(out, i)] = x[i];
}

static void compute(struct numbers *n, const struct hk_call *call) {
    struct job j = {.n = n, .call = call};
    if (call->n_inputs > COUNT(j.in) || call->n_outputs > 1) {
        lose(n, call->op->name);
        return;
    }
    for (int k = 0; k < call->n_inputs; k++) j.in[k] = numbers_of(n, call->inputs[k]);
    j.count = call->n_outputs ? hk_elements(call->outputs[0]) : 0;
    j.out = calloc((size_t)j.count + 1, sizeof *j.out);
    const bool known = call->n_outputs ? unary(&j) || unary_backward(&j) || binary(&j) || where(&j) || source(&j) ||
                                             reduction(&j) || matmul(&j) || placement(&j) || embedding(&j)
                                       : writer(&j);
    if (!known) lose(n, call->op->name);
    check_numbers(n, j.out, j.count);
    if (call->n_outputs) put_output(n, call->outputs[0], j.out);
    for (int k = 0; k < call->n_inputs; k++) free(j.in[k]);
    free(j.out);
}

void numbers_follow(struct numbers *n) {
    if (n->capacity < n->graph->n_values) {
        const int need = 2 * n->graph->n_values;
        n->roots = realloc(n->roots, (size_t)need * sizeof *n->roots);
        memset(n->roots + n->capacity, 0, (size_t)(need - n->capacity) * sizeof *n->roots);
        n->capacity = need;
    }
    for (; n->n_calls < n->graph->n_calls && !n->lost; n->n_calls++)
        if (!(n->graph->calls[n->n_calls]->op->flags & HK_OP_VIEW)) compute(n, n->graph->calls[n->n_calls]);
}
