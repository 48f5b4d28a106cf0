/* Tuning on a Vulkan device: what the file says is taken, measuring happens once and ends in time, and every kernel that there
   is to choose from gives the right result. Runs on the first Vulkan device; skipped without one. */
#include "graph/tuning.h"
#include "op/op.h"
#include "support.h"
#include "vulkan/device.h"
#include <hekla/hekla.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[128], path[160];

static struct vk_device *open_device(double seconds) {
    struct hk_device *device;
    int count;
    assert_int_equal(hk_vulkan_list(NULL, 0, &count), HK_OK);
    if (!count) {
        print_message("no Vulkan device on this machine\n");
        skip();
    }
    const struct hk_device_params params = {.cache_dir = "", .tune = seconds, .tuning = path};
    if (hk_vulkan_open(&params, 0, &device)) fail_msg("%s", hk_error_message());
    return vk_device_of(device);
}

static struct hk_device *base(struct vk_device *device) { return (struct hk_device *)device; }

static struct hk_stats stats_of(struct vk_device *device) {
    struct hk_stats stats;
    hk_device_get_stats(base(device), &stats);
    return stats;
}

static void close_device(struct vk_device *device) {
    struct hk_device *d = base(device);
    assert_int_equal(stats_of(device).validation_messages, 0);
    assert_int_equal(stats_of(device).bytes, 0);
    hk_device_destroy(&d);
}

static int fresh(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

/* ---- Products ---- */

enum { MOST = 130 * 140 };

static float value(int64_t i) { return (float)((i * 37 + 11) % 17 - 8); }

/* c [m, n] = a [m, k] b [k, n], whole numbers, so that every order of sums gives the same. */
static void multiply(struct vk_device *device, int64_t m, int64_t n, int64_t k) {
    static float a[MOST], b[MOST], c[MOST];
    for (int64_t i = 0; i < m * k; i++) a[i] = value(i);
    for (int64_t i = 0; i < k * n; i++) b[i] = value(3 * i + 1);
    struct hk_tensor *ta = hk_tensor_from(base(device), HK_F32, HK_SHAPE(m, k), a);
    struct hk_tensor *tb = hk_tensor_from(base(device), HK_F32, HK_SHAPE(k, n), b);
    struct hk_tensor *tc = hk_tensor_create(base(device), HK_F32, HK_SHAPE(m, n));
    struct hk_graph *graph = hk_graph_create();
    hk_store(tc, hk_matmul(hk_leaf(graph, ta), hk_leaf(graph, tb)));
    struct hk_program *program = hk_compile(base(device), graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(tc, c, (size_t)(m * n) * sizeof *c), HK_OK);
    for (int64_t i = 0; i < m * n; i++) {
        float sum = 0;
        for (int64_t j = 0; j < k; j++) sum += a[i / n * k + j] * b[j * n + i % n];
        if (c[i] != sum) fail_msg("[%d] is %g, not %g", (int)i, (double)c[i], (double)sum);
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&ta);
    hk_tensor_destroy(&tb);
    hk_tensor_destroy(&tc);
}

/* ---- What there is to choose from ---- */

/* Asks the op's own function; the names of the kernels, the standard one first. */
struct asking {
    struct hk_recorder recorder;
    struct hk_choice choice;
};

static int ask(struct hk_recorder *recorder, const struct hk_choice *choice) {
    ((struct asking *)recorder)->choice = *choice;
    return choice->standard;
}

static hk_status ignore(struct hk_recorder *recorder, const struct hk_dispatch *dispatch) {
    (void)recorder, (void)dispatch;
    return HK_OK;
}

static struct hk_choice choice_of(struct vk_device *device, int64_t m, int64_t n, int64_t k) {
    struct hk_buffer buffer = {.bytes = MOST * sizeof(float)};
    const struct hk_operand in[] = {
        {.buffer = &buffer, .dtype = HK_F32, .rank = 2, .shape = {m, k}, .stride = {k, 1}},
        {.buffer = &buffer, .dtype = HK_F32, .rank = 2, .shape = {k, n}, .stride = {n, 1}}};
    const struct hk_operand out = {.buffer = &buffer, .dtype = HK_F32, .rank = 2, .shape = {m, n}, .stride = {n, 1}};
    const struct hk_step step = {.op = &hk_op_matmul, .n_inputs = 2, .n_outputs = 1, .inputs = in, .outputs = &out};
    struct asking asking = {.recorder = {&device->limits, ignore, ask}};
    assert_int_equal(hk_op_matmul.gpu(&step, &asking.recorder), HK_OK);
    return asking.choice;
}

/* The constants of a kernel's name, "shader 64x64x16", follow each other in the pipeline's. */
static bool has_constants(const struct vk_pipeline *p, const char *constants) {
    uint32_t wanted[HK_MAX_SPEC];
    int n = 0;
    for (const char *c = constants; *c && n < HK_MAX_SPEC; c += *c == 'x') wanted[n++] = (uint32_t)strtoul(c, (char **)&c, 10);
    for (int first = 0; first + n <= p->n_spec; first++)
        if (!memcmp(p->spec + first, wanted, (size_t)n * sizeof *wanted)) return true;
    return false;
}

/* The pipeline that a kernel's name means has been made. */
static bool is_made(const struct vk_device *device, const char *name) {
    const char *space = strchr(name, ' ');
    assert_non_null(space);
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (const struct vk_pipeline *p = device->pipelines.buckets[i]; p; p = p->next)
            if (p->handle && !strncmp(p->shader->name, name, (size_t)(space - name)) &&
                !p->shader->name[space - name] && has_constants(p, space + 1))
                return true;
    return false;
}

static void plant(const struct hk_choice *choice, const char *kernel) {
    struct vk_device *device = open_device(0);
    struct hk_tuning tuning = {.kernels = choice->count, .seconds = 1e-6, .standard_seconds = 2e-6};
    strcpy(tuning.work, choice->work);
    strcpy(tuning.kernel, kernel);
    strcpy(tuning.standard, choice->names[choice->standard]);
    hk_tunings_add(device->base.tunings, &tuning, true);
    close_device(device);
}

static void every_kernel_can_be_chosen_and_is_right(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 70, 33}, {3, 129, 17}, {16, 36, 40}, {100, 130, 65}};
    for (size_t s = 0; s < HK_LENGTH(shapes); s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        struct vk_device *device = open_device(0);
        const struct hk_choice choice = choice_of(device, m, n, k);
        multiply(device, m, n, k);
        assert_true(is_made(device, choice.names[choice.standard]));
        close_device(device);
        assert_true(choice.count > 1);
        for (int i = 0; i < choice.count; i++) {
            unlink(path);
            plant(&choice, choice.names[i]);
            device = open_device(0);
            assert_false(is_made(device, choice.names[i]));
            multiply(device, m, n, k);
            if (!is_made(device, choice.names[i])) fail_msg("%s: %s was not taken", choice.work, choice.names[i]);
            assert_int_equal(stats_of(device).pipelines, 1);
            close_device(device);
        }
    }
}

