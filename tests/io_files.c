#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "io_files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char io_folder[64];

const char *io_path(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", io_folder, name);
    return path;
}

char *io_read(const char *path, size_t *bytes) {
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

void io_write(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void io_expect_message(const char *part) {
    if (strstr(hk_error_message(), part)) return;
    print_error("message: %s\nlacks:   %s\n", hk_error_message(), part);
    fail();
}

void io_expect_config(const struct hk_model_config *a, const struct hk_model_config *b) {
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

int io_make_folder(void **unused) {
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(io_folder, sizeof io_folder, "%.40s/hekla-io-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(io_folder) ? 0 : -1;
}

int io_remove_folder(void **unused) {
    (void)unused;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", io_folder);
    return system(command);
}
