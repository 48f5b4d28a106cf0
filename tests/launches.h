/* What ops record for a GPU that is not there, by limits of a test's own, and what holds of it whatever kernel is chosen.
   Nothing runs: the checks know, from shaders/, what a kernel does with its constants, push constants and bindings. */
#ifndef HK_TESTS_LAUNCHES_H
#define HK_TESTS_LAUNCHES_H

#include "op/op.h"

enum { LAUNCH_OPERANDS = 8 };

struct launches {
    struct hk_recorder recorder; /* first */
    const struct hk_call *call;
    struct hk_operand in[LAUNCH_OPERANDS], out[LAUNCH_OPERANDS];
    struct hk_buffer memory[2 * LAUNCH_OPERANDS], scratch; /* each operand has a buffer of its own */
    uint64_t scratch_bytes;  /* that the op has asked for */
    int take;                /* which kernel, where there is a choice of so many; -1: the standard one */
    struct hk_choice choice; /* the last one */
    int most_kernels;        /* of all choices */
    struct hk_dispatch *items;
    int count, capacity;
};

/* What the call records on such a device. The limits must live as long. */
void launches_record(struct launches *l, const struct hk_call *call, const struct hk_limits *limits, int take);
void launches_free(struct launches *l);

/* Of any op: bindings within the operands' memory, the scratch memory that was asked for and the range that a binding may have,
   workgroups within the limits, and all constants that the shader's text declares. */
void launches_check(const struct launches *l);
void launches_check_matmul(const struct launches *l);    /* and those above; launches_matmul.c */
void launches_check_attention(const struct launches *l); /* forward or backward; launches_attention.c */

/* ---- For the checks ---- */

void launches_fail(const struct launches *l, const struct hk_dispatch *d, const char *condition, int line);
#define LAUNCH_REQUIRE(l, d, condition)                                          \
    do {                                                                         \
        if (!(condition)) launches_fail((l), (d), #condition, __LINE__);         \
    } while (0)

/* An operand as a kernel finds it. */
struct launch_side {
    const struct hk_operand *operand;
    int64_t first; /* the element of the operand that the kernel takes as its first; scratch memory counts in f32 */
    int64_t index; /* its index in the bound range, as the kernel counts */
    int64_t limit; /* where the range ends, in elements */
};
struct launch_side launch_side(const struct launches *l, const struct hk_dispatch *d, int binding,
                               const struct hk_operand *operand, uint32_t rest);
/* The push constant of that number. */
uint32_t launch_word(const struct hk_dispatch *d, int word);
bool launch_is(const struct hk_dispatch *d, const char *shader); /* or its variant for bf16 */
/* All workgroups are there, and fewer than a row of the grid besides. */
void launch_check_groups(const struct launches *l, const struct hk_dispatch *d, uint64_t count);
/* Matrices of a subgroup (invocations 0), exactly so large, or of a workgroup, of which the sizes are multiples. */
bool launch_has_matrix(const struct launches *l, enum hk_dtype dtype, uint32_t invocations, uint32_t m, uint32_t n,
                       uint32_t k);

#endif
