/* What the queue and the transfers promise, by watching the Vulkan calls: drivers that run on a processor do one thing
   after the other anyway, so that on them a wait or a barrier that is missing changes no result. */
#include "vulkan/device.h"
#include <hekla/hekla.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vk_device *open_device(uint64_t memory_limit) {
    const struct hk_device_params params = {.cache_dir = "", .memory_limit = memory_limit};
    struct hk_device *device;
    int count;
    assert_int_equal(hk_vulkan_list(NULL, 0, &count), HK_OK);
    if (!count) {
        print_message("no Vulkan device on this machine\n");
        skip();
    }
    if (hk_vulkan_open(&params, 0, &device)) fail_msg("%s", hk_error_message());
    ((struct hk_device_base *)device)->fusing = HK_FUSE_NOTHING; /* each op is a launch */
    return vk_device_of(device);
}

static struct hk_device *base(struct vk_device *device) { return (struct hk_device *)device; }

static void close_device(struct vk_device *device) {
    struct hk_device *d = base(device);
    struct hk_stats stats;
    hk_device_get_stats(d, &stats);
    assert_int_equal(stats.validation_messages, 0);
    hk_device_destroy(&d);
}

/* y = cos(relu(x)) */
struct job {
    struct hk_tensor *x, *y;
    struct hk_program *program;
};

static struct job make_job(struct vk_device *device) {
    struct job job = {hk_tensor_create(base(device), HK_F32, HK_SHAPE(64)),
                      hk_tensor_create(base(device), HK_F32, HK_SHAPE(64)), NULL};
    struct hk_graph *graph = hk_graph_create();
    hk_store(job.y, hk_cos(hk_relu(hk_leaf(graph, job.x))));
    job.program = hk_compile(base(device), graph, NULL);
    if (!job.program) fail_msg("%s", hk_error_message());
    hk_graph_destroy(&graph);
    return job;
}

static void free_job(struct job *job) {
    hk_program_destroy(&job->program);
    hk_tensor_destroy(&job->x);
    hk_tensor_destroy(&job->y);
}

/* ---- Calls that are watched ---- */

static struct {
    struct VolkDeviceTable vk; /* the driver's own */
    char commands[256];        /* what was recorded: ( begin, F full barrier, B barrier between dispatches, D, ) end */
    size_t count;
    uint64_t waited;         /* the highest value that was waited for */
    uint64_t waited_at_free; /* when a command pool was destroyed */
} seen;

static void note(char what) {
    if (seen.count + 1 < sizeof seen.commands) seen.commands[seen.count++] = what;
}

static VKAPI_ATTR VkResult VKAPI_CALL watch_begin(VkCommandBuffer commands, const VkCommandBufferBeginInfo *info) {
    note('(');
    return seen.vk.vkBeginCommandBuffer(commands, info);
}

static VKAPI_ATTR VkResult VKAPI_CALL watch_end(VkCommandBuffer commands) {
    note(')');
    return seen.vk.vkEndCommandBuffer(commands);
}

static VKAPI_ATTR void VKAPI_CALL watch_dispatch(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z) {
    note('D');
    seen.vk.vkCmdDispatch(commands, x, y, z);
}

/* Full: all writes before, the host's too, are seen by all that follows, the host too. */
static bool is_full(const VkDependencyInfo *info) {
    const VkMemoryBarrier2 *b = info->pMemoryBarriers;
    return info->memoryBarrierCount == 1 && b->srcStageMask & VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT &&
           b->srcStageMask & VK_PIPELINE_STAGE_2_HOST_BIT && b->dstStageMask & VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT &&
           b->dstStageMask & VK_PIPELINE_STAGE_2_HOST_BIT && b->srcAccessMask & VK_ACCESS_2_MEMORY_WRITE_BIT &&
           b->srcAccessMask & VK_ACCESS_2_HOST_WRITE_BIT && b->dstAccessMask & VK_ACCESS_2_MEMORY_READ_BIT &&
           b->dstAccessMask & VK_ACCESS_2_MEMORY_WRITE_BIT && b->dstAccessMask & VK_ACCESS_2_HOST_READ_BIT;
}

/* A dispatch's writes are done and seen by what later dispatches read and write. */
static bool is_between_dispatches(const VkDependencyInfo *info) {
    const VkMemoryBarrier2 *b = info->pMemoryBarriers;
    const VkAccessFlags2 both = VK_ACCESS_2_SHADER_STORAGE_READ_BIT | VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT;
    return info->memoryBarrierCount == 1 && b->srcStageMask & VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT &&
           b->dstStageMask & VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT &&
           b->srcAccessMask & VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT && (b->dstAccessMask & both) == both;
}

