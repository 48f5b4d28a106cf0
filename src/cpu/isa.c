#include "cpu/isa.h"
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
/* CPUID's leaf 7: features (Intel, "Software Developer's Manual", volume 2, CPUID). */
struct leaf {
    unsigned eax, ebx, ecx, edx;
};
static struct leaf leaf_7(unsigned part) {
    struct leaf l = {0};
    if (!__get_cpuid_count(7, part, &l.eax, &l.ebx, &l.ecx, &l.edx)) return (struct leaf){0};
    return l;
}

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* AVX512_BF16, and AVX512_VNNI, which products of i8 are made by: there is no processor with the former alone. */
static bool has_avx512bf16(void) { return has_avx512() && leaf_7(1).eax >> 5 & 1 && leaf_7(0).ecx >> 11 & 1; }

/* Linux gives the tiles' 8 KiB of state to processes that ask (its Documentation/arch/x86/xstate.rst). */
static bool may_use_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

static bool has_amx(void) {
    const unsigned edx = leaf_7(0).edx;
    return has_avx512bf16() && edx >> 22 & 1 && edx >> 24 & 1 && may_use_tiles(); /* AMX-BF16, AMX-TILE */
}

/* Intel's processors start one vdpbf16ps in two cycles, AMD's one or two in each: on the former f32 is faster (measured
   on Sapphire Rapids, a core: 88 GFLOP/s by vdpbf16ps, 176 in f32, 2730 by AMX). */
static bool has_fast_avx512bf16(void) { return has_avx512bf16() && !__builtin_cpu_is("intel"); }
#endif

/* has: the processor has it. fast: and it is faster than the sets before it (NULL: always). */
static const struct {
    const char *name;
    bool (*has)(void), (*fast)(void);
} sets[HK_ISA_COUNT] = {
    [HK_ISA_BASE] = {"base", NULL, NULL},
#if defined(__x86_64__)
    [HK_ISA_AVX2] = {"avx2", has_avx2, NULL},
    [HK_ISA_AVX512] = {"avx512", has_avx512, NULL},
    [HK_ISA_AVX512BF16] = {"avx512bf16", has_avx512bf16, has_fast_avx512bf16},
    [HK_ISA_AMX] = {"amx", has_amx, NULL},
#endif
};

const char *isa_name(enum hk_isa isa) { return sets[isa].name; }

enum hk_isa isa_find(void) {
    const char *wanted = getenv("HEKLA_ISA");
    int named = -1;
    for (int i = 0; wanted && i < HK_ISA_COUNT; i++)
        if (sets[i].name && !strcmp(wanted, sets[i].name)) named = i;
    for (int i = named >= 0 ? named : HK_ISA_COUNT - 1; i > HK_ISA_BASE; i--)
        if (sets[i].has && sets[i].has() && (i == named || !sets[i].fast || sets[i].fast())) return (enum hk_isa)i;
    return HK_ISA_BASE;
}

hk_cpu_kernel *isa_kernel(const struct hk_op *op, enum hk_isa isa) {
    while (isa > HK_ISA_AVX512 && !op->cpu[isa]) isa--;
    return op->cpu[isa];
}
