/* safetensors: what is written reads back, and what strangers wrote is refused with its reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "io_files.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void safetensors_reads_back_what_it_wrote(void **unused) {
    (void)unused;
    const float weights[6] = {1, -2, 3.5f, INFINITY, 1e-30f, 0};
    const uint8_t bytes[5] = {0, 1, 2, 254, 255};
    const int8_t signs[3] = {-128, -1, 127};
    const uint16_t halves[2] = {0x3c00, 0xc000};
    const struct hk_safetensors_entry entries[] = {
        {"bytes \"quoted\"", HK_U8, HK_SHAPE(5), bytes, sizeof bytes},
        {"signed bytes", HK_I8, HK_SHAPE(3, 1), signs, sizeof signs},
        {"weights", HK_F32, HK_SHAPE(2, 3), weights, sizeof weights},
        {"halves", HK_F16, HK_SHAPE(1, 1, 1, 1, 1, 2), halves, sizeof halves},
        {"nothing", HK_F32, HK_SHAPE(4, 0), NULL, 0},
        {"number", HK_F32, HK_SCALAR, weights, sizeof *weights},
    };
    const char *const keys[] = {"format", "note"}, *const values[] = {"pt", "\xc3\xa9\n"};
    const char *path = io_path("round.safetensors");
    assert_int_equal(hk_safetensors_write(path, entries, COUNT(entries), keys, values, 2), HK_OK);
    assert_int_not_equal(access(io_path("round.safetensors.part"), F_OK), 0);
    struct hk_safetensors *file = hk_safetensors_open(path);
    assert_non_null(file);
    assert_int_equal(hk_safetensors_count(file), COUNT(entries));
    for (int i = 0; i < COUNT(entries); i++) {
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
    assert_null(hk_safetensors_entry(file, COUNT(entries)));
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
    for (int i = 0; i < COUNT(hostiles); i++) {
        size_t bytes;
        uint8_t *data = hostile_file(&hostiles[i], &bytes);
        assert_null(hk_safetensors_parse(data, bytes));
        io_expect_message(hostiles[i].message);
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
    io_expect_message("nested too deeply");
    free(data);
    free(header);
}

static void safetensors_cut_anywhere_are_refused(void **unused) {
    (void)unused;
    const float weights[4] = {1, 2, 3, 4};
    const struct hk_safetensors_entry entry = {"w", HK_F32, HK_SHAPE(4), weights, sizeof weights};
    const char *path = io_path("whole.safetensors");
    assert_int_equal(hk_safetensors_write(path, &entry, 1, NULL, NULL, 0), HK_OK);
    size_t bytes;
    char *data = io_read(path, &bytes);
    for (size_t cut = 0; cut < bytes; cut++) {
        /* a copy of the exact size: the address sanitizer sees reads past it */
        char *copy = malloc(cut + !cut);
        memcpy(copy, data, cut);
        assert_null(hk_safetensors_parse(copy, cut));
        assert_int_equal(hk_error_status(), HK_ERROR_FORMAT);
        free(copy);
    }
    free(data);
    io_write(io_path("empty.safetensors"), "", 0);
    assert_null(hk_safetensors_open(io_path("empty.safetensors")));
    assert_int_equal(hk_error_status(), HK_ERROR_FORMAT);
    assert_null(hk_safetensors_open(io_path("absent.safetensors")));
    assert_int_equal(hk_error_status(), HK_ERROR_IO);
    assert_null(hk_safetensors_open(io_folder));
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
    for (int i = 0; i < COUNT(all); i++)
        assert_int_equal(hk_safetensors_write(io_path("wrong"), all[i], 1, NULL, NULL, 0), HK_ERROR_INVALID);
    assert_int_not_equal(access(io_path("wrong"), F_OK), 0);
    const struct hk_safetensors_entry fine = {"w", HK_F32, HK_SHAPE(2), x, 8};
    assert_int_equal(hk_safetensors_write(io_path("absent/w"), &fine, 1, NULL, NULL, 0), HK_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_reads_back_what_it_wrote),
        cmocka_unit_test(hostile_safetensors_are_refused_with_the_reason),
        cmocka_unit_test(nesting_bombs_are_refused),
        cmocka_unit_test(safetensors_cut_anywhere_are_refused),
        cmocka_unit_test(writing_refuses_what_would_not_read),
    };
    return cmocka_run_group_tests(tests, io_make_folder, io_remove_folder);
}
