/* Ops: one const row each. A row is the whole truth about an op; nothing else in Hekla switches on which op it is. */
#ifndef HK_OP_OP_H
#define HK_OP_OP_H

#include "graph/graph.h"

struct cpu;        /* cpu/cpu.h */
struct hk_written; /* op/written.h */

typedef void hk_cpu_kernel(const struct hk_step *step, const struct cpu *cpu);

/* CPU kernels are compiled once per instruction set (cpu/simd.h); a row lists all of them, and the device picks one. The
   last two add products of bf16 and of i8 to AVX-512: ops without a kernel for them have that of AVX-512. */
enum hk_isa { HK_ISA_BASE, HK_ISA_AVX2, HK_ISA_AVX512, HK_ISA_AVX512BF16, HK_ISA_AMX, HK_ISA_COUNT };

/* An elementwise op on runs of dense elements: element i of the result is of element i of each input. */
struct hk_chunk {
    const void *attrs;
    int n_inputs;
    enum hk_dtype from, to; /* dtypes of the first input, and of the result */
};
enum { HK_CHUNK_INPUTS = 3 };

/* out may be one of the inputs where the elements have one size. */
typedef void hk_cpu_chunk(const struct hk_chunk *chunk, void *out, const void *const *in, int64_t n);

struct hk_cost {
    double flops, bytes; /* bytes 0: each operand once */
};

/* What a backward rule sees and says. grads[i] is the gradient of output i (NULL: none arrives). The rule sets
   results[i], the gradient of input i, NULL where there is none; needed[i] says whether anyone wants it. The values in
   `call` may be recomputed copies (checkpointing): use them, not ones remembered elsewhere. */
struct hk_backward {
    struct hk_call *call;
    struct hk_value *const *grads;
    struct hk_value **results;
    const bool *needed;
};

enum {
    HK_OP_VIEW = 1,     /* no kernel: the output sees the input's memory */
    HK_OP_IN_PLACE = 2, /* an output may take the memory of any input that is dense, of its size, and not needed after:
                           element i of the outputs depends on element i of that input alone */
    HK_OP_FIRST_IN_PLACE = 4, /* the same, for output 0 and input 0 only */
    HK_OP_REST_IN_PLACE = 64, /* the same as HK_OP_IN_PLACE, for all outputs but output 0 */
    HK_OP_STORE = 8,          /* the kernel copies input 1 to the tensor input 0: left out where input 1 can be computed
                                 right there */
    HK_OP_CHEAP = 16,         /* its gradient reads its inputs, which are kept therefore, and next to a product its work is
                                 small: gradients that need a large output 0 compute it again, so that it is not kept */
    HK_OP_CHEAP_TOO = 32,     /* the same where its input is such a large output, from which it costs even less */
};

struct hk_op {
    const char *name;
    int min_inputs, max_inputs, n_outputs; /* max_inputs -1: any number */
    uint32_t flags;
    uint32_t writes; /* bit i: input i is a tensor's leaf (or a view of it) that the op writes; such ops are never removed */
    /* Checks inputs and attrs, describes outputs; on false it has marked the graph. */
    bool (*infer)(struct hk_call *call);
    /* Bytes that the kernels need besides, on a GPU of these limits, or (NULL) on the CPU: asked when the device is known,
       any number of times. NULL: none. */
    uint64_t (*scratch)(const struct hk_call *call, const struct hk_limits *limits);
    void (*backward)(struct hk_backward *b);                          /* NULL: no gradient */
    /* Several gradients of one value, grads[which] made by this op, that are to be added: their sum in fewer passes over
       memory, or NULL where there is none. NULL: they are added one by one. */
    struct hk_value *(*merge)(struct hk_value *const *grads, int count, int which);
    struct hk_cost (*cost)(const struct hk_step *step);               /* NULL: one flop per output element */
    hk_cpu_kernel *cpu[HK_ISA_COUNT];
    /* The op that does this one and elementwise ones on its result as one (struct hk_followed); NULL: there is none. */
    const struct hk_op *followed;
    /* The op that does elementwise ones and, on what they make, this one as one (struct hk_preceded); NULL: there is none. */
    const struct hk_op *preceded;
    /* Of ops that stand for several: whether kernels can do this call, and gain by it, on a GPU of these limits or (NULL) on the
       CPU. NULL: any. */
    bool (*fits)(const struct hk_call *call, const struct hk_limits *limits);
    /* Elementwise ops, so that several can run as one (op/fused.h): their inputs broadcast to the output's shape, and its
       elements are the chunk function's. NULL: it is none. */
    hk_cpu_chunk *chunk[HK_ISA_COUNT];
    /* The same in GLSL: writes an expression of the result's bits, from the names of the inputs' bits, with the functions of
       a file of shaders/ (NULL: it needs none). */
    void (*glsl)(const struct hk_chunk *chunk, const char *const *in, struct hk_written *written);
    const char *glsl_file;
    hk_status (*gpu)(const struct hk_step *step, struct hk_recorder *recorder);
};

