/* Mixed precision: 16-bit products around f32 parameters; losses scaled so that f16 holds their gradients; on every
   device. tests/test_truth_models.c holds its losses against PyTorch's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 61, CONTEXT = 32, BATCH = 4, LENGTH = 21, ROW = LENGTH + 1 };

static const struct hk_model_config models[] = {
    {.family = HK_GPT2, .vocab = VOCAB, .context = CONTEXT, .layers = 2, .heads = 4, .width = 32},
    {.family = HK_LLAMA,
     .vocab = VOCAB,
     .context = CONTEXT,
     .layers = 2,
     .heads = 4,
     .kv_heads = 2,
     .width = 32,
     .hidden = 72},
};
static const enum hk_dtype precisions[] = {HK_BF16, HK_F16};

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

typedef void check_fn(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision);

static void for_all(check_fn *check) {
    for (int d = 0; d < n_devices; d++)
        for (int m = 0; m < COUNT(models); m++)
            for (int p = 0; p < COUNT(precisions); p++) check(devices[d], &models[m], precisions[p]);
}

static const char *label(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    static char text[300];
    snprintf(text, sizeof text, "%s in %s on %s", model->family == HK_GPT2 ? "GPT-2" : "Llama",
             hk_dtype_name(precision), test_device_name(device));
    return text;
}

static struct hk_trainer_params settings(const struct hk_model_config *model, enum hk_dtype precision) {
    return (struct hk_trainer_params){.model = *model,
                                      .optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1},
                                      .batch = BATCH,
                                      .length = LENGTH,
                                      .seed = 9,
                                      .precision = precision};
}

static struct hk_trainer *make_trainer(struct hk_device *device, const struct hk_trainer_params *how) {
    struct hk_trainer *trainer = hk_trainer_create(device, how);
    if (!trainer) print_error("%s\n", hk_error_message());
    assert_non_null(trainer);
    return trainer;
}

/* Steps first + 1 to last, each on its own tokens. */
static void train(struct hk_trainer *trainer, int first, int last) {
    int32_t tokens[BATCH * ROW];
    for (int step = first + 1; step <= last; step++) {
        uint64_t random = (uint64_t)step;
        for (int i = 0; i < COUNT(tokens); i++) tokens[i] = (int32_t)(test_random(&random) % VOCAB);
        assert_int_equal(hk_trainer_step(trainer, tokens, 1e-3f), HK_OK);
    }
}

static void *read_tensor(struct hk_tensor *tensor) {
    void *x = malloc(hk_tensor_bytes(tensor));
    assert_non_null(x);
    assert_int_equal(hk_tensor_read(tensor, x, hk_tensor_bytes(tensor)), HK_OK);
    return x;
}

static bool same_bits(struct hk_tensor *a, struct hk_tensor *b) {
    void *x = read_tensor(a), *y = read_tensor(b);
    const bool same = hk_tensor_bytes(a) == hk_tensor_bytes(b) && !memcmp(x, y, hk_tensor_bytes(a));
    free(x);
    free(y);
    return same;
}

/* Largest difference, relative to the largest element. */
static double difference(struct hk_tensor *a, struct hk_tensor *b) {
    float *x = read_tensor(a), *y = read_tensor(b);
    double most = 0, largest = 0;
    for (int64_t i = 0; i < hk_tensor_elements(a); i++) {
        const double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= most)) most = d;
        largest = fmax(largest, fabs((double)x[i]));
    }
    free(x);
    free(y);
    return most / largest;
}

static struct hk_tensor *weights(struct hk_trainer *trainer) { return hk_params_slab(hk_trainer_model(trainer), 0); }
static struct hk_tensor *gradients(struct hk_trainer *trainer) {
    return hk_params_gradient_slab(hk_trainer_model(trainer), 0);
}
static struct hk_tensor *moment(struct hk_trainer *trainer, int m) {
    return hk_optimizer_moment(hk_trainer_optimizer(trainer), m, 0);
}

static float scaling_of(struct hk_trainer *trainer, enum hk_scaling which) {
    float x[HK_SCALING_COUNT];
    struct hk_tensor *tensor = hk_optimizer_scaling(hk_trainer_optimizer(trainer));
    assert_non_null(tensor);
    assert_int_equal(hk_tensor_read(tensor, x, sizeof x), HK_OK);
    return x[which];
}

