/* The Vulkan backend from inside: hazards, caches, transfers, faults. Runs on the first Vulkan device; skipped without one. */
#include "vulkan/device.h"
#include "vulkan/hazard.h"
#include <dlfcn.h>
#include <hekla/hekla.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 1 << 16 };

/* ---- What tests need ---- */

static char folder[256]; /* of this test process, for caches and traces */

static int damaged; /* caches that the library said to be so */

static void on_log(void *user, enum hk_log_level level, const char *message) {
    (void)user;
    damaged += strstr(message, "is damaged or of another driver") != NULL;
    if (level >= HK_LOG_WARNING) fprintf(stderr, "%s\n", message);
}

static struct vk_device *open_device(struct hk_device_params params) {
    struct hk_device *device;
    int count;
    assert_int_equal(hk_vulkan_list(NULL, 0, &count), HK_OK);
    if (!count) {
        print_message("no Vulkan device on this machine\n");
        skip();
    }
    if (!params.cache_dir) params.cache_dir = "";
    const hk_status status = hk_vulkan_open(&params, 0, &device);
    if (status) fail_msg("%s", hk_error_message());
    ((struct hk_device_base *)device)->fusing = HK_FUSE_NOTHING; /* each op is a launch */
    return vk_device_of(device);
}

static struct hk_device *base(struct vk_device *device) { return (struct hk_device *)device; }

/* No validation message (where HEKLA_VALIDATE=1 loads the layer), no fallback. */
static void close_device(struct vk_device *device) {
    struct hk_device *d = base(device);
    struct hk_stats stats;
    hk_device_get_stats(d, &stats);
    assert_int_equal(stats.validation_messages, 0);
    assert_int_equal(stats.fallbacks, 0);
    assert_int_equal(stats.bytes, 0);
    hk_device_destroy(&d);
}

/* y = 2 x + 1, `times` over: the ops depend on each other. */
struct chain {
    struct hk_tensor *x, *y;
    struct hk_program *program;
    int times;
};

static void chain_open(struct chain *c, struct vk_device *device, int times) {
    c->times = times;
    c->x = hk_tensor_create(base(device), HK_F32, HK_SHAPE(COUNT));
    c->y = hk_tensor_create(base(device), HK_F32, HK_SHAPE(COUNT));
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *value = hk_leaf(graph, c->x);
    for (int i = 0; i < times; i++) value = hk_affine(value, 2, 1);
    hk_store(c->y, value);
    c->program = hk_compile(base(device), graph, NULL);
    if (!c->program) fail_msg("%s", hk_error_message());
    hk_graph_destroy(&graph);
}

static void chain_close(struct chain *c) {
    hk_program_destroy(&c->program);
    hk_tensor_destroy(&c->x);
    hk_tensor_destroy(&c->y);
}

static void chain_write(struct chain *c, int seed) {
    float *data = malloc(COUNT * sizeof *data);
    for (int i = 0; i < COUNT; i++) data[i] = (float)((i + seed) % 1000);
    assert_int_equal(hk_tensor_write(c->x, data, COUNT * sizeof *data), HK_OK);
    free(data);
}

static void chain_check(struct chain *c, int seed) {
    float *data = malloc(COUNT * sizeof *data);
    assert_int_equal(hk_tensor_read(c->y, data, COUNT * sizeof *data), HK_OK);
    for (int i = 0; i < COUNT; i++) {
        float expected = (float)((i + seed) % 1000);
        for (int k = 0; k < c->times; k++) expected = 2 * expected + 1;
        if (data[i] != expected) fail_msg("element %d is %g, expected %g", i, (double)data[i], (double)expected);
    }
    free(data);
}

/* ---- Hazards ---- */

static bool add(struct vk_hazards *h, const void *buffer, uint64_t begin, uint64_t end, int access) {
    bool barrier;
    assert_true(vk_hazards_add(h, &(struct vk_access){buffer, begin, end, access}, 1, &barrier));
    return barrier;
}

