/* Elementwise steps as GLSL: in a kernel of their own (fused_gpu.c), at the end of a product's (fused_matmul.c) and at the
   beginning of a reduction's (fused_reduce.c). The text depends on the steps and on how the operands lie, not on sizes, strides
   or the ops' numbers: those are push and specialization constants. */
#ifndef HK_OP_FUSED_GLSL_H
#define HK_OP_FUSED_GLSL_H

#include "op/fused.h"
#include "op/gpu.h"
#include "op/written.h"

/* How an operand lies: element i at word i, all elements at word 0, or by strides. */
enum lie { DENSE, ONE, STRIDED };
enum lie hk_lie_of(const struct hk_operand *operand);

/* Words of push constants that a kernel needs: for operands of which so many are neither dense nor one number, in so many
   dimensions of more than 1. */
int hk_fused_words(int rank, int n_operands, int n_strided);

/* Operands: all outputs, then all inputs, in one shape. The push constants w: the count of elements; sizes of dimensions but
   the outermost, innermost first, where an operand has strides; each operand's base; strides of those that have some. */
struct fused_kernel {
    const struct hk_fused *fused;
    int rank, n_operands, n_strided;
    enum lie lies[HK_FUSED_OPERANDS];
    bool small[HK_FUSED_OPERANDS];    /* 16-bit elements ... */
    uint32_t rest[HK_FUSED_OPERANDS]; /* ... and the first is the second one of its word */
    int unit;                         /* elements that are made at once, of which sizes and strides are then: 1, 4 or 8 */
    bool single[HK_FUSED_OPERANDS];   /* with units: all elements of one are the same */
    int base, strides, words;         /* of w: the first words of these, and all there are */
    int apart;                        /* the output that is no operand, in a kernel that reduces it; -1: none */
    int first_binding;
    struct hk_written body; /* functions and statements, whose constants begin at its first_constant */
};

/* One that makes units where all operands have runs of whole ones. Without a text yet. */
struct fused_kernel hk_fused_kernel(const struct hk_fused *fused, const struct hk_recorder *recorder,
                                    const struct hk_operand *operands);

/* The number of the value that an output is. */
int hk_fused_value(const struct hk_fused *fused, int output);

/* To the body. make(v0, v1 ..., r0, r1 ...): the steps' results for one element, for which it needs the steps alone. */
void hk_write_make(struct fused_kernel *kernel);
/* Statements that make the values v0, v1 ... of element i, and store the outputs: small ones in half `lane` of words h0, h1 ...
   Or of unit i, by make(), the results r0_0, r0_1 ..., r1_0 ... */
void hk_write_body(struct fused_kernel *kernel);

/* To the text around it: what the ops' GLSL needs; then the body's constants and the operands' bindings. */
void hk_write_includes(const struct fused_kernel *kernel, struct hk_written *text);
void hk_write_declarations(const struct fused_kernel *kernel, struct hk_written *text);

/* Makes the text that of the dispatch, and adds the body's constants. */
hk_status hk_fused_source(const struct fused_kernel *kernel, const char *name, const struct hk_written *text,
                          struct hk_dispatch *dispatch);
/* Adds w behind the push constants that there are, and the operands' bindings. */
void hk_fused_push(const struct fused_kernel *kernel, const struct hk_operand *operands, struct hk_dispatch *dispatch);

#endif
