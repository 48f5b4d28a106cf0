#include "op/op.h"

/* a [batch..., M, K], b [batch..., K, N], bias f32 [N] or none -> f32 [batch..., M, N]; the batch sizes of a and b are
   equal (with strides of 0 where broadcast). The CPU's kernel is matmul_i8's, too. */

#ifdef HK_ISA_NAME
#include "op/gemm.h"
#include "op/matmul_cpu.h"

/* A product of a step, cut into jobs: one part of C in one batch item each. */
struct cut_product {
    const struct hk_operand *a, *b; /* the operands of `whole`, perhaps in the other order */
    struct gemm whole;              /* of batch item 0 */
    int64_t part_m, part_n, parts_m, parts_n;
    bool few;
    char *workspace;
    size_t workspace_bytes;
    const struct fused_job *then; /* NULL: none */
};

/* The few rows of a become f32 first. */
static void multiply_few(const struct gemm *g, float *workspace) {
    struct gemm wide = *g;
    if (g->a_type == HK_I8) {
        gemm_few_i8(g, workspace);
        return;
    }
    if (g->a_type != HK_F32) {
        for (int64_t i = 0; i < g->m; i++)
            gemm_widen(workspace + i * g->k, gemm_at(g->a, g->a_type, i * g->a_row), g->a_type, g->k);
        wide.a = workspace, wide.a_type = HK_F32, wide.a_row = g->k;
    }
    gemm_few(&wide);
}

/* The steps that follow, on a part of C that begins at this element, while it is in a cache. */
static void run_steps(const struct cut_product *p, int64_t begin, int64_t rows, int64_t columns) {
    const int64_t n = p->whole.n;
    if (columns == n) columns *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++) fused_run(p->then, begin + r * n, begin + r * n + columns, NULL);
}

static void run_job(const struct cut_product *p, int64_t job, float *workspace) {
    const int64_t item = job / (p->parts_m * p->parts_n), part = job % (p->parts_m * p->parts_n);
    const int64_t i = part / p->parts_n * p->part_m, j = part % p->parts_n * p->part_n;
    struct gemm g = p->whole;
    g.a = gemm_at(g.a, g.a_type, cpu_offset_of(p->a, p->a->rank - 2, item) + i * g.a_row);
    g.b = gemm_at(g.b, g.b_type, cpu_offset_of(p->b, p->b->rank - 2, item) + j * g.b_column);
    const int64_t begin = item * g.m * g.n + i * g.c_row + j;
    g.c += begin;
    if (g.bias) g.bias += j;
    g.m = HK_MIN(g.m - i, p->part_m);
    g.n = HK_MIN(g.n - j, p->part_n);
    if (!p->few) gemm_block(&g, workspace);
    else multiply_few(&g, workspace);
    if (p->then) run_steps(p, begin, g.m, g.n);
}

static void run_jobs(void *context, int thread, int64_t begin, int64_t end) {
    const struct cut_product *p = context;
    float *workspace = (float *)(void *)(p->workspace + (size_t)thread * p->workspace_bytes);
    for (int64_t job = begin; job < end; job++) run_job(p, job, workspace);
}

/* As the shapes and strides say. */
static struct gemm whole_product(const struct hk_step *step) {
    const struct hk_operand *a = &step->inputs[0], *b = &step->inputs[1];
    const int ra = a->rank, rb = b->rank;
    return (struct gemm){
        .m = a->shape[ra - 2],
        .n = b->shape[rb - 1],
        .k = a->shape[ra - 1],
        .a = cpu_data(a),
        .a_type = a->dtype,
        .a_row = a->stride[ra - 2],
        .a_column = a->stride[ra - 1],
        .b = cpu_data(b),
        .b_type = b->dtype,
        .b_row = b->stride[rb - 2],
        .b_column = b->stride[rb - 1],
        .c = cpu_data(&step->outputs[0]),
        .c_row = b->shape[rb - 1],
        .bias = step->n_inputs > 2 ? cpu_data(&step->inputs[2]) : NULL,
    };
}

/* A stride of 1 wherever the size allows it, so that the dense dimension is found. */
static void find_dense_strides(struct gemm *g) {
    if (g->k == 1) g->a_column = g->b_row = 1;
    if (g->m == 1 && g->a_column != 1) g->a_row = 1;
    if (g->n == 1 && g->b_row != 1) g->b_column = 1;
}

/* c = a b with one column is c^T = b^T a^T with one row, for which there is a way without packing. */
static void exchange(struct cut_product *p) {
    const struct gemm g = p->whole;
    const struct hk_operand *a = p->a;
    p->a = p->b, p->b = a;
    p->whole = (struct gemm){.m = 1,
                             .n = g.m,
                             .k = g.k,
                             .a = g.b,
                             .a_type = g.b_type,
                             .a_row = 1,
                             .a_column = g.b_row,
                             .b = g.a,
                             .b_type = g.a_type,
                             .b_row = g.a_column,
                             .b_column = g.a_row,
                             .c = g.c,
                             .c_row = g.m};
}

