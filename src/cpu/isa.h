/* Which of the instruction sets that kernels are compiled for this processor has. */
#ifndef HK_CPU_ISA_H
#define HK_CPU_ISA_H

#include "op/op.h"

/* The fastest set, or the one that HEKLA_ISA names, if it is there, or else the best below that. */
enum hk_isa isa_find(void);

/* As HEKLA_ISA and hk_device_info.driver have it. */
const char *isa_name(enum hk_isa isa);

/* Of the set, or AVX-512's where the op has none for a set that adds to it. */
hk_cpu_kernel *isa_kernel(const struct hk_op *op, enum hk_isa isa);

#endif