static VKAPI_ATTR void VKAPI_CALL watch_barrier(VkCommandBuffer commands, const VkDependencyInfo *info) {
    note(is_full(info) ? 'F' : is_between_dispatches(info) ? 'B' : '?');
    seen.vk.vkCmdPipelineBarrier2(commands, info);
}

static VKAPI_ATTR VkResult VKAPI_CALL watch_wait(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout) {
    seen.waited = HK_MAX(seen.waited, info->pValues[0]);
    return seen.vk.vkWaitSemaphores(device, info, timeout);
}

static VKAPI_ATTR void VKAPI_CALL watch_free(VkDevice device, VkCommandPool pool,
                                             const VkAllocationCallbacks *callbacks) {
    seen.waited_at_free = seen.waited;
    seen.vk.vkDestroyCommandPool(device, pool, callbacks);
}

static void watch(struct vk_device *device) {
    memset(&seen, 0, sizeof seen);
    seen.vk = device->vk;
    device->vk.vkBeginCommandBuffer = watch_begin;
    device->vk.vkEndCommandBuffer = watch_end;
    device->vk.vkCmdDispatch = watch_dispatch;
    device->vk.vkCmdPipelineBarrier2 = watch_barrier;
    device->vk.vkWaitSemaphores = watch_wait;
    device->vk.vkDestroyCommandPool = watch_free;
}

/* ---- Programs ---- */

static void programs_wait_for_what_is_before_them_and_show_what_they_did(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    watch(device);
    struct job whole = make_job(device);
    assert_string_equal(seen.commands, "(FDBDF)");
    free_job(&whole);
    close_device(device);

    device = open_device(0);
    device->submission_seconds = 1e-12; /* each launch a submission: barriers between them hold across submissions */
    watch(device);
    struct job cut = make_job(device);
    assert_string_equal(seen.commands, "(FD)(BDF)");
    free_job(&cut);
    close_device(device);
}

/* Launches of a second each, by an estimate of one element a second. */
static void submissions_are_cut_by_the_sum_of_their_launches(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    device->flops_rate = 64, device->bytes_rate = 1e30, device->submission_seconds = 2.5;
    struct hk_tensor *x = hk_tensor_create(base(device), HK_F32, HK_SHAPE(64));
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *value = hk_leaf(graph, x);
    for (int i = 0; i < 3; i++) value = hk_cos(hk_relu(value));
    hk_store(x, value);
    struct hk_program *program = hk_compile(base(device), graph, NULL);
    assert_non_null(program);
    assert_int_equal(hk_program_get_info(program)->dispatches, 6);
    assert_int_equal(hk_program_get_info(program)->submits, 3);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    close_device(device);
}

static void few_runs_are_in_flight(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct job job = make_job(device);
    watch(device);
    uint64_t values[10];
    for (int i = 0; i < 10; i++) {
        assert_int_equal(hk_program_run(job.program), HK_OK);
        values[i] = device->submitted;
        if (i >= VK_RUNS_IN_FLIGHT) assert_true(seen.waited >= values[i - VK_RUNS_IN_FLIGHT]);
    }
    assert_true(seen.waited < values[9]); /* but it does not wait for each run */
    free_job(&job);
    close_device(device);
}

static void a_program_is_not_freed_while_it_runs(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct job job = make_job(device);
    watch(device);
    assert_int_equal(hk_program_run(job.program), HK_OK);
    const uint64_t value = device->submitted;
    hk_program_destroy(&job.program);
    assert_true(seen.waited_at_free >= value);
    free_job(&job);
    close_device(device);
}

static void a_device_with_work_is_not_idle(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    assert_int_equal(hk_device_wait(base(device)), HK_OK);
    pthread_mutex_lock(&device->mutex);
    assert_true(vk_idle(device));
    device->submitted++; /* as after a submission that is not done */
    assert_false(vk_idle(device));
    device->submitted--;
    pthread_mutex_unlock(&device->mutex);
    close_device(device);
}

/* ---- Transfers ---- */

/* A write through the staging ring, as where the host cannot map the memory. */
static void write_staged(struct vk_device *device, struct hk_buffer *buffer, const void *data, uint64_t bytes) {
    void *host = buffer->host;
    buffer->host = NULL;
    assert_int_equal(vk_write(base(device), buffer, 0, data, bytes), HK_OK);
    buffer->host = host;
}

