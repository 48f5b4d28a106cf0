/* Models as they train and write, on every device: accumulation, checkpointing, dropout, resuming, the KV cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend.h" /* to make a device whose buffers are small */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 61, CONTEXT = 32, BATCH = 4, LENGTH = 21, ROW = LENGTH + 1 };

static const struct hk_model_config models[] = {
    {.family = HK_GPT2, .vocab = VOCAB, .context = CONTEXT, .layers = 3, .heads = 4, .width = 32},
    {.family = HK_LLAMA,
     .vocab = VOCAB,
     .context = CONTEXT,
     .layers = 3,
     .heads = 4,
     .kv_heads = 2,
     .width = 32,
     .hidden = 72},
};

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

static void fill_tokens(int32_t *tokens, int count, uint64_t seed) {
    for (int i = 0; i < count; i++) tokens[i] = (int32_t)(test_random(&seed) % VOCAB);
}

static struct hk_trainer_params settings(const struct hk_model_config *model) {
    return (struct hk_trainer_params){.model = *model,
                                      .optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1},
                                      .batch = BATCH,
                                      .length = LENGTH,
                                      .seed = 9};
}

static struct hk_trainer *make_trainer(struct hk_device *device, const struct hk_trainer_params *how) {
    struct hk_trainer *trainer = hk_trainer_create(device, how);
    if (!trainer) print_error("%s\n", hk_error_message());
    assert_non_null(trainer);
    return trainer;
}

static float *read_slab(struct hk_tensor *slab) {
    float *x = malloc(hk_tensor_bytes(slab));
    assert_non_null(x);
    assert_int_equal(hk_tensor_read(slab, x, hk_tensor_bytes(slab)), HK_OK);
    return x;
}

