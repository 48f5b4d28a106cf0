/* What other op files need of shapes and copies. */
#ifndef HK_OP_SHAPE_H
#define HK_OP_SHAPE_H

#include "op/op.h"

/* Attributes of hk_op_slice, none of them negative, begin <= end <= the axis's size. */
struct slice_attrs {
    int axis;
    int64_t begin, end, step;
};

/* The shape that a and b broadcast to (HK_MAX_RANK sizes); its rank, or -1 where they do not. */
int hk_broadcast_shape(const struct hk_value *a, const struct hk_value *b, int64_t *shape);

/* x with its dimensions as they lie in memory, outermost first, and that order; NULL: it is not dense then. */
struct hk_value *hk_in_memory_order(struct hk_value *x, struct hk_axes *order);
/* The order that undoes one, for hk_permute. */
struct hk_axes hk_inverse(struct hk_axes order);

#endif