static void a_kernel_that_is_no_more_is_not_taken(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    const struct hk_choice choice = choice_of(device, 20, 30, 40);
    close_device(device);
    plant(&choice, "matmul 1x2x3");
    device = open_device(0);
    multiply(device, 20, 30, 40);
    assert_true(is_made(device, choice.names[choice.standard]));
    close_device(device);
    device = open_device(1000); /* it is measured again */
    multiply(device, 20, 30, 40);
    assert_int_equal(stats_of(device).measurements, choice.count);
    close_device(device);
    device = open_device(1000);
    multiply(device, 20, 30, 40);
    assert_int_equal(stats_of(device).measurements, 0);
    close_device(device);
}

static void work_that_has_more_kernels_now_is_measured_again(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    struct hk_choice choice = choice_of(device, 20, 30, 40);
    const int all = choice.count--;
    close_device(device);
    plant(&choice, choice.names[choice.standard]);
    device = open_device(1000);
    multiply(device, 20, 30, 40);
    assert_int_equal(stats_of(device).measurements, all);
    close_device(device);
}

/* ---- Measuring ---- */

static void work_is_measured_once(void **state) {
    (void)state;
    struct vk_device *device = open_device(1000);
    struct hk_tuning tunings[4];
    int count, again;
    const struct hk_choice choice = choice_of(device, 64, 96, 48);
    multiply(device, 64, 96, 48);
    assert_int_equal(stats_of(device).measurements, choice.count);
    assert_int_equal(hk_device_tunings(base(device), tunings, 4, &count), HK_OK);
    assert_int_equal(count, 1);
    assert_string_equal(tunings[0].work, choice.work);
    assert_string_equal(tunings[0].standard, choice.names[choice.standard]);
    assert_int_equal(tunings[0].kernels, choice.count);
    assert_int_equal(tunings[0].uses, 1);
    assert_true(tunings[0].seconds > 0 && tunings[0].seconds <= tunings[0].standard_seconds);
    assert_true(tunings[0].standard_seconds < 60);
    multiply(device, 64, 96, 48);
    assert_int_equal(stats_of(device).measurements, choice.count);
    close_device(device);
    device = open_device(1000); /* and never again by those who read the file */
    multiply(device, 64, 96, 48);
    assert_int_equal(stats_of(device).measurements, 0);
    assert_int_equal(hk_device_tunings(base(device), NULL, 0, &again), HK_OK);
    assert_int_equal(again, 1);
    assert_true(is_made(device, tunings[0].kernel));
    close_device(device);
}

