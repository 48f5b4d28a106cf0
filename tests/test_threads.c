/* The thread rules of the headers, on every device: any thread may call any function of a device; a graph, its values, a program
   and a tensor belong to one thread at a time. Results are exact, and the thread sanitizer has nothing to say (preset tsan). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, N = 48, ROUNDS = 12 };

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

/* cmocka's checks leave by longjmp, which no thread but the first may do: threads count what went wrong. */
struct worker {
    pthread_t id;
    struct hk_device *device;
    const char *name; /* of a device to open */
    int number, failures;
    void *shared;
};

static void expect(struct worker *w, bool ok, const char *what) {
    if (ok) return;
    if (!w->failures++) fprintf(stderr, "thread %d: %s: %s\n", w->number, what, hk_error_message());
}

/* Runs body on several threads; their failures. */
static int run_threads(int count, void *(*body)(void *), struct hk_device *device, void *shared) {
    struct worker workers[8] = {{0}};
    int failures = 0;
    for (int i = 0; i < count; i++) {
        workers[i] = (struct worker){.device = device, .number = i, .shared = shared};
        if (pthread_create(&workers[i].id, NULL, body, &workers[i])) return 1;
    }
    for (int i = 0; i < count; i++) {
        pthread_join(workers[i].id, NULL);
        failures += workers[i].failures;
    }
    return failures;
}

/* ---- A program with a result that is known ---- */

/* y = sum over rows of (x x + x), z = y + z: whole numbers. z changes from run to run. */
struct job {
    struct hk_tensor *x, *z;
    struct hk_program *program;
    float in[N][N], sum[N];
};

static bool job_open(struct job *j, struct hk_device *device) {
    struct hk_graph *graph = hk_graph_create();
    memset(j, 0, sizeof *j);
    j->x = hk_tensor_create(device, HK_F32, HK_SHAPE(N, N));
    j->z = hk_tensor_create(device, HK_F32, HK_SHAPE(N));
    struct hk_value *x = hk_leaf(graph, j->x), *y = hk_sum(hk_add(hk_matmul(x, x), x), HK_AXES(0), false);
    hk_store(j->z, hk_add(y, hk_leaf(graph, j->z)));
    j->program = hk_compile(device, graph, NULL);
    hk_graph_destroy(&graph);
    return j->program != NULL;
}

static void job_close(struct job *j) {
    hk_program_destroy(&j->program);
    hk_tensor_destroy(&j->x);
    hk_tensor_destroy(&j->z);
}

/* Other numbers, a run, and what z must then hold. */
static bool job_step(struct job *j, int seed) {
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) j->in[i][k] = (float)((i * 7 + k * 3 + seed) % 5 - 2);
    if (hk_tensor_write(j->x, j->in, sizeof j->in) || hk_program_run(j->program)) return false;
    for (int k = 0; k < N; k++)
        for (int i = 0; i < N; i++) {
            j->sum[k] += j->in[i][k];
            for (int m = 0; m < N; m++) j->sum[k] += j->in[i][m] * j->in[m][k];
        }
    return true;
}

static bool job_is_right(struct job *j) {
    float z[N];
    if (hk_tensor_read(j->z, z, sizeof z)) return false;
    for (int k = 0; k < N; k++)
        if (z[k] != j->sum[k]) return false;
    return true;
}

/* ---- One device, many threads ---- */

static void *work_alone(void *context) {
    struct worker *w = context;
    struct job *j = calloc(1, sizeof *j);
    for (int again = 0; again < 2; again++) {
        expect(w, job_open(j, w->device), "compiling");
        for (int i = 0; i < ROUNDS && !w->failures; i++) {
            expect(w, job_step(j, i + w->number), "a step");
            if (i % 3 == w->number % 3) expect(w, job_is_right(j), "the result");
        }
        expect(w, job_is_right(j), "the last result");
        job_close(j);
    }
    free(j);
    return NULL;
}

static void threads_with_programs_of_their_own_share_a_device(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) assert_int_equal(run_threads(THREADS, work_alone, devices[d], NULL), 0);
}

struct baton {
    pthread_mutex_t mutex;
    struct job job;
    int steps;
};