/* ---- What is 16-bit ---- */

/* Gradients differ from f32's by what 8 or 11 bits of significand lose, and by no more. */
static void check_gradients(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision), plain = settings(model, HK_F32);
    how.optimizer.loss_scale = plain.optimizer.loss_scale = 1024; /* so that the gradients held are of one size */
    struct hk_trainer *mixed = make_trainer(device, &how), *f32 = make_trainer(device, &plain);
    train(mixed, 0, 1);
    train(f32, 0, 1);
    const double error = difference(gradients(f32), gradients(mixed)), ulp = precision == HK_BF16 ? 0x1p-8 : 0x1p-11;
    print_message("  %s: gradients differ by %.1e\n", label(device, model, precision), error);
    assert_true(error > ulp / 16 && error < 4 * ulp);
    hk_trainer_destroy(&mixed);
    hk_trainer_destroy(&f32);
}

static void gradients_lose_what_16_bits_lose(void **state) {
    (void)state;
    for_all(check_gradients);
}

/* Of the products' inputs the backward pass keeps the 16-bit copy. */
static void check_memory(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, HK_F32);
    how.batch = 64, how.model.layers = 6;
    struct hk_trainer *f32 = make_trainer(device, &how);
    how.precision = precision;
    struct hk_trainer *mixed = make_trainer(device, &how);
    const uint64_t bytes = hk_trainer_program(f32)->arena_bytes, less = hk_trainer_program(mixed)->arena_bytes;
    print_message("  %s: %llu bytes, in f32 %llu\n", label(device, model, precision), (unsigned long long)less,
                  (unsigned long long)bytes);
    assert_true((double)less < 0.95 * (double)bytes);
    hk_trainer_destroy(&f32);
    hk_trainer_destroy(&mixed);
}

static void what_is_kept_is_smaller(void **state) {
    (void)state;
    for_all(check_memory);
}

/* After each step the copies are the parameters, rounded. */
static void check_copies(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    struct hk_trainer *trainer = make_trainer(device, &how);
    struct hk_params *params = hk_trainer_model(trainer);
    train(trainer, 0, 2);
    for (int i = 0; i < hk_params_count(params); i++) {
        const char *name = hk_params_name(params, i);
        struct hk_tensor *copy = hk_tensor_create(device, precision, hk_tensor_shape(hk_params_tensor(params, i)));
        struct hk_graph *graph = hk_graph_create();
        hk_store(copy, hk_params_use_factor(params, graph, name));
        struct hk_program *program = hk_compile(device, graph, NULL);
        assert_int_equal(hk_program_run(program), HK_OK);
        float *wide = read_tensor(hk_params_tensor(params, i));
        uint16_t *narrow = read_tensor(copy);
        for (int64_t k = 0; k < hk_tensor_elements(copy); k++)
            assert_int_equal(narrow[k], precision == HK_F16 ? hk_f16_from_f32(wide[k]) : hk_bf16_from_f32(wide[k]));
        free(wide);
        free(narrow);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&copy);
    }
    hk_trainer_destroy(&trainer);
}

static void copies_follow_the_parameters(void **state) {
    (void)state;
    for_all(check_copies);
}

/* A layer by itself: its product is rounded, its bias is not. */
static void layers_multiply_in_the_precision(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct hk_params *params = hk_params_create(devices[d]);
        hk_linear_declare(params, "layer", 1, 1, true);
        const float weight = 1.01f, bias = 0.001f, input = 1.003f;
        assert_int_equal(hk_params_allocate(params, 1), HK_OK);
        assert_int_equal(hk_tensor_write(hk_params_tensor(params, 0), &weight, sizeof weight), HK_OK);
        assert_int_equal(hk_tensor_write(hk_params_tensor(params, 1), &bias, sizeof bias), HK_OK);
        assert_int_equal(hk_params_set_precision(params, HK_BF16), HK_OK);
        struct hk_tensor *x = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(1, 1), &input);
        struct hk_tensor *y = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(1, 1));
        struct hk_graph *graph = hk_graph_create();
        hk_store(y, hk_linear_apply(params, "layer", hk_leaf(graph, x)));
        struct hk_program *program = hk_compile(devices[d], graph, NULL);
        assert_int_equal(hk_program_run(program), HK_OK);
        float *result = read_tensor(y);
        /* 1.01 is 1.0078125 in bf16, 1.003 is 1 */
        assert_true(*result == 1.0078125f + bias);
        free(result);
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&x), hk_tensor_destroy(&y);
        hk_params_destroy(&params);
    }
}

