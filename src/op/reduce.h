/* What others need of reductions: backward rules, and the op that is elementwise ops and a reduction in one. */
#ifndef HK_OP_REDUCE_H
#define HK_OP_REDUCE_H

#include "op/fused.h"
#include "op/written.h"

/* x summed over the axes along which `like` was broadcast to x's shape; x itself where there are none. */
struct hk_value *hk_sum_to(struct hk_value *x, const struct hk_value *like);

/* Elementwise steps in a reduction's kernel on a GPU, which makes what it reduces where it would read it. */
struct hk_start {
    const struct hk_fused *steps;
    int last;   /* the output that is reduced */
    bool keeps; /* it is stored too: in the reduction's input */
    const struct hk_operand *operands; /* outputs, then inputs, all in one shape; `last`, unless it is kept, has no memory */
};

/* Whether a kernel that has `words` push constants and `bindings` already can start so. */
bool hk_start_fits(const struct hk_start *start, int words, int bindings, const struct hk_limits *limits);

/* Makes the kernel of a dispatch one that starts so: its text begins with the shader's. Adds constants, bindings and push
   constants. fours: the kernel loads four elements at a time. */
hk_status hk_start_add(const struct hk_start *start, bool fours, const struct hk_recorder *recorder, struct hk_written *text,
                       struct hk_dispatch *dispatch);

/* A step of a reduction. start: NULL, or what hk_reduce_starts says it can do. */
hk_status hk_reduce_record(const struct hk_step *step, const struct hk_start *start, struct hk_recorder *recorder);
bool hk_reduce_starts(const struct hk_step *step, const struct hk_start *start, const struct hk_limits *limits);

/* Bytes; the step needs no memory yet. */
uint64_t hk_reduce_scratch(const struct hk_step *step);

#endif