static void nothing_is_measured_unless_asked(void **state) {
    (void)state;
    struct vk_device *device = open_device(0);
    int count;
    multiply(device, 64, 96, 48);
    assert_int_equal(stats_of(device).measurements, 0);
    assert_int_equal(hk_device_tunings(base(device), NULL, 0, &count), HK_OK);
    assert_int_equal(count, 0);
    close_device(device);
    assert_int_equal(access(path, F_OK), -1);
}

/* A clock that goes on by a second each time that it is looked at. */
static double ticks;
static double ticking(void) { return ticks++; }

static void measuring_ends_in_time(void **state) {
    (void)state;
    struct hk_tuning tuning;
    int count, kernels = 0;
    for (int seconds = 1; !kernels || seconds < kernels + 6; seconds++) {
        unlink(path);
        struct vk_device *device = open_device(seconds);
        kernels = choice_of(device, 64, 96, 48).count;
        device->clock = ticking, ticks = 0;
        multiply(device, 64, 96, 48);
        /* the clock is looked at when it begins, before the work, and before each kernel: at 0, 1, 2, ... */
        const int allowed = HK_MIN(HK_MAX(seconds - 2, 0), kernels);
        assert_int_equal(stats_of(device).measurements, allowed);
        assert_int_equal(hk_device_tunings(base(device), &tuning, 1, &count), HK_OK);
        assert_int_equal(count, 1);
        assert_true((tuning.seconds > 0) == (allowed == kernels)); /* all kernels or nothing */
        assert_string_equal(allowed == kernels ? "" : tuning.standard, allowed == kernels ? "" : tuning.kernel);
        multiply(device, 32, 96, 48); /* the time is over for all programs */
        assert_true(stats_of(device).measurements <= (uint64_t)HK_MAX(seconds - 2, 0));
        close_device(device);
        assert_int_equal(access(path, F_OK), allowed == kernels ? 0 : -1);
    }
}

/* A model with attention and its gradient: the same file, the same bits. */
static float train(double seconds, uint64_t *measurements) {
    struct vk_device *device = open_device(seconds);
    struct hk_trainer_params how = {.optimizer = {.kind = HK_ADAMW}, .batch = 2, .length = 24, .seed = 3};
    how.model = (struct hk_model_config){
        .family = HK_LLAMA, .vocab = 40, .context = 24, .layers = 1, .heads = 4, .kv_heads = 2, .width = 32};
    int32_t tokens[2 * 25];
    float loss, norm;
    for (int i = 0; i < COUNT(tokens); i++) tokens[i] = (i * 7) % 40;
    struct hk_trainer *trainer = hk_trainer_create(base(device), &how);
    if (!trainer) fail_msg("%s", hk_error_message());
    for (int i = 0; i < 3; i++) assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &loss, &norm), HK_OK);
    *measurements = stats_of(device).measurements;
    hk_trainer_destroy(&trainer);
    close_device(device);
    return norm;
}

static void a_tuned_training_repeats_bit_for_bit(void **state) {
    (void)state;
    uint64_t measurements;
    const float untuned = train(0, &measurements);
    assert_int_equal(measurements, 0);
    const float tuned = train(1000, &measurements);
    assert_true(measurements > 10);
    const float again = train(1000, &measurements);
    assert_int_equal(measurements, 0);
    assert_memory_equal(&tuned, &again, sizeof tuned);
    assert_true(untuned > 0.999f * tuned && untuned < 1.001f * tuned);
}

static void little_memory_keeps_the_standard_kernels(void **state) {
    (void)state;
    struct vk_device *device = open_device(1000);
    device->base.memory_limit = 3 * 64 * 64 * 4; /* the tensors, and nothing to measure with */
    multiply(device, 64, 64, 64);
    assert_int_equal(stats_of(device).measurements, 0);
    close_device(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_kernel_can_be_chosen_and_is_right, fresh),
        cmocka_unit_test_setup(a_kernel_that_is_no_more_is_not_taken, fresh),
        cmocka_unit_test_setup(work_that_has_more_kernels_now_is_measured_again, fresh),
        cmocka_unit_test_setup(work_is_measured_once, fresh),
        cmocka_unit_test_setup(nothing_is_measured_unless_asked, fresh),
        cmocka_unit_test_setup(measuring_ends_in_time, fresh),
        cmocka_unit_test_setup(a_tuned_training_repeats_bit_for_bit, fresh),
        cmocka_unit_test_setup(little_memory_keeps_the_standard_kernels, fresh),
    };
    const char *place = getenv("TMPDIR");
    char lock[300];
    snprintf(folder, sizeof folder, "%s/hekla-tune-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/tuning.json", folder);
    snprintf(lock, sizeof lock, "%s.lock", path);
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    unlink(lock);
    rmdir(folder);
    return failures;
}