/* Largest difference, relative to the largest element. */
static double difference(struct hk_tensor *a, struct hk_tensor *b) {
    float *x = read_slab(a), *y = read_slab(b);
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

static bool same_bits(struct hk_tensor *a, struct hk_tensor *b) {
    float *x = read_slab(a), *y = read_slab(b);
    const bool same = !memcmp(x, y, hk_tensor_bytes(a));
    free(x);
    free(y);
    return same;
}

static struct hk_tensor *weights(struct hk_trainer *trainer) { return hk_params_slab(hk_trainer_model(trainer), 0); }
static struct hk_tensor *gradients(struct hk_trainer *trainer) {
    return hk_params_gradient_slab(hk_trainer_model(trainer), 0);
}

/* Steps first + 1 to last, each on its own tokens. */
static void train(struct hk_trainer *trainer, int first, int last, float lr) {
    int32_t tokens[BATCH * ROW];
    for (int step = first + 1; step <= last; step++) {
        fill_tokens(tokens, COUNT(tokens), (uint64_t)step);
        assert_int_equal(hk_trainer_step(trainer, tokens, lr), HK_OK);
    }
}

static void for_all(void (*check)(struct hk_device *device, const struct hk_model_config *model)) {
    for (int d = 0; d < n_devices; d++)
        for (int m = 0; m < COUNT(models); m++) check(devices[d], &models[m]);
}

static const char *label(struct hk_device *device, const struct hk_model_config *model) {
    static char text[300];
    snprintf(text, sizeof text, "%s on %s", model->family == HK_GPT2 ? "GPT-2" : "Llama", test_device_name(device));
    return text;
}

/* ---- Accumulation ---- */

/* SGD, since Adam turns the rounding of gradients that are zero into steps of full length. */
static void check_accumulation(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    how.optimizer = (struct hk_optimizer_params){.kind = HK_SGD, .momentum = 0.9f, .clip = 1};
    struct hk_trainer *whole = make_trainer(device, &how);
    how.batch = BATCH / 2, how.accumulate = 2;
    struct hk_trainer *halves = make_trainer(device, &how);
    train(whole, 0, 3, 0.1f);
    train(halves, 0, 3, 0.1f);
    float loss[2], norm[2];
    assert_int_equal(hk_trainer_result(whole, &loss[0], &norm[0]), HK_OK);
    assert_int_equal(hk_trainer_result(halves, &loss[1], &norm[1]), HK_OK);
    const double error = difference(weights(whole), weights(halves));
    print_message("  %s: weights differ by %.1e\n", label(device, model), error);
    assert_true(error <= 1e-5);
    assert_true(fabsf(loss[0] - loss[1]) <= 1e-5f * loss[0] && fabsf(norm[0] - norm[1]) <= 1e-5f * norm[0]);
    float *held = read_slab(gradients(halves)); /* ready for the next step */
    for (int64_t i = 0; i < hk_tensor_elements(gradients(halves)); i++) assert_true(held[i] == 0);
    free(held);
    hk_trainer_destroy(&whole);
    hk_trainer_destroy(&halves);
}

static void two_half_batches_are_one_batch(void **state) {
    (void)state;
    for_all(check_accumulation);
}

/* A gradient is added to the others as soon as it is there, and lives no longer. Few tokens through wide layers, so
   that the gradients would outweigh the rest. */
static void check_accumulation_memory(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    how.model.width = 256, how.model.layers = 6;
    how.batch = 1;
    struct hk_trainer *plain = make_trainer(device, &how);
    how.accumulate = 2;
    struct hk_trainer *adding = make_trainer(device, &how);
    const uint64_t bytes = hk_trainer_program(plain)->arena_bytes, more = hk_trainer_program(adding)->arena_bytes;
    print_message("  %s: %llu bytes, accumulating %llu\n", label(device, model), (unsigned long long)bytes,
                  (unsigned long long)more);
    assert_true(more <= 2 * bytes);
    hk_trainer_destroy(&plain);
    hk_trainer_destroy(&adding);
}

static void accumulated_gradients_do_not_wait_for_the_end(void **state) {
    (void)state;
    for_all(check_accumulation_memory);
}

/* ---- Checkpointing ---- */

static void check_checkpointing(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    how.model.dropout = 0.2f; /* what is computed again must draw the same numbers */
    struct hk_trainer *all = make_trainer(device, &how);
    how.checkpoint = true;
    struct hk_trainer *few = make_trainer(device, &how);
    train(all, 0, 2, 1e-3f);
    train(few, 0, 2, 1e-3f);
    const uint64_t bytes_all = hk_trainer_program(all)->arena_bytes, bytes_few = hk_trainer_program(few)->arena_bytes;
    print_message("  %s: %llu bytes, with checkpoints %llu\n", label(device, model), (unsigned long long)bytes_all,
                  (unsigned long long)bytes_few);
    assert_true(same_bits(gradients(all), gradients(few)));
    assert_true(same_bits(weights(all), weights(few)));
    assert_true(bytes_few < bytes_all);
    hk_trainer_destroy(&all);
    hk_trainer_destroy(&few);
}

static void checkpoints_save_memory_and_change_no_bit(void **state) {
    (void)state;
    for_all(check_checkpointing);
}

/* ---- The same bits ---- */

static void copy_tensor(struct hk_tensor *to, struct hk_tensor *from) {
    float *x = read_slab(from);
    assert_int_equal(hk_tensor_write(to, x, hk_tensor_bytes(to)), HK_OK);
    free(x);
}

static void check_repeats(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    how.model.dropout = 0.1f;
    how.batch = BATCH / 2, how.accumulate = 2;
    struct hk_trainer *once = make_trainer(device, &how), *again = make_trainer(device, &how), *resumed;
    train(once, 0, 3, 1e-3f);
    train(again, 0, 3, 1e-3f);
    assert_true(same_bits(weights(once), weights(again)));

    resumed = make_trainer(device, &how); /* from step 3 of the other */
    copy_tensor(weights(resumed), weights(once));
    for (int m = 0; m < 2; m++)
        copy_tensor(hk_optimizer_moment(hk_trainer_optimizer(resumed), m, 0),
                    hk_optimizer_moment(hk_trainer_optimizer(once), m, 0));
    hk_optimizer_set_step(hk_trainer_optimizer(resumed), 3);
    train(once, 3, 5, 1e-3f);
    train(resumed, 3, 5, 1e-3f);
    assert_true(same_bits(weights(once), weights(resumed)));

    how.seed++;
    hk_trainer_destroy(&again);
    again = make_trainer(device, &how);
    assert_false(same_bits(weights(again), weights(resumed)));
    hk_trainer_destroy(&once);
    hk_trainer_destroy(&again);
    hk_trainer_destroy(&resumed);
}

static void the_same_seed_gives_the_same_bits(void **state) {
    (void)state;
    for_all(check_repeats);
}

/* Dropout differs between steps and between the batches of a step, and is absent from evaluation. */
static void check_dropout(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    how.model.dropout = 0.5f;
    struct hk_trainer *trainer = make_trainer(device, &how);
    int32_t tokens[BATCH * ROW];
    float losses[3], evaluated[2];
    fill_tokens(tokens, BATCH * ROW, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hk_trainer_step(trainer, tokens, 0), HK_OK); /* a learning rate of 0 changes nothing */
        assert_int_equal(hk_trainer_result(trainer, &losses[i], NULL), HK_OK);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(hk_trainer_evaluate(trainer, tokens, &evaluated[i]), HK_OK);
    assert_true(losses[0] != losses[1] && losses[1] != losses[2]);
    assert_true(evaluated[0] == evaluated[1]);
    hk_trainer_destroy(&trainer);

    struct hk_trainer_params without = settings(model); /* the same weights */
    trainer = make_trainer(device, &without);
    assert_int_equal(hk_trainer_evaluate(trainer, tokens, &evaluated[1]), HK_OK);
    assert_true(evaluated[0] == evaluated[1]);
    hk_trainer_destroy(&trainer);

    how.accumulate = 2; /* the same tokens twice: with the same masks, the loss of the first step would be the same */
    trainer = make_trainer(device, &how);
    int32_t twice[2 * BATCH * ROW];
    memcpy(twice, tokens, sizeof tokens);
    memcpy(twice + BATCH * ROW, tokens, sizeof tokens);
    assert_int_equal(hk_trainer_step(trainer, twice, 0), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &losses[1], NULL), HK_OK);
    assert_true(losses[0] != losses[1]);
    hk_trainer_destroy(&trainer);
}

