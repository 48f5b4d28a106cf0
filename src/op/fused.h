/* Several elementwise calls as one, or a call and elementwise ones on its result: what src/graph/fuse_call.c makes of a group,
   and kernels run. */
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

/* The attributes of an op that does another one first, whose inputs are the first ones: input 0 of the steps is its result, and
   the others are the inputs that follow. Outputs: the result, if it is kept, in its own dtype; then those of the steps. All but
   the first op's inputs are of one shape, which has the result's elements in their order. */
struct hk_followed {
    int n_inputs; /* of the first op */
    bool keeps;
    struct hk_fused steps;
};

/* The attributes of an op that another one ends, whose input is made by the steps for it: it has the elements of their shape in
   their order. Outputs: the last op's result, then those of the steps. What it reads is the steps' last output where it is not
   kept, which then is no output of the whole. */
struct hk_preceded {
    struct hk_shape shape, read; /* of the steps, and of the last op's input */
    uint32_t attrs;              /* where the last op's own attributes are, in bytes from here */
    int last;                    /* the steps' output that it reads */
    bool keeps;
    struct hk_fused steps;
};

bool hk_fused_fits(const struct hk_call *call, const struct hk_limits *limits);
hk_status hk_fused_gpu(const struct hk_step *step, struct hk_recorder *recorder);

/* Not in ops.def: nobody but src/graph/fuse_call.c calls them, with groups that it has made. */
extern const struct hk_op hk_op_fused, hk_op_fused_matmul, hk_op_fused_reduce;

#endif