/* The stand-in's value, and x's gradient. */
static void a_stand_in_has_the_others_gradient(void **state) {
    (void)state;
    const float x[] = {1.25f, -3, 0.3333333f}, y[] = {2, 5, 7};
    for (int d = 0; d < n_devices; d++) {
        struct hk_tensor *a = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(3), x);
        struct hk_tensor *b = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(3), y);
        struct hk_tensor *da = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(3));
        struct hk_tensor *db = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(3));
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *in[2] = {hk_leaf(graph, a), hk_leaf(graph, b)}, *grads[2];
        struct hk_value *z = hk_straight_through(in[0], hk_cast(in[1], HK_BF16));
        assert_int_equal(hk_value_dtype(z), HK_BF16);
        hk_gradients(hk_sum(hk_square(hk_cast(z, HK_F32)), HK_ALL_AXES, false), in, 2, grads);
        hk_store(da, grads[0]);
        hk_store(db, grads[1]);
        struct hk_program *program = hk_compile(devices[d], graph, NULL);
        assert_int_equal(hk_program_run(program), HK_OK);
        float *to_x = read_tensor(da), *to_y = read_tensor(db);
        for (int i = 0; i < 3; i++) assert_true(to_x[i] == 2 * y[i] && to_y[i] == 0);
        free(to_x);
        free(to_y);
        assert_null(hk_straight_through(in[0], hk_slice(in[1], 0, 0, 2, 1)));
        assert_non_null(strstr(hk_error_message(), "straight_through: x is f32 [3] and its stand-in f32 [2]"));
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&a), hk_tensor_destroy(&b), hk_tensor_destroy(&da), hk_tensor_destroy(&db);
    }
}

/* ---- Loss scaling ---- */

/* From far too large a scale: steps are skipped, and what then comes is as if it had been the first. */
static void check_overflow(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    if (precision != HK_F16) return; /* bf16 holds what f32 does */
    how.optimizer.loss_scale = 0x1p40f;
    struct hk_trainer *trainer = make_trainer(device, &how), *fresh = make_trainer(device, &how);
    float norm = INFINITY, scale = 0x1p40f;
    int skipped = -1;
    for (; !isfinite(norm) && skipped < 40; skipped++) {
        scale = scaling_of(trainer, HK_SCALING_SCALE);
        assert_true(scale == 0x1p40f / exp2f((float)(skipped + 1)));
        assert_true(same_bits(weights(trainer), weights(fresh)));
        for (int m = 0; m < 2; m++) assert_true(same_bits(moment(trainer, m), moment(fresh, m)));
        train(trainer, 0, 1);
        assert_int_equal(hk_trainer_result(trainer, NULL, &norm), HK_OK);
    }
    print_message("  %s: %d steps skipped, then a norm of %g\n", label(device, model, precision), skipped,
                  (double)norm);
    assert_true(skipped > 10 && isfinite(norm) && norm > 0.01f && norm < 100);
    assert_true(scaling_of(trainer, HK_SCALING_SKIPPED) == (float)skipped);
    assert_true(scaling_of(trainer, HK_SCALING_UPDATES) == 1 && scaling_of(trainer, HK_SCALING_SCALE) == scale);
    assert_int_equal(hk_optimizer_step(hk_trainer_optimizer(trainer)), skipped + 1);
    hk_trainer_destroy(&fresh);
    how.optimizer.loss_scale = scale;
    fresh = make_trainer(device, &how);
    train(fresh, 0, 1);
    assert_true(same_bits(weights(trainer), weights(fresh)));
    for (int m = 0; m < 2; m++) assert_true(same_bits(moment(trainer, m), moment(fresh, m)));
    hk_trainer_destroy(&trainer);
    hk_trainer_destroy(&fresh);
}