static void dropout_changes_from_step_to_step(void **state) {
    (void)state;
    for_all(check_dropout);
}

/* ---- A step costs no allocation, and a model learns ---- */

static void check_step(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_trainer_params how = settings(model);
    struct hk_trainer *trainer = make_trainer(device, &how);
    struct hk_stats before, after;
    float first, last, norm;
    int32_t tokens[BATCH * ROW];
    fill_tokens(tokens, BATCH * ROW, 1);
    assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &first, &norm), HK_OK);
    hk_device_get_stats(device, &before);
    for (int i = 0; i < 10; i++) assert_int_equal(hk_trainer_step(trainer, tokens, 1e-2f), HK_OK);
    assert_int_equal(hk_trainer_result(trainer, &last, &norm), HK_OK);
    hk_device_get_stats(device, &after);
    assert_int_equal(after.allocations, before.allocations);
    assert_int_equal(after.descriptor_writes, before.descriptor_writes);
    assert_int_equal(after.pipelines, before.pipelines);
    assert_int_equal(after.fallbacks, 0);
    assert_true(fabsf(first - logf(VOCAB)) < 0.3f); /* a fresh model knows nothing */
    assert_true(last < first - 0.5f && norm > 0);
    hk_trainer_destroy(&trainer);
}

static void steps_learn_and_allocate_nothing(void **state) {
    (void)state;
    for_all(check_step);
}

/* ---- Buffers smaller than the model ---- */

