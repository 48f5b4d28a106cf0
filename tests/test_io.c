/* Files: what is written reads back, what strangers wrote is refused with its reason, and a run folder outlives a kill
   at every stage of a save. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <hekla/hekla.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static char folder[64]; /* of this process; each test uses names of its own in it */

static const char *path_of(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*bytes + 1);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    data[*bytes] = 0;
    fclose(file);
    return data;
}

static void write_file(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void copy_file(const char *from, const char *to, size_t most) {
    size_t bytes;
    char *data = read_file(from, &bytes);
    write_file(to, data, bytes < most ? bytes : most);
    free(data);
}

static void assert_message(const char *part) {
    if (strstr(hk_error_message(), part)) return;
    print_error("message: %s\nlacks:   %s\n", hk_error_message(), part);
    fail();
}

/* ---- safetensors ---- */

static void safetensors_reads_back_what_it_wrote(void **unused) {
    (void)unused;
    const float weights[6] = {1, -2, 3.5f, INFINITY, 1e-30f, 0};
    const uint8_t bytes[5] = {0, 1, 2, 254, 255};
    const uint16_t halves[2] = {0x3c00, 0xc000};
    const struct hk_safetensors_entry entries[] = {
        {"bytes \"quoted\"", HK_U8, HK_SHAPE(5), bytes, sizeof bytes},
        {"weights", HK_F32, HK_SHAPE(2, 3), weights, sizeof weights},
        {"halves", HK_F16, HK_SHAPE(1, 1, 1, 1, 1, 2), halves, sizeof halves},
        {"nothing", HK_F32, HK_SHAPE(4, 0), NULL, 0},
        {"number", HK_F32, HK_SCALAR, weights, sizeof *weights},
    };
    const char *const keys[] = {"format", "note"}, *const values[] = {"pt", "\xc3\xa9\n"};
    const char *path = path_of("round.safetensors");
    assert_int_equal(hk_safetensors_write(path, entries, (int)LENGTH(entries), keys, values, 2), HK_OK);
    assert_int_not_equal(access(path_of("round.safetensors.part"), F_OK), 0);
    struct hk_safetensors *file = hk_safetensors_open(path);
    assert_non_null(file);
    assert_int_equal(hk_safetensors_count(file), LENGTH(entries));
    for (size_t i = 0; i < LENGTH(entries); i++) {
        const struct hk_safetensors_entry *e = hk_safetensors_find(file, entries[i].name);
        assert_non_null(e);
        assert_int_equal(e->dtype, entries[i].dtype);
        assert_int_equal(e->shape.rank, entries[i].shape.rank);
        assert_memory_equal(e->shape.size, entries[i].shape.size, (size_t)e->shape.rank * sizeof(int64_t));
        assert_int_equal(e->bytes, entries[i].bytes);
        if (e->bytes) assert_memory_equal(e->data, entries[i].data, e->bytes);
        assert_int_equal((uintptr_t)e->data % hk_dtype_size(e->dtype), 0);
    }
    assert_string_equal(hk_safetensors_metadata(file, "note"), values[1]);
    assert_null(hk_safetensors_metadata(file, "absent"));
    assert_null(hk_safetensors_find(file, "absent"));
    assert_null(hk_safetensors_entry(file, (int)LENGTH(entries)));
    hk_safetensors_destroy(&file);
    assert_null(file);
}

struct hostile {
    const char *header;
    size_t data;    /* bytes after it */
    uint64_t claim; /* the header size written; 0: the true one */
    const char *message;
};

static const struct hostile hostiles[] = {
    {"{}", 0, 1ull << 63, "claims 9223372036854775808 bytes"},
    {"{}", 0, UINT64_MAX, "claims 18446744073709551615 bytes"},
    {"{}", 0, 3, "claims 3 bytes"},
    {"", 0, 0, "not well formed"},
    {"[]", 0, 0, "not an object"},
    {"{\"a\":1", 0, 0, "not well formed"},
    {"{\"a\":1,", 0, 0, "not well formed"},
    {"{} {}", 0, 0, "something follows"},
    {"{\"\xff\":1}", 0, 0, "not UTF-8"},
    {"{\"\xed\xa0\x80\":1}", 0, 0, "not UTF-8"},
    {"{\"\xc0\xaf\":1}", 0, 0, "not UTF-8"},
    {"{\"w\":1}", 0, 0, "w is not described by an object"},
    {"{\"w\":{}}", 0, 0, "w has no dtype"},
    {"{\"w\":{\"dtype\":7}}", 0, 0, "w has no dtype"},
    {"{\"w\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0, "w has the unknown dtype \"F33\""},
    {"{\"w\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, 0, "w is F64"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, 0, "w has no shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4, 0, "w has no shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, 0, "w has a size that is no whole number"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[0.5],\"data_offsets\":[0,4]}}", 4, 0,
     "w has a size that is no whole number"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, 0,
     "w has a size that is no whole number"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,4]}}", 4, 0,
     "w has a size that is no whole number"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, 0,
     "w has more than 6 dimensions"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, 0,
     "the shape of w overflows"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2147483648,2147483648],\"data_offsets\":[0,4]}}", 4, 0,
     "w has 4 bytes of data"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, 0, "w has no data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, 0, "w has no data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, 0, "w has no data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, 0, "the data of w, bytes 4 to 0"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, 0, "is outside the file's 4 bytes"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9007199254740988,9007199254740992]}}", 4, 0,
     "is outside"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, 0, "w has 4 bytes of data"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, 0,
     "before the data of w lie bytes of no tensor"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 9, 0, "5 bytes at the end belong to no tensor"},
    {"{\"v\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"w\":{\"dtype\":\"U8\",\"shape\":[4],"
     "\"data_offsets\":[2,6]}}",
     6, 0, "the data of w overlaps"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"w\":{\"dtype\":\"U8\",\"shape\":[4],"
     "\"data_offsets\":[4,8]}}",
     8, 0, "w is there twice"},
    {"{\"__metadata__\":[]}", 0, 0, "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"step\":1}}", 0, 0, "a value that is no text: \"step\""},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, 0, "__metadata__ is there twice"},
};

