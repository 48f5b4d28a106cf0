/* The Vulkan backend's types and the functions that its files share.

   One mutex per device guards its queue, transfers, pipelines and counters. Functions marked "locked" are called with it held;
   what the caller of the backend sees locks by itself. All Vulkan calls on a device go through its own table. */
#ifndef HK_VULKAN_DEVICE_H
#define HK_VULKAN_DEVICE_H

#include "vulkan/instance.h"
#include "vulkan/shaders.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    VK_MEMORY_ALIGN = 256,   /* sizes of buffers are multiples of it */
    VK_RUNS_IN_FLIGHT = 3,   /* programs submitted and not yet done */
    VK_SLOTS = 4,            /* of the staging ring */
    VK_PIPELINE_BUCKETS = 256
};

/* ---- Memory ---- */

struct vk_buffer {
    struct hk_buffer base; /* host is set where the memory is direct */
    VkBuffer handle;
    VkDeviceMemory memory;
    bool cached; /* the host reads it at full speed */
};

/* A part of the staging buffer with the command buffer that uses it. */
struct vk_slot {
    VkCommandBuffer commands;
    char *host;
    uint64_t offset; /* in the staging buffer */
    uint64_t used;   /* bytes */
    uint64_t value;  /* of the timeline, when the device has done with it */
};

struct vk_transfers {
    VkCommandPool pool;
    struct vk_buffer *staging;
    uint64_t slot_bytes;
    struct vk_slot slots[VK_SLOTS];
    int current;
    bool open;  /* the current slot holds commands that are not submitted yet ... */
    bool ended; /* ... nor can be added to: they were about to be, and go with the next submission */
};

/* ---- Pipelines ---- */

/* What the driver's compiler says of a pipeline. What each counts is the driver's own affair: numbers of one driver compare. */
enum vk_statistic {
    VK_STATISTIC_REGISTERS, /* of an invocation */
    VK_STATISTIC_SCALARS,   /* registers that a subgroup shares */
    VK_STATISTIC_SPILLS,
    VK_STATISTIC_SCRATCH,   /* bytes */
    VK_STATISTIC_SHARED,    /* bytes */
    VK_STATISTIC_INSTRUCTIONS,
    VK_STATISTIC_OCCUPANCY, /* subgroups, or invocations, that a processor holds at once */
    VK_STATISTIC_LATENCY,
    VK_STATISTIC_THROUGHPUT, /* its inverse */
    VK_STATISTICS
};

struct vk_statistics {
    double value[VK_STATISTICS]; /* negative: not known */
};

struct vk_pipeline {
    struct vk_pipeline *next; /* of its bucket */
    const struct vk_shader *shader;
    uint32_t spec[HK_MAX_SPEC];
    int n_spec, n_bindings;
    uint32_t subgroup_size; /* 0: any */
    VkPipeline handle; /* null until it is made */
    bool wanted;       /* in the list that is being made */
    struct vk_statistics statistics;
};

struct vk_pipelines {
    struct vk_pipeline *buckets[VK_PIPELINE_BUCKETS];
    VkDescriptorSetLayout sets[HK_MAX_BINDINGS + 1]; /* by number of bindings */
    VkPipelineLayout layouts[HK_MAX_BINDINGS + 1];
    VkPipelineCache cache;
    char folder[900]; /* of the caches; "" where there is none */
    char path[1024];  /* of the cache file; "" where there is none */
    struct vk_written *written; /* shaders written at run time */
    double saved;    /* when, in seconds */
    bool changed;    /* since then */
};

/* ---- Profile ---- */

struct vk_event {
    const char *op;
    const struct vk_pipeline *pipeline;
    double begin, duration; /* seconds */
    double flops, bytes;
};

/* A launch of a program whose begin and end are timestamps `query` and `query` + 1. */
struct vk_timed {
    const char *op;
    const struct vk_pipeline *pipeline; /* lives as long as the device */
    double flops, bytes;
    uint32_t query;
};

struct vk_profile {
    bool enabled;
    double period; /* seconds per tick; 0: the device has no timestamps */
    uint64_t mask; /* the bits of a tick that count */
    struct vk_event *events;
    int count, capacity;
    uint64_t dropped; /* events over the bound */
};

/* ---- The device ---- */

struct vk_device {
    struct hk_device_base base; /* first: this is a struct hk_device */
    struct vk_instance instance;
    struct vk_physical physical;
    VkDevice handle;
    struct VolkDeviceTable vk;
    uint32_t family;
    VkQueue queue;
    struct hk_limits limits;
    uint32_t binding_align; /* minStorageBufferOffsetAlignment */
    bool captures_statistics; /* of pipelines: VK_KHR_pipeline_executable_properties is enabled */
    bool captures_code;       /* and their assembly, which is for the driver lab to ask for */
    double flops_rate, bytes_rate, submission_seconds; /* what a submission is estimated and bounded by */
    pthread_mutex_t mutex;
    struct hk_stats stats;
    atomic_bool lost;
    VkSemaphore timeline;
    uint64_t submitted;               /* the timeline's value when all submitted work is done */
    uint64_t runs[VK_RUNS_IN_FLIGHT]; /* the values of the latest runs */
    int next_run;
    struct vk_transfers transfers;
    struct vk_pipelines pipelines;
    struct vk_profile profile;
    double tuning_seconds;  /* that measuring kernels may still take */
    double (*clock)(void);  /* by which they pass: hk_seconds, but for tests */
};

static inline struct vk_device *vk_device_of(struct hk_device *device) { return (struct vk_device *)device; }

