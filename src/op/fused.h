/* Several elementwise calls as one: what src/graph/fuse.c makes of a group, and this op's kernels run. */
#ifndef HK_OP_FUSED_H
#define HK_OP_FUSED_H

#include "op/op.h"

enum { HK_FUSED_INPUTS = 7, HK_FUSED_OUTPUTS = 4, HK_FUSED_OPERANDS = 8, HK_FUSED_STEPS = 16 };

/* One call of the group. Values are numbered: the inputs of the whole, then the steps' results. */
struct hk_fused_step {
    const struct hk_op *op;
    uint32_t attrs; /* where the op's own attributes are, in bytes from the struct hk_fused */
    enum hk_dtype from, to;
    int n_inputs;
    int inputs[HK_CHUNK_INPUTS]; /* numbers of values */
    int output;                  /* of the whole, that the result is; -1: only later steps read it */
    int last;                    /* the last step that reads the result; itself where none does */
};

/* The op's attributes: steps in an order in which they can run, each of one shape; then the steps' own attributes. */
struct hk_fused {
    int n_inputs, n_outputs, n_steps;
    struct hk_fused_step steps[HK_FUSED_STEPS];
};

/* Words of push constants that a GPU's kernel needs, of HK_MAX_PUSH_BYTES / 4 that there are: for operands of which so many
   are neither dense nor one number, in so many dimensions of more than 1. */
int hk_fused_push_words(int rank, int n_operands, int n_strided);
hk_status hk_fused_gpu(const struct hk_step *step, struct hk_recorder *recorder);

/* Not in ops.def: nobody but src/graph/fuse.c calls it, with groups that it has made. */
extern const struct hk_op hk_op_fused;

#endif