static uint8_t *hostile_file(const struct hostile *h, size_t *bytes) {
    const size_t header = strlen(h->header);
    const uint64_t claim = h->claim ? h->claim : header;
    uint8_t *data = calloc(1, 8 + header + h->data);
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)(claim >> (8 * i));
    memcpy(data + 8, h->header, header);
    *bytes = 8 + header + h->data;
    return data;
}

static void hostile_safetensors_are_refused_with_the_reason(void **unused) {
    (void)unused;
    for (size_t i = 0; i < LENGTH(hostiles); i++) {
        size_t bytes;
        uint8_t *data = hostile_file(&hostiles[i], &bytes);
        assert_null(hk_safetensors_parse(data, bytes));
        assert_message(hostiles[i].message);
        const bool unsupported = strstr(hostiles[i].header, "F64");
        assert_int_equal(hk_error_status(), unsupported ? HK_ERROR_UNSUPPORTED : HK_ERROR_FORMAT);
        free(data);
    }
}

static void nesting_bombs_are_refused(void **unused) {
    (void)unused;
    const size_t depth = 1000000;
    char *header = malloc(depth + 1);
    memset(header, '[', depth);
    memcpy(header, "{\"a\":", 5);
    header[depth] = 0;
    size_t bytes;
    uint8_t *data = hostile_file(&(struct hostile){header, 0, 0, ""}, &bytes);
    assert_null(hk_safetensors_parse(data, bytes));
    assert_message("nested too deeply");
    free(data);
    free(header);
}

static void safetensors_cut_anywhere_are_refused(void **unused) {
    (void)unused;
    const float weights[4] = {1, 2, 3, 4};
    const struct hk_safetensors_entry entry = {"w", HK_F32, HK_SHAPE(4), weights, sizeof weights};
    const char *path = path_of("whole.safetensors");
    assert_int_equal(hk_safetensors_write(path, &entry, 1, NULL, NULL, 0), HK_OK);
    size_t bytes;
    char *data = read_file(path, &bytes);
    for (size_t cut = 0; cut < bytes; cut++) {
        /* a copy of the exact size: the address sanitizer sees reads past it */
        char *copy = malloc(cut + !cut);
        memcpy(copy, data, cut);
        assert_null(hk_safetensors_parse(copy, cut));
        assert_int_equal(hk_error_status(), HK_ERROR_FORMAT);
        free(copy);
    }
    free(data);
    write_file(path_of("empty.safetensors"), "", 0);
    assert_null(hk_safetensors_open(path_of("empty.safetensors")));
    assert_int_equal(hk_error_status(), HK_ERROR_FORMAT);
    assert_null(hk_safetensors_open(path_of("absent.safetensors")));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
    assert_null(hk_safetensors_open(folder));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
}

