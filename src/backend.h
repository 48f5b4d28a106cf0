/* The seam between graphs and hardware: one function table, and the one struct that says "run this kernel". */
#ifndef HK_BACKEND_H
#define HK_BACKEND_H

#include "base/base.h"
#include <hekla/tensor.h>

struct hk_op;
struct hk_tunings;
struct hk_program_info;

/* Device memory. Backends extend it; host is where the CPU sees it, NULL where it does not. */
struct hk_buffer {
    uint64_t bytes;
    void *host;
};

/* One tensor as kernels see it. */
struct hk_operand {
    struct hk_buffer *buffer;
    uint64_t offset; /* bytes from the buffer's start to the first element */
    enum hk_dtype dtype;
    int rank;
    int64_t shape[HK_MAX_RANK];
    int64_t stride[HK_MAX_RANK]; /* in elements; 0 where broadcast */
};

/* One op of a program, its memory decided. */
struct hk_step {
    const struct hk_op *op;
    const void *attrs; /* the op's own struct */
    int n_inputs, n_outputs;
    const struct hk_operand *inputs;
    const struct hk_operand *outputs;
    struct hk_operand scratch; /* u8 [scratch bytes], 256-byte aligned; buffer NULL where the op needs none */
};

/* A product that a subgroup makes at once: c f32 [m, n] += a [m, k] b [k, n], both of this dtype. Or a whole workgroup of so
   many invocations: of any sizes that are multiples of these. */
struct hk_cooperative {
    enum hk_dtype dtype;
    uint32_t m, n, k;
    uint32_t invocations; /* 0: a subgroup's */
};
#define HK_MAX_COOPERATIVE 24

/* What an op may ask of a GPU. */
struct hk_limits {
    uint64_t max_range;      /* bytes one binding may cover */
    uint32_t offset_align;   /* a binding begins at a multiple of this (the backend sees to it; see hk_binding) */
    uint32_t max_invocations, shared_memory, subgroup_size;
    uint32_t max_groups;     /* per dimension; at least 65535 */
    uint32_t processors;     /* rough number of compute units, at least 1 */
    uint32_t registers;      /* rough number of 32-bit ones that an invocation may have: with more the driver spills, or little is
                                at work at once */
    bool amd;                /* the vendor, of which tables of kernels know more than can be measured here */
    bool float16, storage16;
    struct hk_cooperative cooperative[HK_MAX_COOPERATIVE]; /* those there are ... */
    int n_cooperative;
    bool (*writes_matrices)(enum hk_dtype dtype); /* whether kernels with those of a subgroup can be written at run time, which
                                                     takes a while to find out; NULL: none */
    uint32_t cooperative_subgroup; /* ... the subgroup size that kernels with a subgroup's ask for ... */
    uint32_t cooperative_largest;  /* ... and the most of m, n and k that a workgroup's may have */
    bool software;           /* a driver that runs on the processor: shared memory and barriers cost more than reading twice */
};

enum { HK_READ = 1, HK_WRITE = 2 };

#define HK_MAX_BINDINGS 8
#define HK_MAX_PUSH_BYTES 128
#define HK_MAX_SPEC 20

/* A range of a buffer bound to a shader, as `layout(set = 0, binding = i) buffer`. offset is a multiple of 4; the backend
   rounds the binding down to what the device allows and adds the difference, in 4-byte words, to push word
   `push_word` of the dispatch (so kernels index with a base that they read from there). */
struct hk_binding {
    struct hk_buffer *buffer;
    uint64_t offset, bytes;
    int access;    /* HK_READ | HK_WRITE */
    int push_word; /* index of a uint in the push constants */
};

/* One kernel launch: shader (the file's name without .comp), specialization constants 0.., push constants, buffers, groups. */
struct hk_dispatch {
    const char *shader;
    const char *source; /* its text where the op has written it, read when the launch is recorded; NULL: one of shaders/ */
    uint32_t spec[HK_MAX_SPEC];
    int n_spec;
    uint32_t subgroup_size; /* 0: the driver's choice; else this size, all of them full */
    unsigned char push[HK_MAX_PUSH_BYTES];
    uint32_t push_bytes;
    struct hk_binding bindings[HK_MAX_BINDINGS];
    int n_bindings;
    uint32_t groups[3];
    double flops, bytes; /* what it costs, for bounded submissions and traces; 0: the step's share */
};

