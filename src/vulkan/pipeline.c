/* Pipelines: one per shader, specialization constants and number of bindings, made when a program first needs it, several at a
   time on several threads. */
#include "vulkan/record.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 8 };

static int compare_names(const void *key, const void *row) { return strcmp(key, ((const struct vk_shader *)row)->name); }

const struct vk_shader *vk_shader_find(const char *name) {
    return bsearch(name, vk_shaders, (size_t)vk_shaders_count, sizeof *vk_shaders, compare_names);
}

/* Bindings 0 .. n - 1 are storage buffers, and every pipeline has the same room for push constants. */
static hk_status make_layout(struct vk_device *device, int n) {
    struct vk_pipelines *p = &device->pipelines;
    VkDescriptorSetLayoutBinding bindings[HK_MAX_BINDINGS];
    for (int i = 0; i < n; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){.binding = (uint32_t)i,
                                                     .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                                     .descriptorCount = 1,
                                                     .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    const VkDescriptorSetLayoutCreateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                                 .bindingCount = (uint32_t)n,
                                                 .pBindings = bindings};
    VkResult result = device->vk.vkCreateDescriptorSetLayout(device->handle, &set, NULL, &p->sets[n]);
    if (result != VK_SUCCESS) {
        p->sets[n] = VK_NULL_HANDLE;
        return vk_fail(device, result, "creating a descriptor set layout");
    }
    const VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, HK_MAX_PUSH_BYTES};
    const VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                             .setLayoutCount = 1,
                                             .pSetLayouts = &p->sets[n],
                                             .pushConstantRangeCount = 1,
                                             .pPushConstantRanges = &push};
    result = device->vk.vkCreatePipelineLayout(device->handle, &info, NULL, &p->layouts[n]);
    if (result == VK_SUCCESS) return HK_OK;
    p->layouts[n] = VK_NULL_HANDLE;
    return vk_fail(device, result, "creating a pipeline layout");
}

hk_status vk_pipelines_open(struct vk_device *device) {
    for (int n = 0; n <= HK_MAX_BINDINGS; n++) {
        const hk_status status = make_layout(device, n);
        if (status) return status;
    }
    return HK_OK;
}

void vk_pipelines_close(struct vk_device *device) {
    struct vk_pipelines *p = &device->pipelines;
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++) {
        for (struct vk_pipeline *pipeline = p->buckets[i], *next; pipeline; pipeline = next) {
            next = pipeline->next;
            device->vk.vkDestroyPipeline(device->handle, pipeline->handle, NULL);
            free(pipeline);
        }
    }
    for (int n = 0; n <= HK_MAX_BINDINGS; n++) {
        device->vk.vkDestroyPipelineLayout(device->handle, p->layouts[n], NULL);
        device->vk.vkDestroyDescriptorSetLayout(device->handle, p->sets[n], NULL);
    }
    device->vk.vkDestroyPipelineCache(device->handle, p->cache, NULL);
}

/* The entry of the launch's pipeline, new where there was none; NULL when out of memory. */
static struct vk_pipeline *find_pipeline(struct vk_pipelines *p, const struct vk_launch *launch) {
    const struct hk_dispatch *d = &launch->dispatch;
    const size_t spec_bytes = (size_t)d->n_spec * sizeof *d->spec;
    const uint64_t key[4] = {(uintptr_t)launch->shader, (uint64_t)d->n_spec, (uint64_t)d->n_bindings, d->subgroup_size};
    const uint64_t hash = hk_hash(d->spec, spec_bytes, hk_hash(key, sizeof key, 0));
    struct vk_pipeline **bucket = &p->buckets[hash % VK_PIPELINE_BUCKETS];
    for (struct vk_pipeline *i = *bucket; i; i = i->next)
        if (i->shader == launch->shader && i->n_spec == d->n_spec && i->n_bindings == d->n_bindings &&
            i->subgroup_size == d->subgroup_size && !memcmp(i->spec, d->spec, spec_bytes))
            return i;
    struct vk_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) return NULL;
    *pipeline = (struct vk_pipeline){.next = *bucket,
                                     .shader = launch->shader,
                                     .n_spec = d->n_spec,
                                     .n_bindings = d->n_bindings,
                                     .subgroup_size = d->subgroup_size};
    memcpy(pipeline->spec, d->spec, spec_bytes);
    return *bucket = pipeline;
}

