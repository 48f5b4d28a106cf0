/* What backward rules need of broadcasting and reductions. */
#ifndef HK_OP_REDUCE_H
#define HK_OP_REDUCE_H

#include "graph/graph.h"

/* The shape that a and b broadcast to (at most HK_MAX_RANK sizes); its rank, or -1 where they do not. */
int hk_broadcast_shape(const struct hk_value *a, const struct hk_value *b, int64_t *shape);

/* x summed over the axes along which `like` was broadcast to x's shape; x itself where there are none. */
struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like);

#endif
