/* What others need of reductions: backward rules, and the op that is elementwise ops and a reduction in one. */
#ifndef HK_OP_REDUCE_H
#define HK_OP_REDUCE_H

#include "op/op.h"

/* x summed over the axes along which `like` was broadcast to x's shape; x itself where there are none. */
struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like);

uint64_t hk_reduce_scratch(const struct hk_call *call, const struct hk_limits *limits);

#endif
