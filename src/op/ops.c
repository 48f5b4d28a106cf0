/* The table of all ops. */
#include "op/op.h"

#ifndef HK_ISA_NAME
const struct hk_op *const hk_ops[] = {
#define HK_OP(name) &hk_op_##name,
#include "op/ops.def"
#undef HK_OP
    NULL,
};
const int hk_ops_count = (int)HK_LENGTH(hk_ops) - 1;
#endif