static void overflow_skips_the_step_and_halves_the_scale(void **state) {
    (void)state;
    for_all(check_overflow);
}

/* Scaled by powers of two and not rounded to 16 bits, all numbers have the same bits: the scale comes out of the
   gradients, of the norm and of clipping without a trace. Adam's bias corrections alone are the device's, in f32, and
   what they change is large where a gradient is nothing but rounding. */
static void check_unscaling(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype unused) {
    (void)unused;
    for (int adam = 0; adam < 2; adam++) {
        struct hk_trainer_params how = settings(model, HK_F32);
        if (!adam) how.optimizer = (struct hk_optimizer_params){.kind = HK_SGD, .momentum = 0.9f};
        how.optimizer.clip = 0.1f;
        struct hk_trainer *plain = make_trainer(device, &how);
        how.optimizer.loss_scale = 4096;
        how.optimizer.scale_growth = 2;
        struct hk_trainer *scaled = make_trainer(device, &how);
        train(plain, 0, 5);
        train(scaled, 0, 5);
        float norm[2];
        assert_int_equal(hk_trainer_result(plain, NULL, &norm[0]), HK_OK);
        assert_int_equal(hk_trainer_result(scaled, NULL, &norm[1]), HK_OK);
        assert_true(fabsf(norm[0] - norm[1]) <= 1e-6f * norm[0]);
        assert_true(scaling_of(scaled, HK_SCALING_SCALE) == 16384 && scaling_of(scaled, HK_SCALING_GOOD) == 1);
        if (adam) assert_true(difference(weights(plain), weights(scaled)) <= 1e-4);
        else assert_true(same_bits(weights(plain), weights(scaled)));
        hk_trainer_destroy(&plain);
        hk_trainer_destroy(&scaled);
    }
}

static void the_scale_leaves_no_trace(void **state) {
    (void)state;
    for_all(check_unscaling);
}

/* Norms of 1, infinity, 1, 1: the good step before the overflow does not count for growth after two. */
static void good_steps_count_from_the_last_overflow(void **state) {
    static const struct {
        float norm, scale, good;
    } steps[] = {{1, 8, 1}, {INFINITY, 4, 0}, {1, 4, 1}, {1, 8, 0}};
    const float first[HK_SCALING_COUNT] = {
        [HK_SCALING_SCALE] = 8, [HK_SCALING_POWER1] = 1, [HK_SCALING_POWER2] = 1};
    const float settings_of_step[HK_HYPER_COUNT] = {[HK_HYPER_BETA1] = 0.9f, [HK_HYPER_BETA2] = 0.99f};
    (void)state;
    for (int d = 0; d < n_devices; d++) {
        struct hk_tensor *scaling = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(HK_SCALING_COUNT), first);
        struct hk_tensor *hyper = hk_tensor_from(devices[d], HK_F32, HK_SHAPE(HK_HYPER_COUNT), settings_of_step);
        struct hk_tensor *norm = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(1));
        struct hk_tensor *result = hk_tensor_create(devices[d], HK_F32, HK_SHAPE(HK_HYPER_COUNT));
        struct hk_graph *graph = hk_graph_create();
        hk_store(result, hk_loss_scale(HK_ADAM, scaling, hk_leaf(graph, hyper), hk_leaf(graph, norm), 2, NULL));
        struct hk_program *program = hk_compile(devices[d], graph, NULL);
        assert_non_null(program);
        for (int i = 0; i < COUNT(steps); i++) {
            float now[HK_SCALING_COUNT];
            assert_int_equal(hk_tensor_write(norm, &steps[i].norm, sizeof steps[i].norm), HK_OK);
            assert_int_equal(hk_program_run(program), HK_OK);
            assert_int_equal(hk_tensor_read(scaling, now, sizeof now), HK_OK);
            assert_true(now[HK_SCALING_SCALE] == steps[i].scale && now[HK_SCALING_GOOD] == steps[i].good);
        }
        hk_program_destroy(&program);
        hk_graph_destroy(&graph);
        hk_tensor_destroy(&scaling);
        hk_tensor_destroy(&hyper);
        hk_tensor_destroy(&norm);
        hk_tensor_destroy(&result);
    }
}

/* ---- Whole training ---- */

