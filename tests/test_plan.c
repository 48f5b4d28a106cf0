/* The memory planner: no two values that live at once share memory. By brute force on random lifetimes, and by random
   graphs of whole numbers, which any order and any device must compute exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graph/plan.h"
#include "op/op.h"
#include "support.h"
#include <string.h>

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

/* ---- Places ---- */

enum { MAX_LIFETIMES = 200 };

static bool overlap(const struct hk_lifetime *a, const struct hk_lifetime *b) {
    return a->first <= b->last && b->first <= a->last && a->block == b->block && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static void check_places(const struct hk_lifetime *l, int count, const uint64_t *blocks, int n_blocks,
                         uint64_t max_block) {
    for (int i = 0; i < count; i++) {
        assert_in_range(l[i].block, 0, n_blocks - 1);
        assert_true(l[i].offset % HK_MEMORY_ALIGN == 0);
        assert_true(l[i].offset + l[i].bytes <= blocks[l[i].block]);
        assert_true(blocks[l[i].block] <= max_block);
        for (int k = 0; k < i; k++)
            if (overlap(&l[i], &l[k])) fail_msg("lifetimes %d and %d overlap", i, k);
    }
}

static void test_places_do_not_overlap(void **state) {
    (void)state;
    uint64_t random = 1;
    for (int round = 0; round < 300; round++) {
        struct hk_lifetime l[MAX_LIFETIMES];
        uint64_t blocks[HK_MAX_BLOCKS], largest_moment = 0, total = 0;
        int n_blocks;
        const int count = 1 + (int)(test_random(&random) % MAX_LIFETIMES), steps = 1 + (int)(test_random(&random) % 60);
        const uint64_t max_block = round % 3 ? UINT64_MAX / 2 : 60000;
        for (int i = 0; i < count; i++) {
            const int first = (int)(test_random(&random) % (uint64_t)steps);
            l[i] = (struct hk_lifetime){.bytes = 1 + test_random(&random) % 5000, .first = first};
            l[i].last = first + (int)(test_random(&random) % 8);
        }
        assert_int_equal(hk_place(l, count, max_block, blocks, &n_blocks), HK_OK);
        check_places(l, count, blocks, n_blocks, max_block);
        for (int t = 0; t < steps + 8; t++) {
            uint64_t moment = 0;
            for (int i = 0; i < count; i++) moment += l[i].first <= t && t <= l[i].last ? l[i].bytes : 0;
            largest_moment = moment > largest_moment ? moment : largest_moment;
        }
        for (int i = 0; i < n_blocks; i++) total += blocks[i];
        assert_true(total >= largest_moment);
        if (n_blocks == 1 && total > 2 * largest_moment)
            fail_msg("%d lifetimes take more than twice what they need", count);
    }
}

static void test_what_no_block_holds_is_refused(void **state) {
    (void)state;
    struct hk_lifetime l = {.bytes = 5000};
    uint64_t blocks[HK_MAX_BLOCKS];
    int n_blocks;
    assert_int_equal(hk_place(&l, 1, 4096, blocks, &n_blocks), HK_ERROR_OUT_OF_MEMORY);
}

/* ---- Random graphs ---- */

/* matrices too large to be read as a whole before the first result is written */
enum { N = 40, ELEMENTS = N * N, TENSORS = 3, VALUES = 64 };

/* A value of the graph, and what it is: numbers, or a tensor as it is when it is looked at. */
struct known {
    struct hk_value *value;
    float numbers[ELEMENTS];
    int tensor; /* -1: numbers */
    bool transposed;
};

struct world {
    struct hk_graph *graph;
    struct hk_tensor *tensors[TENSORS];
    float now[TENSORS][ELEMENTS]; /* what each tensor holds at this place in the program */
    struct known values[VALUES];
    int n_values;
    uint64_t random;
};

static int pick(struct world *w, int count) { return (int)(test_random(&w->random) % (uint64_t)count); }

static void look(const struct world *w, const struct known *k, float *out) {
    const float *from = k->tensor < 0 ? k->numbers : w->now[k->tensor];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) out[i * N + j] = k->transposed ? from[j * N + i] : from[i * N + j];
}

/* Keeps numbers small, so that sums and products stay exact; mostly they are, and the value remains what it is. */
static struct hk_value *keep_small(float *numbers, struct hk_value *x) {
    bool is_small = true;
    for (int i = 0; i < ELEMENTS; i++) {
        const float small = numbers[i] < -499 ? -499 : numbers[i] > 499 ? 499 : numbers[i];
        is_small = is_small && small == numbers[i];
        numbers[i] = small;
    }
    if (is_small) return x;
    struct hk_graph *graph = hk_value_graph(x);
    struct hk_value *high = hk_fill(graph, HK_F32, HK_SCALAR, 499), *low = hk_fill(graph, HK_F32, HK_SCALAR, -499);
    return hk_maximum(hk_minimum(x, high), low);
}

