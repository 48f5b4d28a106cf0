/* The CPU as a backend: its memory is the host's, a program is a list of kernel calls. */
#include "cpu/cpu.h"
#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/pool.h"
#include "op/gpu.h"
#include <cjson/cJSON.h>
#include <hekla/graph.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 256, MAX_EVENTS = 1 << 18 };

struct event {
    const char *name;
    double begin, end; /* seconds */
};

struct device {
    struct hk_device_base base;
    struct cpu cpu;
    enum hk_isa isa;
    pthread_mutex_t mutex; /* around running and counting */
    struct hk_stats stats;
    bool profile;
    struct event *events;
    int n_events, events_capacity;
    uint64_t events_dropped; /* over the bound, or for want of memory */
};

struct hk_backend_program {
    struct hk_step *steps;
    struct hk_operand *operands;
    hk_cpu_kernel **kernels;
    int n_steps;
    struct hk_arena arena; /* attrs */
};

/* ---- Threads ---- */

struct pieces {
    void (*body)(void *, int64_t, int64_t);
    void (*body_thread)(void *, int, int64_t, int64_t);
    void *context;
    int64_t count, grain;
    _Atomic int64_t next; /* first element that no thread has taken */
};

static void run_piece(void *context, size_t i) {
    const struct pieces *p = context;
    const int64_t begin = (int64_t)i * p->grain;
    p->body(p->context, begin, HK_MIN(begin + p->grain, p->count));
}

/* Item i of the pool is worker i, whichever thread runs it. */
static void run_worker(void *context, size_t worker) {
    struct pieces *p = context;
    for (;;) {
        const int64_t begin = atomic_fetch_add(&p->next, p->grain);
        if (begin >= p->count) return;
        p->body_thread(p->context, (int)worker, begin, HK_MIN(begin + p->grain, p->count));
    }
}

void cpu_for(const struct cpu *cpu, int64_t count, int64_t grain, void (*body)(void *, int64_t, int64_t), void *context) {
    struct pieces p = {.body = body, .context = context, .count = count, .grain = HK_MAX(grain, 1)};
    if (count <= 0) return;
    const size_t n = (size_t)((count + p.grain - 1) / p.grain);
    if (n > 1 && cpu->threads > 1) pool_run(cpu->pool, n, run_piece, &p);
    else
        for (size_t i = 0; i < n; i++) run_piece(&p, i);
}

void cpu_for_threads(const struct cpu *cpu, int64_t count, int64_t grain, void (*body)(void *, int, int64_t, int64_t),
                     void *context) {
    struct pieces p = {.body_thread = body, .context = context, .count = count, .grain = HK_MAX(grain, 1)};
    if (count <= 0) return;
    const int64_t n = (count + p.grain - 1) / p.grain;
    if (n > 1 && cpu->threads > 1)
        pool_run(cpu->pool, (size_t)HK_MIN(n, cpu->threads), run_worker, &p);
    else
        run_worker(&p, 0);
}

/* ---- Memory ---- */

/* Asked before anything is taken: the system grants more than it has, and kills who then uses it. */
static hk_status check_memory(struct device *device, uint64_t bytes) {
    pthread_mutex_lock(&device->mutex);
    const uint64_t held = device->stats.bytes, total = device->base.info.memory_free;
    pthread_mutex_unlock(&device->mutex);
    const uint64_t left = total > held ? total - held : 0;
    if (bytes <= left) return HK_OK;
    return hk_fail(HK_ERROR_OUT_OF_MEMORY, "need %llu MiB more of the machine's memory, have %llu MiB",
                   (unsigned long long)(bytes >> 20) + 1, (unsigned long long)(left >> 20));
}