/* Every thread has the same number of jobs, or many. */
static bool is_even(int64_t jobs, int64_t threads) { return jobs >= threads && (jobs % threads == 0 || jobs >= 4 * threads); }

/* Cuts C until all threads have as much to do, but not below the size where packing would be most of the work: each part
   packs its operands anew. */
static void choose_parts(struct cut_product *p, int64_t batch, int threads) {
    const int64_t m = p->whole.m, n = p->whole.n;
    const int64_t least_m = p->few ? m : 4 * GEMM_ROWS, least_n = p->few ? 4 * GEMM_COLUMNS : 2 * GEMM_COLUMNS;
    int64_t parts_m = 1, parts_n = p->few ? 1 : HK_MAX((n + GEMM_WIDTH - 1) / GEMM_WIDTH, 1);
    const int64_t of_all = (parts_n + threads - 1) / threads * threads;
    if (parts_n > 1 && !is_even(batch * parts_n, threads) && n / of_all >= GEMM_WIDTH / 2) parts_n = of_all;
    const double work = (double)m * (double)n * (double)p->whole.k;
    while (work > 65536 && threads > 1 && !is_even(batch * parts_m * parts_n, threads)) {
        const bool cut_m = m / (2 * parts_m) >= least_m, cut_n = n / (2 * parts_n) >= least_n;
        if (!cut_m && !cut_n) break;
        if (cut_m && (!cut_n || m / parts_m >= n / parts_n)) parts_m *= 2;
        else parts_n *= 2;
    }
    p->part_m = p->few ? m : ((m + parts_m - 1) / parts_m + 31) / 32 * 32; /* whole tiles, also AMX's */
    p->part_n = ((n + parts_n - 1) / parts_n + GEMM_COLUMNS - 1) / GEMM_COLUMNS * GEMM_COLUMNS;
    p->parts_m = (m + p->part_m - 1) / p->part_m;
    p->parts_n = (n + p->part_n - 1) / p->part_n;
}

void matmul_run(const struct hk_step *step, const struct cpu *cpu, const struct fused_job *then) {
    struct cut_product p = {.a = &step->inputs[0],
                            .b = &step->inputs[1],
                            .whole = whole_product(step),
                            .workspace = cpu->workspace,
                            .workspace_bytes = cpu->workspace_bytes,
                            .then = then};
    const struct gemm *g = &p.whole;
    const int64_t elements = cpu_elements(&step->outputs[0]);
    if (elements == 0) return;
    find_dense_strides(&p.whole);
    if (g->n == 1 && g->m > 1 && g->b_row == 1 && !g->bias) exchange(&p);
    p.few = g->m <= GEMM_FEW && g->k > 0 && g->a_column == 1 &&
            (g->a_type == HK_F32 || (size_t)(g->m * g->k) * sizeof(float) <= cpu->workspace_bytes);
    const int64_t batch = elements / (g->m * g->n);
    choose_parts(&p, batch, cpu->threads);
    /* small products: many to a piece, so that taking pieces costs little */
    const double work = (double)p.part_m * (double)p.part_n * (double)HK_MAX(g->k, 1);
    const int64_t grain = work >= 65536 ? 1 : (int64_t)(65536 / work) + 1;
    /* rows of parts that are short are too many runs: all of it is one, later */
    const bool later = then && p.parts_n > 1 && p.part_n < CPU_RUN;
    if (later) p.then = NULL;
    cpu_for_threads(cpu, batch * p.parts_m * p.parts_n, grain, run_jobs, &p);
    if (later) fused_run_all(then, cpu, elements);
}

CPU_KERNEL(matmul) { matmul_run(step, cpu, NULL); }

#else
#include "op/fused.h"
#include "op/matmul.h"

CPU_DECLARE_BF16(matmul);

/* ---- The row's functions ---- */

static bool infer(struct hk_call *call) {
    const struct hk_value *a = call->inputs[0], *b = call->inputs[1];
    int64_t shape[HK_MAX_RANK];
    for (int i = 0; i < a->rank - 1; i++) shape[i] = a->shape[i];
    shape[a->rank - 1] = b->shape[b->rank - 1];
    hk_infer_output(call, 0, HK_F32, a->rank, shape);
    return true;
}

/* The gradient of an operand has the operand's order in memory, so that undoing its transposition is a view:
   x y, or (y^T x^T)^T. */