static void writing_refuses_what_would_not_read(void **unused) {
    (void)unused;
    const float x[2] = {0};
    const struct hk_safetensors_entry wrong_size = {"w", HK_F32, HK_SHAPE(2), x, 4},
                                      no_name = {NULL, HK_F32, HK_SHAPE(2), x, 8},
                                      reserved = {"__metadata__", HK_F32, HK_SHAPE(2), x, 8},
                                      no_data = {"w", HK_F32, HK_SHAPE(2), NULL, 8},
                                      latin = {"\xe9", HK_F32, HK_SHAPE(2), x, 8};
    const struct hk_safetensors_entry *const all[] = {&wrong_size, &no_name, &reserved, &no_data, &latin};
    for (size_t i = 0; i < LENGTH(all); i++)
        assert_int_equal(hk_safetensors_write(path_of("wrong"), all[i], 1, NULL, NULL, 0), HK_ERROR_INVALID);
    assert_int_not_equal(access(path_of("wrong"), F_OK), 0);
    const struct hk_safetensors_entry fine = {"w", HK_F32, HK_SHAPE(2), x, 8};
    assert_int_equal(hk_safetensors_write(path_of("absent/w"), &fine, 1, NULL, NULL, 0), HK_ERROR_IO);
}

/* ---- config.json ---- */

static void assert_same_config(const struct hk_model_config *a, const struct hk_model_config *b) {
    assert_int_equal(a->family, b->family);
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->context, b->context);
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->kv_heads, b->kv_heads);
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->hidden, b->hidden);
    assert_true(a->epsilon == b->epsilon && a->rope_base == b->rope_base && a->dropout == b->dropout);
}

static void configs_read_back_for_both_families(void **unused) {
    (void)unused;
    const struct hk_model_config configs[] = {
        {HK_GPT2, 256, 64, 3, 4, 4, 128, 512, 1e-5f, 0, 0.1f},
        {HK_LLAMA, 1000, 128, 2, 8, 2, 64, 96, 1e-6f, 500000.0f, 0},
    };
    for (size_t i = 0; i < LENGTH(configs); i++) {
        struct hk_model_config read = {0};
        char *text = hk_config_format(&configs[i]);
        assert_non_null(text);
        assert_int_equal(hk_config_parse(text, strlen(text), &read), HK_OK);
        assert_same_config(&configs[i], &read);
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
    assert_same_config(&config, &(struct hk_model_config){HK_GPT2, 50257, 1024, 12, 12, 12, 768, 3072, 1e-5f, 0, 0.1f});
    const char *llama =
        "{\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":5632,"
        "\"max_position_embeddings\":2048,\"num_attention_heads\":32,\"num_hidden_layers\":22,"
        "\"num_key_value_heads\":4,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"tie_word_embeddings\":false,"
        "\"vocab_size\":32000}";
    assert_int_equal(hk_config_parse(llama, strlen(llama), &config), HK_OK);
    assert_same_config(&config,
                       &(struct hk_model_config){HK_LLAMA, 32000, 2048, 22, 32, 4, 2048, 5632, 1e-5f, 10000, 0});
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
    for (size_t i = 0; i < LENGTH(wrong); i++) {
        assert_int_not_equal(hk_config_parse(wrong[i].json, strlen(wrong[i].json), &config), HK_OK);
        assert_message(wrong[i].message);
    }
}

/* ---- Text ---- */

static struct hk_text *counting_text(size_t bytes) {
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i % 251);
    write_file(path_of("text"), data, bytes);
    free(data);
    struct hk_text *text = hk_text_open(path_of("text"), NULL);
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
    write_file(path_of("split"), data, sizeof data);
    struct hk_text *text = hk_text_open(path_of("split"), NULL);
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
    assert_message("a context of 64 needs 65 bytes to train on, it has 27 (of 30 in all)");
    assert_int_equal(hk_text_evaluation(text, 1, 4, 0, 1, tokens), HK_ERROR_INVALID);
    assert_message("needs 5 bytes to evaluate on, it has 3");
    assert_int_equal(hk_text_batch(text, 1, 26, 0, 0, tokens), HK_OK);
    hk_text_destroy(&text);
    write_file(path_of("none"), "", 0);
    assert_null(hk_text_open(path_of("none"), NULL));
    assert_message("is empty");
    assert_null(hk_text_open(path_of("absent"), NULL));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
    assert_null(hk_text_open(folder, NULL));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
}

/* ---- Run folders ---- */

