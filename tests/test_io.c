/* The files about a model: config.json of both families, the text that it learns, the metrics of its training. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "io_files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- config.json ---- */

static void configs_read_back_for_both_families(void **unused) {
    (void)unused;
    const struct hk_model_config configs[] = {
        {HK_GPT2, 256, 64, 3, 4, 4, 128, 512, 1e-5f, 0, 0.1f},
        {HK_LLAMA, 1000, 128, 2, 8, 2, 64, 96, 1e-6f, 500000.0f, 0},
    };
    for (int i = 0; i < COUNT(configs); i++) {
        struct hk_model_config read = {0};
        char *text = hk_config_format(&configs[i]);
        assert_non_null(text);
        assert_int_equal(hk_config_parse(text, strlen(text), &read), HK_OK);
        io_expect_config(&configs[i], &read);
        free(text);
    }
}

static void configs_of_hugging_face_read(void **unused) {
    (void)unused;
    const char *gpt2 =
        "{\"activation_function\":\"gelu_new\",\"architectures\":[\"GPT2LMHeadModel\"],\"attn_pdrop\":0.1,"
        "\"bos_token_id\":50256,\"embd_pdrop\":0.1,\"initializer_range\":0.02,\"layer_norm_epsilon\":1e-05,"
        "\"model_type\":\"gpt2\",\"n_ctx\":1024,\"n_embd\":768,\"n_head\":12,\"n_inner\":null,\"n_layer\":12,"
        "\"n_positions\":1024,\"resid_pdrop\":0.1,\"vocab_size\":50257}";
    struct hk_model_config config;
    assert_int_equal(hk_config_parse(gpt2, strlen(gpt2), &config), HK_OK);
    io_expect_config(&config, &(struct hk_model_config){HK_GPT2, 50257, 1024, 12, 12, 12, 768, 3072, 1e-5f, 0, 0.1f});
    const char *llama =
        "{\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":5632,"
        "\"max_position_embeddings\":2048,\"num_attention_heads\":32,\"num_hidden_layers\":22,"
        "\"num_key_value_heads\":4,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"tie_word_embeddings\":false,"
        "\"vocab_size\":32000}";
    assert_int_equal(hk_config_parse(llama, strlen(llama), &config), HK_OK);
    io_expect_config(&config, &(struct hk_model_config){HK_LLAMA, 32000, 2048, 22, 32, 4, 2048, 5632, 1e-5f, 10000, 0});
    const char *old = /* before heads were grouped */
        "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":172,\"max_position_embeddings\":128,"
        "\"num_attention_heads\":4,\"num_hidden_layers\":2,\"vocab_size\":256}";
    assert_int_equal(hk_config_parse(old, strlen(old), &config), HK_OK);
    assert_int_equal(config.kv_heads, 4);
}

static void wrong_configs_are_refused_by_key(void **unused) {
    (void)unused;
    static const struct {
        const char *json, *message;
    } wrong[] = {
        {"", "not well formed"},
        {"{", "not well formed"},
        {"{}", "\"model_type\" is missing"},
        {"{\"model_type\":7}", "\"model_type\" is not a text"},
        {"{\"model_type\":\"bert\"}", "\"bert\"; Hekla has gpt2 and llama"},
        {"{\"model_type\":\"gpt2\"}", "\"vocab_size\" is missing"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":1.5}", "\"vocab_size\" is not a whole number"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":1e30}", "\"vocab_size\" is not a whole number"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":256,\"n_positions\":8,\"n_embd\":10,\"n_layer\":1,\"n_head\":3}",
         "heads"},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":256,\"n_positions\":8,\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
         "\"activation_function\":\"relu\"}",
         "\"activation_function\" is \"relu\""},
        {"{\"model_type\":\"gpt2\",\"vocab_size\":256,\"n_positions\":8,\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
         "\"tie_word_embeddings\":false}",
         "\"tie_word_embeddings\" must be true"},
        {"{\"model_type\":\"llama\",\"vocab_size\":256,\"max_position_embeddings\":8,\"hidden_size\":8,"
         "\"intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"rope_scaling\":{}}",
         "\"rope_scaling\""},
    };
    struct hk_model_config config;
    for (int i = 0; i < COUNT(wrong); i++) {
        assert_int_not_equal(hk_config_parse(wrong[i].json, strlen(wrong[i].json), &config), HK_OK);
        io_expect_message(wrong[i].message);
    }
}

/* ---- Text ---- */

static struct hk_text *counting_text(size_t bytes) {
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i % 251);
    io_write(io_path("text"), data, bytes);
    free(data);
    struct hk_text *text = hk_text_open(io_path("text"), NULL);
    assert_non_null(text);
    return text;
}