static void barriers_only_where_ranges_conflict(void **state) {
    (void)state;
    struct vk_hazards h = {0};
    const int a = 0, b = 0;
    assert_false(add(&h, &a, 0, 100, HK_READ));
    assert_false(add(&h, &a, 50, 150, HK_READ));   /* reads never conflict */
    assert_false(add(&h, &b, 0, 100, HK_WRITE));   /* another buffer */
    assert_false(add(&h, &a, 150, 200, HK_WRITE)); /* beside what was read */
    assert_false(add(&h, &b, 100, 200, HK_WRITE)); /* beside what was written */
    assert_true(add(&h, &b, 199, 300, HK_READ));   /* read after write */
    assert_false(add(&h, &b, 0, 100, HK_WRITE));   /* the barrier covered the write */
    assert_true(add(&h, &b, 299, 300, HK_WRITE));  /* write after read */
    assert_true(add(&h, &b, 290, 400, HK_WRITE));  /* write after write */
    assert_false(add(&h, &b, 500, 500, HK_WRITE)); /* nothing */
    assert_false(add(&h, &a, 0, 10, HK_READ | HK_WRITE)); /* in place: not a conflict with itself */
    assert_true(add(&h, &a, 0, 10, HK_READ | HK_WRITE));
    vk_hazards_free(&h);
}

/* The tracker against a byte map, on thousands of random dispatches. */
static void tracker_agrees_with_a_byte_map(void **state) {
    (void)state;
    enum { BYTES = 4096 };
    static uint8_t map[2][BYTES];
    struct vk_hazards h = {0};
    uint32_t random = 1;
    int barriers = 0;
    for (int n = 0; n < 20000; n++) {
        struct vk_access accesses[3];
        bool barrier, expected = false;
        for (int i = 0; i < 3; i++) {
            random = random * 1664525 + 1013904223;
            const int buffer = random >> 30 & 1;
            const uint64_t begin = random >> 8 & (BYTES - 1), end = HK_MIN(begin + (random >> 20 & 63), BYTES);
            accesses[i] = (struct vk_access){map[buffer], begin, end, random >> 28 & 1 ? HK_WRITE : HK_READ};
            for (uint64_t k = begin; k < end; k++)
                expected = expected || map[buffer][k] & HK_WRITE || (map[buffer][k] && accesses[i].access & HK_WRITE);
        }
        assert_true(vk_hazards_add(&h, accesses, 3, &barrier));
        assert_int_equal(barrier, expected);
        if (barrier) memset(map, 0, sizeof map), barriers++;
        for (int i = 0; i < 3; i++)
            for (uint64_t k = accesses[i].begin; k < accesses[i].end; k++)
                ((uint8_t *)(uintptr_t)accesses[i].buffer)[k] |= (uint8_t)accesses[i].access;
    }
    assert_in_range(barriers, 100, 19000);
    vk_hazards_free(&h);
}

/* ---- Devices ---- */

static void listing_counts_beyond_the_capacity(void **state) {
    (void)state;
    struct hk_device_info infos[8];
    int count, again;
    assert_int_equal(hk_vulkan_list(NULL, 0, &count), HK_OK);
    if (!count) skip();
    assert_int_equal(hk_vulkan_list(infos, 8, &again), HK_OK);
    assert_int_equal(again, count);
    for (int i = 0; i < HK_MIN(count, 8); i++) {
        assert_int_equal(infos[i].kind, HK_DEVICE_VULKAN);
        assert_int_equal(infos[i].index, i);
        assert_true(infos[i].name[0] && infos[i].driver[0]);
        assert_true(infos[i].api_version >= VK_API_VERSION_1_3);
        assert_true(infos[i].memory_total >= infos[i].memory_free && infos[i].memory_free);
        assert_true(infos[i].max_workgroup >= 128 && infos[i].shared_memory >= 16384 && infos[i].subgroup_size);
    }
    struct hk_device *device;
    assert_int_equal(hk_vulkan_open(NULL, count, &device), HK_ERROR_NO_DEVICE);
    assert_null(device);
}

static void devices_open_and_close_many_times(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) close_device(open_device((struct hk_device_params){0}));
}

