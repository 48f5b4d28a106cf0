/* a i8 [batch..., M, K], b i8 [batch..., K, N] -> i32 [batch..., M, N], otherwise as matmul's, of which it is a part: hk_matmul
   makes it, and the CPU's kernel is the same (gemm_i8.c has the arithmetic). */
#ifndef HK_ISA_NAME
#include "op/matmul.h"

CPU_DECLARE_BF16(matmul);

/* -128 by -128 is 2^14, of which i32 holds 2^17 - 1. */
enum { MOST_K = (1 << 17) - 1 };

static bool infer(struct hk_call *call) {
    const struct hk_value *a = call->inputs[0], *b = call->inputs[1];
    const int64_t k = a->shape[a->rank - 1];
    int64_t shape[HK_MAX_RANK];
    if (k > MOST_K)
        return hk_graph_fail(call->graph, HK_ERROR_INVALID,
                             "matmul: the sum of %lld products of i8 may not fit an i32: %d are the most", (long long)k,
                             MOST_K);
    for (int i = 0; i < a->rank - 1; i++) shape[i] = a->shape[i];
    shape[a->rank - 1] = b->shape[b->rank - 1];
    hk_infer_output(call, 0, HK_I32, a->rank, shape);
    return true;
}

const struct hk_op hk_op_matmul_i8 = {
    .name = "matmul_i8",
    .min_inputs = 2,
    .max_inputs = 2,
    .n_outputs = 1,
    .infer = infer,
    .cost = hk_matmul_cost,
    .cpu = CPU_KERNELS_BF16(matmul),
    .gpu = hk_matmul_i8_gpu,
};
#endif
