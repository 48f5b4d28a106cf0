/* Programs: launches recorded once into command buffers, each short enough for one submission. */
#include "graph/tuning.h"
#include "vulkan/hazard.h"
#include "vulkan/record.h"
#include "vulkan/tune.h"
#include <hekla/graph.h>
#include <stdlib.h>
#include <string.h>

/* Pipelines are saved this many seconds after the last time; what is younger, when the device is closed. */
static const double save_interval = 2.0;

struct hk_backend_program {
    VkCommandPool commands;
    VkDescriptorPool descriptors;
    VkCommandBuffer *chunks; /* submitted one by one */
    int n_chunks;
    int n_launches;
    uint64_t last;           /* the timeline's value at the end of the latest run */
    VkQueryPool queries;     /* profile: a timestamp where each chunk begins and after each launch */
    uint32_t n_queries;
    uint64_t *ticks;
    struct vk_timed *timed;  /* [n_launches] */
};

static double estimate(const struct vk_device *device, const struct vk_launch *launch) {
    return launch->dispatch.flops / device->flops_rate + launch->dispatch.bytes / device->bytes_rate;
}

/* The number of launches, from `first` on, that one submission takes: at least one. */
static int chunk_size(const struct vk_device *device, const struct vk_launches *launches, int first) {
    double seconds = estimate(device, &launches->items[first]);
    int count = 1;
    while (first + count < launches->count) {
        seconds += estimate(device, &launches->items[first + count]);
        if (seconds > device->submission_seconds) break;
        count++;
    }
    return count;
}

/* ---- Recording ---- */

struct writer {
    struct vk_device *device;
    struct hk_backend_program *program;
    const struct vk_launches *launches;
    struct vk_hazards hazards;
    int barriers;
    uint32_t query; /* the next one */
};

static void compute_barrier(const struct vk_device *device, VkCommandBuffer commands) {
    const VkMemoryBarrier2 barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                      .srcStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                                      .srcAccessMask = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT,
                                      .dstStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                                      .dstAccessMask = VK_ACCESS_2_SHADER_STORAGE_READ_BIT |
                                                       VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT};
    const VkDependencyInfo dependency = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &barrier};
    device->vk.vkCmdPipelineBarrier2(commands, &dependency);
}

static hk_status write_hazards(struct writer *w, const struct hk_dispatch *d, VkCommandBuffer commands) {
    struct vk_access accesses[HK_MAX_BINDINGS];
    bool barrier;
    for (int i = 0; i < d->n_bindings; i++) {
        const struct hk_binding *b = &d->bindings[i];
        accesses[i] = (struct vk_access){b->buffer, b->offset, b->offset + b->bytes, b->access};
    }
    if (!vk_hazards_add(&w->hazards, accesses, d->n_bindings, &barrier))
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while recording");
    if (!barrier) return HK_OK;
    compute_barrier(w->device, commands);
    w->barriers++;
    return HK_OK;
}

static void write_timestamp(struct writer *w, VkCommandBuffer commands) {
    if (!w->program->queries) return;
    w->device->vk.vkCmdWriteTimestamp2(commands, VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT, w->program->queries, w->query++);
}

static hk_status write_launch(struct writer *w, int i, VkCommandBuffer commands) {
    const struct VolkDeviceTable *vk = &w->device->vk;
    const struct vk_launch *launch = &w->launches->items[i];
    const struct hk_dispatch *d = &launch->dispatch;
    const VkPipelineLayout layout = w->device->pipelines.layouts[d->n_bindings];
    const hk_status status = write_hazards(w, d, commands);
    if (status) return status;
    vk->vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, launch->pipeline->handle);
    if (launch->set)
        vk->vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &launch->set, 0, NULL);
    if (d->push_bytes) vk->vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, d->push_bytes, d->push);
    if (w->program->timed)
        w->program->timed[i] =
            (struct vk_timed){launch->op->name, launch->pipeline, d->flops, d->bytes, w->query - 1};
    vk->vkCmdDispatch(commands, d->groups[0], d->groups[1], d->groups[2]);
    write_timestamp(w, commands);
    return HK_OK;
}

