/* Programs of random graphs against the oracles of oracle.h: they compute what the graph says, no value's memory is taken while
   somebody still reads it, and each step touches what it declares. HEKLA_TEST_SEED=n replays one seed; HEKLA_TEST_LONG=1 runs
   many times as many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "oracle.h"
#include <stdlib.h>
#include <string.h>

static struct hk_device *devices[TEST_MAX_DEVICES];
static struct spy *spies[TEST_MAX_DEVICES];
static int n_devices;

/* ---- Seeds ---- */

struct seeds {
    uint64_t first, count;
};

static struct seeds seeds_for(int device, uint64_t on_cpu, uint64_t on_others) {
    const char *seed = getenv("HEKLA_TEST_SEED"), *is_long = getenv("HEKLA_TEST_LONG");
    if (seed) return (struct seeds){strtoull(seed, NULL, 10), 1};
    const uint64_t count = test_is_cpu(devices[device]) ? on_cpu : on_others;
    return (struct seeds){1, is_long && !strcmp(is_long, "1") ? 40 * count : count};
}

/* How much of a family of random graphs was of use. */
struct tally {
    int graphs, ops, stores, gradients, checkpoints, updates, caches;
};

static void count_world(struct tally *t, const struct world *w, const struct steps *steps) {
    t->graphs++;
    t->ops += steps->count;
    t->stores += w->stores, t->gradients += w->gradients, t->checkpoints += w->checkpoints;
    t->updates += w->updates, t->caches += w->caches;
}

/* Says what there was; at least half of the seeds must have given a graph. */
static void report(const char *what, int device, struct seeds seeds, const struct tally *t) {
    print_message("%s, seeds %llu to %llu on %s: %d graphs, %d steps, %d stores, %d gradients, %d checkpoints, %d updates, "
                  "%d caches\n",
                  what, (unsigned long long)seeds.first, (unsigned long long)(seeds.first + seeds.count - 1),
                  test_device_name(devices[device]), t->graphs, t->ops, t->stores, t->gradients, t->checkpoints, t->updates,
                  t->caches);
    if (seeds.count > 1) assert_true((uint64_t)t->graphs * 2 >= seeds.count);
}

static int graph_size(uint64_t seed) { return 10 + (int)(seed * 7 % 60); }

/* ---- What a program leaves in tensors ---- */

struct held {
    unsigned char *data[WORLD_STORAGES];
};

static struct held read_all(struct world *w) {
    struct held held;
    for (int s = 0; s < WORLD_STORAGES; s++) {
        const size_t bytes = hk_tensor_bytes(w->storages[s]);
        held.data[s] = malloc(bytes);
        if (hk_tensor_read(w->storages[s], held.data[s], bytes)) fail_msg("%s: %s", world_name(w), hk_error_message());
    }
    return held;
}

static void free_held(struct held *held) {
    for (int s = 0; s < WORLD_STORAGES; s++) free(held->data[s]);
}

static void expect_equal(const struct world *w, const struct held *a, const struct held *b, const char *what) {
    for (int s = 0; s < WORLD_STORAGES; s++)
        for (size_t i = 0; i < hk_tensor_bytes(w->storages[s]); i += 4)
            if (memcmp(a->data[s] + i, b->data[s] + i, 4))
                fail_msg("%s: tensor %d, element %zu: %s", world_name(w), s, i / 4, what);
}

static double number_at(const struct held *held, int s, size_t i) {
    float f;
    int32_t k;
    memcpy(&f, held->data[s] + 4 * i, 4);
    memcpy(&k, held->data[s] + 4 * i, 4);
    return s == WORLD_STORAGES - 1 ? k : (double)f;
}

static void expect_numbers(const struct world *w, const struct held *held) {
    for (int s = 0; s < WORLD_STORAGES; s++) {
        const double *expected = numbers_held(w->numbers, w->storages[s]->storage);
        for (size_t i = 0; i < hk_tensor_bytes(w->storages[s]) / 4; i++)
            if (number_at(held, s, i) != expected[i])
                fail_msg("%s: tensor %d, element %zu is %g, not %g", world_name(w), s, i, number_at(held, s, i), expected[i]);
    }
}

static struct held run_from_poison(struct world *w, struct hk_program *program, const struct steps *steps, uint32_t word) {
    world_reset(w);
    poison_arena(w->device, w->graph, steps, word);
    if (hk_program_run(program)) fail_msg("%s: %s", world_name(w), hk_error_message());
    return read_all(w);
}