static void two_devices_work_at_once(void **state) {
    (void)state;
    struct vk_device *a = open_device((struct hk_device_params){0}), *b = open_device((struct hk_device_params){0});
    struct chain x, y;
    chain_open(&x, a, 2);
    chain_open(&y, b, 3);
    chain_write(&x, 1);
    chain_write(&y, 2);
    assert_int_equal(hk_program_run(x.program), HK_OK);
    assert_int_equal(hk_program_run(y.program), HK_OK);
    chain_check(&y, 2);
    chain_close(&y);
    close_device(b);
    chain_check(&x, 1);
    chain_close(&x);
    close_device(a);
}

struct thread {
    pthread_t id;
    struct vk_device *device;
    int seed;
};

static void *use_device(void *context) {
    struct thread *t = context;
    struct chain c;
    chain_open(&c, t->device, 2 + t->seed);
    for (int i = 0; i < 20; i++) {
        chain_write(&c, i + t->seed);
        hk_program_run(c.program);
        chain_check(&c, i + t->seed);
    }
    chain_close(&c);
    return NULL;
}

static void threads_share_a_device(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct thread threads[3];
    for (int i = 0; i < 3; i++) {
        threads[i] = (struct thread){.device = device, .seed = i};
        assert_int_equal(pthread_create(&threads[i].id, NULL, use_device, &threads[i]), 0);
    }
    for (int i = 0; i < 3; i++) pthread_join(threads[i].id, NULL);
    close_device(device);
}

/* ---- Programs ---- */

static void a_run_repeats_without_new_resources(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct chain c;
    struct hk_stats before, after;
    chain_open(&c, device, 4);
    chain_write(&c, 0);
    assert_int_equal(hk_program_run(c.program), HK_OK);
    chain_check(&c, 0);
    hk_device_get_stats(base(device), &before);
    for (int i = 0; i < 10; i++) {
        chain_write(&c, i); /* while the run before is under way */
        assert_int_equal(hk_program_run(c.program), HK_OK);
    }
    chain_check(&c, 9);
    hk_device_get_stats(base(device), &after);
    const struct hk_program_info *info = hk_program_get_info(c.program);
    assert_int_equal(after.runs - before.runs, 10);
    assert_int_equal(after.dispatches - before.dispatches, 10 * info->dispatches);
    assert_int_equal(after.allocations, before.allocations);
    assert_int_equal(after.descriptor_writes, before.descriptor_writes);
    assert_int_equal(after.pipelines, before.pipelines);
    assert_in_range(after.submits - before.submits, 10, 11); /* writes travel with the runs */
    chain_close(&c);
    close_device(device);
}

static void long_programs_are_cut(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct chain whole, cut;
    chain_open(&whole, device, 6);
    device->submission_seconds = 1e-12;
    chain_open(&cut, device, 6);
    const struct hk_program_info *a = hk_program_get_info(whole.program), *b = hk_program_get_info(cut.program);
    assert_int_equal(a->submits, 1);
    assert_int_equal(b->submits, b->dispatches);
    assert_true(b->dispatches > 1);
    assert_int_equal(a->barriers, b->barriers);
    chain_write(&cut, 3);
    assert_int_equal(hk_program_run(cut.program), HK_OK);
    chain_check(&cut, 3);
    chain_close(&whole);
    chain_close(&cut);
    close_device(device);
}

/* The gradients of q, k and v are put side by side in every layer: each is one kernel, whatever the number of rows. */
static void columns_of_16_bits_take_a_dispatch_each(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct hk_tensor *parts[3], *joined = hk_tensor_create(base(device), HK_F16, HK_SHAPE(40, 24));
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *values[3];
    for (int i = 0; i < 3; i++) {
        parts[i] = hk_tensor_create(base(device), HK_F16, HK_SHAPE(40, 4 + 4 * i));
        values[i] = hk_leaf(graph, parts[i]);
    }
    hk_store(joined, hk_concat(values, 3, -1));
    struct hk_program *program = hk_compile(base(device), graph, NULL);
    assert_non_null(program);
    assert_in_range(hk_program_get_info(program)->dispatches, 3, 4); /* and the store, where it is one */
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    for (int i = 0; i < 3; i++) hk_tensor_destroy(&parts[i]);
    hk_tensor_destroy(&joined);
    close_device(device);
}