static void *take_turns(void *context) {
    struct worker *w = context;
    struct baton *b = w->shared;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&b->mutex);
        expect(w, job_step(&b->job, b->steps++), "a step");
        if (i % 4 == 0) expect(w, job_is_right(&b->job), "the result");
        pthread_mutex_unlock(&b->mutex);
    }
    return NULL;
}

static void a_program_and_its_tensors_go_from_thread_to_thread(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct baton *b = calloc(1, sizeof *b);
        pthread_mutex_init(&b->mutex, NULL);
        assert_true(job_open(&b->job, devices[d]));
        assert_int_equal(run_threads(THREADS, take_turns, devices[d], b), 0);
        assert_true(job_is_right(&b->job));
        assert_int_equal(b->steps, THREADS * ROUNDS);
        job_close(&b->job);
        pthread_mutex_destroy(&b->mutex);
        free(b);
    }
}

/* ---- Everything else of a device meanwhile ---- */

static void *run_until_told(void *context) {
    struct worker *w = context;
    atomic_bool *stop = w->shared;
    struct job *j = calloc(1, sizeof *j);
    expect(w, job_open(j, w->device), "compiling");
    for (int i = 0; (i < ROUNDS || !atomic_load(stop)) && i < 4000 && !w->failures; i++) {
        expect(w, job_step(j, i), "a step");
        if (i % 5 == 0 || j->sum[0] > 1e6f) {
            expect(w, job_is_right(j), "the result");
            memset(j->sum, 0, sizeof j->sum);
            expect(w, !hk_tensor_write(j->z, j->sum, sizeof j->sum), "writing");
        }
    }
    job_close(j);
    free(j);
    return NULL;
}

/* A graph that nobody compiled before: other constants make other pipelines. */
static void compile_another(struct worker *w, int i) {
    struct hk_tensor *t = hk_tensor_create(w->device, HK_F32, HK_SHAPE(10 + i, 3));
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *v = hk_leaf(graph, t);
    for (int k = 0; k < 1 + i % 3; k++) v = hk_tanh(hk_affine(v, 1, 0));
    v = i % 2 ? hk_softmax(v, -1) : hk_permute(hk_contiguous(hk_transpose(v)), HK_AXES(1, 0));
    hk_store(t, v);
    struct hk_program *program = hk_compile(w->device, graph, NULL);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&t); /* the program keeps its memory */
    expect(w, program && !hk_program_run(program), "another program");
    hk_program_destroy(&program);
}

static void *use_the_rest(void *context) {
    struct worker *w = context;
    struct hk_stats before, after;
    unsigned char data[5000], got[5000];
    memset(data, w->number, sizeof data);
    for (int i = 0; i < ROUNDS; i++) {
        compile_another(w, i * THREADS + w->number);
        hk_device_get_stats(w->device, &before);
        struct hk_tensor *t = hk_tensor_from(w->device, HK_U8, HK_SHAPE(sizeof data), data);
        expect(w, t && !hk_tensor_read(t, got, sizeof got) && !memcmp(data, got, sizeof got), "a tensor");
        hk_tensor_destroy(&t);
        expect(w, !hk_device_wait(w->device), "waiting");
        hk_device_get_stats(w->device, &after);
        expect(w, after.allocations > before.allocations && hk_device_get_info(w->device)->name[0], "the counters");
    }
    return NULL;
}

static void compiling_and_all_else_goes_on_while_programs_run(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        atomic_bool stop = false;
        struct worker runner = {.device = devices[d], .number = 100, .shared = &stop};
        assert_int_equal(pthread_create(&runner.id, NULL, run_until_told, &runner), 0);
        const int failures = run_threads(THREADS - 1, use_the_rest, devices[d], NULL);
        atomic_store(&stop, true);
        pthread_join(runner.id, NULL);
        assert_int_equal(failures + runner.failures, 0);
    }
}

