/* How ops fill a struct hk_dispatch. Rules that all shaders follow are in shaders/common.glsl. */
#ifndef HK_OP_GPU_H
#define HK_OP_GPU_H

#include "op/op.h"
#include <assert.h>
#include <string.h>

/* Bytes from an operand's first element to the end of its last one, by its strides. */
uint64_t hk_operand_span(const struct hk_operand *operand);

/* Binds the next slot of the dispatch to the operand's span; push_word is the index of the push-constant uint that holds its
   base, in 4-byte words. (For 16- and 8-bit dtypes the offset may be no multiple of 4: the rest, in elements, is the caller's
   to add; hk_binding_rest gives it.) */
void hk_bind(struct hk_dispatch *dispatch, const struct hk_operand *operand, int access, int push_word);
/* The same for a window: bytes from byte `first` after the operand's first element. */
void hk_bind_range(struct hk_dispatch *dispatch, const struct hk_operand *operand, uint64_t first, uint64_t bytes, int access,
                   int push_word);
uint32_t hk_binding_rest(const struct hk_operand *operand);

/* Whether the base that the kernel gets is a multiple of four words, so that it may read and write four at once. */
bool hk_binds_fours(const struct hk_limits *limits, const struct hk_operand *operand);
/* The same, and whether its last dimension is dense and its other strides are whole units of so many elements. */
bool hk_binds_units(const struct hk_recorder *recorder, const struct hk_operand *operand, int64_t unit);

/* Sets the groups for `count` workgroups on a grid whose x is at most the device's limit: shaders take
   gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x and leave when it is >= their count. */
void hk_groups(const struct hk_recorder *recorder, struct hk_dispatch *dispatch, uint64_t count);

/* Adds a kernel that can do the work to a choice, named by its shader and constants: "matmul 64x64x16x4x4". */
void hk_choice_add(struct hk_choice *choice, const char *shader, const uint32_t *constants, int count, bool standard);

/* Copies a push-constant struct whose size is a multiple of 4 and at most HK_MAX_PUSH_BYTES. */
#define HK_PUSH(dispatch, value) \
    do { \
        static_assert(sizeof(value) <= HK_MAX_PUSH_BYTES && sizeof(value) % 4 == 0, "push constants"); \
        memcpy((dispatch)->push, &(value), sizeof(value)); \
        (dispatch)->push_bytes = sizeof(value); \
    } while (0)

/* Splits an elementwise job whose operands (outputs first or last, all of the same shape, strides 0 where broadcast) may be
   larger than max_range into pieces along one dimension, so that each operand's piece fits, and calls piece() for each with
   the operands narrowed. Also merges dimensions that all operands have in one run, and drops those of size 1. */
hk_status hk_for_pieces(const struct hk_recorder *recorder, const struct hk_operand *operands, int count,
                        hk_status (*piece)(void *context, const struct hk_operand *operands), void *context);

#endif