/* Launches [first, first + count). The first chunk waits for all work before the program, the last one makes its results
   visible to the host and to what follows. */
static hk_status write_chunk(struct writer *w, int chunk, int first, int count) {
    struct vk_device *device = w->device;
    const VkCommandBuffer commands = w->program->chunks[chunk];
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                            .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    VkResult result = device->vk.vkBeginCommandBuffer(commands, &begin);
    if (result != VK_SUCCESS) return vk_fail(device, result, "beginning a command buffer");
    if (!chunk) vk_full_barrier(device, commands);
    if (!chunk && w->program->queries)
        device->vk.vkCmdResetQueryPool(commands, w->program->queries, 0, w->program->n_queries);
    write_timestamp(w, commands);
    hk_status status = HK_OK;
    for (int i = first; i < first + count && !status; i++) status = write_launch(w, i, commands);
    if (status) return status;
    if (chunk == w->program->n_chunks - 1) vk_full_barrier(device, commands);
    result = device->vk.vkEndCommandBuffer(commands);
    return result == VK_SUCCESS ? HK_OK : vk_fail(device, result, "ending a command buffer");
}

static hk_status write_chunks(struct vk_device *device, struct hk_backend_program *program, const struct vk_launches *launches,
                              int *barriers) {
    struct writer w = {.device = device, .program = program, .launches = launches};
    hk_status status = HK_OK;
    int first = 0;
    for (int chunk = 0; chunk < program->n_chunks && !status; chunk++) {
        const int count = chunk_size(device, launches, first);
        status = write_chunk(&w, chunk, first, count);
        first += count;
    }
    *barriers = w.barriers;
    vk_hazards_free(&w.hazards);
    return status;
}

static hk_status make_commands(struct vk_device *device, struct hk_backend_program *program, const struct vk_launches *launches) {
    for (int first = 0; first < launches->count; program->n_chunks++) first += chunk_size(device, launches, first);
    program->n_launches = launches->count;
    if (!program->n_chunks) return HK_OK;
    program->chunks = calloc((size_t)program->n_chunks, sizeof *program->chunks);
    if (!program->chunks) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .queueFamilyIndex = device->family};
    VkResult result = device->vk.vkCreateCommandPool(device->handle, &pool, NULL, &program->commands);
    if (result != VK_SUCCESS) {
        program->commands = VK_NULL_HANDLE;
        return vk_fail(device, result, "creating a command pool");
    }
    const VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                              .commandPool = program->commands,
                                              .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                              .commandBufferCount = (uint32_t)program->n_chunks};
    result = device->vk.vkAllocateCommandBuffers(device->handle, &info, program->chunks);
    return result == VK_SUCCESS ? HK_OK : vk_fail(device, result, "allocating command buffers");
}

static hk_status make_queries(struct vk_device *device, struct hk_backend_program *program) {
    if (!program->n_launches) return HK_OK;
    program->n_queries = (uint32_t)(program->n_launches + program->n_chunks);
    program->ticks = calloc(program->n_queries, sizeof *program->ticks);
    program->timed = calloc((size_t)program->n_launches, sizeof *program->timed);
    if (!program->ticks || !program->timed) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    const VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                        .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                        .queryCount = program->n_queries};
    const VkResult result = device->vk.vkCreateQueryPool(device->handle, &info, NULL, &program->queries);
    if (result == VK_SUCCESS) return HK_OK;
    program->queries = VK_NULL_HANDLE;
    return vk_fail(device, result, "creating a query pool");
}

/* ---- What the graph calls ---- */

static hk_status make_pipelines(struct vk_device *device, struct vk_launches *launches) {
    hk_status status = vk_lock(device);
    if (status) return status;
    status = vk_pipelines_make(device, launches->items, launches->count);
    if (hk_seconds() - device->pipelines.saved > save_interval) vk_cache_save(device);
    vk_unlock(device);
    return status;
}