static void check_accumulation(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    how.optimizer = (struct hk_optimizer_params){.kind = HK_SGD, .momentum = 0.9f, .clip = 1};
    struct hk_trainer *whole = make_trainer(device, &how);
    how.batch = BATCH / 2, how.accumulate = 2;
    struct hk_trainer *halves = make_trainer(device, &how);
    train(whole, 0, 3);
    train(halves, 0, 3);
    const double error = difference(weights(whole), weights(halves));
    print_message("  %s: weights differ by %.1e\n", label(device, model, precision), error);
    assert_true(error <= 1e-5);
    hk_trainer_destroy(&whole);
    hk_trainer_destroy(&halves);
}

static void two_half_batches_are_one_batch(void **state) {
    (void)state;
    for_all(check_accumulation);
}

static void check_checkpointing(struct hk_device *device, const struct hk_model_config *model,
                                enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    how.model.dropout = 0.2f;
    struct hk_trainer *all = make_trainer(device, &how);
    how.checkpoint = true;
    struct hk_trainer *few = make_trainer(device, &how);
    train(all, 0, 2);
    train(few, 0, 2);
    assert_true(same_bits(weights(all), weights(few)));
    assert_true(hk_trainer_program(few)->arena_bytes < hk_trainer_program(all)->arena_bytes);
    hk_trainer_destroy(&all);
    hk_trainer_destroy(&few);
}

static void checkpoints_change_no_bit(void **state) {
    (void)state;
    for_all(check_checkpointing);
}

/* Through the files, as a process that is started again: with scales that have grown, or were halved, in the middle of
   counting. */
static void check_resuming(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    how.model.dropout = 0.1f;
    how.batch = BATCH / 2, how.accumulate = 2;
    how.optimizer.loss_scale = precision == HK_F16 ? 0x1p20f : 0, how.optimizer.scale_growth = 3;
    char folder[] = "/tmp/hekla-mixed-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct hk_trainer *once = make_trainer(device, &how), *resumed;
    train(once, 0, 5);
    struct hk_run_state read,
        state = {.step = 5, .optimizer = how.optimizer, .precision = precision, .loss = NAN, .held_out_loss = NAN};
    struct hk_optimizer *optimizer = hk_trainer_optimizer(once);
    assert_int_equal(hk_run_save(folder, &how.model, hk_trainer_model(once), optimizer, &state), HK_OK);
    assert_int_equal(hk_run_load_state(folder, &read), HK_OK);
    assert_int_equal(read.precision, precision);
    assert_true(read.optimizer.loss_scale == how.optimizer.loss_scale && read.optimizer.scale_growth == 3);

    how.precision = read.precision, how.optimizer = read.optimizer;
    resumed = make_trainer(device, &how);
    assert_int_equal(hk_run_load(folder, hk_trainer_model(resumed), hk_trainer_optimizer(resumed), NULL), HK_OK);
    train(once, 5, 9);
    train(resumed, 5, 9);
    assert_true(same_bits(weights(once), weights(resumed)));
    if (precision == HK_F16) {
        assert_true(same_bits(hk_optimizer_scaling(hk_trainer_optimizer(once)),
                              hk_optimizer_scaling(hk_trainer_optimizer(resumed))));
        print_message("  %s: scale %g, %g updates, %g skipped\n", label(device, model, precision),
                      (double)scaling_of(once, HK_SCALING_SCALE), (double)scaling_of(once, HK_SCALING_UPDATES),
                      (double)scaling_of(once, HK_SCALING_SKIPPED));
        assert_true(scaling_of(once, HK_SCALING_SKIPPED) > 0 && scaling_of(once, HK_SCALING_UPDATES) > 1);
    }
    hk_trainer_destroy(&once);
    hk_trainer_destroy(&resumed);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void a_resumed_run_goes_on_bit_for_bit(void **state) {
    (void)state;
    for_all(check_resuming);
}

static float first_loss(struct hk_device *device, const struct hk_trainer_params *how) {
    struct hk_trainer *trainer = make_trainer(device, how);
    float loss;
    train(trainer, 0, 1);
    assert_int_equal(hk_trainer_result(trainer, &loss, NULL), HK_OK);
    hk_trainer_destroy(&trainer);
    return loss;
}

/* With other masks the loss would be another one. Few tokens, so that it would by much. */
static void check_masks(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, HK_F32);
    how.batch = 1, how.length = 1;
    how.model.dropout = 0.5f;
    const float f32 = first_loss(device, &how);
    how.precision = precision;
    const float mixed = first_loss(device, &how);
    how.model.dropout = 0.4f;
    const float other = first_loss(device, &how);
    print_message("  %s: loss %g, in f32 %g, with other masks %g\n", label(device, model, precision), (double)mixed,
                  (double)f32, (double)other);
    assert_true(fabsf(mixed - f32) < 0.02f * fabsf(other - f32));
}