static void a_profile_has_every_dispatch(void **state) {
    (void)state;
    char path[512], *text;
    size_t bytes;
    snprintf(path, sizeof path, "%s/trace.json", folder);
    struct vk_device *device = open_device((struct hk_device_params){.profile = true});
    struct chain c;
    chain_open(&c, device, 3);
    device->submission_seconds = 1e-12;
    const int dispatches = hk_program_get_info(c.program)->dispatches;
    for (int i = 0; i < 2; i++) assert_int_equal(hk_program_run(c.program), HK_OK);
    assert_int_equal(device->profile.count, 2 * dispatches);
    for (int i = 0; i < device->profile.count; i++) {
        const struct vk_event *e = &device->profile.events[i];
        assert_true(e->duration >= 0 && e->duration < 10 && e->bytes > 0);
        assert_true(i == 0 || e->begin >= device->profile.events[i - 1].begin);
    }
    assert_int_equal(hk_device_write_trace(base(device), path), HK_OK);
    assert_int_equal(hk_file_read(path, &text, &bytes), HK_OK);
    assert_non_null(strstr(text, "\"traceEvents\":[{"));
    assert_non_null(strstr(text, "\"affine\""));
    free(text);
    chain_close(&c);
    close_device(device);
    device = open_device((struct hk_device_params){0});
    assert_int_equal(hk_device_write_trace(base(device), path), HK_ERROR_INVALID);
    close_device(device);
}

/* The rows' kernel reads the logits, and the mean's only a loss for each: not half of all that the op moves. */
static void a_profile_has_what_each_dispatch_moves(void **state) {
    (void)state;
    enum { N = 40, CLASSES = 300 };
    struct vk_device *device = open_device((struct hk_device_params){.profile = true});
    struct hk_tensor *logits = hk_tensor_create(base(device), HK_F32, HK_SHAPE(N, CLASSES)),
                     *targets = hk_tensor_create(base(device), HK_I32, HK_SHAPE(N)),
                     *loss = hk_tensor_create(base(device), HK_F32, HK_SCALAR);
    struct hk_graph *graph = hk_graph_create();
    hk_store(loss, hk_cross_entropy(hk_leaf(graph, logits), hk_leaf(graph, targets), NULL));
    struct hk_program *program = hk_compile(base(device), graph, NULL);
    assert_non_null(program);
    assert_int_equal(hk_program_run(program), HK_OK);
    bool found = false;
    for (int i = 0; i < device->profile.count; i++)
        if (device->profile.events[i].bytes == 4.0 * N * CLASSES) found = true;
    assert_true(found);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&logits);
    hk_tensor_destroy(&targets);
    hk_tensor_destroy(&loss);
    close_device(device);
}

/* ---- Transfers ---- */

/* Copies of every kind of size at odd places, direct and by way of the staging ring. */
static void copies_of_any_size_arrive(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    const struct hk_backend *backend = device->base.backend;
    const uint64_t size = 3 * device->transfers.slot_bytes + 1000;
    const uint64_t lengths[] = {0, 1, 2, 3, 5, 4096, device->transfers.slot_bytes, device->transfers.slot_bytes + 1, size - 8};
    unsigned char *sent = malloc(size), *got = malloc(size);
    for (uint64_t i = 0; i < size; i++) sent[i] = (unsigned char)(i * 7 + i / 251);
    for (int staged = 0; staged < 2; staged++) {
        struct hk_buffer *buffer;
        assert_int_equal(backend->buffer_create(base(device), size, &buffer), HK_OK);
        if (staged) buffer->host = NULL; /* as where the host cannot map it */
        assert_int_equal(backend->read(base(device), buffer, 0, got, size), HK_OK);
        for (uint64_t i = 0; i < size; i++) assert_int_equal(got[i], 0);
        for (size_t i = 0; i < HK_LENGTH(lengths); i++) {
            const uint64_t at = i % 5;
            assert_int_equal(backend->write(base(device), buffer, at, sent, lengths[i]), HK_OK);
            memset(got, 0, size);
            assert_int_equal(backend->read(base(device), buffer, at, got, lengths[i]), HK_OK);
            assert_memory_equal(got, sent, lengths[i]);
        }
        assert_int_equal(backend->write(base(device), buffer, size, sent, 4096), HK_ERROR_INTERNAL);
        backend->buffer_destroy(base(device), buffer);
    }
    free(sent);
    free(got);
    close_device(device);
}

