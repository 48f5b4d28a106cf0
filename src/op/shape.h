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

#endif