static void dropout_masks_are_those_of_f32(void **state) {
    (void)state;
    for_all(check_masks);
}

static void check_steadiness(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_trainer_params how = settings(model, precision);
    struct hk_trainer *trainer = make_trainer(device, &how);
    struct hk_stats before, after;
    float first, last;
    int32_t tokens[BATCH * ROW];
    uint64_t random = 1;
    for (int i = 0; i < COUNT(tokens); i++) tokens[i] = (int32_t)(test_random(&random) % VOCAB);
    assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &first, NULL), HK_OK);
    hk_device_get_stats(device, &before);
    for (int i = 0; i < 10; i++) assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &last, NULL), HK_OK);
    hk_device_get_stats(device, &after);
    assert_int_equal(after.allocations, before.allocations);
    assert_int_equal(after.descriptor_writes, before.descriptor_writes);
    assert_int_equal(after.pipelines, before.pipelines);
    assert_int_equal(after.fallbacks, 0);
    assert_true(fabsf(first - logf(VOCAB)) < 0.3f && last < first - 0.5f);
    hk_trainer_destroy(&trainer);
}

static void steps_learn_and_allocate_nothing(void **state) {
    (void)state;
    for_all(check_steadiness);
}

/* ---- Generation ---- */

static struct hk_params *make_params(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_params *params = hk_params_create(device);
    assert_int_equal(hk_model_declare(params, model), HK_OK);
    assert_int_equal(hk_params_allocate(params, 4), HK_OK);
    uint64_t random = 6; /* weights large enough that every token and place matters */
    for (int i = 0; i < hk_params_count(params); i++) {
        struct hk_tensor *tensor = hk_params_tensor(params, i);
        float *x = read_tensor(tensor);
        for (int64_t k = 0; k < hk_tensor_elements(tensor); k++) x[k] += (float)test_uniform(&random, -0.1, 0.1);
        assert_int_equal(hk_tensor_write(tensor, x, hk_tensor_bytes(tensor)), HK_OK);
        free(x);
    }
    return params;
}

static void generate(struct hk_device *device, struct hk_params *params, const struct hk_model_config *model,
                     float *logits) {
    const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21};
    struct hk_generator *generator = hk_generator_create(device, params, model);
    if (!generator) print_error("%s\n", hk_error_message());
    assert_non_null(generator);
    assert_int_equal(hk_generator_feed(generator, tokens, 20, logits), HK_OK);
    assert_int_equal(hk_generator_feed(generator, tokens + 20, 1, logits), HK_OK);
    hk_generator_destroy(&generator);
}

static double logits_error(const float *x, const float *ref) {
    double largest = 0, error = 0;
    for (int i = 0; i < VOCAB; i++) {
        error = fmax(error, fabs((double)x[i] - (double)ref[i]));
        largest = fmax(largest, fabs((double)ref[i]));
    }
    return error / largest;
}

static void check_generation(struct hk_device *device, const struct hk_model_config *model, enum hk_dtype precision) {
    struct hk_params *params = make_params(device, model);
    float f32[VOCAB], mixed[VOCAB], after[VOCAB];
    generate(device, params, model, f32);
    assert_int_equal(hk_params_set_precision(params, precision), HK_OK);
    generate(device, params, model, mixed);
    const double error = logits_error(mixed, f32), ulp = precision == HK_BF16 ? 0x1p-8 : 0x1p-11;
    print_message("  %s: logits differ by %.1e\n", label(device, model, precision), error);
    assert_true(error > ulp / 16 && error < 8 * ulp);

    const char *name = model->family == HK_GPT2 ? "wte.weight" : "lm_head.weight";
    struct hk_tensor *head = hk_params_tensor(params, hk_params_find(params, name));
    float *x = read_tensor(head);
    for (int64_t i = 0; i < hk_tensor_elements(head); i++) x[i] = 0;
    assert_int_equal(hk_tensor_write(head, x, hk_tensor_bytes(head)), HK_OK);
    assert_int_equal(hk_params_refresh(params), HK_OK);
    generate(device, params, model, after);
    for (int i = 0; i < VOCAB; i++) assert_true(after[i] == 0);
    free(x);
    hk_params_destroy(&params);
}