static void a_write_does_not_overtake_one_that_waits(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct hk_buffer *buffer;
    int got = 0;
    assert_int_equal(vk_buffer_create(base(device), 256, &buffer), HK_OK);
    assert_int_equal(hk_device_wait(base(device)), HK_OK);
    for (int i = 0; i < 4; i++) { /* the device is idle all the time: nobody has submitted anything */
        const int first = 2 * i + 1, second = 2 * i + 2;
        write_staged(device, buffer, &first, sizeof first);
        assert_int_equal(vk_write(base(device), buffer, 0, &second, sizeof second), HK_OK);
        assert_int_equal(vk_read(base(device), buffer, 0, &got, sizeof got), HK_OK);
        assert_int_equal(got, second);
    }
    vk_buffer_destroy(base(device), buffer);
    close_device(device);
}

static void copies_wait_for_each_other(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct hk_buffer *buffer;
    const int number = 1;
    assert_int_equal(vk_buffer_create(base(device), 256, &buffer), HK_OK);
    assert_int_equal(hk_device_wait(base(device)), HK_OK);
    watch(device);
    for (int i = 0; i < 3; i++) write_staged(device, buffer, &number, sizeof number);
    assert_int_equal(hk_device_wait(base(device)), HK_OK);
    assert_string_equal(seen.commands, "(FFFF)"); /* one before each, one after all */
    vk_buffer_destroy(base(device), buffer);
    close_device(device);
}

static void the_staging_ring_waits_for_its_slots(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct hk_buffer *buffer;
    const uint64_t bytes = device->transfers.slot_bytes;
    char *data = calloc(1, bytes);
    assert_int_equal(vk_buffer_create(base(device), bytes, &buffer), HK_OK);
    assert_int_equal(hk_device_wait(base(device)), HK_OK);
    const uint64_t begin = device->submitted;
    watch(device);
    for (int i = 0; i < VK_SLOTS + 2; i++) write_staged(device, buffer, data, bytes);
    assert_true(seen.waited > begin); /* the first slot was used twice, with a wait for its copy between */
    vk_buffer_destroy(base(device), buffer);
    close_device(device);
    free(data);
}

/* ---- Memory ---- */

static void the_limit_is_for_all_buffers_together(void **state) {
    (void)state;
    struct vk_device *device = open_device(1 << 20);
    struct hk_buffer *first, *second;
    assert_int_equal(vk_buffer_create(base(device), 600 << 10, &first), HK_OK);
    assert_int_equal(vk_buffer_create(base(device), 600 << 10, &second), HK_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(hk_error_message(), "limit 1 MiB"));
    vk_buffer_destroy(base(device), first);
    assert_int_equal(vk_buffer_create(base(device), 600 << 10, &second), HK_OK);
    vk_buffer_destroy(base(device), second);
    close_device(device);
}

/* What one buffer held is not what the next one begins with, though it may get the same memory. */
static void memory_that_was_used_begins_as_zero_again(void **state) {
    (void)state;
    enum { BYTES = 4096, BUFFERS = 32 };
    struct vk_device *device = open_device(0);
    unsigned char data[BYTES], zeros[BYTES] = {0};
    for (int round = 0; round < 3; round++) {
        struct hk_buffer *buffers[BUFFERS];
        for (int i = 0; i < BUFFERS; i++) {
            assert_int_equal(vk_buffer_create(base(device), BYTES, &buffers[i]), HK_OK);
            assert_int_equal(vk_read(base(device), buffers[i], 0, data, BYTES), HK_OK);
            assert_memory_equal(data, zeros, BYTES);
            memset(data, 0xa5, BYTES);
            assert_int_equal(vk_write(base(device), buffers[i], 0, data, BYTES), HK_OK);
        }
        for (int i = 0; i < BUFFERS; i++) vk_buffer_destroy(base(device), buffers[i]);
    }
    close_device(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_wait_for_what_is_before_them_and_show_what_they_did),
        cmocka_unit_test(submissions_are_cut_by_the_sum_of_their_launches),
        cmocka_unit_test(few_runs_are_in_flight),
        cmocka_unit_test(a_program_is_not_freed_while_it_runs),
        cmocka_unit_test(a_device_with_work_is_not_idle),
        cmocka_unit_test(a_write_does_not_overtake_one_that_waits),
        cmocka_unit_test(copies_wait_for_each_other),
        cmocka_unit_test(the_staging_ring_waits_for_its_slots),
        cmocka_unit_test(the_limit_is_for_all_buffers_together),
        cmocka_unit_test(memory_that_was_used_begins_as_zero_again),
    };
    return cmocka_run_group_tests_name("vulkan_queue", tests, NULL, NULL);
}