static void check_slabs(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_device_info *info = &((struct hk_device_base *)device)->info;
    const uint64_t largest = info->max_buffer;
    struct hk_trainer_params how = settings(model);
    struct hk_trainer *one = make_trainer(device, &how), *several;
    info->max_buffer = 64 << 10;
    several = make_trainer(device, &how);
    info->max_buffer = largest;
    struct hk_params *a = hk_trainer_model(one), *b = hk_trainer_model(several);
    assert_int_equal(hk_params_slab_count(a), 1);
    assert_true(hk_params_slab_count(b) > 1);
    train(one, 0, 1, 1e-3f);
    train(several, 0, 1, 1e-3f);
    for (int i = 0; i < hk_params_count(a); i++)
        assert_true(same_bits(hk_params_gradient(a, i), hk_params_gradient(b, i)));
    float norm[2];
    assert_int_equal(hk_trainer_result(one, NULL, &norm[0]), HK_OK);
    assert_int_equal(hk_trainer_result(several, NULL, &norm[1]), HK_OK);
    assert_true(fabsf(norm[0] - norm[1]) <= 1e-6f * norm[0]); /* summed in other blocks */
    const double error = difference(hk_params_tensor(a, 0), hk_params_tensor(b, 0));
    print_message("  %s: %d slabs, weights differ by %.1e\n", label(device, model), hk_params_slab_count(b), error);
    assert_true(error <= 1e-5);
    hk_trainer_destroy(&one);
    hk_trainer_destroy(&several);
}

static void several_slabs_train_as_one(void **state) {
    (void)state;
    for_all(check_slabs);
}

static void a_parameter_larger_than_any_buffer_is_refused(void **state) {
    (void)state;
    struct hk_device_info *info = &((struct hk_device_base *)devices[0])->info;
    const uint64_t largest = info->max_buffer;
    struct hk_params *params = hk_params_create(devices[0]);
    info->max_buffer = 4096;
    hk_params_declare(params, "large", HK_SHAPE(33, 32), (struct hk_init){0});
    assert_int_equal(hk_params_allocate(params, 1), HK_ERROR_UNSUPPORTED);
    assert_non_null(strstr(hk_error_message(), "large needs 4224 bytes, but the device's largest buffer has 4096"));
    info->max_buffer = largest;
    hk_params_destroy(&params);
}

static void wrong_settings_are_refused(void **state) {
    (void)state;
    struct hk_trainer_params how = settings(&models[0]);
    how.length = CONTEXT + 1;
    assert_null(hk_trainer_create(devices[0], &how));
    assert_non_null(strstr(hk_error_message(), "length (33) must be from 1 to the model's context (32)"));
    how = settings(&models[0]);
    how.batch = 0;
    assert_null(hk_trainer_create(devices[0], &how));
    assert_non_null(strstr(hk_error_message(), "batch (0)"));
}

/* ---- Generation ---- */

/* Logits after the last of the tokens, without caches. */
static void plain_logits(struct hk_device *device, struct hk_params *params, const struct hk_model_config *model,
                         const int32_t *tokens, int64_t count, float *logits) {
    struct hk_tensor *in = hk_tensor_from(device, HK_I32, HK_SHAPE(1, count), tokens);
    struct hk_tensor *out = hk_tensor_create(device, HK_F32, HK_SHAPE(1, 1, VOCAB));
    struct hk_graph *graph = hk_graph_create();
    hk_store(out, hk_slice(hk_model_logits(params, model, hk_leaf(graph, in), NULL), 1, count - 1, count, 1));
    struct hk_program *program = hk_compile(device, graph, NULL);
    assert_non_null(program);
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(out, logits, VOCAB * sizeof *logits), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&in);
    hk_tensor_destroy(&out);
}

static struct hk_params *make_params(struct hk_device *device, const struct hk_model_config *model) {
    struct hk_params *params = hk_params_create(device);
    assert_int_equal(hk_model_declare(params, model), HK_OK);
    assert_int_equal(hk_params_allocate(params, 4), HK_OK);
    uint64_t random = 6; /* weights large enough that every token and place matters */
    for (int i = 0; i < hk_params_count(params); i++) {
        struct hk_tensor *tensor = hk_params_tensor(params, i);
        float *x = read_slab(tensor);
        for (int64_t k = 0; k < hk_tensor_elements(tensor); k++) x[k] += (float)test_uniform(&random, -0.3, 0.3);
        assert_int_equal(hk_tensor_write(tensor, x, hk_tensor_bytes(tensor)), HK_OK);
        free(x);
    }
    return params;
}

