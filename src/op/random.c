/* Random numbers from Philox 4x32-10, the same bits on every device: element e takes lane e % 4 of the block with the
   counter (e / 4, stream, step, 0) under the key (seed low, seed high); rng holds seed low, seed high, step. */
#include "op/op.h"

enum random_kind { RANDOM_UNIFORM, RANDOM_NORMAL, RANDOM_DROPOUT };

/* uniform: a + b * u with b = high - low; normal: a + b * n; dropout: x * b where u >= a. */
struct random_attrs {
    enum random_kind kind;
    uint32_t stream;
    float a, b;
    int rank;
    int64_t shape[HK_MAX_RANK];
};

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

struct job {
    const struct random_attrs *attrs;
    const uint32_t *rng;
    const float *x; /* dropout */
    float *y;
    int64_t count;
};

enum { BLOCKS = 64 }; /* of 4 numbers, made at once */

/* bits[lane * BLOCKS + i] is lane `lane` of block first + i. */
static void philox_blocks(const struct job *job, int64_t first, uint32_t *bits) {
    uint32_t *c0 = bits, *c1 = bits + BLOCKS, *c2 = bits + 2 * BLOCKS, *c3 = bits + 3 * BLOCKS;
    uint32_t k0 = job->rng[0], k1 = job->rng[1];
    for (int i = 0; i < BLOCKS; i++)
        c0[i] = (uint32_t)first + (uint32_t)i, c1[i] = job->attrs->stream, c2[i] = job->rng[2], c3[i] = 0;
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            const uint64_t a = (uint64_t)0xD2511F53u * c0[i], b = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(b >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(a >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)b;
            c3[i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* Two lanes of bits become two independent normal numbers (Box and Muller, 1958). */
static void normal_pair(const uint32_t *bits1, const uint32_t *bits2, float *n1, float *n2) {
    for (int i = 0; i < BLOCKS; i += VW) {
        vf u, v;
        for (int k = 0; k < VW; k++) u[k] = hk_unit_float(bits1[i + k]), v[k] = hk_unit_float(bits2[i + k]);
        const vf l = v_set(-2.0f) * v_log(v_set(1.0f) - u), angle = v * v_set(6.2831853f);
        vf r;
        for (int k = 0; k < VW; k++) r[k] = sqrtf(l[k]);
        v_store(n1 + i, r * v_cos(angle));
        v_store(n2 + i, r * v_sin(angle));
    }
}

/* The numbers of BLOCKS blocks, lane by lane as the bits are: uniform in [0, 1), or normal. */
static void make_numbers(const struct job *job, int64_t first, float *numbers) {
    uint32_t bits[4 * BLOCKS];
    philox_blocks(job, first, bits);
    if (job->attrs->kind == RANDOM_NORMAL) {
        normal_pair(bits, bits + BLOCKS, numbers, numbers + BLOCKS);
        normal_pair(bits + 2 * BLOCKS, bits + 3 * BLOCKS, numbers + 2 * BLOCKS, numbers + 3 * BLOCKS);
        return;
    }
    for (int i = 0; i < 4 * BLOCKS; i++) numbers[i] = hk_unit_float(bits[i]);
}

/* item: BLOCKS blocks */
static void body(void *context, int64_t begin, int64_t end) {
    const struct job *job = context;
    const float a = job->attrs->a, b = job->attrs->b;
    for (int64_t item = begin; item < end; item++) {
        float numbers[4 * BLOCKS], u[4 * BLOCKS];
        const int64_t first = item * 4 * BLOCKS, n = HK_MIN(4 * BLOCKS, job->count - first);
        make_numbers(job, item * BLOCKS, numbers);
        for (int i = 0; i < BLOCKS; i++)
            for (int lane = 0; lane < 4; lane++) u[4 * i + lane] = numbers[lane * BLOCKS + i];
        float *y = job->y + first;
        const float *x = job->x ? job->x + first : NULL;
        if (x)
            for (int64_t i = 0; i < n; i++) y[i] = u[i] >= a ? x[i] * b : 0.0f;
        else
            for (int64_t i = 0; i < n; i++) y[i] = a + b * u[i];
    }
}

CPU_KERNEL(random) {
    const bool dropout = step->n_inputs == 2;
    struct job job = {step->attrs, cpu_data(&step->inputs[dropout]), dropout ? cpu_data(&step->inputs[0]) : NULL,
                      cpu_data(&step->outputs[0]), cpu_elements(&step->outputs[0])};
    cpu_for(cpu, (job.count + 4 * BLOCKS - 1) / (4 * BLOCKS), 32, body, &job);
}

#else
#include "op/strided.h"

CPU_DECLARE(random);

/* Inputs: x for dropout, then rng. */
static bool infer(struct hk_call *call) {
    const struct hk_value *rng = call->inputs[call->n_inputs - 1], *x = call->n_inputs == 2 ? call->inputs[0] : NULL;
    const struct random_attrs *attrs = call->attrs;
    const char *name = call->op->name;
    if (rng->dtype != HK_I32 || rng->rank != 1 || rng->shape[0] != 4)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: rng must be i32 [4], it is %s %s", name,
                             hk_dtype_name(rng->dtype), hk_shape_text(rng));
    if (x && x->dtype != HK_F32)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: x must be f32, it is %s", name,
                             hk_dtype_name(x->dtype));
    if (attrs->rank < 0 || attrs->rank > HK_MAX_RANK)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: the rank is %d", name, attrs->rank);
    for (int i = 0; i < attrs->rank; i++)
        if (attrs->shape[i] < 0)
            return hk_graph_fail(call->graph, HK_ERROR_INVALID, "%s: size %d of the shape is %lld", name, i,
                                 (long long)attrs->shape[i]);
    hk_infer_output(call, 0, HK_F32, attrs->rank, attrs->shape);
    return true;
}

/* The same mask for the gradient. */
static void backward(struct hk_backward *b) {
    const struct random_attrs *attrs = b->call->attrs;
    struct hk_value *dy = hk_contiguous(b->grads[0]);
    if (b->needed[0])
        b->results[0] =
            hk_call_op(NULL, &hk_op_dropout, (struct hk_value *[]){dy, b->call->inputs[1]}, 2, attrs, sizeof *attrs);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct random_attrs *attrs = step->attrs;
    const struct hk_operand *y = &step->outputs[0], *rng = &step->inputs[step->n_inputs - 1];
    const uint64_t count = hk_operand_span(y) / 4, window = (uint64_t)hk_window_elements(recorder, 4);
    for (uint64_t first = 0; first < count; first += window) {
        const uint64_t n = HK_MIN(window, count - first);
        struct {
            uint32_t base_y, base_rng, base_x, count, first_block, stream;
            float a, b;
        } push = {.count = (uint32_t)n,
                  .first_block = (uint32_t)(first / 4),
                  .stream = attrs->stream,
                  .a = attrs->a,
                  .b = attrs->b};
        struct hk_dispatch d = {.shader = "random", .spec = {HK_ELEMENTWISE_GROUP, attrs->kind}, .n_spec = 2};
        hk_bind_range(&d, y, first * 4, n * 4, HK_WRITE, 0);
        hk_bind(&d, rng, HK_READ, 1);
        /* a binding that uniform and normal numbers have no use for */
        if (step->n_inputs == 2) hk_bind_range(&d, &step->inputs[0], first * 4, n * 4, HK_READ, 2);
        else hk_bind(&d, rng, HK_READ, 2);
        HK_PUSH(&d, push);
        hk_groups(recorder, &d, ((n + 3) / 4 + HK_ELEMENTWISE_GROUP - 1) / HK_ELEMENTWISE_GROUP);
        const hk_status status = recorder->record(recorder, &d);
        if (status) return status;
    }
    return HK_OK;
}

const struct hk_op hk_op_random_uniform = {
    .name = "random_uniform",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .infer = infer,
    .cpu = CPU_KERNELS(random),
    .gpu = gpu,
};

const struct hk_op hk_op_random_normal = {
    .name = "random_normal",
    .min_inputs = 1,
    .max_inputs = 1,
    .n_outputs = 1,
    .infer = infer,
    .cpu = CPU_KERNELS(random),
    .gpu = gpu,
};

const struct hk_op hk_op_dropout = {
    .name = "dropout",
    .min_inputs = 2,
    .max_inputs = 2,
    .n_outputs = 1,
    .flags = HK_OP_FIRST_IN_PLACE,
    .infer = infer,
    .backward = backward,
    .cpu = CPU_KERNELS(random),
    .gpu = gpu,
};

static struct hk_value *build(const struct hk_op *op, struct hk_value *rng, struct hk_value *x,
                              struct random_attrs *attrs) {
    if (!rng) return NULL;
    attrs->stream = hk_graph_stream(rng->graph);
    struct hk_value *inputs[2] = {hk_contiguous(x)};
    inputs[op->max_inputs - 1] = hk_contiguous(rng);
    return hk_call_op(NULL, op, inputs, op->max_inputs, attrs, sizeof *attrs);
}

struct hk_value *hk_random_uniform(struct hk_value *rng, struct hk_shape shape, float low, float high) {
    struct random_attrs attrs = {.kind = RANDOM_UNIFORM, .a = low, .b = high - low, .rank = shape.rank};
    memcpy(attrs.shape, shape.size, sizeof attrs.shape);
    return build(&hk_op_random_uniform, rng, NULL, &attrs);
}

struct hk_value *hk_random_normal(struct hk_value *rng, struct hk_shape shape, float mean, float deviation) {
    struct random_attrs attrs = {.kind = RANDOM_NORMAL, .a = mean, .b = deviation, .rank = shape.rank};
    memcpy(attrs.shape, shape.size, sizeof attrs.shape);
    return build(&hk_op_random_normal, rng, NULL, &attrs);
}

struct hk_value *hk_dropout(struct hk_value *x, float probability, struct hk_value *rng) {
    if (!x) return NULL;
    if (!(probability >= 0 && probability < 1))
        return hk_graph_fail(x->graph, HK_ERROR_INVALID,
                             "dropout: the probability is %g, it must be at least 0 and below 1", (double)probability);
    struct random_attrs attrs = {.kind = RANDOM_DROPOUT, .a = probability, .b = 1 / (1 - probability), .rank = x->rank};
    memcpy(attrs.shape, x->shape, sizeof attrs.shape);
    return build(&hk_op_dropout, rng, x, &attrs);
}
#endif
