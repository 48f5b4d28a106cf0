/* Between matmul's row and its GPU side. */
#ifndef HK_OP_MATMUL_H
#define HK_OP_MATMUL_H

#include "op/op.h"

hk_status hk_matmul_gpu(const struct hk_step *step, struct hk_recorder *recorder);
uint64_t hk_matmul_scratch(const struct hk_call *call, const struct hk_limits *limits);

#endif