static void device_memory_begins_as_zero(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct hk_buffer *buffer;
    unsigned char data[512], zeros[512] = {0};
    assert_int_equal(device->base.backend->buffer_create(base(device), 500, &buffer), HK_OK);
    if (buffer->host) memset(buffer->host, 1, 500);
    pthread_mutex_lock(&device->mutex);
    assert_int_equal(vk_transfers_fill(device, (struct vk_buffer *)buffer, 0), HK_OK); /* as for memory that is not mapped */
    pthread_mutex_unlock(&device->mutex);
    assert_int_equal(buffer->bytes, 512);
    assert_int_equal(device->base.backend->read(base(device), buffer, 0, data, 512), HK_OK);
    assert_memory_equal(data, zeros, 512);
    device->base.backend->buffer_destroy(base(device), buffer);
    close_device(device);
}

/* How many pages that lie wholly within the buffer exist. */
static size_t pages_there(const struct hk_buffer *buffer, size_t *all) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), skip = (page - (uintptr_t)buffer->host % page) % page;
    *all = (buffer->bytes - skip) / page;
    unsigned char *there = malloc(*all);
    size_t count = 0;
    assert_int_equal(mincore((char *)buffer->host + skip, *all * page, there), 0);
    for (size_t i = 0; i < *all; i++) count += there[i] & 1;
    free(there);
    return count;
}

/* A program that is compiled waits for no page of what it will compute. So much is asked for that no allocator has it at hand. */
static void an_arena_is_left_as_it_comes(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct hk_buffer *arena;
    struct vk_buffer *staging;
    const uint64_t bytes = 40 << 20;
    size_t all;
    assert_int_equal(vk_staging_create(device, bytes, &staging), HK_OK);
    const bool driver_touches = !device->base.info.software || pages_there(&staging->base, &all);
    vk_buffer_free(device, staging);
    if (driver_touches || hk_environment_flag("HEKLA_WIDE_BINDINGS")) {
        close_device(device);
        print_message("the driver touches memory itself, or tests see what lies behind it\n");
        skip();
    }
    assert_int_equal(device->base.backend->arena_create(base(device), bytes, &arena), HK_OK);
    const size_t touched = pages_there(arena, &all);
    print_message("%zu of %zu pages exist\n", touched, all);
    assert_true(touched < all / 4);
    device->base.backend->buffer_destroy(base(device), arena);
    close_device(device);
}

/* ---- The pipeline cache ---- */

static size_t file_bytes(const char *path) {
    char *data;
    size_t bytes;
    if (hk_file_read(path, &data, &bytes)) return 0;
    free(data);
    return bytes;
}

static void run_with_cache(void) {
    struct vk_device *device = open_device((struct hk_device_params){.cache_dir = folder});
    struct chain c;
    chain_open(&c, device, 2);
    chain_write(&c, 5);
    assert_int_equal(hk_program_run(c.program), HK_OK);
    chain_check(&c, 5);
    chain_close(&c);
    close_device(device);
}

enum spoiled { ANOTHER_DRIVER, GARBAGE };

/* A file of the right size whose own header is right where the driver's is of another device, or that is all noise. */
static void check_replaced(const char *path, const char *good, size_t bytes, enum spoiled how) {
    char *copy = malloc(bytes);
    size_t after;
    memcpy(copy, good, bytes);
    for (size_t i = 0; i < bytes && how == GARBAGE; i++) copy[i] = (char)(i * 167 + i / 13);
    if (how == ANOTHER_DRIVER) { /* the file's header: 48 bytes, the last 8 a hash of the rest */
        for (int i = 8; i < 32; i++) copy[48 + i] ^= 0x55; /* vendor, device, uuid (VkPipelineCacheHeaderVersionOne) */
        const uint64_t hash = hk_hash(copy + 48, bytes - 48, 0);
        memcpy(copy + 40, &hash, sizeof hash);
    }
    assert_int_equal(hk_file_write(path, copy, bytes), HK_OK);
    run_with_cache();
    free(copy);
    assert_int_equal(hk_file_read(path, &copy, &after), HK_OK);
    assert_int_equal(after, bytes);
    assert_memory_equal(copy + 48, good + 48, 32);
    free(copy);
}