static const struct hk_model_config small = {HK_GPT2, 256, 8, 1, 2, 2, 8, 32, 1e-5f, 0, 0};

struct model {
    struct hk_device *device;
    struct hk_params *params;
    struct hk_optimizer *optimizer;
};

static struct model make_model(enum hk_optimizer_kind kind) {
    struct model m = {.device = hk_device_open(&(struct hk_device_params){.name = "cpu", .threads = 1})};
    assert_non_null(m.device);
    m.params = hk_params_create(m.device);
    assert_int_equal(hk_model_declare(m.params, &small), HK_OK);
    assert_int_equal(hk_params_allocate(m.params, 5), HK_OK);
    m.optimizer = hk_optimizer_create(m.params, &(struct hk_optimizer_params){.kind = kind});
    assert_non_null(m.optimizer);
    return m;
}

static void destroy_model(struct model *m) {
    hk_optimizer_destroy(&m->optimizer);
    hk_params_destroy(&m->params);
    hk_device_destroy(&m->device);
}

static void fill(struct hk_tensor *tensor, float value) {
    if (!tensor) return;
    const int64_t count = hk_tensor_elements(tensor);
    float *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; i < count; i++) data[i] = value + (float)i;
    assert_int_equal(hk_tensor_write(tensor, data, (size_t)count * sizeof *data), HK_OK);
    free(data);
}

static void assert_filled(struct hk_tensor *tensor, float value) {
    if (!tensor) return;
    const int64_t count = hk_tensor_elements(tensor);
    float *data = malloc((size_t)count * sizeof *data);
    assert_int_equal(hk_tensor_read(tensor, data, (size_t)count * sizeof *data), HK_OK);
    for (int64_t i = 0; i < count; i++) assert_true(data[i] == value + (float)i);
    free(data);
}

/* Parameter i's part of moment m; the caller destroys it. */
static struct hk_tensor *moment_of(struct model *m, int moment, int i) {
    int64_t first;
    const int slab = hk_params_place(m->params, i, &first);
    struct hk_tensor *all = hk_optimizer_moment(m->optimizer, moment, slab);
    return all ? hk_tensor_view(all, first, hk_tensor_shape(hk_params_tensor(m->params, i))) : NULL;
}

/* A model whose every number tells the step. */
static void set_model(struct model *m, int64_t step) {
    for (int i = 0; i < hk_params_count(m->params); i++) {
        fill(hk_params_tensor(m->params, i), (float)(step + i));
        for (int moment = 0; moment < 2; moment++) {
            struct hk_tensor *part = moment_of(m, moment, i);
            fill(part, (float)(step + i) + 0.25f * (float)(moment + 1));
            hk_tensor_destroy(&part);
        }
    }
    hk_optimizer_set_step(m->optimizer, step);
}

static void assert_model(struct model *m, int64_t step, bool optimizer) {
    for (int i = 0; i < hk_params_count(m->params); i++) {
        assert_filled(hk_params_tensor(m->params, i), (float)(step + i));
        for (int moment = 0; moment < 2 && optimizer; moment++) {
            struct hk_tensor *part = moment_of(m, moment, i);
            assert_filled(part, (float)(step + i) + 0.25f * (float)(moment + 1));
            hk_tensor_destroy(&part);
        }
    }
    if (optimizer) assert_int_equal(hk_optimizer_step(m->optimizer), step);
}

static hk_status save_step(struct model *m, const char *name, int64_t step) {
    const struct hk_run_state state = {
        .step = step, .steps = 1000, .seed = UINT64_MAX, .loss = NAN, .held_out_loss = 1.5};
    set_model(m, step);
    return hk_run_save(path_of(name), &small, m->params, m->optimizer, &state);
}

/* Loads as who resumes does, into a model that held something else. */
static void assert_loads(const char *name, int64_t step) {
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state;
    set_model(&m, 999);
    assert_int_equal(hk_run_load(path_of(name), m.params, NULL, NULL), HK_OK);
    assert_model(&m, step, false);
    set_model(&m, 999);
    if (hk_run_load(path_of(name), m.params, m.optimizer, &state) != HK_OK) fail_msg("%s", hk_error_message());
    assert_int_equal(state.step, step);
    assert_model(&m, step, true);
    destroy_model(&m);
}