static struct hk_value *product_like(const struct hk_value *operand, struct hk_value *x, struct hk_value *y) {
    const bool transposed =
        operand->rank >= 2 && operand->stride[operand->rank - 1] != 1 && operand->stride[operand->rank - 2] == 1;
    return transposed ? hk_transpose(hk_matmul(hk_transpose(y), hk_transpose(x))) : hk_matmul(x, y);
}

/* da = dy b^T, db = a^T dy, dbias = dy summed over all but the last dimension. Where a and b are 16-bit, so is dy. db is
   first: a, which may have been computed again for it, is not needed any longer when da takes its memory. */
static void backward(struct hk_backward *b) {
    struct hk_call *call = b->call;
    struct hk_value *dy = b->grads[0], *const x = call->inputs[0], *const w = call->inputs[1];
    struct hk_value *const factor = x->dtype == w->dtype && (b->needed[0] || b->needed[1]) ? hk_cast(dy, x->dtype) : dy;
    if (b->needed[1]) b->results[1] = product_like(w, hk_transpose(x), factor);
    if (b->needed[0]) b->results[0] = product_like(x, factor, hk_transpose(w));
    if (call->n_inputs < 3 || !b->needed[2]) return;
    struct hk_axes rows = {0};
    while (rows.count < dy->rank - 1) rows.axis[rows.count] = rows.count, rows.count++;
    b->results[2] = hk_sum(dy, rows, false);
}

struct hk_cost hk_matmul_cost(const struct hk_step *step) {
    const struct hk_operand *a = &step->inputs[0], *out = &step->outputs[0];
    double flops = 2.0 * (double)a->shape[a->rank - 1];
    for (int i = 0; i < out->rank; i++) flops *= (double)out->shape[i];
    return (struct hk_cost){.flops = flops};
}

static uint64_t scratch(const struct hk_call *call, const struct hk_limits *limits) {
    struct hk_operand operands[4];
    const struct hk_step step = hk_step_of(call, operands);
    return hk_matmul_scratch(&step, limits);
}

const struct hk_op hk_op_matmul = {
    .name = "matmul",
    .min_inputs = 2,
    .max_inputs = 3,
    .n_outputs = 1,
    .infer = infer,
    .scratch = scratch,
    .backward = backward,
    .cost = hk_matmul_cost,
    .cpu = CPU_KERNELS_BF16(matmul),
    .followed = &hk_op_fused_matmul,
    .gpu = hk_matmul_gpu,
};

/* ---- Public functions ---- */

static bool dense_dimension(const struct hk_value *x, int i) { return x->shape[i] == 1 || x->stride[i] == 1; }

/* x, or a copy where neither of the last two dimensions is dense. */
static struct hk_value *readable(struct hk_value *x) {
    if (dense_dimension(x, x->rank - 1) || dense_dimension(x, x->rank - 2)) return x;
    return hk_contiguous(x);
}

/* The op itself, on operands that it can read. Where nothing is summed, there is nothing to multiply. */
static struct hk_value *product(struct hk_value *a, struct hk_value *b, struct hk_value *bias) {
    if (!a || !b) return NULL;
    struct hk_value *in[] = {a, b, bias};
    const bool whole = a->dtype == HK_I8;
    if (a->shape[a->rank - 1] > 0)
        return hk_call_op(a->graph, whole ? &hk_op_matmul_i8 : &hk_op_matmul, in, bias ? 3 : 2, NULL, 0);
    struct hk_shape shape = hk_value_shape(a);
    shape.size[a->rank - 1] = b->shape[b->rank - 1];
    return bias ? hk_broadcast_to(bias, shape) : hk_fill(a->graph, whole ? HK_I32 : HK_F32, shape, 0.0);
}

static bool check_dtypes(const char *op, struct hk_value *a, struct hk_value *b, struct hk_graph *graph) {
    const bool agree = a->dtype == b->dtype || a->dtype == HK_F32 || b->dtype == HK_F32;
    if (agree && hk_is_float(a->dtype) && hk_is_float(b->dtype)) return true;
    hk_graph_fail(graph, HK_ERROR_INVALID,
                  "%s: operands must be f32, f16 or bf16, and the same or one of them f32, not %s and %s (hk_cast "
                  "converts)", op, hk_dtype_name(a->dtype), hk_dtype_name(b->dtype));
    return false;
}

static bool check(struct hk_value *a, struct hk_value *b, struct hk_graph *graph) {
    if ((a->dtype == HK_I8) != (b->dtype == HK_I8))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "matmul: operands must both be i8, or neither: a is %s, b is %s",
                             hk_dtype_name(a->dtype), hk_dtype_name(b->dtype)) != NULL;
    if (a->dtype != HK_I8 && !check_dtypes("matmul", a, b, graph)) return false;
    if (a->rank < 2 || b->rank < 2)
        return hk_graph_fail(graph, HK_ERROR_INVALID, "matmul: operands need two dimensions or more: a is %s, b is %s",
                             hk_shape_text(a), hk_shape_text(b)) != NULL;
    if (a->shape[a->rank - 1] != b->shape[b->rank - 2])
        return hk_graph_fail(graph, HK_ERROR_INVALID, "matmul: inner sizes differ: a is %s, b is %s", hk_shape_text(a),
                             hk_shape_text(b)) != NULL;
    return true;
}