static struct hk_program *compile(struct world *w, struct spy *spy, struct steps *steps) {
    struct hk_program *program = spy_compile(spy, w->graph, steps);
    if (!program) fail_msg("%s: %s", world_name(w), hk_error_message());
    return program;
}

static void make_layout(const struct world *w, struct hk_layout *layout) {
    assert_int_equal(hk_layout_make(w->graph, (const struct hk_device_base *)w->device, layout), HK_OK);
}

/* ---- Results ---- */

static void check_exact(struct world *w, struct spy *spy, struct tally *tally) {
    struct steps steps;
    struct hk_program *program = compile(w, spy, &steps);
    for (int round = 0; round < 2; round++) {
        struct held held = run_from_poison(w, program, &steps, round ? 0x42c80000u : 0x7fc0deadu);
        expect_numbers(w, &held);
        free_held(&held);
    }
    count_world(tally, w, &steps);
    hk_program_destroy(&program);
    steps_free(&steps);
}

static void programs_compute_the_numbers_that_the_graph_says(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        const struct seeds seeds = seeds_for(d, 500, 60);
        struct tally tally = {0};
        for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; seed++) {
            struct world w;
            if (world_create(&w, devices[d], seed, true, graph_size(seed))) check_exact(&w, spies[d], &tally);
            world_destroy(&w);
        }
        report("whole numbers", d, seeds, &tally);
    }
}

static void check_rounded(struct world *w, struct spy *spy, struct tally *tally) {
    struct steps steps;
    struct hk_program *program = compile(w, spy, &steps);
    world_reset(w);
    if (run_alone(w->device, w->graph)) fail_msg("%s: alone: %s", world_name(w), hk_error_message());
    struct held alone = read_all(w);
    for (int round = 0; round < 2; round++) {
        struct held held = run_from_poison(w, program, &steps, round ? 0x42c80000u : 0x7fc0deadu);
        expect_equal(w, &held, &alone, "not what the ops give when each runs by itself");
        free_held(&held);
    }
    free_held(&alone);
    count_world(tally, w, &steps);
    hk_program_destroy(&program);
    steps_free(&steps);
}

static void programs_give_the_bits_of_their_ops_run_one_by_one(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        const struct seeds seeds = seeds_for(d, 300, 30);
        struct tally tally = {0};
        for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; seed++) {
            struct world w;
            if (world_create(&w, devices[d], seed, false, graph_size(seed))) check_rounded(&w, spies[d], &tally);
            world_destroy(&w);
        }
        report("any numbers", d, seeds, &tally);
    }
}

/* ---- Memory ---- */

static void no_step_reads_what_another_has_overwritten(void **state) {
    (void)state;
    char message[300];
    for (int exact = 0; exact < 2; exact++) {
        const struct seeds seeds = seeds_for(0, 300, 300);
        struct tally tally = {0};
        for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; seed++) {
            struct world w;
            if (world_create(&w, devices[0], seed, exact, graph_size(seed))) {
                struct steps steps;
                struct hk_layout layout;
                struct hk_program *program = compile(&w, spies[0], &steps);
                make_layout(&w, &layout);
                if (!check_memory(w.graph, &layout, &steps, message, sizeof message))
                    fail_msg("%s: %s", world_name(&w), message);
                count_world(&tally, &w, &steps);
                hk_layout_free(&layout);
                hk_program_destroy(&program);
                steps_free(&steps);
            }
            world_destroy(&w);
        }
        report("memory", 0, seeds, &tally);
    }
}

/* Bytes that are written of memory m, without what it is rounded up by. */
static uint64_t used_bytes(const struct hk_layout *layout, int m) {
    uint64_t bytes = 0;
    for (int i = 0; i < layout->n_calls; i++) {
        const struct hk_call *call = layout->calls[i];
        if (layout->scratch_of[i] == m) bytes = hk_call_scratch(call, layout->limits);
        for (int k = 0; k < call->n_outputs; k++)
            if (layout->memory_of[call->outputs[k]->id] == m)
                bytes = HK_MAX(bytes, (uint64_t)call->outputs[k]->extent * hk_dtype_size(call->outputs[k]->dtype));
    }
    return bytes;
}

