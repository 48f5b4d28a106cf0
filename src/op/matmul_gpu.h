/* A product of matrices as GPUs' kernels make it, between matmul_pieces.c, which cuts it until it fits, matmul_choice.c, which
   picks its kernel, and matmul_gpu.c, which records that. */
#ifndef HK_OP_MATMUL_GPU_H
#define HK_OP_MATMUL_GPU_H

#include "op/gpu.h"
#include "op/matmul.h"

/* ---- Products and pieces of them ---- */

/* The dimensions of a product, and who has them: a [batch, M, K], b [batch, K, N], c [batch, M, N], bias [N]. */
enum { M, N, K, BATCH, AXES = BATCH + HK_MAX_RANK - 2 };
enum { A, B, C, BIAS, SIDES };

struct product_side {
    const struct hk_operand *operand;
    uint64_t offset;      /* bytes from the operand's first element */
    int64_t stride[AXES]; /* elements; 0 where the operand has no such dimension, or is broadcast */
};

struct product {
    int64_t size[AXES];
    int batch_rank;
    struct product_side side[SIDES];
    bool bias, accumulate;
    const struct hk_operand *scratch; /* f32: products of parts of k, until they are added */
    const struct hk_finish *finish;   /* what its kernel does with the sums; NULL: stores them */
};

/* That of a step of matmul or matmul_i8. */
struct product hk_product_of(const struct hk_step *step);

/* Calls piece() for products that make it up, one after the other: their operands fit the device's bindings, and their batch
   has at most two dimensions. For one of no elements or terms there are none. */
hk_status hk_product_for_pieces(const struct product *p, const struct hk_limits *limits,
                                hk_status (*piece)(const struct product *p, void *context), void *context);

/* What follows is of such pieces. */

struct hk_matmul_push hk_product_push(const struct product *p); /* but for the tiles */
int64_t hk_product_items(const struct product *p);              /* of the batch */
uint64_t hk_product_span(const struct product *p, int side);    /* bytes from the first element to the end of the last one */

/* The axis of an operand along which its elements lie side by side. */
int hk_product_dense(const struct product *p, int side);
/* Where the side's rows (along that axis) and batch items begin and end, and so does its memory, is a multiple of so many
   bytes. */
bool hk_product_aligned(const struct product *p, int side, int dense, uint64_t bytes);
/* Whether the product's four neighbouring results, and what is beside them, are read and written at once. */
bool hk_product_fours(const struct product *p);

/* ---- Choosing a kernel ---- */

struct product_kernel {
    const char *shader, *bf16; /* bf16: the shader for operands of that dtype, where that is another */
    enum {
        PLAIN,
        SOFTWARE,    /* a device that is a processor in disguise; for those only */
        COOPERATIVE, /* matrices of subgroups */
        WORKGROUP    /* and of whole workgroups */
    } needs;
    int64_t most_m; /* rows of c; 0: any */
    bool fill;      /* only where there are enough tiles for all processors */
    int64_t tile_m, tile_n;
    uint32_t invocations; /* 0: the subgroup's size, and tile_n columns for each of them; COOPERATIVE: subgroups */
    uint32_t spec[5];     /* constants behind those of all kernels; COOPERATIVE: BM, BN, BK, WM, WN; WORKGROUP: BM, BN, BK */
    uint32_t registers;   /* that an invocation must have (see struct hk_limits) */
    bool ahead;           /* matmul: reads ahead */
};

/* Where the tiles of c are too few for all processors, k is cut into parts, each of them one more item of the batch, whose
   products [parts, batch, M, N] matmul_parts adds. */
struct product_way {
    const struct product_kernel *kernel;
    int64_t parts;
};

struct product_way hk_product_choose(const struct product *p, struct hk_recorder *recorder);
/* The largest cooperative matrices that the operands' dtype has and the kernel's tiles are made of; NULL: none. */
const struct hk_cooperative *hk_product_matrix(const struct product *p, const struct product_kernel *kernel,
                                               const struct hk_limits *limits);

#endif