static void runs_read_back(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state = {.step = 3,
                                 .steps = 0,
                                 .minutes = 2.5,
                                 .seed = UINT64_MAX - 1,
                                 .seconds = 0.1 + 0.2,
                                 .loss = 1.0 / 3,
                                 .held_out_loss = NAN,
                                 .batch = 12,
                                 .length = 8,
                                 .accumulate = 2,
                                 .evaluate_every = 50,
                                 .schedule = {HK_SCHEDULE_COSINE, 1e-3f / 3, 1e-4f, 100, 5000}, /* to its last bit */
                                 .optimizer = {.kind = HK_ADAMW,
                                               .beta1 = 0.9f,
                                               .beta2 = 0.99f,
                                               .epsilon = 1e-8f,
                                               .weight_decay = 0.1f,
                                               .clip = 1},
                                 .data_hash = UINT64_MAX,
                                 .data = "/some/where \"else\""};
    struct hk_run_state read;
    struct hk_model_config config;
    set_model(&m, 3);
    assert_false(hk_run_exists(path_of("round")));
    assert_int_equal(hk_run_save(path_of("round"), &small, m.params, m.optimizer, &state), HK_OK);
    assert_true(hk_run_exists(path_of("round")));
    assert_loads("round", 3);
    assert_int_equal(hk_run_load_config(path_of("round"), &config), HK_OK);
    assert_same_config(&config, &small);
    assert_int_equal(hk_run_load_state(path_of("round"), &read), HK_OK);
    assert_true(isnan(read.held_out_loss));
    read.held_out_loss = state.held_out_loss = 0;
    assert_int_equal(read.step, state.step);
    assert_true(fabs(read.seconds - state.seconds) < 1e-12 && fabs(read.loss - state.loss) < 1e-12);
    assert_true(read.minutes == state.minutes && read.steps == state.steps &&
                read.evaluate_every == state.evaluate_every);
    assert_true(read.batch == state.batch && read.length == state.length && read.accumulate == state.accumulate);
    assert_true(read.seed == state.seed && read.data_hash == state.data_hash);
    assert_string_equal(read.data, state.data);
    assert_memory_equal(&read.schedule, &state.schedule, sizeof read.schedule);
    assert_memory_equal(&read.optimizer, &state.optimizer, sizeof read.optimizer);
    destroy_model(&m);
}

/* As GPT-2's byte-level tokenizer writes bytes: those that print in Latin-1 as they are, the others from U+0100 on. */
static void tokenizers_have_the_characters_of_gpt2(void **unused) {
    (void)unused;
    struct model m = make_model(HK_SGD);
    assert_int_equal(save_step(&m, "tokens", 1), HK_OK);
    size_t bytes;
    char *text = read_file(path_of("tokens/tokenizer.json"), &bytes);
    static const char *const characters[] = {"\"\u0100\":0,",   "\"\u0120\":32,",  "\"!\":33,",       "\"~\":126,",
                                             "\"\u0121\":127,", "\"\u0142\":160,", "\"\u00a1\":161,", "\"\u00ac\":172,",
                                             "\"\u0143\":173,", "\"\u00ae\":174,", "\"\u00ff\":255}"};
    for (size_t i = 0; i < LENGTH(characters); i++)
        if (!strstr(text, characters[i])) fail_msg("tokenizer.json lacks %s", characters[i]);
    free(text);
    destroy_model(&m);
}

/* The optimizer may have taken more steps than the run, or fewer. */
static void an_optimizer_goes_on_with_its_own_step(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state = {.step = 3};
    set_model(&m, 7);
    assert_int_equal(hk_run_save(path_of("ahead"), &small, m.params, m.optimizer, &state), HK_OK);
    set_model(&m, 999);
    assert_int_equal(hk_run_load(path_of("ahead"), m.params, m.optimizer, &state), HK_OK);
    assert_int_equal(state.step, 3);
    assert_model(&m, 7, true);
    destroy_model(&m);
}