static void add_binary(struct world *w, struct known *out, struct known *a, struct known *b) {
    float x[ELEMENTS], y[ELEMENTS];
    look(w, a, x);
    look(w, b, y);
    const int kind = pick(w, 5);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            const int at = i * N + j;
            float product = 0;
            for (int k = 0; k < N; k++) product += x[i * N + k] * y[k * N + j];
            const float results[] = {x[at] + y[at], x[at] - y[at], x[at] > y[at] ? x[at] : y[at], x[at] + y[j],
                                     product};
            out->numbers[at] = results[kind];
        }
    struct hk_value *v = a->value, *u = b->value;
    switch (kind) {
    case 0: v = hk_add(v, u); break;
    case 1: v = hk_sub(v, u); break;
    case 2: v = hk_maximum(v, u); break;
    case 3: v = hk_add(v, hk_slice(u, 0, 0, 1, 1)); break;
    default: v = hk_matmul(v, u);
    }
    out->value = keep_small(out->numbers, v);
}

static void add_unary(struct world *w, struct known *out, struct known *a) {
    float x[ELEMENTS], sums[N] = {0};
    look(w, a, x);
    const int kind = pick(w, 4);
    for (int i = 0; i < ELEMENTS; i++) sums[i / N] += x[i];
    for (int i = 0; i < ELEMENTS; i++) {
        const int turned = (i + ELEMENTS / 2) % ELEMENTS; /* rows, by half of them */
        const float results[] = {-x[i], x[i] > 0 ? x[i] : 0, sums[i / N] - x[i], x[turned]};
        out->numbers[i] = results[kind];
    }
    struct hk_value *v = a->value;
    switch (kind) {
    case 0: v = hk_neg(v); break;
    case 1: v = hk_relu(v); break;
    case 2: v = hk_sub(hk_sum(v, HK_AXES(1), true), v); break;
    default: v = hk_concat((struct hk_value *[]){hk_slice(v, 0, N / 2, N, 1), hk_slice(v, 0, 0, N / 2, 1)}, 2, 0);
    }
    out->value = keep_small(out->numbers, v);
}

static void add_store(struct world *w, int t, const struct known *a) {
    float numbers[ELEMENTS];
    look(w, a, numbers);
    hk_store(w->tensors[t], a->value);
    memcpy(w->now[t], numbers, sizeof numbers);
}

/* Mostly one of the last few, so that most values are soon read for the last time and their memory is free. */
static struct known *pick_value(struct world *w) {
    const int count = pick(w, 4) && w->n_values > 3 ? 3 : w->n_values;
    return &w->values[w->n_values - 1 - pick(w, count)];
}

static void add_step(struct world *w) {
    struct known *a = pick_value(w), *b = pick_value(w);
    const int kind = pick(w, 10);
    if (kind < 2) {
        add_store(w, pick(w, TENSORS), a);
        return;
    }
    if (w->n_values == VALUES) return;
    struct known *out = &w->values[w->n_values];
    *out = (struct known){.tensor = -1};
    if (kind == 2) { /* a view, of a tensor's content to come where it is a tensor's */
        *out = *a;
        out->value = hk_transpose(a->value); /* numbers: the same, seen transposed */
        out->transposed = !a->transposed;
    } else if (kind < 6) {
        add_unary(w, out, a);
    } else {
        add_binary(w, out, a, b);
    }
    w->n_values++;
}

static void run_random_graph(struct hk_device *device, uint64_t seed) {
    struct world *w = test_calloc(1, sizeof *w);
    w->random = seed;
    w->graph = hk_graph_create();
    for (int t = 0; t < TENSORS; t++) {
        for (int i = 0; i < ELEMENTS; i++) w->now[t][i] = (float)(pick(w, 21) - 10);
        w->tensors[t] = hk_tensor_create(device, HK_F32, HK_SHAPE(N, N));
        assert_int_equal(hk_tensor_write(w->tensors[t], w->now[t], sizeof w->now[t]), HK_OK);
        w->values[w->n_values++] = (struct known){.value = hk_leaf(w->graph, w->tensors[t]), .tensor = t};
    }
    const int steps = 5 + pick(w, 70);
    for (int i = 0; i < steps; i++) add_step(w);
    add_store(w, 0, &w->values[w->n_values - 1]);
    struct hk_program *program = hk_compile(device, w->graph, NULL);
    if (!program) fail_msg("seed %llu: %s", (unsigned long long)seed, hk_error_message());
    assert_int_equal(hk_program_run(program), HK_OK);
    for (int t = 0; t < TENSORS; t++) {
        float got[ELEMENTS];
        assert_int_equal(hk_tensor_read(w->tensors[t], got, sizeof got), HK_OK);
        for (int i = 0; i < ELEMENTS; i++)
            if (got[i] != w->now[t][i])
                fail_msg("seed %llu on %s: tensor %d, element %d is %g, not %g", (unsigned long long)seed,
                         test_device_name(device), t, i, (double)got[i], (double)w->now[t][i]);
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&w->graph);
    for (int t = 0; t < TENSORS; t++) hk_tensor_destroy(&w->tensors[t]);
    test_free(w);
}

