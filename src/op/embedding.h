/* The gradient of an embedding table, for autograd's use. */
#ifndef HK_OP_EMBEDDING_H
#define HK_OP_EMBEDDING_H

#include "graph/graph.h"

/* accumulate f32 [rows, C] (NULL: zeros) + the sum of dy [..., C] over the positions with index [...] = row. The result takes
   accumulate's memory where nobody else needs that, so adding two gradients of a table takes no second table. */
struct hk_value *hk_embedding_backward(struct hk_value *accumulate, struct hk_value *dy, struct hk_value *index, int64_t rows);

#endif