static hk_status buffer_create(struct hk_device *d, uint64_t bytes, struct hk_buffer **out) {
    struct device *device = (struct device *)d;
    const hk_status status = check_memory(device, bytes);
    if (status) return status;
    struct hk_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    buffer->bytes = (bytes + 255) / 256 * 256 + 256; /* kernels may read a vector past the end */
    buffer->host = cpu_memory_take((size_t)buffer->bytes);
    if (!buffer->host) {
        free(buffer);
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory: need %llu more bytes", (unsigned long long)bytes);
    }
    if (device->base.poison) memset((char *)buffer->host + bytes, 0xff, (size_t)(buffer->bytes - bytes));
    pthread_mutex_lock(&device->mutex);
    device->stats.allocations++;
    device->stats.bytes += buffer->bytes;
    device->stats.peak_bytes = HK_MAX(device->stats.peak_bytes, device->stats.bytes);
    pthread_mutex_unlock(&device->mutex);
    *out = buffer;
    return HK_OK;
}

static void buffer_destroy(struct hk_device *d, struct hk_buffer *buffer) {
    struct device *device = (struct device *)d;
    pthread_mutex_lock(&device->mutex);
    device->stats.bytes -= buffer->bytes;
    pthread_mutex_unlock(&device->mutex);
    cpu_memory_release(buffer->host, (size_t)buffer->bytes);
    free(buffer);
}

static hk_status write_buffer(struct hk_device *d, struct hk_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes) {
    (void)d;
    if (bytes) memcpy((char *)buffer->host + offset, data, (size_t)bytes);
    return HK_OK;
}

static hk_status read_buffer(struct hk_device *d, struct hk_buffer *buffer, uint64_t offset, void *data, uint64_t bytes) {
    (void)d;
    if (bytes) memcpy(data, (const char *)buffer->host + offset, (size_t)bytes);
    return HK_OK;
}

static hk_status poison_buffer(struct hk_device *d, struct hk_buffer *buffer) {
    (void)d;
    memset(buffer->host, 0xff, (size_t)buffer->bytes);
    return HK_OK;
}

static hk_status wait_nothing(struct hk_device *d) {
    (void)d;
    return HK_OK;
}

/* ---- Programs ---- */

static void program_destroy(struct hk_device *d, struct hk_backend_program *program) {
    (void)d;
    if (!program) return;
    free(program->steps);
    free(program->operands);
    free(program->kernels);
    free(program);
}

static hk_status program_create(struct hk_device *d, const struct hk_plan *plan, struct hk_program_info *info,
                                struct hk_backend_program **out) {
    struct device *device = (struct device *)d;
    size_t n_operands = 0;
    for (int i = 0; i < plan->n_steps; i++) n_operands += (size_t)(plan->steps[i].n_inputs + plan->steps[i].n_outputs);
    struct hk_backend_program *program = calloc(1, sizeof *program);
    if (!program) goto memory;
    program->n_steps = plan->n_steps;
    program->steps = calloc((size_t)plan->n_steps + 1, sizeof *program->steps);
    program->kernels = calloc((size_t)plan->n_steps + 1, sizeof *program->kernels);
    program->operands = calloc(n_operands + 1, sizeof *program->operands);
    if (!program->steps || !program->kernels || !program->operands) goto memory;
    struct hk_operand *operand = program->operands;
    for (int i = 0; i < plan->n_steps; i++) {
        struct hk_step *step = &program->steps[i];
        *step = plan->steps[i];
        program->kernels[i] = isa_kernel(step->op, device->isa);
        if (!program->kernels[i]) {
            hk_fail(HK_ERROR_UNSUPPORTED, "%s has no CPU kernel", step->op->name);
            program_destroy(d, program);
            return HK_ERROR_UNSUPPORTED;
        }
        memcpy(operand, step->inputs, (size_t)step->n_inputs * sizeof *operand);
        step->inputs = operand, operand += step->n_inputs;
        memcpy(operand, plan->steps[i].outputs, (size_t)step->n_outputs * sizeof *operand);
        step->outputs = operand, operand += step->n_outputs;
    }
    info->dispatches = plan->n_steps;
    info->barriers = 0;
    info->submits = 0;
    *out = program;
    return HK_OK;
memory:
    program_destroy(d, program);
    return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling %s", plan->name);
}