static void batches_follow_from_seed_and_step(void **unused) {
    (void)unused;
    enum { ROWS = 5, T = 16, N = ROWS * (T + 1) };
    struct hk_text *text = counting_text(10000);
    int32_t a[N], b[N];
    assert_int_equal(hk_text_tokens(text, false), 9000);
    assert_int_equal(hk_text_tokens(text, true), 1000);
    assert_int_equal(hk_text_batch(text, ROWS, T, 7, 3, a), HK_OK);
    assert_int_equal(hk_text_batch(text, ROWS, T, 7, 3, b), HK_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(hk_text_batch(text, ROWS, T, 7, 4, b), HK_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(hk_text_batch(text, ROWS, T, 8, 3, b), HK_OK);
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < N; i++) /* rows are runs of the text */
        if (i % (T + 1)) assert_int_equal(a[i], (a[i - 1] + 1) % 251);
    hk_text_destroy(&text);
}

static void batches_stay_out_of_what_is_held_out(void **unused) {
    (void)unused;
    uint8_t data[100];
    memset(data, 'a', 90);
    memset(data + 90, 'b', 10);
    io_write(io_path("split"), data, sizeof data);
    struct hk_text *text = hk_text_open(io_path("split"), NULL);
    int32_t tokens[64 * 9];
    bool first = false, last = false;
    assert_int_equal(hk_text_batch(text, 64, 8, 1, 1, tokens), HK_OK);
    for (int i = 0; i < 64 * 9; i++) assert_int_equal(tokens[i], 'a');
    assert_int_equal(hk_text_evaluation(text, 2, 8, 0, 1, tokens), HK_OK);
    for (int i = 0; i < 2 * 9; i++) assert_int_equal(tokens[i], 'b');
    hk_text_destroy(&text);
    /* every place of a small text comes up, the first and the last too */
    text = counting_text(40);
    for (uint64_t step = 0; step < 20; step++) {
        assert_int_equal(hk_text_batch(text, 64, 8, 1, step, tokens), HK_OK);
        for (int row = 0; row < 64; row++)
            first = first || tokens[row * 9] == 0, last = last || tokens[row * 9 + 8] == 35;
    }
    assert_true(first && last);
    hk_text_destroy(&text);
}

static void evaluation_covers_the_held_out_part(void **unused) {
    (void)unused;
    enum { ROWS = 4, T = 10 };
    struct hk_text *text = counting_text(2000);
    const int64_t parts = (200 + ROWS * T - 1) / (ROWS * T);
    bool seen[2000] = {false};
    for (int64_t part = 0; part < parts; part++) {
        int32_t tokens[ROWS * (T + 1)];
        assert_int_equal(hk_text_evaluation(text, ROWS, T, part, parts, tokens), HK_OK);
        for (int i = 0; i < ROWS * (T + 1); i++) seen[tokens[i]] = true;
        for (int i = 0; i < ROWS * (T + 1); i++) /* rows are runs of the text, and end with it */
            if (i % (T + 1)) assert_int_equal(tokens[i], (tokens[i - 1] + 1) % 251);
    }
    for (int i = 0; i < 200; i++) assert_true(seen[(1800 + i) % 251]);
    hk_text_destroy(&text);
}

static void short_texts_name_need_and_have(void **unused) {
    (void)unused;
    int32_t tokens[128];
    struct hk_text *text = counting_text(30);
    assert_int_equal(hk_text_batch(text, 1, 64, 0, 0, tokens), HK_ERROR_INVALID);
    io_expect_message("a context of 64 needs 65 bytes to train on, it has 27 (of 30 in all)");
    assert_int_equal(hk_text_evaluation(text, 1, 4, 0, 1, tokens), HK_ERROR_INVALID);
    io_expect_message("needs 5 bytes to evaluate on, it has 3");
    assert_int_equal(hk_text_batch(text, 1, 26, 0, 0, tokens), HK_OK);
    hk_text_destroy(&text);
    io_write(io_path("none"), "", 0);
    assert_null(hk_text_open(io_path("none"), NULL));
    io_expect_message("is empty");
    assert_null(hk_text_open(io_path("absent"), NULL));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
    assert_null(hk_text_open(io_folder, NULL));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
}

/* ---- metrics.jsonl ---- */

static void metrics_after_the_checkpoint_are_cut(void **unused) {
    (void)unused;
    mkdir(io_path("metrics"), 0755);
    struct hk_metrics *metrics = hk_metrics_open(io_path("metrics"), 0);
    assert_non_null(metrics);
    for (int64_t step = 1; step <= 4; step++)
        assert_int_equal(hk_metrics_write(metrics, step, &(struct hk_metric){"loss", step == 2 ? NAN : 0.5}, 1), HK_OK);
    hk_metrics_close(&metrics);
    FILE *file = fopen(io_path("metrics/metrics.jsonl"), "ab");
    fputs("{\"step\":3,\"lo", file); /* a line that a kill cut */
    fclose(file);
    metrics = hk_metrics_open(io_path("metrics"), 2);
    assert_non_null(metrics);
    assert_int_equal(hk_metrics_write(metrics, 3, &(struct hk_metric){"loss", 0.25}, 1), HK_OK);
    hk_metrics_close(&metrics);
    size_t bytes;
    char *text = io_read(io_path("metrics/metrics.jsonl"), &bytes);
    assert_string_equal(text, "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":0.25}\n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs_read_back_for_both_families),  cmocka_unit_test(configs_of_hugging_face_read),
        cmocka_unit_test(wrong_configs_are_refused_by_key),     cmocka_unit_test(batches_follow_from_seed_and_step),
        cmocka_unit_test(batches_stay_out_of_what_is_held_out), cmocka_unit_test(evaluation_covers_the_held_out_part),
        cmocka_unit_test(short_texts_name_need_and_have),       cmocka_unit_test(metrics_after_the_checkpoint_are_cut),
    };
    return cmocka_run_group_tests(tests, io_make_folder, io_remove_folder);
}