/* Memory of one storage in tensors that different threads have: neighbours to the word. */
static void *use_a_part(void *context) {
    struct worker *w = context;
    struct hk_tensor *const *parts = w->shared, *part = parts[w->number];
    const int count = (int)hk_tensor_elements(part);
    int32_t *numbers = malloc((size_t)count * sizeof *numbers);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *v = hk_leaf(graph, (struct hk_tensor *)part);
    hk_store((struct hk_tensor *)part, hk_add(v, hk_fill(graph, HK_I32, HK_SCALAR, w->number + 1)));
    struct hk_program *program = hk_compile(w->device, graph, NULL);
    expect(w, program != NULL, "compiling");
    for (int i = 0; i < ROUNDS && !w->failures; i++) expect(w, !hk_program_run(program), "a run");
    expect(w, !hk_tensor_read(part, numbers, (size_t)count * sizeof *numbers), "reading");
    for (int i = 0; i < count; i++) expect(w, numbers[i] == ROUNDS * (w->number + 1), "the result");
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    free(numbers);
    return NULL;
}

static void parts_of_one_memory_belong_to_different_threads(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct hk_tensor *whole = hk_tensor_create(devices[d], HK_I32, HK_SHAPE(THREADS * 1001)), *parts[THREADS];
        for (int i = 0; i < THREADS; i++) parts[i] = hk_tensor_view(whole, i * 1001, HK_SHAPE(1001));
        assert_int_equal(run_threads(THREADS, use_a_part, devices[d], parts), 0);
        for (int i = 0; i < THREADS; i++) hk_tensor_destroy(&parts[i]);
        hk_tensor_destroy(&whole);
    }
}

/* ---- Many devices ---- */

static void *open_and_work(void *context) {
    struct worker *w = context;
    for (int i = 0; i < 3 && !w->failures; i++) {
        int count = 0;
        const struct hk_device_params params = {.name = w->name, .cache_dir = "", .threads = strcmp(w->name, "cpu") ? 0 : 1 + i};
        struct hk_device *device = hk_device_open(&params);
        expect(w, device != NULL, "opening a device");
        if (!device) break;
        struct job *j = calloc(1, sizeof *j);
        expect(w, !hk_device_list(NULL, 0, &count) && count >= 1, "listing");
        expect(w, job_open(j, device) && job_step(j, i) && job_step(j, i + w->number) && job_is_right(j), "work");
        job_close(j);
        free(j);
        hk_device_destroy(&device);
    }
    return NULL;
}

static void devices_open_work_and_close_at_the_same_time(void **state) {
    (void)state;
    struct worker workers[2 * TEST_MAX_DEVICES] = {{0}};
    char names[2 * TEST_MAX_DEVICES][32];
    const int count = 2 * n_devices;
    for (int i = 0; i < count; i++) {
        const struct hk_device_info *info = hk_device_get_info(devices[i / 2]);
        if (info->kind == HK_DEVICE_CPU) snprintf(names[i], sizeof names[i], "cpu");
        else snprintf(names[i], sizeof names[i], "vulkan:%d", info->index);
        workers[i] = (struct worker){.name = names[i], .number = i};
        assert_int_equal(pthread_create(&workers[i].id, NULL, open_and_work, &workers[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(workers[i].id, NULL);
        assert_int_equal(workers[i].failures, 0);
    }
}

/* ---- Errors ---- */

static void *fail_on_purpose(void *context) {
    struct worker *w = context;
    char expected[64];
    snprintf(expected, sizeof expected, "%d elements", 1000 + w->number);
    for (int i = 0; i < 200; i++) {
        struct hk_tensor *t = hk_tensor_create(w->device, HK_F32, HK_SHAPE(10));
        struct hk_tensor *view = hk_tensor_view(t, 0, HK_SHAPE(1000 + w->number));
        expect(w, !view && hk_error_status() == HK_ERROR_INVALID && strstr(hk_error_message(), expected), "another's message");
        hk_tensor_destroy(&t);
    }
    return NULL;
}

static void each_thread_has_its_own_message(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) assert_int_equal(run_threads(THREADS, fail_on_purpose, devices[d], NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_with_programs_of_their_own_share_a_device),
        cmocka_unit_test(a_program_and_its_tensors_go_from_thread_to_thread),
        cmocka_unit_test(compiling_and_all_else_goes_on_while_programs_run),
        cmocka_unit_test(parts_of_one_memory_belong_to_different_threads),
        cmocka_unit_test(devices_open_work_and_close_at_the_same_time),
        cmocka_unit_test(each_thread_has_its_own_message),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests_name("threads", tests, NULL, NULL));
}
