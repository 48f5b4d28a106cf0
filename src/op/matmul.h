/* Between the rows of matmul and matmul_i8 and their GPU sides. */
#ifndef HK_OP_MATMUL_H
#define HK_OP_MATMUL_H

#include "op/fused.h"
#include "op/written.h"

/* Elementwise steps on the sums of a product c [..., columns], which its kernel runs on those it has just made. */
struct hk_finish {
    const struct hk_fused *steps;
    bool keeps; /* the sums are stored too */
    int64_t columns;
    const struct hk_operand *operands; /* the steps' outputs, then their inputs but the sums, all in one shape, c's or another of
                                          as many elements */
    bool fours; /* they can be read and written four elements at once */
};
enum { HK_FINISH_OPERANDS = 4 };

/* Makes the kernel of a dispatch one that finishes so: its text begins with the shader's, in which `define`, unless NULL, is
   defined. Adds constants and bindings, and bases from a push word on. fours: the text has finish_four, too. */
hk_status hk_finish_add(const struct hk_finish *finish, const char *define, bool fours, int push_word, struct hk_written *text,
                        struct hk_dispatch *dispatch);

/* A step of matmul. finish: NULL, or what hk_matmul_finishes says it can do. */
hk_status hk_matmul_record(const struct hk_step *step, const struct hk_finish *finish, struct hk_recorder *recorder);
bool hk_matmul_finishes(const struct hk_step *step, const struct hk_finish *finish, const struct hk_limits *limits);

hk_status hk_matmul_gpu(const struct hk_step *step, struct hk_recorder *recorder);
/* Bytes; the step needs no memory yet. */
uint64_t hk_matmul_scratch(const struct hk_step *step, const struct hk_limits *limits);
struct hk_cost hk_matmul_cost(const struct hk_step *step);

/* Push constants of the kernels of all products, in the order of shaders/matmul_push.glsl. */
struct hk_matmul_push {
    uint32_t base_a, base_b, base_c, base_bias;
    uint32_t rest_a, rest_b;
    uint32_t m, n, k;
    uint32_t a_row, a_column, b_row, b_column, c_row;
    uint32_t a_outer, a_inner, b_outer, b_inner, c_outer, c_inner;
    uint32_t inner;
    uint32_t tiles_m, tiles_n, groups;
    uint32_t after[HK_FINISH_OPERANDS];
};

static inline int64_t hk_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Sets what depends on the tiles of c that a workgroup makes. */
static inline void hk_matmul_tile(struct hk_matmul_push *push, int64_t tile_m, int64_t tile_n, int64_t batch_items) {
    push->tiles_m = (uint32_t)hk_divide_up(push->m, tile_m);
    push->tiles_n = (uint32_t)hk_divide_up(push->n, tile_n);
    push->groups = push->tiles_m * push->tiles_n * (uint32_t)batch_items;
}

/* A product that fits the device's bindings: a [outer, inner, M, K], b [outer, inner, K, N], c [outer, inner, M, N], each as it
   lies; offsets are of these. */
struct hk_matmul_piece {
    struct hk_operand a, b, c;
    struct hk_matmul_push push; /* but for the tiles */
    bool accumulate; /* adds to what c holds: a window of k after the first */
};

/* Calls piece() for products that make up the step's, one after the other. */
hk_status hk_matmul_for_pieces(const struct hk_step *step, const struct hk_limits *limits,
                               hk_status (*piece)(const struct hk_matmul_piece *piece, void *context), void *context);

hk_status hk_matmul_i8_gpu(const struct hk_step *step, struct hk_recorder *recorder);

#endif
