/* Between the reductions' rows, their CPU kernel and their GPU side, and what others need of them: backward rules, and the op
   that is elementwise ops and a reduction in one. */
#ifndef HK_OP_REDUCE_H
#define HK_OP_REDUCE_H

#include "op/fused.h"
#include "op/written.h"

/* The last: the second level of argmax on the GPU. */
enum reduce_kind { REDUCE_SUM, REDUCE_MAX, REDUCE_ARGMAX, REDUCE_ARGMAX_PIECES };

struct reduce_attrs {
    enum reduce_kind kind;
    float scale; /* of the sum */
};

/* Kernels reduce [A, R, B] to [A, B]: pieces of the R rows, then, as a level of its own, the pieces, so that the order of
   additions is a matter of the shape alone and no sum has many terms. A piece of rows of B elements has REDUCE_PIECE elements
   or, where that is more, 256 rows. */
enum { REDUCE_PIECE = 16384 };

static inline int64_t piece_rows(int64_t columns) {
    int64_t width = 1;
    while (width < columns && width < 64) width *= 2;
    return REDUCE_PIECE / width;
}

static inline int64_t piece_count(int64_t rows, int64_t columns) {
    return HK_MAX((rows + piece_rows(columns) - 1) / piece_rows(columns), 1);
}

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
