/* Between matmul's CPU kernel and that of matmul and elementwise ops in one. */
#ifndef HK_OP_MATMUL_CPU_H
#define HK_OP_MATMUL_CPU_H

#include "op/fused_cpu.h"

#define matmul_run CPU_NAME(matmul_run)

/* All of a step of matmul. then, if not NULL, runs on each part of the result when it is there. */
void matmul_run(const struct hk_step *step, const struct cpu *cpu, const struct fused_job *then);

#endif
