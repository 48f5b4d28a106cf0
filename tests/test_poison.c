/* Poison: a kernel that reads memory which nothing has written in this run gives NaN. Ops made for the test do so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "op/op.h"
#include "op/strided.h"
#include "support.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000 };

static bool infer_same(struct hk_call *call) {
    hk_infer_output(call, 0, HK_F32, call->inputs[0]->rank, call->inputs[0]->shape);
    return true;
}

static uint64_t as_the_input(const struct hk_call *call, const struct hk_limits *limits) {
    (void)limits;
    return (uint64_t)hk_elements(call->inputs[0]) * sizeof(float);
}

/* The result is what was in the scratch memory; the input is left there, for the next run to find. */
static void remember(const struct hk_step *step, const struct cpu *cpu) {
    (void)cpu;
    memcpy(cpu_data(&step->outputs[0]), cpu_data(&step->scratch), N * sizeof(float));
    memcpy(cpu_data(&step->scratch), cpu_data(&step->inputs[0]), N * sizeof(float));
}

static hk_status remember_gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    struct hk_operand scratch = step->outputs[0];
    scratch.buffer = step->scratch.buffer, scratch.offset = step->scratch.offset;
    const hk_status status = hk_record_copy(recorder, &step->outputs[0], &scratch);
    return status ? status : hk_record_copy(recorder, &scratch, &step->inputs[0]);
}

static const struct hk_op remembers = {.name = "remembers",
                                       .min_inputs = 1,
                                       .max_inputs = 1,
                                       .n_outputs = 1,
                                       .infer = infer_same,
                                       .scratch = as_the_input,
                                       .cpu = {remember, remember, remember},
                                       .gpu = remember_gpu};

/* Adds the input to whatever is where the result goes. */
static void accumulate(const struct hk_step *step, const struct cpu *cpu) {
    (void)cpu;
    float *y = cpu_data(&step->outputs[0]);
    const float *x = cpu_data(&step->inputs[0]);
    for (int i = 0; i < N; i++) y[i] += x[i];
}

static const struct hk_op accumulates = {.name = "accumulates",
                                         .min_inputs = 1,
                                         .max_inputs = 1,
                                         .n_outputs = 1,
                                         .infer = infer_same,
                                         .cpu = {accumulate, accumulate, accumulate}};

/* Runs sum(op(x^2)) of ones twice. */
static void run_twice(struct hk_device *device, const struct hk_op *op, float got[2]) {
    struct hk_tensor *x = hk_tensor_create(device, HK_F32, HK_SHAPE(N)),
                     *y = hk_tensor_create(device, HK_F32, HK_SCALAR);
    float ones[N];
    for (int i = 0; i < N; i++) ones[i] = 1;
    assert_int_equal(hk_tensor_write(x, ones, sizeof ones), HK_OK);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *in = hk_permute(hk_square(hk_leaf(graph, x)), HK_AXES(0));
    struct hk_value *out = hk_call_op(NULL, op, &in, 1, NULL, 0);
    hk_store(y, hk_sum(out, HK_ALL_AXES, false));
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) fail_msg("%s", hk_error_message());
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hk_program_run(program), HK_OK);
        assert_int_equal(hk_tensor_read(y, &got[i], sizeof(float)), HK_OK);
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x), hk_tensor_destroy(&y);
}

/* With HEKLA_POISON as given, on every device. */
static void each_device(const char *poison, void (*test)(struct hk_device *device)) {
    setenv("HEKLA_POISON", poison, 1);
    assert_true(test_on_each_device(test));
}

static void check_seen(struct hk_device *device) {
    float got[2];
    run_twice(device, &remembers, got);
    assert_true(isnan(got[0]) && isnan(got[1]));
    if (!test_is_cpu(device)) return;
    run_twice(device, &accumulates, got);
    assert_true(isnan(got[0]) && isnan(got[1]));
}

static void unwritten_memory_is_nan(void **unused) {
    (void)unused;
    each_device("1", check_seen);
}

static void check_unseen(struct hk_device *device) {
    float got[2];
    run_twice(device, &remembers, got);
    assert_true(got[1] == N);
    if (test_is_cpu(device)) assert_true(got[0] == 0);
}

/* So that it is the poison that the other test sees. */
static void without_poison_the_last_run_shows(void **unused) {
    (void)unused;
    each_device("0", check_unseen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unwritten_memory_is_nan),
        cmocka_unit_test(without_poison_the_last_run_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
