/* Elementwise jobs on strided operands: what the op files of this family share on the GPU's side. */
#ifndef HK_OP_STRIDED_H
#define HK_OP_STRIDED_H

#include "op/gpu.h"

enum { HK_STRIDED_RANK = 5 }; /* dimensions that one dispatch of shaders/strided.glsl takes */

/* The operand as it broadcasts to the shape of another: aligned at the last dimension, stride 0 where it stretches. */
struct hk_operand hk_broadcast_operand(const struct hk_operand *operand, const struct hk_operand *to);

/* Row-major, without gaps and without memory. */
struct hk_operand hk_dense_operand(enum hk_dtype dtype, int rank, const int64_t *shape);

/* A value's or operand's inner part: the same memory with another first element, shape and strides of the same rank. */
struct hk_operand hk_part_of(const struct hk_operand *operand, const int64_t *begin, const int64_t *step,
                             const int64_t *shape);

/* Element i of the operand's outermost dimension. */
struct hk_operand hk_inner_operand(const struct hk_operand *operand, int64_t i);

/* Records a shader that includes strided.glsl over operands of one shape (operand 0 is the output), in as many
   dispatches as windows and ranks ask for. The shader's constants: 0 workgroup, 1 rank, 2 FOURS, then spec. Its push constants:
   those of strided.glsl, then extra. */
struct hk_strided_job {
    const char *shader;
    uint32_t spec[HK_MAX_SPEC - 3];
    int n_spec;
    uint32_t extra[6];
    int n_extra;
    bool rests;        /* each operand's hk_binding_rest follows in extra */
    bool by_words;     /* an invocation makes a word of operand 0, which must be dense or have rows of whole words */
    uint32_t per_item; /* elements that one invocation makes; 0: 1 */
    int64_t unit;      /* with FOURS: elements that one makes, 4 or 8 where some operand's have 16 bits; 0: never */
};
hk_status hk_record_strided(struct hk_recorder *recorder, const struct hk_strided_job *job,
                            const struct hk_operand *operands, int count);

/* to = from: one shape, any dtypes, any strides. */
hk_status hk_record_copy(struct hk_recorder *recorder, const struct hk_operand *to, const struct hk_operand *from);

/* Each element of a dense operand = the low bits of `bits`. */
hk_status hk_record_fill(struct hk_recorder *recorder, const struct hk_operand *to, uint32_t bits);

/* Elements of that many bytes that a window may hold: a multiple of 1024. */
int64_t hk_window_elements(const struct hk_recorder *recorder, size_t element_bytes);

/* Invocations of a workgroup of the elementwise kernels. */
enum { HK_ELEMENTWISE_GROUP = 256 };

#endif