static void program_free(struct vk_device *device, struct hk_backend_program *program) {
    device->vk.vkDestroyQueryPool(device->handle, program->queries, NULL);
    device->vk.vkDestroyCommandPool(device->handle, program->commands, NULL);
    device->vk.vkDestroyDescriptorPool(device->handle, program->descriptors, NULL);
    free(program->chunks);
    free(program->ticks);
    free(program->timed);
    free(program);
}

hk_status vk_program_make(struct vk_device *device, const struct hk_plan *plan, struct vk_chooser *chooser, bool timed,
                          struct hk_program_info *info, struct hk_backend_program **out) {
    struct vk_launches launches = {0};
    uint64_t writes = 0;
    int barriers;
    struct hk_backend_program *program = calloc(1, sizeof *program);
    if (!program) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling");
    hk_status status = vk_record(device, plan, chooser, &launches);
    if (!status) status = make_pipelines(device, &launches);
    if (!status) status = vk_descriptors_make(device, &launches, &program->descriptors, &writes);
    if (!status) status = make_commands(device, program, &launches);
    if (!status && timed) status = make_queries(device, program);
    if (!status) status = write_chunks(device, program, &launches, &barriers);
    vk_launches_free(&launches);
    if (status) {
        program_free(device, program);
        return status;
    }
    if (info) info->dispatches = program->n_launches, info->submits = program->n_chunks, info->barriers = barriers;
    pthread_mutex_lock(&device->mutex);
    device->stats.descriptor_writes += writes;
    pthread_mutex_unlock(&device->mutex);
    *out = program;
    return HK_OK;
}

hk_status vk_program_create(struct hk_device *d, const struct hk_plan *plan, struct hk_program_info *info,
                            struct hk_backend_program **program) {
    struct vk_device *device = vk_device_of(d);
    struct vk_tuned tuned = vk_tuned(device);
    const hk_status status = vk_tune(device, plan);
    if (status) return status;
    struct vk_chooser *chooser = hk_tunings_empty(tuned.tunings) ? NULL : &tuned.base;
    return vk_program_make(device, plan, chooser, device->profile.enabled, info, program);
}

/* Locked. */
static hk_status submit_chunks(struct vk_device *device, struct hk_backend_program *program) {
    hk_status status = vk_run_begin(device);
    for (int i = 0; i < program->n_chunks && !status; i++) status = vk_submit(device, program->chunks[i]);
    vk_run_end(device);
    program->last = device->submitted;
    return status;
}

hk_status vk_program_run(struct hk_device *d, struct hk_backend_program *program) {
    struct vk_device *device = vk_device_of(d);
    hk_status status = vk_lock(device);
    if (status) return status;
    status = submit_chunks(device, program);
    if (!status && program->queries) {
        status = vk_wait_value(device, program->last);
        if (!status)
            status = vk_profile_resolve(device, program->queries, program->n_queries, program->ticks, program->timed,
                                        program->n_launches);
    }
    device->stats.runs++;
    device->stats.dispatches += (uint64_t)program->n_launches;
    vk_unlock(device);
    return status;
}

/* Locked. */
static hk_status run_alone(struct vk_device *device, struct hk_backend_program *program) {
    hk_status status = vk_wait_value(device, device->submitted);
    if (!status) status = submit_chunks(device, program);
    if (!status) status = vk_wait_value(device, program->last);
    return status ? status : vk_profile_read(device, program->queries, program->n_queries, program->ticks);
}

hk_status vk_program_time(struct vk_device *device, struct hk_backend_program *program, double *seconds) {
    hk_status status = vk_lock(device);
    if (status) return status;
    status = run_alone(device, program);
    vk_unlock(device);
    const uint64_t *ticks = program->ticks;
    if (!status) *seconds = (double)((ticks[program->n_queries - 1] - ticks[0]) & device->profile.mask) * device->profile.period;
    return status;
}

void vk_program_destroy(struct hk_device *d, struct hk_backend_program *program) {
    struct vk_device *device = vk_device_of(d);
    if (!program) return;
    pthread_mutex_lock(&device->mutex);
    vk_settle(device, program->last);
    pthread_mutex_unlock(&device->mutex);
    program_free(device, program);
}
