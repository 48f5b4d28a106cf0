/* Between the reductions' CPU kernel and that of elementwise ops and a reduction in one. */
#ifndef HK_OP_REDUCE_CPU_H
#define HK_OP_REDUCE_CPU_H

#include "op/fused_cpu.h"

#define reduce_run CPU_NAME(reduce_run)

/* All of a step of a reduction. first, if not NULL, makes its input part by part: in the input's memory or, where that has no
   buffer, in the workspace. */
void reduce_run(const struct hk_step *step, const struct cpu *cpu, const struct fused_job *first);

#endif