/* x with the batch sizes given, its last two dimensions as they are. */
static struct hk_value *with_batch(struct hk_value *x, int rank, const int64_t *batch) {
    struct hk_shape shape = {.rank = rank};
    for (int i = 0; i < rank - 2; i++) shape.size[i] = batch[i];
    shape.size[rank - 2] = x->shape[x->rank - 2];
    shape.size[rank - 1] = x->shape[x->rank - 1];
    bool same = rank == x->rank;
    for (int i = 0; same && i < rank; i++) same = shape.size[i] == x->shape[i];
    return same ? x : hk_broadcast_to(x, shape);
}

static int64_t size_at(const struct hk_value *x, int rank, int i) {
    return i < rank - x->rank ? 1 : x->shape[i - (rank - x->rank)];
}

static struct hk_value *batched(struct hk_value *a, struct hk_value *b) {
    int64_t batch[HK_MAX_RANK];
    const int rank = HK_MAX(a->rank, b->rank);
    for (int i = 0; i < rank - 2; i++) {
        const int64_t x = size_at(a, rank, i), y = size_at(b, rank, i);
        if (x != y && x != 1 && y != 1)
            return hk_graph_fail(a->graph, HK_ERROR_INVALID, "matmul: leading sizes do not broadcast: a is %s, b is %s",
                                 hk_shape_text(a), hk_shape_text(b));
        batch[i] = x == 1 ? y : x;
    }
    struct hk_value *x = with_batch(readable(a), rank, batch), *y = with_batch(readable(b), rank, batch);
    return x && y ? product(x, y, NULL) : NULL;
}

/* x [..., K] b [K, N] + bias [N]: the leading dimensions of x become rows. */
static struct hk_value *folded(struct hk_value *x, struct hk_value *b, struct hk_value *bias) {
    struct hk_shape result = hk_value_shape(x);
    if (!b) return NULL;
    result.size[x->rank - 1] = b->shape[1];
    int64_t rows = 1;
    for (int i = 0; i < x->rank - 1; i++) rows *= x->shape[i];
    struct hk_value *flat = x->rank == 2 ? x : hk_reshape(x, HK_SHAPE(rows, x->shape[x->rank - 1]));
    if (!flat) return NULL;
    struct hk_value *y = product(readable(flat), readable(b), bias ? hk_contiguous(hk_cast(bias, HK_F32)) : NULL);
    return y && x->rank != 2 ? hk_reshape(y, result) : y;
}

struct hk_value *hk_matmul(struct hk_value *a, struct hk_value *b) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){a, b}, 2);
    if (!graph || !check(a, b, graph)) return NULL;
    return b->rank == 2 ? folded(a, b, NULL) : batched(a, b);
}

/* weight [K, N], or [N, K] where transposed. */
static struct hk_value *linear(struct hk_value *x, struct hk_value *weight, struct hk_value *bias, bool transposed) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){x, weight, bias}, bias ? 3 : 2);
    if (!graph) return NULL;
    if (!check_dtypes("linear", x, weight, graph)) return NULL;
    if (bias && !hk_is_float(bias->dtype))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "linear: bias must be f32, f16 or bf16, not %s (hk_cast converts)",
                             hk_dtype_name(bias->dtype));
    if (x->rank < 1 || weight->rank != 2)
        return hk_graph_fail(graph, HK_ERROR_INVALID,
                             "linear: x needs a dimension and weight two: x is %s, weight is %s", hk_shape_text(x),
                             hk_shape_text(weight));
    if (x->shape[x->rank - 1] != weight->shape[transposed])
        return hk_graph_fail(graph, HK_ERROR_INVALID, "linear: inner sizes differ: x is %s, weight is %s",
                             hk_shape_text(x), hk_shape_text(weight));
    if (bias && (bias->rank != 1 || bias->shape[0] != weight->shape[!transposed]))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "linear: bias must be [%lld], not %s",
                             (long long)weight->shape[!transposed], hk_shape_text(bias));
    return folded(x, transposed ? hk_transpose(weight) : weight, bias);
}

struct hk_value *hk_linear(struct hk_value *x, struct hk_value *weight, struct hk_value *bias) {
    return linear(x, weight, bias, true);
}

struct hk_value *hk_linear_kn(struct hk_value *x, struct hk_value *weight, struct hk_value *bias) {
    return linear(x, weight, bias, false);
}
#endif