static VkResult make_pipeline(struct vk_device *device, struct vk_pipeline *p) {
    VkShaderModule module;
    const VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = p->shader->bytes, .pCode = p->shader->words};
    VkResult result = device->vk.vkCreateShaderModule(device->handle, &code, NULL, &module);
    if (result != VK_SUCCESS) return result;
    VkSpecializationMapEntry entries[HK_MAX_SPEC];
    for (uint32_t i = 0; i < HK_MAX_SPEC; i++) entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    const VkSpecializationInfo spec = {(uint32_t)p->n_spec, entries, (size_t)p->n_spec * sizeof *p->spec, p->spec};
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroups = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = p->subgroup_size};
    const bool choice = device->physical.properties13.minSubgroupSize != device->physical.properties13.maxSubgroupSize;
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = p->subgroup_size && choice ? &subgroups : NULL,
                  .flags = p->subgroup_size ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &spec},
        .flags = (device->captures_statistics ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0u) |
                 (device->captures_code ? VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR : 0u),
        .layout = device->pipelines.layouts[p->n_bindings]};
    /* what a cache holds may have been made without statistics */
    const VkPipelineCache cache = device->captures_statistics ? VK_NULL_HANDLE : device->pipelines.cache;
    result = device->vk.vkCreateComputePipelines(device->handle, cache, 1, &info, NULL, &p->handle);
    device->vk.vkDestroyShaderModule(device->handle, module, NULL);
    if (result != VK_SUCCESS) p->handle = VK_NULL_HANDLE;
    else vk_statistics_read(device, p->handle, &p->statistics);
    return result;
}

/* A list that several threads work off. */
struct work {
    struct vk_device *device;
    struct vk_pipeline **list;
    int count;
    atomic_int next;
    _Atomic VkResult result;              /* of one that failed, ... */
    const struct vk_shader *_Atomic failed; /* ... and its shader */
};

static void *worker(void *context) {
    struct work *w = context;
    for (int i; (i = atomic_fetch_add(&w->next, 1)) < w->count;) {
        const VkResult result = make_pipeline(w->device, w->list[i]);
        if (result == VK_SUCCESS) continue;
        w->failed = w->list[i]->shader;
        w->result = result;
    }
    return NULL;
}

static hk_status make_all(struct vk_device *device, struct vk_pipeline **list, int count) {
    struct work work = {.device = device, .list = list, .count = count};
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const int threads = (int)HK_MAX(1, HK_MIN(HK_MIN(processors, MAX_THREADS), count));
    pthread_t ids[MAX_THREADS];
    int started = 0;
    while (started < threads - 1 && !pthread_create(&ids[started], NULL, worker, &work)) started++;
    worker(&work);
    for (int i = 0; i < started; i++) pthread_join(ids[i], NULL);
    for (int i = 0; i < count; i++) device->stats.pipelines += list[i]->handle != VK_NULL_HANDLE;
    device->pipelines.changed = true;
    if (work.result == VK_SUCCESS) return HK_OK;
    char what[128];
    snprintf(what, sizeof what, "making the pipeline of shader %s", work.failed->name);
    return vk_fail(device, work.result, what);
}

hk_status vk_pipelines_make(struct vk_device *device, struct vk_launch *launches, int count) {
    struct vk_pipeline **list = NULL;
    int n = 0, capacity = 0;
    hk_status status = HK_OK;
    for (int i = 0; i < count && !status; i++) {
        struct vk_pipeline *pipeline = launches[i].pipeline = find_pipeline(&device->pipelines, &launches[i]);
        if (pipeline && (pipeline->handle || pipeline->wanted)) continue;
        if (pipeline && hk_grow(&list, &capacity, n + 1, sizeof *list)) {
            pipeline->wanted = true;
            list[n++] = pipeline;
        } else {
            status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while making pipelines");
        }
    }
    if (!status && n) status = make_all(device, list, n);
    for (int i = 0; i < n; i++) list[i]->wanted = false;
    free(list);
    return status;
}