static void the_same_state_gives_the_same_file(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    size_t first_bytes, second_bytes;
    assert_int_equal(save_step(&m, "once", 10), HK_OK);
    assert_int_equal(save_step(&m, "twice", 5), HK_OK);
    assert_int_equal(save_step(&m, "twice", 10), HK_OK);
    char *first = read_file(path_of("once/model.safetensors"), &first_bytes);
    char *second = read_file(path_of("twice/model.safetensors"), &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
    destroy_model(&m);
}

static void place(const char *to, const char *from_folder, const char *name, const char *suffix, size_t most) {
    char from[96], target[128];
    snprintf(from, sizeof from, "%s/%s", from_folder, name);
    snprintf(target, sizeof target, "%s/%s%s", to, name, suffix);
    copy_file(path_of(from), path_of(target), most);
}

#define MODEL "model.safetensors"
#define MOMENTS "optimizer.safetensors"

static void a_run_loads_from_every_stage_of_a_save(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "old", 10), HK_OK);
    assert_int_equal(save_step(&m, "new", 20), HK_OK);
    for (int stage = 0; stage <= 8; stage++) {
        char name[32];
        snprintf(name, sizeof name, "stage%d", stage);
        assert_int_equal(mkdir(path_of(name), 0755), 0);
        place(name, "old", "config.json", "", SIZE_MAX);
        place(name, stage >= 6 ? "new" : "old", "state.json", "", SIZE_MAX);
        place(name, stage >= 7 ? "new" : "old", MODEL, "", SIZE_MAX);
        place(name, stage >= 8 ? "new" : "old", MOMENTS, "", SIZE_MAX);
        if (stage == 0) place(name, "new", MODEL, ".next.part", 100);
        if (stage == 1) place(name, "new", MODEL, ".next", 100); /* cut, as by a file system that lost its end */
        if (stage >= 2 && stage < 7) place(name, "new", MODEL, ".next", SIZE_MAX);
        if (stage == 3) place(name, "new", MOMENTS, ".next.part", 100);
        if (stage >= 4 && stage < 8) place(name, "new", MOMENTS, ".next", SIZE_MAX);
        if (stage == 5) place(name, "new", "state.json", ".part", 20);
        assert_loads(name, stage >= 6 ? 20 : 10);
        assert_loads(name, stage >= 6 ? 20 : 10); /* loading has changed nothing that counts */
        assert_int_equal(save_step(&m, name, 30), HK_OK);
        assert_loads(name, 30);
    }
    destroy_model(&m);
}

static void a_first_save_that_was_cut_off_is_no_run(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "source", 10), HK_OK);
    assert_int_equal(mkdir(path_of("first"), 0755), 0);
    place("first", "source", "config.json", "", SIZE_MAX);
    place("first", "source", MODEL, ".next", SIZE_MAX);
    assert_false(hk_run_exists(path_of("first")));
    assert_int_not_equal(hk_run_load(path_of("first"), m.params, NULL, NULL), HK_OK);
    assert_int_equal(save_step(&m, "first", 1), HK_OK);
    assert_loads("first", 1);
    place("first", "source", "state.json", "", SIZE_MAX); /* says 10; the files say 1 */
    assert_int_equal(hk_run_load(path_of("first"), m.params, NULL, NULL), HK_ERROR_FORMAT);
    assert_message("is of step 1, state.json of step 10");
    destroy_model(&m);
}

/* Neither replaced by a save nor removed after one that failed. */
static void a_config_that_is_of_no_run_stays_its_owners(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    const char theirs[] = "{\"port\": 80}";
    assert_int_equal(mkdir(path_of("theirs"), 0755), 0);
    write_file(path_of("theirs/config.json"), theirs, strlen(theirs));
    assert_int_equal(save_step(&m, "theirs", 1), HK_ERROR_FORMAT);
    assert_message("choose another folder");
    size_t bytes;
    char *text = read_file(path_of("theirs/config.json"), &bytes);
    assert_string_equal(text, theirs);
    assert_int_not_equal(access(path_of("theirs/tokenizer.json"), F_OK), 0);
    free(text);
    destroy_model(&m);
}