/* b, were it laid over a, would overwrite all of it while it is still to be read. */
static bool would_collide(const struct hk_layout *layout, int a, int b) {
    const struct hk_memory *x = &layout->memories[a], *y = &layout->memories[b];
    return !x->storage && !y->storage && x->lifetime.bytes && y->lifetime.bytes && x->lifetime.block == y->lifetime.block &&
           x->lifetime.first < y->lifetime.first && y->lifetime.first < x->lifetime.last &&
           used_bytes(layout, a) <= used_bytes(layout, b) && y->lifetime.bytes <= x->lifetime.bytes;
}

static void move_memory(struct steps *steps, const struct hk_layout *layout, int m, uint64_t by) {
    struct hk_operand *o = steps->operands;
    for (int i = 0; i < layout->n_calls; i++) {
        const struct hk_call *call = layout->calls[i];
        if (layout->scratch_of[i] == m) steps->items[i].scratch.offset += by;
        for (int k = 0; k < call->n_inputs + call->n_outputs; k++, o++) {
            const struct hk_value *value = k < call->n_inputs ? call->inputs[k] : call->outputs[k - call->n_inputs];
            if (layout->memory_of[value->root->id] == m) o->offset += by;
        }
    }
}

/* Lays one memory of the plan over another that is alive: the oracle must say so. How many were tried. */
static int plant_overlaps(const struct world *w, const struct hk_layout *layout, struct steps *steps) {
    char message[300];
    int planted = 0;
    for (int a = 0; a < layout->n_memories; a++)
        for (int b = 0; b < layout->n_memories && planted < 6; b++) {
            if (!would_collide(layout, a, b)) continue;
            const uint64_t by = layout->memories[a].lifetime.offset - layout->memories[b].lifetime.offset;
            move_memory(steps, layout, b, by);
            if (check_memory(w->graph, layout, steps, message, sizeof message))
                fail_msg("%s: memory %d was laid over %d, and nobody saw it", world_name(w), b, a);
            move_memory(steps, layout, b, 0 - by);
            planted++;
        }
    if (!check_memory(w->graph, layout, steps, message, sizeof message)) fail_msg("%s: %s", world_name(w), message);
    return planted;
}

static void overlapping_memory_is_seen(void **state) {
    (void)state;
    int planted = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world w;
        if (world_create(&w, devices[0], seed, seed % 2, graph_size(seed))) {
            struct steps steps;
            struct hk_layout layout;
            struct hk_program *program = compile(&w, spies[0], &steps);
            make_layout(&w, &layout);
            planted += plant_overlaps(&w, &layout, &steps);
            hk_layout_free(&layout);
            hk_program_destroy(&program);
            steps_free(&steps);
        }
        world_destroy(&w);
    }
    print_message("%d overlaps planted, all seen\n", planted);
    assert_true(planted > 60);
}

/* ---- What steps touch ---- */

static void steps_touch_what_they_declare(void **state) {
    (void)state;
    char message[300];
    for (int d = 0; d < n_devices; d++) {
        const struct seeds seeds = seeds_for(d, 60, 12);
        struct tally tally = {0};
        for (uint64_t seed = seeds.first; seed < seeds.first + seeds.count; seed++) {
            struct world w;
            if (world_create(&w, devices[d], seed, seed % 3 == 0, graph_size(seed))) {
                struct steps steps;
                struct hk_program *program = compile(&w, spies[d], &steps);
                world_reset(&w);
                if (!check_footprints(devices[d], &steps, message, sizeof message)) fail_msg("%s: %s", world_name(&w), message);
                if (w.exact) {
                    struct held held = read_all(&w);
                    expect_numbers(&w, &held);
                    free_held(&held);
                }
                count_world(&tally, &w, &steps);
                hk_program_destroy(&program);
                steps_free(&steps);
            }
            world_destroy(&w);
        }
        report("footprints", d, seeds, &tally);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_compute_the_numbers_that_the_graph_says),
        cmocka_unit_test(programs_give_the_bits_of_their_ops_run_one_by_one),
        cmocka_unit_test(no_step_reads_what_another_has_overwritten),
        cmocka_unit_test(overlapping_memory_is_seen),
        cmocka_unit_test(steps_touch_what_they_declare),
    };
    n_devices = test_devices_open(devices);
    for (int d = 0; d < n_devices; d++) {
        ((struct hk_device_base *)devices[d])->poison = false; /* these tests do it by themselves */
        spies[d] = spy_create(devices[d]);
    }
    const int failed = cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
    for (int d = 0; d < n_devices; d++) spy_destroy(spies[d]);
    return test_devices_end(devices, n_devices, failed);
}