/* In an op file: CPU_KERNEL(softmax) { ... step, cpu ... } above, `.cpu = CPU_KERNELS(softmax)` in the row; with _BF16 for
   those that are compiled for the sets with products of bf16, too (cmake/Kernels.cmake lists them). CPU_CHUNK,
   CPU_DECLARE_CHUNK and CPU_CHUNKS are the same for chunk functions. */
#define HK_PASTE_(a, b) a##_##b
#define HK_PASTE(a, b) HK_PASTE_(a, b)
#if defined(HK_ISA_NAME) /* base, avx2, avx512, avx512bf16 or amx */
#define CPU_NAME(name) HK_PASTE(name, HK_ISA_NAME)
#define CPU_KERNEL(name) \
    void HK_PASTE(cpu_##name, HK_ISA_NAME)(const struct hk_step *step, const struct cpu *cpu); \
    void HK_PASTE(cpu_##name, HK_ISA_NAME)(const struct hk_step *step, const struct cpu *cpu)
#define CPU_CHUNK(name) \
    hk_cpu_chunk HK_PASTE(cpu_##name##_chunk, HK_ISA_NAME); \
    void HK_PASTE(cpu_##name##_chunk, HK_ISA_NAME)(const struct hk_chunk *chunk, void *out, const void *const *in, int64_t n)
enum {
    CPU_ISA_base = HK_ISA_BASE,
    CPU_ISA_avx2 = HK_ISA_AVX2,
    CPU_ISA_avx512 = HK_ISA_AVX512,
    CPU_ISA_avx512bf16 = HK_ISA_AVX512,
    CPU_ISA_amx = HK_ISA_AVX512
};
#define CPU_ISA HK_PASTE(CPU_ISA, HK_ISA_NAME) /* which of a row's chunk functions this set has */
#endif
#if defined(__x86_64__)
#define CPU_DECLARE(name) hk_cpu_kernel cpu_##name##_base, cpu_##name##_avx2, cpu_##name##_avx512
#define CPU_DECLARE_BF16(name) CPU_DECLARE(name); hk_cpu_kernel cpu_##name##_avx512bf16, cpu_##name##_amx
#define CPU_KERNELS(name) {cpu_##name##_base, cpu_##name##_avx2, cpu_##name##_avx512}
#define CPU_KERNELS_BF16(name)                                                                                         \
    {cpu_##name##_base, cpu_##name##_avx2, cpu_##name##_avx512, cpu_##name##_avx512bf16, cpu_##name##_amx}
#define CPU_DECLARE_CHUNK(name) hk_cpu_chunk cpu_##name##_chunk_base, cpu_##name##_chunk_avx2, cpu_##name##_chunk_avx512
#define CPU_CHUNKS(name) {cpu_##name##_chunk_base, cpu_##name##_chunk_avx2, cpu_##name##_chunk_avx512}
#else
#define CPU_DECLARE(name) hk_cpu_kernel cpu_##name##_base
#define CPU_DECLARE_BF16 CPU_DECLARE
#define CPU_KERNELS(name) {cpu_##name##_base}
#define CPU_KERNELS_BF16 CPU_KERNELS
#define CPU_DECLARE_CHUNK(name) hk_cpu_chunk cpu_##name##_chunk_base
#define CPU_CHUNKS(name) {cpu_##name##_chunk_base}
#endif

#define HK_OP(name) extern const struct hk_op hk_op_##name;
#include "op/ops.def"
#undef HK_OP

/* What the call's op says of scratch memory. */
static inline uint64_t hk_call_scratch(const struct hk_call *call, const struct hk_limits *limits) {
    return call->op->scratch ? call->op->scratch(call, limits) : 0;
}

/* All rows, in the order of ops.def. */
extern const struct hk_op *const hk_ops[];
extern const int hk_ops_count;

#endif
