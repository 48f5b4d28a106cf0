/* Devices: the CPU, and every GPU with a Vulkan 1.3 driver. */
#ifndef HEKLA_DEVICE_H
#define HEKLA_DEVICE_H

#include <hekla/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Owns queues, pools and caches of one piece of hardware. Any thread may call any function on a device; calls on one
   device take turns where they must. Destroy a device after all tensors and programs made on it. */
struct hk_device;

enum hk_device_kind { HK_DEVICE_CPU, HK_DEVICE_VULKAN };

struct hk_device_info {
    enum hk_device_kind kind;
    int index;                /* N in "vulkan:N"; 0 for the CPU */
    char name[256];           /* the driver's name for it, or the processor's */
    char driver[256];         /* driver name and version, or the instruction set in use ("avx512") */
    bool software;            /* a Vulkan driver that runs on the processor (lavapipe, SwiftShader) */
    bool unified_memory;      /* the host can map the memory that kernels use */
    uint64_t memory_total;    /* bytes */
    uint64_t memory_free;     /* bytes; an estimate where the driver has no memory budget */
    uint64_t max_binding;     /* bytes that one shader binding may cover (maxStorageBufferRange); larger tensors work */
    uint64_t max_buffer;      /* bytes of the largest single allocation */
    uint32_t api_version;     /* Vulkan's, encoded as Vulkan does; 0 for the CPU */
    uint32_t vendor_id, device_id;
    uint32_t subgroup_size;
    uint32_t max_workgroup;   /* invocations */
    uint32_t shared_memory;   /* bytes per workgroup */
    bool float16, bfloat16, storage16, int8_dot, cooperative_matrix, cooperative_matrix2;
    uint8_t uuid[16];         /* of device and driver: the key of caches */
    int threads;              /* of the CPU device; 0 for a GPU */
};

/* Fills up to capacity entries, Vulkan devices first in the driver's order, the CPU last (so count is at least 1), and
   sets *count to how many there are. infos may be NULL if capacity is 0. A machine without Vulkan has just the CPU;
   that is no error. */
HK_API hk_status hk_device_list(struct hk_device_info *infos, int capacity, int *count);

struct hk_device_params {
    const char *name;       /* "cpu", "vulkan", "vulkan:N", "vulkan:TEXT" (part of a name, any case), "auto" or NULL: the
                               GPU where a quick measurement, made once and cached, finds it faster than the CPU */
    int threads;            /* of the CPU device; 0: one per processor. (On Intel processors with AMX, opening it asks the
                               system for tiles for the process, whose alternate signal stacks must then hold 11 KiB
                               more; HEKLA_ISA=avx512 in the environment asks for none.) */
    const char *cache_dir;  /* pipelines and measurements; NULL: "hekla" in the user's cache folder; "": no cache */
    uint64_t memory_limit;  /* bytes a program and all tensors may take together; 0: what the device has */
    bool profile;           /* time every dispatch; see hk_device_write_trace */
    double tune;            /* seconds that all hk_compile on the device together may spend on measuring kernels (see
                               struct hk_tuning); 0: none */
    const char *tuning;     /* the file that keeps what was measured; NULL: one in cache_dir, of this device and driver;
                               "": none */
    bool validate;          /* load the Khronos validation layer with synchronization checks; its messages go to the log
                               and are counted in hk_stats. HK_ERROR_UNSUPPORTED where the layer is not installed */
};

/* params may be NULL: all defaults. On failure NULL. */
HK_API struct hk_device *hk_device_open(const struct hk_device_params *params);
HK_API void hk_device_destroy(struct hk_device **device);

/* Constant for the device's life, but for memory_free, which is as it was when the device was opened. */
HK_API const struct hk_device_info *hk_device_get_info(const struct hk_device *device);

/* Waits until all work submitted to the device is done. HK_ERROR_DEVICE_LOST if it was lost. */
HK_API hk_status hk_device_wait(struct hk_device *device);

/* Counters since the device was opened. */
struct hk_stats {
    uint64_t runs;               /* hk_program_run calls */
    uint64_t submits;            /* queue submissions */
    uint64_t dispatches;         /* kernels run (on the CPU: ops run) */
    uint64_t allocations;        /* device memory allocations */
    uint64_t bytes;              /* of device memory held now */
    uint64_t peak_bytes;         /* the most that were held */
    uint64_t descriptor_writes;
    uint64_t pipelines;          /* created */
    uint64_t measurements;       /* kernels that hk_compile measured (see struct hk_tuning) */
    uint64_t fallbacks;          /* ops of a program that ran on another device than the program's */
    uint64_t validation_messages;
};
HK_API void hk_device_get_stats(struct hk_device *device, struct hk_stats *stats);

/* A short measurement (under a second): f32 multiply-adds of a 1024^3 (GPU) or 512^3 (CPU) matrix product in GFLOP/s, and
   the bytes a large copy reads and writes in GB/s. */
HK_API hk_status hk_device_measure(struct hk_device *device, double *gflops, double *gbps);

/* ---- Tuning ----

   Of some work (a matrix product of certain sizes, attention of some shape) a GPU has several kernels. A rule of thumb
   picks one, unless it was measured which is the fastest: by hk_compile, where the device was opened with tune, for the
   work of that program that nobody has measured yet. It runs each kernel a few times on memory of its own, by the GPU's clock,
   keeps the fastest where it gains at least 5 %, and begins no other kernel once the time is over: work whose kernels were not
   all measured then keeps the standard one. Measuring that fails for want of memory, or because the driver does not compile
   a kernel, leaves out that kernel; hk_compile fails only where the device is lost.

   The file is JSON (src/graph/tuning.c describes it); it is read when the device is opened and replaced atomically after a
   measurement, together with what other processes added since. It may be copied to any machine with the same GPU and driver. One
   that is damaged or of another GPU or driver counts as empty, with a warning in the log; a device opens all the same. Where
   such a file is the one that the caller named, it is left alone, and nothing is kept.

   All kernels of one work give the same within rounding, not the same bits. So a program compiled with other measurements is
   another program: the promise "same device, driver, program and seed, same bits" asks for the same file too. */
#define HK_TUNING_WORK 160
#define HK_TUNING_KERNEL 64
struct hk_tuning {
    char work[HK_TUNING_WORK];                                   /* "matmul f32 nt 768x512x384" */
    char kernel[HK_TUNING_KERNEL], standard[HK_TUNING_KERNEL];   /* the one that is taken, and the one without measuring */
    double seconds, standard_seconds; /* that they took (medians); 0: not measured yet, the time was over */
    int kernels;                      /* that there were to choose from */
    int uses;                         /* times that hk_compile asked, since the device was opened */
};

/* Fills up to capacity entries and sets *count to how many there are: those of the file, and (on a device opened with tune)
   what hk_compile asked for and is not measured. None on the CPU. tunings may be NULL if capacity is 0. */
HK_API hk_status hk_device_tunings(struct hk_device *device, struct hk_tuning *tunings, int capacity, int *count);

/* Puts what was measured in the file, if it is not there yet: hk_compile and hk_device_destroy do that too, but cannot fail by
   it (the latter warns in the log). HK_ERROR_IO where it cannot be written or there is no place for it, HK_ERROR_FORMAT where
   the file that the caller named is damaged or of another device. */
HK_API hk_status hk_device_save_tunings(struct hk_device *device);

/* Writes all that was timed so far as a trace for Perfetto or chrome://tracing. HK_ERROR_INVALID unless the device was
   opened with profile. */
HK_API hk_status hk_device_write_trace(struct hk_device *device, const char *path);

#ifdef __cplusplus
}
#endif
#endif