static void a_save_without_room_leaves_the_old_state(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct rlimit old, tight;
    assert_int_equal(save_step(&m, "full", 10), HK_OK);
    struct stat model_info, moments_info;
    assert_int_equal(stat(path_of("full/" MODEL), &model_info), 0);
    assert_int_equal(stat(path_of("full/" MOMENTS), &moments_info), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    /* no room for a few bytes, for the model, for the moments alone */
    const off_t limits[] = {4, model_info.st_size - 1, moments_info.st_size - 1};
    for (size_t i = 0; i < LENGTH(limits); i++) {
        tight = old, tight.rlim_cur = (rlim_t)limits[i];
        setrlimit(RLIMIT_FSIZE, &tight);
        const hk_status status = save_step(&m, "full", 20), fresh = save_step(&m, "fresh", 20);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(status, HK_ERROR_IO);
        assert_message("cannot write");
        assert_loads("full", 10);
        assert_int_not_equal(access(path_of("full/" MODEL ".next"), F_OK), 0);
        assert_int_not_equal(access(path_of("full/" MODEL ".next.part"), F_OK), 0);
        assert_int_not_equal(access(path_of("full/" MOMENTS ".next"), F_OK), 0);
        assert_int_not_equal(access(path_of("full/" MOMENTS ".next.part"), F_OK), 0);
        assert_int_equal(fresh, HK_ERROR_IO);
        assert_int_not_equal(access(path_of("fresh"), F_OK), 0); /* nothing half-written */
    }
    assert_int_equal(save_step(&m, "full", 20), HK_OK);
    assert_loads("full", 20);
    destroy_model(&m);
}

static void a_run_of_another_model_is_neither_overwritten_nor_loaded(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "taken", 1), HK_OK);
    struct hk_model_config other = small;
    other.width = 16;
    const struct hk_run_state state = {.step = 2};
    assert_int_equal(hk_run_save(path_of("taken"), &other, m.params, m.optimizer, &state), HK_ERROR_INVALID);
    assert_message("another model");
    struct hk_params *params = hk_params_create(m.device);
    assert_int_equal(hk_model_declare(params, &other), HK_OK);
    assert_int_equal(hk_params_allocate(params, 1), HK_OK);
    assert_int_equal(hk_run_load(path_of("taken"), params, NULL, NULL), HK_ERROR_FORMAT);
    assert_message("the model needs [");
    hk_params_destroy(&params);
    destroy_model(&m);
}

static void a_run_saved_without_optimizer_can_be_used_not_resumed(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    const struct hk_run_state state = {.step = 7};
    assert_int_equal(save_step(&m, "used", 6), HK_OK);
    set_model(&m, 7);
    assert_int_equal(hk_run_save(path_of("used"), &small, m.params, NULL, &state), HK_OK);
    set_model(&m, 999);
    assert_int_equal(hk_run_load(path_of("used"), m.params, NULL, NULL), HK_OK);
    assert_int_not_equal(access(path_of("used/" MOMENTS), F_OK), 0); /* those of step 6 are nobody's */
    assert_model(&m, 7, false);
    assert_int_not_equal(hk_run_load(path_of("used"), m.params, m.optimizer, NULL), HK_OK);
    assert_message("optimizer.safetensors");
    destroy_model(&m);
}

static void a_run_is_locked_until_it_is_released(void **unused) {
    (void)unused;
    struct hk_run_lock *lock = hk_run_lock(path_of("locked/deep"));
    assert_non_null(lock);
    assert_null(hk_run_lock(path_of("locked/deep")));
    assert_message("another process is training in");
    assert_int_equal(hk_error_status(), HK_ERROR_INVALID);
    hk_run_unlock(&lock);
    assert_null(lock);
    hk_run_unlock(&lock);
    lock = hk_run_lock(path_of("locked/deep"));
    assert_non_null(lock);
    hk_run_unlock(&lock);
    assert_null(hk_run_lock(""));
    write_file(path_of("locked/file"), "", 0);
    assert_null(hk_run_lock(path_of("locked/file/run")));
    assert_message("cannot make folder");
}

static void a_folder_of_hugging_face_loads(void **unused) {
    (void)unused;
    struct model m = make_model(HK_SGD);
    const int count = hk_params_count(m.params);
    struct hk_safetensors_entry *entries = calloc((size_t)count, sizeof *entries);
    char(*names)[160] = calloc((size_t)count, sizeof *names);
    for (int i = 0; i < count; i++) { /* bf16 and f16, with the prefix, all ones */
        const int64_t elements = hk_tensor_elements(hk_params_tensor(m.params, i));
        uint16_t *data = malloc((size_t)elements * 2);
        for (int64_t j = 0; j < elements; j++) data[j] = i % 2 ? hk_f16_from_f32(1) : hk_bf16_from_f32(1);
        snprintf(names[i], sizeof names[i], "transformer.%s", hk_params_name(m.params, i));
        entries[i] =
            (struct hk_safetensors_entry){names[i], i % 2 ? HK_F16 : HK_BF16,
                                          hk_tensor_shape(hk_params_tensor(m.params, i)), data, (size_t)elements * 2};
    }
    mkdir(path_of("hub"), 0755);
    assert_int_equal(hk_safetensors_write(path_of("hub/" MODEL), entries, count, NULL, NULL, 0), HK_OK);
    assert_int_equal(hk_run_load(path_of("hub"), m.params, NULL, NULL), HK_OK);
    for (int i = 0; i < count; i++) {
        float first;
        struct hk_tensor *view = hk_tensor_view(hk_params_tensor(m.params, i), 0, HK_SHAPE(1));
        assert_int_equal(hk_tensor_read(view, &first, sizeof first), HK_OK);
        assert_true(first == 1);
        hk_tensor_destroy(&view);
        free((void *)(uintptr_t)entries[i].data);
    }
    struct hk_run_state state;
    assert_int_equal(hk_run_load(path_of("hub"), m.params, NULL, &state), HK_ERROR_FORMAT);
    assert_message("no state.json");
    free(entries);
    free(names);
    destroy_model(&m);
}

