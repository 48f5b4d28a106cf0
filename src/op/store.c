/* store: a value's elements into a tensor. */
#include "op/op.h"
#include "op/strided.h"

#ifdef HK_ISA_NAME
#include "cpu/loops.h"

CPU_KERNEL(store) { cpu_copy(cpu, &step->inputs[0], &step->inputs[1]); }

#else
CPU_DECLARE(store);

static bool infer(struct hk_call *call) {
    const struct hk_value *to = call->inputs[0], *from = call->inputs[1];
    if (to->dtype == from->dtype && hk_same_shape(to, from)) return true;
    return hk_graph_fail(call->graph, HK_ERROR_INVALID, "hk_store: the tensor is %s %s, but the value is %s %s",
                         hk_dtype_name(to->dtype), hk_shape_text(to), hk_dtype_name(from->dtype), hk_shape_text(from));
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    return hk_record_copy(recorder, &step->inputs[0], &step->inputs[1]);
}

const struct hk_op hk_op_store = {
    .name = "store",
    .min_inputs = 2,
    .max_inputs = 2,
    .flags = HK_OP_STORE,
    .writes = 1,
    .infer = infer,
    .cpu = CPU_KERNELS(store),
    .gpu = gpu,
};

/* The value is of the tensor's own memory, in other places: an element could be overwritten before it is read. */
static bool must_copy_first(const struct hk_value *to, const struct hk_value *from) {
    return from->root->storage == to->storage && !(from->root == to && from->offset == 0 && hk_is_dense(from));
}

void hk_store(struct hk_tensor *tensor, struct hk_value *value) {
    struct hk_graph *graph = hk_value_graph(value);
    if (!graph) {
        hk_fail(HK_ERROR_INVALID, "hk_store: the value is NULL");
        return;
    }
    struct hk_value *leaf = hk_leaf(graph, tensor);
    if (leaf && must_copy_first(leaf, value)) value = hk_call_op(graph, &hk_op_copy, &value, 1, NULL, 0);
    hk_call_op(graph, &hk_op_store, (struct hk_value *[]){leaf, value}, 2, NULL, 0);
}
#endif