static void check_generator(struct hk_device *device, const struct hk_model_config *model) {
    static const int feeds[] = {3, 1, 1, 17, 2, 1, 5, 1, 1, 4, 1}; /* 32 tokens fill the context; then it starts anew */
    struct hk_params *params = make_params(device, model);
    struct hk_generator *generator = hk_generator_create(device, params, model);
    int32_t tokens[64];
    float logits[VOCAB], expected[VOCAB];
    int64_t first = 0, count = 0; /* the tokens that the model still sees */
    double worst = 0;
    assert_non_null(generator);
    fill_tokens(tokens, COUNT(tokens), 2);
    for (int f = 0; f < COUNT(feeds); f++) {
        assert_int_equal(hk_generator_feed(generator, tokens + first + count, feeds[f], logits), HK_OK);
        for (int i = 0; i < feeds[f]; i++) {
            if (count == CONTEXT) first += CONTEXT - CONTEXT / 2, count = CONTEXT / 2;
            count++;
        }
        plain_logits(device, params, model, tokens + first, count, expected);
        double largest = 0, error = 0;
        for (int i = 0; i < VOCAB; i++) {
            error = fmax(error, fabs((double)logits[i] - (double)expected[i]));
            largest = fmax(largest, fabs((double)expected[i]));
        }
        worst = fmax(worst, error / largest);
        assert_true(largest > 0.1);
    }
    print_message("  %s: cached logits differ by %.1e\n", label(device, model), worst);
    assert_true(worst <= 1e-4);
    const int32_t wrong = VOCAB;
    assert_int_equal(hk_generator_feed(generator, &wrong, 1, logits), HK_ERROR_INVALID);
    assert_int_equal(hk_generator_feed(generator, tokens, 0, logits), HK_ERROR_INVALID);
    hk_generator_destroy(&generator);
    hk_params_destroy(&params);
}

static void cached_logits_are_those_of_the_whole_text(void **state) {
    (void)state;
    for_all(check_generator);
}

static void short_contexts_generate(void **state) {
    (void)state;
    for (int64_t context = 1; context <= 3; context++) {
        struct hk_model_config model = models[0];
        model.context = context;
        struct hk_params *params = make_params(devices[0], &model);
        struct hk_generator *generator = hk_generator_create(devices[0], params, &model);
        const int32_t tokens[] = {5, 6, 7, 8, 9, 10, 11};
        float logits[VOCAB], expected[VOCAB];
        int64_t count = 0;
        assert_non_null(generator);
        assert_int_equal(hk_generator_feed(generator, tokens, 7, logits), HK_OK);
        for (int i = 0; i < 7; i++) count = count == context ? context / 2 + 1 : count + 1;
        plain_logits(devices[0], params, &model, tokens + 7 - count, count, expected);
        for (int i = 0; i < VOCAB; i++) assert_true(fabsf(logits[i] - expected[i]) <= 1e-4f);
        hk_generator_destroy(&generator);
        hk_params_destroy(&params);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_half_batches_are_one_batch),
        cmocka_unit_test(accumulated_gradients_do_not_wait_for_the_end),
        cmocka_unit_test(checkpoints_save_memory_and_change_no_bit),
        cmocka_unit_test(the_same_seed_gives_the_same_bits),
        cmocka_unit_test(dropout_changes_from_step_to_step),
        cmocka_unit_test(steps_learn_and_allocate_nothing),
        cmocka_unit_test(several_slabs_train_as_one),
        cmocka_unit_test(a_parameter_larger_than_any_buffer_is_refused),
        cmocka_unit_test(wrong_settings_are_refused),
        cmocka_unit_test(cached_logits_are_those_of_the_whole_text),
        cmocka_unit_test(short_contexts_generate),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
