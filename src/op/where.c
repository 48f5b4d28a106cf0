/* where: a choice between two values by an i32 condition, all three broadcast. */
#include "op/op.h"
#include "op/strided.h"
#include "op/written.h"

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

CPU_CHUNK(where) {
    const int32_t *condition = in[0];
    const uint32_t *a = in[1], *b = in[2];
    uint32_t *y = out;
    (void)chunk;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t mask = condition[i] ? UINT32_MAX : 0;
        y[i] = (a[i] & mask) | (b[i] & ~mask);
    }
}

CPU_KERNEL(where) { cpu_elementwise(cpu, step, CPU_NAME(cpu_where_chunk)); }

#else
#include "op/reduce.h"
#include "op/shape.h"

CPU_DECLARE(where);
CPU_DECLARE_CHUNK(where);

static bool infer(struct hk_call *call) {
    const struct hk_value *c = call->inputs[0], *a = call->inputs[1], *b = call->inputs[2];
    struct hk_value both = {0};
    int64_t shape[HK_MAX_RANK];
    if (c->dtype != HK_I32 || a->dtype != b->dtype || (a->dtype != HK_F32 && a->dtype != HK_I32))
        return hk_graph_fail(call->graph, HK_ERROR_INVALID,
                             "where: the condition must be i32, a and b both f32 or both i32: they are %s, %s, %s",
                             hk_dtype_name(c->dtype), hk_dtype_name(a->dtype), hk_dtype_name(b->dtype));
    both.rank = hk_broadcast_shape(a, b, both.shape);
    const int rank = both.rank < 0 ? -1 : hk_broadcast_shape(c, &both, shape);
    if (rank < 0)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID,
                             "where: shapes do not broadcast: condition is %s, a is %s, b is %s", hk_shape_text(c),
                             hk_shape_text(a), hk_shape_text(b));
    hk_infer_output(call, 0, a->dtype, rank, shape);
    return true;
}

static void backward(struct hk_backward *b) {
    struct hk_value *condition = b->call->inputs[0], *dy = b->grads[0];
    struct hk_value *zero = hk_fill(b->call->graph, HK_F32, HK_SCALAR, 0);
    if (b->needed[1]) b->results[1] = hk_sum_to(hk_where(condition, dy, zero), b->call->inputs[1]);
    if (b->needed[2]) b->results[2] = hk_sum_to(hk_where(condition, zero, dy), b->call->inputs[2]);
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct hk_operand operands[4] = {step->outputs[0]};
    for (int k = 0; k < 3; k++) operands[k + 1] = hk_broadcast_operand(&step->inputs[k], &step->outputs[0]);
    return hk_record_strided(recorder, &(struct hk_strided_job){.shader = "where", .unit = 4}, operands, 4);
}

static void glsl(const struct hk_chunk *chunk, const char *const *in, struct hk_written *written) {
    (void)chunk;
    hk_write(written, "%s != 0u ? %s : %s", in[0], in[1], in[2]);
}

const struct hk_op hk_op_where = {
    .name = "where",
    .min_inputs = 3,
    .max_inputs = 3,
    .n_outputs = 1,
    .flags = HK_OP_IN_PLACE,
    .infer = infer,
    .backward = backward,
    .cpu = CPU_KERNELS(where),
    .chunk = CPU_CHUNKS(where),
    .glsl = glsl,
    .gpu = gpu,
};

struct hk_value *hk_where(struct hk_value *condition, struct hk_value *a, struct hk_value *b) {
    return hk_call_op(NULL, &hk_op_where, (struct hk_value *[]){condition, a, b}, 3, NULL, 0);
}
#endif