/* queue.c */

/* The status and message of a Vulkan call that failed. Marks the device where it was lost. */
hk_status vk_fail(struct vk_device *device, VkResult result, const char *what);
/* Locks, unless the device was lost: then HK_ERROR_DEVICE_LOST, not locked. */
hk_status vk_lock(struct vk_device *device);
void vk_unlock(struct vk_device *device);
hk_status vk_queue_open(struct vk_device *device);
void vk_queue_close(struct vk_device *device);
/* Locked. Submits what transfers wait, then the command buffer (may be null). */
hk_status vk_submit(struct vk_device *device, VkCommandBuffer commands);
/* Waits until the timeline has come to value. Needs no lock. */
hk_status vk_wait_value(struct vk_device *device, uint64_t value);
/* Locked. The same before something is freed: whatever fails, the device has done with it after. */
void vk_settle(struct vk_device *device, uint64_t value);
/* Locked. All that was submitted is done. */
bool vk_idle(struct vk_device *device);
/* Locked. Before a run: waits until there are less than VK_RUNS_IN_FLIGHT; after: notes its value. */
hk_status vk_run_begin(struct vk_device *device);
void vk_run_end(struct vk_device *device);
/* Everything before in the queue, by any stage, is done and seen by everything after. */
void vk_full_barrier(struct vk_device *device, VkCommandBuffer commands);

/* memory.c */
hk_status vk_buffer_create(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer);
hk_status vk_arena_create(struct hk_device *device, uint64_t bytes, struct hk_buffer **buffer);
void vk_buffer_destroy(struct hk_device *device, struct hk_buffer *buffer);
/* Host memory for transfers, mapped and coherent, not counted. */
hk_status vk_staging_create(struct vk_device *device, uint64_t bytes, struct vk_buffer **buffer);
/* Frees at once. */
void vk_buffer_free(struct vk_device *device, struct vk_buffer *buffer);

/* transfer.c */
hk_status vk_transfers_open(struct vk_device *device);
void vk_transfers_close(struct vk_device *device);
/* Locked. Ends the commands that wait; null where there are none. The caller submits them next ... */
hk_status vk_transfers_take(struct vk_device *device, VkCommandBuffer *commands);
/* ... and says so where that worked; where it did not, they wait on: their writes were promised to somebody. */
void vk_transfers_submitted(struct vk_device *device, uint64_t value);
/* Locked. Gives up on commands that wait. Writes that were promised are then missing: the device counts as lost. */
void vk_transfers_drop(struct vk_device *device);
/* Locked. Adds a fill of the whole buffer with a word. */
hk_status vk_transfers_fill(struct vk_device *device, struct vk_buffer *buffer, uint32_t word);
hk_status vk_poison(struct hk_device *device, struct hk_buffer *buffer);
hk_status vk_write(struct hk_device *device, struct hk_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes);
hk_status vk_read(struct hk_device *device, struct hk_buffer *buffer, uint64_t offset, void *data, uint64_t bytes);

/* pipeline.c */
struct vk_launch; /* record.h */
hk_status vk_pipelines_open(struct vk_device *device);
void vk_pipelines_close(struct vk_device *device);
/* Locked. Sets the pipelines of all launches, making those that are missing in parallel. */
hk_status vk_pipelines_make(struct vk_device *device, struct vk_launch *launches, int count);

/* statistics.c */
extern const char *const vk_statistic_names[VK_STATISTICS];
/* Of a pipeline that was made with VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR. */
void vk_statistics_read(struct vk_device *device, VkPipeline pipeline, struct vk_statistics *statistics);

/* shaderc.c */
bool vk_shaderc_available(void);
/* Words are the caller's to free. */
hk_status vk_shaderc_compile(const char *text, const char *name, uint32_t **words, size_t *bytes);

/* written.c */
/* The shader of a text, in which lines `#include "NAME.glsl"` are replaced: compiled once, or from the cache on disk. It lives
   as long as the device. */
hk_status vk_written_find(struct vk_device *device, const char *source, const struct vk_shader **shader);
/* Whether kernels with matrices of a subgroup, of this dtype, can be written: the first call asks shaderc. */
bool vk_writes_matrices(enum hk_dtype dtype);
void vk_written_free(struct vk_device *device);

/* cache.c */
void vk_cache_open(struct vk_device *device, const char *cache_dir); /* sets pipelines.cache and .path */
void vk_cache_save(struct vk_device *device);                        /* locked or closing; never fails loudly */

/* program.c */
hk_status vk_program_create(struct hk_device *device, const struct hk_plan *plan, struct hk_program_info *info,
                            struct hk_backend_program **program);
hk_status vk_program_run(struct hk_device *device, struct hk_backend_program *program);
void vk_program_destroy(struct hk_device *device, struct hk_backend_program *program);

/* profile.c */
hk_status vk_profile_open(struct vk_device *device, bool enabled);
void vk_profile_close(struct vk_device *device);
/* The timestamps of a program that is done. */
hk_status vk_profile_read(struct vk_device *device, VkQueryPool pool, uint32_t queries, uint64_t *ticks);
/* Locked. Adds an event for each launch of a run that is done; ticks has room for all queries. */
hk_status vk_profile_resolve(struct vk_device *device, VkQueryPool pool, uint32_t queries, uint64_t *ticks,
                             const struct vk_timed *timed, int count);
hk_status vk_write_trace(struct hk_device *device, const char *path);

/* backend.c */
extern const struct hk_backend vk_backend;

#endif