static void bad_cache_files_are_ignored_and_replaced(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){.cache_dir = folder});
    char path[sizeof device->pipelines.path];
    memcpy(path, device->pipelines.path, sizeof path);
    close_device(device);
    run_with_cache();
    const size_t whole = file_bytes(path);
    assert_true(whole > 48);
    char *data;
    size_t bytes;
    assert_int_equal(hk_file_read(path, &data, &bytes), HK_OK);
    const size_t cuts[] = {0, 1, 47, 48, whole / 2, whole - 1};
    for (size_t i = 0; i < HK_LENGTH(cuts); i++) {
        assert_int_equal(hk_file_write(path, data, cuts[i]), HK_OK);
        run_with_cache();
        assert_int_equal(file_bytes(path), whole);
    }
    const size_t flips[] = {0, 9, 13, 20, 33, 41, 48, whole - 1}; /* magic, version, driver, uuid, size, hash, data */
    for (size_t i = 0; i < HK_LENGTH(flips); i++) {
        char *copy = malloc(whole);
        memcpy(copy, data, whole);
        copy[flips[i]] ^= 0x40;
        assert_int_equal(hk_file_write(path, copy, whole), HK_OK);
        damaged = 0;
        run_with_cache();
        assert_int_equal(damaged, 1); /* the driver never sees it */
        free(copy);
        assert_int_equal(hk_file_read(path, &copy, &bytes), HK_OK);
        assert_int_equal(bytes, whole);
        assert_memory_equal(copy, data, 8);
        free(copy);
    }
    check_replaced(path, data, whole, ANOTHER_DRIVER);
    check_replaced(path, data, whole, GARBAGE);
    free(data);
}

/* ---- Faults: all calls that fail, one by one, are in test_faults_vulkan.c ---- */

static VKAPI_ATTR VkResult VKAPI_CALL submit_lost(VkQueue queue, uint32_t count, const VkSubmitInfo2 *submits, VkFence fence) {
    (void)queue, (void)count, (void)submits, (void)fence;
    return VK_ERROR_DEVICE_LOST;
}

static VKAPI_ATTR VkResult VKAPI_CALL no_memory(VkDevice device, const VkMemoryAllocateInfo *info,
                                                const VkAllocationCallbacks *callbacks, VkDeviceMemory *memory) {
    (void)device, (void)info, (void)callbacks, (void)memory;
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

static void a_lost_device_says_so_at_every_call(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){0});
    struct chain c;
    chain_open(&c, device, 2);
    device->vk.vkQueueSubmit2 = submit_lost;
    assert_int_equal(hk_program_run(c.program), HK_ERROR_DEVICE_LOST);
    assert_non_null(strstr(hk_error_message(), "lost"));
    float number[COUNT] = {0};
    assert_int_equal(hk_program_run(c.program), HK_ERROR_DEVICE_LOST);
    assert_int_equal(hk_tensor_read(c.y, number, sizeof number), HK_ERROR_DEVICE_LOST);
    assert_int_equal(hk_tensor_write(c.x, number, sizeof number), HK_ERROR_DEVICE_LOST);
    assert_int_equal(hk_device_wait(base(device)), HK_ERROR_DEVICE_LOST);
    assert_null(hk_tensor_create(base(device), HK_F32, HK_SHAPE(4)));
    assert_int_equal(hk_error_status(), HK_ERROR_DEVICE_LOST);
    chain_close(&c);
    close_device(device);
    run_with_cache(); /* another device opens and works */
}

