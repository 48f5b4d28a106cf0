/* Between attention's rows, its CPU kernels and its GPU side. */
#ifndef HK_OP_ATTENTION_H
#define HK_OP_ATTENTION_H

#include "op/op.h"

struct attention_attrs {
    int32_t causal;
    float scale;
};

#define ATTENTION_MAX_DEPTH 256 /* D */
#define ATTENTION_CPU_KEYS 256  /* that the CPU's kernels take at once */

/* The order of the operands. */
enum { ATTENTION_Q, ATTENTION_K, ATTENTION_V, ATTENTION_POSITION, ATTENTION_OUT = 0, ATTENTION_LSE };
enum { BACKWARD_OUT = 3, BACKWARD_LSE, BACKWARD_DOUT, BACKWARD_DQ = 0, BACKWARD_DK, BACKWARD_DV };

hk_status hk_attention_gpu(const struct hk_step *step, struct hk_recorder *recorder);
uint64_t hk_attention_scratch(const struct hk_call *call, const struct hk_limits *limits);
hk_status hk_attention_backward_gpu(const struct hk_step *step, struct hk_recorder *recorder);

#endif