/* Kernels that can do the same work, of which a backend may know the fastest. */
#define HK_MAX_KERNELS 32
struct hk_choice {
    char work[HK_TUNING_WORK]; /* op, dtypes, layout, sizes: all that a kernel's time follows from */
    int count;
    int standard;              /* the one that is taken where nothing was measured */
    char names[HK_MAX_KERNELS][HK_TUNING_KERNEL]; /* they differ, and mean the same from version to version */
};

/* Where an op's gpu function puts its launches. */
struct hk_recorder {
    const struct hk_limits *limits;
    hk_status (*record)(struct hk_recorder *recorder, const struct hk_dispatch *dispatch);
    int (*choose)(struct hk_recorder *recorder, const struct hk_choice *choice); /* NULL: the standard kernel */
};

/* What a backend is given to make a program of. The arrays are the caller's and live until program_create returns. */
struct hk_plan {
    const char *name;
    const struct hk_step *steps;
    int n_steps;
};

struct hk_backend_program; /* the backend's own */

struct hk_device; /* starts with struct hk_device_base */

struct hk_backend {
    const char *name;
    void (*close)(struct hk_device *device);
    hk_status (*wait)(struct hk_device *device);
    /* Zeroed memory, aligned to 256 bytes or more. */
    hk_status (*buffer_create)(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer);
    /* The same for what lives within a run of a program: it may hold anything, so no time goes into making it zero. */
    hk_status (*arena_create)(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer);
    /* The device may still use it: freed when it does not. */
    void (*buffer_destroy)(struct hk_device *device, struct hk_buffer *buffer);
    /* Ordered after all work submitted before. data is free when the call returns. */
    hk_status (*write)(struct hk_device *device, struct hk_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes);
    hk_status (*read)(struct hk_device *device, struct hk_buffer *buffer, uint64_t offset, void *data, uint64_t bytes);
    /* Every byte of the buffer becomes 0xff, after all work submitted before. */
    hk_status (*poison)(struct hk_device *device, struct hk_buffer *buffer);
    /* Fills dispatches, barriers and submits of info. */
    hk_status (*program_create)(struct hk_device *device, const struct hk_plan *plan, struct hk_program_info *info,
                                struct hk_backend_program **program);
    hk_status (*program_run)(struct hk_device *device, struct hk_backend_program *program);
    void (*program_destroy)(struct hk_device *device, struct hk_backend_program *program);
    void (*stats)(struct hk_device *device, struct hk_stats *stats);
    hk_status (*write_trace)(struct hk_device *device, const char *path);
};

/* Which elementwise ops a device runs several of at once: those with a chunk function, or with a part in GLSL. */
enum hk_fusing { HK_FUSE_NOTHING, HK_FUSE_CHUNKS, HK_FUSE_GLSL };

/* The part of a device that src/graph reads. */
struct hk_device_base {
    const struct hk_backend *backend;
    struct hk_device_info info;
    const struct hk_limits *limits; /* of a GPU; NULL: this is the CPU */
    uint64_t memory_limit; /* 0: none */
    enum hk_fusing fusing; /* nothing with HEKLA_UNFUSED=1, for tests and comparisons */
    struct hk_tunings *tunings; /* what was measured (graph/tuning.h); NULL where kernels leave no choice */
    bool poison;           /* programs fill their memory with NaN before they run: HEKLA_POISON=1, for tests */
};

/* Implemented by src/cpu and src/vulkan, called by src/graph/device.c alone. params->name has been read already. */
hk_status hk_cpu_open(const struct hk_device_params *params, struct hk_device **device);
void hk_cpu_describe(struct hk_device_info *info);
hk_status hk_vulkan_open(const struct hk_device_params *params, int index, struct hk_device **device);
/* As hk_device_list, Vulkan devices only; 0 of them where there is no loader or no driver. */
hk_status hk_vulkan_list(struct hk_device_info *infos, int capacity, int *count);

#endif
