/* The steps of a group on the CPU, on any run of elements: fused.c's own loop, and what other kernels call on what they have just
   made. */
#ifndef HK_OP_FUSED_CPU_H
#define HK_OP_FUSED_CPU_H

#include "cpu/loops.h"
#include "op/fused.h"

/* Functions of the instruction set that the including file is compiled for. */
#define fused_begin CPU_NAME(fused_begin)
#define fused_run CPU_NAME(fused_run)
#define fused_run_all CPU_NAME(fused_run_all)

struct fused_job {
    const struct hk_fused *fused;
    struct hk_operand operands[HK_FUSED_OPERANDS]; /* outputs, then inputs, in as few dimensions as they have */
    bool dense[HK_FUSED_OPERANDS], all_dense;
    int buffer[HK_FUSED_STEPS]; /* that a step's result is in; -1: it is in the output's own memory */
};

/* Of a step of hk_op_fused that has elements. */
struct fused_job fused_begin(const struct hk_step *step);

/* Elements [begin, end) of all outputs, in their order. Any number of threads at once, on other elements. An output of 4-byte
   elements may have no buffer: they then go to `apart`. */
void fused_run(const struct fused_job *job, int64_t begin, int64_t end, void *apart);

/* All of them, on all threads. */
void fused_run_all(const struct fused_job *job, const struct cpu *cpu, int64_t elements);

#endif