static void weights_of_16_bits_generate(void **state) {
    (void)state;
    for_all(check_generation);
}

/* ---- What is refused ---- */

static void expect_message(const char *part) {
    if (!strstr(hk_error_message(), part)) fail_msg("\"%s\" is not in \"%s\"", part, hk_error_message());
}

static void wrong_settings_are_refused(void **state) {
    (void)state;
    struct hk_trainer_params how = settings(&models[0], HK_I32);
    assert_null(hk_trainer_create(devices[0], &how));
    expect_message("precision must be f32, bf16 or f16, not i32");
    how = settings(&models[0], HK_F16);
    how.optimizer.loss_scale = 1000;
    assert_null(hk_trainer_create(devices[0], &how));
    expect_message("loss_scale (1000) must be a power of two");
    how.optimizer.loss_scale = 1024, how.optimizer.scale_growth = -1;
    assert_null(hk_trainer_create(devices[0], &how));
    expect_message("scale_growth (-1)");

    struct hk_params *params = make_params(devices[0], &models[0]);
    assert_int_equal(hk_params_set_precision(params, HK_BF16), HK_OK);
    assert_int_equal(hk_params_set_precision(params, HK_BF16), HK_OK);
    struct hk_tensor *slab = hk_params_slab(params, 0), *gradients_slab = hk_params_gradient_slab(params, 0);
    struct hk_tensor *whole = hk_tensor_create(devices[0], HK_I32, hk_tensor_shape(slab));
    struct hk_tensor *hyper = hk_tensor_create(devices[0], HK_F32, HK_SHAPE(HK_HYPER_COUNT));
    struct hk_graph *graph = hk_graph_create();
    hk_optimizer_update(HK_SGD,
                        &(struct hk_optimizer_slab){.parameters = slab, .gradients = gradients_slab, .copy = whole},
                        hk_leaf(graph, hyper), NULL);
    assert_int_equal(hk_graph_status(graph), HK_ERROR_INVALID);
    expect_message("optimizer_update: the copy must be f16 or bf16, it is i32");
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&whole), hk_tensor_destroy(&hyper);
    assert_int_equal(hk_params_set_precision(params, HK_F16), HK_ERROR_INVALID);
    expect_message("the parameters' precision is bf16 already, and cannot become f16");
    hk_params_destroy(&params);
    params = hk_params_create(devices[0]);
    assert_int_equal(hk_params_set_precision(params, HK_BF16), HK_ERROR_INVALID);
    expect_message("call hk_params_allocate before hk_params_set_precision");
    hk_params_destroy(&params);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_lose_what_16_bits_lose),
        cmocka_unit_test(what_is_kept_is_smaller),
        cmocka_unit_test(copies_follow_the_parameters),
        cmocka_unit_test(layers_multiply_in_the_precision),
        cmocka_unit_test(a_stand_in_has_the_others_gradient),
        cmocka_unit_test(overflow_skips_the_step_and_halves_the_scale),
        cmocka_unit_test(the_scale_leaves_no_trace),
        cmocka_unit_test(good_steps_count_from_the_last_overflow),
        cmocka_unit_test(two_half_batches_are_one_batch),
        cmocka_unit_test(checkpoints_change_no_bit),
        cmocka_unit_test(a_resumed_run_goes_on_bit_for_bit),
        cmocka_unit_test(dropout_masks_are_those_of_f32),
        cmocka_unit_test(steps_learn_and_allocate_nothing),
        cmocka_unit_test(weights_of_16_bits_generate),
        cmocka_unit_test(wrong_settings_are_refused),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