static void folders_that_are_no_run_say_so(void **unused) {
    (void)unused;
    struct hk_model_config config;
    struct hk_run_state state;
    assert_int_equal(hk_run_load_config(path_of("absent"), &config), HK_ERROR_IO);
    assert_message("No such file or directory");
    mkdir(path_of("bare"), 0755);
    assert_int_equal(hk_run_load_config(path_of("bare"), &config), HK_ERROR_FORMAT);
    assert_message("is no run: it has no config.json");
    write_file(path_of("bare/state.json"), "{\"step\":-1}", 11);
    assert_int_equal(hk_run_load_state(path_of("bare"), &state), HK_ERROR_FORMAT);
    assert_message("bare/state.json: \"step\" is not a whole number");
}

/* ---- metrics.jsonl ---- */

static void metrics_after_the_checkpoint_are_cut(void **unused) {
    (void)unused;
    mkdir(path_of("metrics"), 0755);
    struct hk_metrics *metrics = hk_metrics_open(path_of("metrics"), 0);
    assert_non_null(metrics);
    for (int64_t step = 1; step <= 4; step++)
        assert_int_equal(hk_metrics_write(metrics, step, &(struct hk_metric){"loss", step == 2 ? NAN : 0.5}, 1), HK_OK);
    hk_metrics_close(&metrics);
    FILE *file = fopen(path_of("metrics/metrics.jsonl"), "ab");
    fputs("{\"step\":3,\"lo", file); /* a line that a kill cut */
    fclose(file);
    metrics = hk_metrics_open(path_of("metrics"), 2);
    assert_non_null(metrics);
    assert_int_equal(hk_metrics_write(metrics, 3, &(struct hk_metric){"loss", 0.25}, 1), HK_OK);
    hk_metrics_close(&metrics);
    size_t bytes;
    char *text = read_file(path_of("metrics/metrics.jsonl"), &bytes);
    assert_string_equal(text, "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":0.25}\n");
    free(text);
}

static int make_folder(void **unused) {
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.40s/hekla-io-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **unused) {
    (void)unused;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_reads_back_what_it_wrote),
        cmocka_unit_test(hostile_safetensors_are_refused_with_the_reason),
        cmocka_unit_test(nesting_bombs_are_refused),
        cmocka_unit_test(safetensors_cut_anywhere_are_refused),
        cmocka_unit_test(writing_refuses_what_would_not_read),
        cmocka_unit_test(configs_read_back_for_both_families),
        cmocka_unit_test(configs_of_hugging_face_read),
        cmocka_unit_test(wrong_configs_are_refused_by_key),
        cmocka_unit_test(batches_follow_from_seed_and_step),
        cmocka_unit_test(batches_stay_out_of_what_is_held_out),
        cmocka_unit_test(evaluation_covers_the_held_out_part),
        cmocka_unit_test(short_texts_name_need_and_have),
        cmocka_unit_test(runs_read_back),
        cmocka_unit_test(tokenizers_have_the_characters_of_gpt2),
        cmocka_unit_test(an_optimizer_goes_on_with_its_own_step),
        cmocka_unit_test(the_same_state_gives_the_same_file),
        cmocka_unit_test(a_run_loads_from_every_stage_of_a_save),
        cmocka_unit_test(a_first_save_that_was_cut_off_is_no_run),
        cmocka_unit_test(a_config_that_is_of_no_run_stays_its_owners),
        cmocka_unit_test(a_save_without_room_leaves_the_old_state),
        cmocka_unit_test(a_run_of_another_model_is_neither_overwritten_nor_loaded),
        cmocka_unit_test(a_run_saved_without_optimizer_can_be_used_not_resumed),
        cmocka_unit_test(a_run_is_locked_until_it_is_released),
        cmocka_unit_test(a_folder_of_hugging_face_loads),
        cmocka_unit_test(folders_that_are_no_run_say_so),
        cmocka_unit_test(metrics_after_the_checkpoint_are_cut),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