static void test_random_graphs_compute_what_they_say(void **state) {
    (void)state;
    for (int i = 0; i < n_devices; i++)
        for (uint64_t seed = 0; seed < (test_is_cpu(devices[i]) ? 3000u : 100u); seed++)
            run_random_graph(devices[i], seed);
}

/* y lies in the tensor that it is stored to when the difference, which reads it in another order, is stored there too.
 */
static void test_what_is_read_in_another_order_is_not_overwritten(void **state) {
    (void)state;
    enum { WIDE = 96 };
    static float numbers[WIDE * WIDE], got[WIDE * WIDE];
    for (int i = 0; i < WIDE * WIDE; i++) numbers[i] = (float)i;
    for (int i = 0; i < n_devices; i++) {
        struct hk_tensor *x = hk_tensor_from(devices[i], HK_F32, HK_SHAPE(WIDE, WIDE), numbers);
        struct hk_tensor *t = hk_tensor_create(devices[i], HK_F32, HK_SHAPE(WIDE, WIDE));
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *y = hk_neg(hk_leaf(graph, x));
        hk_store(t, y);
        hk_store(t, hk_sub(hk_leaf(graph, x), hk_transpose(y)));
        struct hk_program *program = hk_compile(devices[i], graph, NULL);
        assert_non_null(program);
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_tensor_read(t, got, sizeof got), HK_OK);
        for (int k = 0; k < WIDE * WIDE; k++)
            if (got[k] != numbers[k] + numbers[k % WIDE * WIDE + k / WIDE])
                fail_msg("on %s element %d is %g", test_device_name(devices[i]), k, (double)got[k]);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x);
        hk_tensor_destroy(&t);
    }
}

/* Kernels of one device need scratch memory that those of another do not: sums of 16-bit dq over blocks of keys are the
   CPU's, a number for each query the GPU's. */
static void test_scratch_memory_is_what_the_device_needs(void **state) {
    (void)state;
    enum { QUERIES = 8, KEYS = 512, DEPTH = 64 };
    const struct hk_limits limits = {.max_range = 1 << 30, .offset_align = 256, .processors = 1, .software = true};
    struct hk_graph *graph = hk_graph_create();
    struct hk_device *cpu = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    struct hk_tensor *q = hk_tensor_create(cpu, HK_F16, HK_SHAPE(1, 1, QUERIES, DEPTH)),
                     *k = hk_tensor_create(cpu, HK_F16, HK_SHAPE(1, 1, KEYS, DEPTH)),
                     *dq = hk_tensor_create(cpu, HK_F16, HK_SHAPE(1, 1, QUERIES, DEPTH));
    struct hk_value *in = hk_leaf(graph, q), *keys = hk_leaf(graph, k), *gradient;
    struct hk_value *loss = hk_mean(hk_cast(hk_attention(in, keys, keys, NULL), HK_F32), HK_ALL_AXES, false);
    assert_int_equal(hk_gradients(loss, &in, 1, &gradient), HK_OK);
    hk_store(dq, gradient);
    for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
        const struct hk_device_base device = {.limits = on_gpu ? &limits : NULL, .info.max_buffer = 1 << 30};
        struct hk_layout layout;
        uint64_t bytes = 0;
        assert_int_equal(hk_layout_make(graph, &device, &layout), HK_OK);
        for (int i = 0; i < layout.n_calls; i++)
            if (layout.calls[i]->op == &hk_op_attention_backward)
                bytes = layout.memories[layout.scratch_of[i]].lifetime.bytes;
        assert_int_equal(bytes, on_gpu ? HK_MEMORY_ALIGN : QUERIES * DEPTH * sizeof(float));
        hk_layout_free(&layout);
    }
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&q);
    hk_tensor_destroy(&k);
    hk_tensor_destroy(&dq);
    hk_device_destroy(&cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_do_not_overlap),
        cmocka_unit_test(test_what_no_block_holds_is_refused),
        cmocka_unit_test(test_random_graphs_compute_what_they_say),
        cmocka_unit_test(test_what_is_read_in_another_order_is_not_overwritten),
        cmocka_unit_test(test_scratch_memory_is_what_the_device_needs),
    };
    n_devices = test_devices_open(devices);
    int failed = cmocka_run_group_tests_name("plan", tests, NULL, NULL);
    for (int i = 0; i < n_devices; i++) ((struct hk_device_base *)devices[i])->fusing = HK_FUSE_NOTHING;
    failed |= cmocka_run_group_tests_name("plan, each op by itself", tests, NULL, NULL);
    return test_devices_end(devices, n_devices, failed);
}
