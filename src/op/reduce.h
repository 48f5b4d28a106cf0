/* What backward rules need of reductions. */
#ifndef HK_OP_REDUCE_H
#define HK_OP_REDUCE_H

#include "graph/graph.h"

/* x summed over the axes along which `like` was broadcast to x's shape; x itself where there are none. */
struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like);

#endif