static void note_event(struct device *device, const char *name, double begin) {
    if (device->n_events >= MAX_EVENTS ||
        !hk_grow(&device->events, &device->events_capacity, device->n_events + 1, sizeof *device->events))
        device->events_dropped++;
    else
        device->events[device->n_events++] = (struct event){name, begin, hk_seconds()};
}

static bool overlap(const struct hk_operand *a, uint64_t bytes, const struct hk_operand *b) {
    const uint64_t end = b->offset + hk_operand_span(b);
    return a->buffer == b->buffer && a->offset < end && b->offset < a->offset + bytes;
}

/* What the step is to write is NaN when it begins, but for what it reads there. */
static void poison_outputs(const struct hk_step *step) {
    for (int i = 0; i < step->n_outputs; i++) {
        const struct hk_operand *out = &step->outputs[i];
        const uint64_t bytes = (uint64_t)cpu_elements(out) * hk_dtype_size(out->dtype); /* outputs are dense */
        bool read = false;
        for (int k = 0; k < step->n_inputs && !read; k++) read = overlap(out, bytes, &step->inputs[k]);
        if (!read) memset(cpu_data(out), 0xff, (size_t)bytes);
    }
    if (step->scratch.buffer) memset(cpu_data(&step->scratch), 0xff, (size_t)cpu_elements(&step->scratch));
}

/* Its first part: all of it would take longer than most programs of tests. */
static void poison_workspace(const struct cpu *cpu) {
    for (int i = 0; i < cpu->threads; i++)
        memset((char *)cpu->workspace + (size_t)i * CPU_WORKSPACE_BYTES, 0xff, CPU_WORKSPACE_BYTES / 16);
}

static hk_status program_run(struct hk_device *d, struct hk_backend_program *program) {
    struct device *device = (struct device *)d;
    pthread_mutex_lock(&device->mutex);
    if (device->base.poison) poison_workspace(&device->cpu);
    for (int i = 0; i < program->n_steps; i++) {
        if (device->base.poison) poison_outputs(&program->steps[i]);
        const double begin = device->profile ? hk_seconds() : 0;
        program->kernels[i](&program->steps[i], &device->cpu);
        if (device->profile) note_event(device, program->steps[i].op->name, begin);
    }
    device->stats.runs++;
    device->stats.dispatches += (uint64_t)program->n_steps;
    pthread_mutex_unlock(&device->mutex);
    return HK_OK;
}

static void get_stats(struct hk_device *d, struct hk_stats *stats) {
    struct device *device = (struct device *)d;
    pthread_mutex_lock(&device->mutex);
    *stats = device->stats;
    pthread_mutex_unlock(&device->mutex);
}

static bool add_trace_event(cJSON *events, const struct event *event) {
    cJSON *e = cJSON_CreateObject();
    return cJSON_AddItemToArray(events, e) && cJSON_AddStringToObject(e, "name", event->name) &&
           cJSON_AddStringToObject(e, "ph", "X") && cJSON_AddNumberToObject(e, "ts", event->begin * 1e6) &&
           cJSON_AddNumberToObject(e, "dur", (event->end - event->begin) * 1e6) && cJSON_AddNumberToObject(e, "pid", 1) &&
           cJSON_AddNumberToObject(e, "tid", 1);
}

/* Locked. NULL when out of memory. */
static char *trace_text(const struct device *device) {
    cJSON *trace = cJSON_CreateObject(), *events = cJSON_AddArrayToObject(trace, "traceEvents");
    cJSON *other = cJSON_AddObjectToObject(trace, "otherData");
    bool done = events && cJSON_AddNumberToObject(other, "events_dropped", (double)device->events_dropped);
    for (int i = 0; done && i < device->n_events; i++) done = add_trace_event(events, &device->events[i]);
    char *text = done ? cJSON_PrintUnformatted(trace) : NULL;
    cJSON_Delete(trace);
    return text;
}

