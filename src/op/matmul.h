/* Between the rows of matmul and matmul_i8 and their GPU sides. */
#ifndef HK_OP_MATMUL_H
#define HK_OP_MATMUL_H

#include "op/op.h"

hk_status hk_matmul_gpu(const struct hk_step *step, struct hk_recorder *recorder);
uint64_t hk_matmul_scratch(const struct hk_call *call, const struct hk_limits *limits);
struct hk_cost hk_matmul_cost(const struct hk_step *step);

/* A product that fits the device's bindings: a [outer, inner, M, K], b [outer, inner, K, N], c [outer, inner, M, N], each as it
   lies; offsets are of these. */
struct hk_matmul_piece {
    struct hk_operand a, b, c;
    bool accumulate; /* adds to what c holds: a window of k after the first */
};

/* Calls piece() for products that make up the step's, one after the other. */
hk_status hk_matmul_for_pieces(const struct hk_step *step, const struct hk_limits *limits,
                               hk_status (*piece)(const struct hk_matmul_piece *piece, void *context), void *context);

hk_status hk_matmul_i8_gpu(const struct hk_step *step, struct hk_recorder *recorder);

#endif