static void too_much_memory_is_refused_with_need_and_have(void **state) {
    (void)state;
    struct vk_device *device = open_device((struct hk_device_params){.memory_limit = 1 << 20});
    struct hk_buffer *buffer;
    assert_int_equal(vk_buffer_create(base(device), 4 << 20, &buffer), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "need 5 MiB"));
    assert_non_null(strstr(hk_error_message(), "have 1 MiB"));
    assert_int_equal(vk_buffer_create(base(device), UINT64_MAX / 2, &buffer), HK_ERROR_OUT_OF_MEMORY);
    struct hk_tensor *small = hk_tensor_create(base(device), HK_F32, HK_SHAPE(1000));
    assert_non_null(small);
    hk_tensor_destroy(&small);

    const PFN_vkAllocateMemory allocate = device->vk.vkAllocateMemory;
    device->vk.vkAllocateMemory = no_memory;
    assert_null(hk_tensor_create(base(device), HK_F32, HK_SHAPE(1000)));
    assert_int_equal(hk_error_status(), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "need"));
    device->vk.vkAllocateMemory = allocate;
    small = hk_tensor_create(base(device), HK_F32, HK_SHAPE(1000));
    assert_non_null(small);
    hk_tensor_destroy(&small);
    close_device(device);
}

/* Two fills of one buffer with no barrier between them: what synchronization validation is there to find. */
static void validation_sees_a_missing_barrier(void **state) {
    (void)state;
    struct hk_device *d;
    struct hk_buffer *buffer;
    struct hk_stats stats;
    const struct hk_device_params params = {.cache_dir = "", .validate = true};
    const hk_status status = hk_vulkan_open(&params, 0, &d);
    if (status == HK_ERROR_NO_DEVICE || status == HK_ERROR_UNSUPPORTED) {
        print_message("no validation: %s\n", hk_error_message());
        skip();
    }
    assert_int_equal(status, HK_OK);
    struct vk_device *device = vk_device_of(d);
    hk_set_log(NULL, NULL);
    assert_int_equal(vk_buffer_create(d, 4096, &buffer), HK_OK);
    pthread_mutex_lock(&device->mutex);
    assert_int_equal(vk_transfers_fill(device, (struct vk_buffer *)buffer, 0), HK_OK);
    const VkCommandBuffer commands = device->transfers.slots[device->transfers.current].commands;
    assert_int_equal(device->instance.messages, 0);
    device->vk.vkCmdFillBuffer(commands, ((struct vk_buffer *)buffer)->handle, 0, 4096, 1);
    pthread_mutex_unlock(&device->mutex);
    hk_device_get_stats(d, &stats);
    assert_true(stats.validation_messages > 0);
    vk_buffer_destroy(d, buffer);
    hk_device_destroy(&d);
    hk_set_log(on_log, NULL);
}

/* What a driver or layer leaks is suppressed by its name (tests/lsan.supp), which is lost when the loader unloads it. */
static void keep_loaded(void) {
    static const char *const names[] = {"libvulkan_lvp.so", "libVkLayer_khronos_validation.so"};
    for (size_t i = 0; i < HK_LENGTH(names); i++) dlopen(names[i], RTLD_NOW | RTLD_NODELETE);
}

static int make_folder(void **state) {
    (void)state;
    const char *place = getenv("TMPDIR");
    hk_set_log(on_log, NULL);
    keep_loaded();
    snprintf(folder, sizeof folder, "%s/hekla-test-XXXXXX", place ? place : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_only_where_ranges_conflict),
        cmocka_unit_test(tracker_agrees_with_a_byte_map),
        cmocka_unit_test(listing_counts_beyond_the_capacity),
        cmocka_unit_test(devices_open_and_close_many_times),
        cmocka_unit_test(two_devices_work_at_once),
        cmocka_unit_test(threads_share_a_device),
        cmocka_unit_test(a_run_repeats_without_new_resources),
        cmocka_unit_test(long_programs_are_cut),
        cmocka_unit_test(columns_of_16_bits_take_a_dispatch_each),
        cmocka_unit_test(a_profile_has_every_dispatch),
        cmocka_unit_test(a_profile_has_what_each_dispatch_moves),
        cmocka_unit_test(copies_of_any_size_arrive),
        cmocka_unit_test(device_memory_begins_as_zero),
        cmocka_unit_test(an_arena_is_left_as_it_comes),
        cmocka_unit_test(bad_cache_files_are_ignored_and_replaced),
        cmocka_unit_test(a_lost_device_says_so_at_every_call),
        cmocka_unit_test(too_much_memory_is_refused_with_need_and_have),
        cmocka_unit_test(validation_sees_a_missing_barrier),
    };
    return cmocka_run_group_tests_name("vulkan", tests, make_folder, remove_folder);
}