static hk_status write_trace(struct hk_device *d, const char *path) {
    struct device *device = (struct device *)d;
    if (!device->profile)
        return hk_fail(HK_ERROR_INVALID, "no trace: the device was opened without profile");
    pthread_mutex_lock(&device->mutex);
    char *text = trace_text(device);
    pthread_mutex_unlock(&device->mutex);
    if (!text) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory for the trace");
    const hk_status status = hk_file_write(path, text, strlen(text));
    cJSON_free(text);
    return status;
}

/* ---- The device ---- */

static void device_close(struct hk_device *d) {
    struct device *device = (struct device *)d;
    pool_destroy(device->cpu.pool);
    free(device->cpu.workspace);
    free(device->events);
    pthread_mutex_destroy(&device->mutex);
    free(device);
}

static const struct hk_backend cpu_backend = {
    .name = "cpu",
    .close = device_close,
    .wait = wait_nothing,
    .buffer_create = buffer_create,
    .arena_create = buffer_create, /* what is large costs nothing to be zero (memory.c) */
    .buffer_destroy = buffer_destroy,
    .write = write_buffer,
    .read = read_buffer,
    .poison = poison_buffer,
    .program_create = program_create,
    .program_run = program_run,
    .program_destroy = program_destroy,
    .stats = get_stats,
    .write_trace = write_trace,
};

static void read_processor_name(char *name, size_t bytes) {
    snprintf(name, bytes, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    char line[512];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(name, bytes, "%s", colon + 2);
        break;
    }
    fclose(f);
}

static uint64_t available_memory(uint64_t otherwise) {
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return otherwise;
    char line[256];
    unsigned long long kib = otherwise / 1024;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
    fclose(f);
    return kib * 1024;
}

void hk_cpu_describe(struct hk_device_info *info) {
    *info = (struct hk_device_info){.kind = HK_DEVICE_CPU, .unified_memory = true};
    read_processor_name(info->name, sizeof info->name);
    snprintf(info->driver, sizeof info->driver, "%s", isa_name(isa_find()));
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE), processors = sysconf(_SC_NPROCESSORS_ONLN);
    info->memory_total = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    info->memory_free = available_memory(info->memory_total);
    info->max_binding = info->max_buffer = UINT64_MAX / 2;
    info->threads = (int)HK_MIN(HK_MAX(processors, 1), MAX_THREADS);
    const uint64_t id = hk_hash(info->driver, strlen(info->driver), hk_hash(info->name, strlen(info->name), 0));
    memcpy(info->uuid, &id, sizeof id);
}

hk_status hk_cpu_open(const struct hk_device_params *params, struct hk_device **out) {
    if (params->threads < 0 || params->threads > MAX_THREADS)
        return hk_fail(HK_ERROR_INVALID, "threads is %d: must be 0 to %d", params->threads, MAX_THREADS);
    if (params->validate) return hk_fail(HK_ERROR_UNSUPPORTED, "validate: the CPU has no validation layer");
    struct device *device = calloc(1, sizeof *device);
    if (!device) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    pthread_mutex_init(&device->mutex, NULL);
    device->base.backend = &cpu_backend;
    device->base.memory_limit = params->memory_limit;
    device->base.poison = hk_environment_flag("HEKLA_POISON");
    device->base.fusing = hk_environment_flag("HEKLA_UNFUSED") ? HK_FUSE_NOTHING : HK_FUSE_CHUNKS;
    hk_cpu_describe(&device->base.info);
    if (params->threads) device->base.info.threads = params->threads;
    device->isa = isa_find();
    device->profile = params->profile;
    device->cpu.threads = device->base.info.threads;
    device->cpu.workspace_bytes = CPU_WORKSPACE_BYTES;
    device->cpu.pool = pool_create(device->cpu.threads);
    if (!device->cpu.pool ||
        posix_memalign(&device->cpu.workspace, 4096, (size_t)device->cpu.threads * CPU_WORKSPACE_BYTES)) {
        const int threads = device->cpu.threads;
        device->cpu.workspace = NULL;
        device_close((struct hk_device *)device);
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of memory for %d threads, or the system allows no more of them", threads);
    }
    *out = (struct hk_device *)device;
    return HK_OK;
}
