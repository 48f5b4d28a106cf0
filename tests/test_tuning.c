/* The file of measurements: what is kept, what is ignored, and that several writers keep each other's entries. */
#include "graph/tuning.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[128], path[160];
static int warnings;

static void on_log(void *user, enum hk_log_level level, const char *message) {
    (void)user, (void)message;
    warnings += level >= HK_LOG_WARNING;
}

static const struct hk_device_info gpu = {.name = "GPU", .driver = "driver 1.2", .vendor_id = 7, .device_id = 9, .uuid = {1, 2}};

static struct hk_tunings *open_as(const struct hk_device_info *info) {
    struct hk_tunings *t = hk_tunings_open(&(struct hk_device_params){.tuning = path}, info);
    assert_non_null(t);
    return t;
}

static struct hk_tuning entry(int i) {
    struct hk_tuning t = {.kernel = "fast 64x64", .standard = "plain 32", .kernels = 3,
                           .seconds = 1e-5 * (i + 1) / 3, .standard_seconds = 2e-5};
    snprintf(t.work, sizeof t.work, "matmul f32*f32 nn %dx2x3 x1", i);
    return t;
}

static void add(struct hk_tunings *t, int first, int count) {
    for (int i = first; i < first + count; i++) {
        const struct hk_tuning e = entry(i);
        hk_tunings_add(t, &e, false);
    }
}

static int count_of(struct hk_tunings *t) { return hk_tunings_copy(t, NULL, 0); }

static int count_in_file(const struct hk_device_info *info) {
    struct hk_tunings *t = open_as(info);
    const int count = count_of(t);
    hk_tunings_close(t);
    return count;
}

static void write_text(const char *text, size_t bytes) { assert_int_equal(hk_file_write(path, text, bytes), HK_OK); }

static char *read_text(size_t *bytes) {
    static char *text; /* static: GCC 12 takes it for dangling otherwise */
    assert_int_equal(hk_file_read(path, &text, bytes), HK_OK);
    return text;
}

static int fresh(void **state) {
    (void)state;
    unlink(path);
    warnings = 0;
    return 0;
}

/* A file with some entries. */
static void make_file(int entries) {
    unlink(path);
    struct hk_tunings *t = open_as(&gpu);
    add(t, 0, entries);
    hk_tunings_close(t);
}

static void what_is_saved_is_read_back(void **state) {
    (void)state;
    make_file(3);
    struct hk_tunings *t = open_as(&gpu);
    assert_int_equal(count_of(t), 3);
    for (int i = 0; i < 3; i++) {
        const struct hk_tuning e = entry(i);
        struct hk_tuning found;
        assert_true(hk_tunings_find(t, e.work, 1, &found));
        assert_string_equal(found.kernel, e.kernel);
        assert_string_equal(found.standard, e.standard);
        assert_int_equal(found.kernels, 3);
        assert_true(found.seconds > 0.999999 * e.seconds && found.seconds < 1.000001 * e.seconds);
        assert_true(found.standard_seconds > 1.99999e-5 && found.standard_seconds < 2.00001e-5);
        assert_int_equal(found.uses, 1);
    }
    struct hk_tuning found;
    assert_false(hk_tunings_find(t, "matmul f32*f32 nn 4x2x3 x1", 1, &found));
    hk_tunings_close(t);
    assert_int_equal(warnings, 0);
}

static void what_was_measured_first_stays(void **state) {
    (void)state;
    struct hk_tunings *t = open_as(&gpu);
    struct hk_tuning e = entry(0), found;
    e.seconds = 0; /* not measured */
    hk_tunings_add(t, &e, false);
    assert_int_equal(hk_tunings_save(t, false), HK_OK);
    assert_int_equal(access(path, F_OK), -1);
    add(t, 0, 1);
    strcpy(e.kernel, "other");
    e.seconds = 1;
    hk_tunings_add(t, &e, false);
    assert_true(hk_tunings_find(t, e.work, 0, &found));
    assert_string_equal(found.kernel, "fast 64x64");
    hk_tunings_add(t, &e, true);
    assert_true(hk_tunings_find(t, e.work, 0, &found));
    assert_string_equal(found.kernel, "other");
    assert_int_equal(count_of(t), 1);
    hk_tunings_close(t);
    assert_int_equal(count_in_file(&gpu), 1);
}

/* Cut anywhere, or with any byte changed, it is all or nothing, and nothing is a warning. */
static void a_damaged_file_counts_as_none(void **state) {
    (void)state;
    size_t bytes;
    make_file(2);
    char *text = read_text(&bytes);
    char *copy = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        memcpy(copy, text, bytes + 1);
        write_text(copy, i);
        warnings = 0;
        const int cut = count_in_file(&gpu);
        assert_true(cut == 2 || (cut == 0 && warnings == 1)); /* 2: only the last brace's line end may be missing */
        copy[i] ^= 0x15;
        write_text(copy, bytes);
        warnings = 0;
        const int count = count_in_file(&gpu);
        assert_true(count == 0 ? warnings == 1 : warnings == 0 && count <= 2);
    }
    write_text("", 0);
    assert_int_equal(count_in_file(&gpu), 0);
    write_text("{}", 2);
    assert_int_equal(count_in_file(&gpu), 0);
    write_text(text, bytes + 1); /* a 0 after the end */
    assert_int_equal(count_in_file(&gpu), 0);
    free(copy);
    free(text);
}

static void replace_in_file(const char *from, const char *to) {
    size_t bytes;
    char changed[2000], *text = read_text(&bytes), *at = strstr(text, from);
    assert_non_null(at);
    *at = 0;
    const int n = snprintf(changed, sizeof changed, "%s%s%s", text, to, at + strlen(from));
    free(text);
    write_text(changed, (size_t)n);
}

static void values_out_of_range_are_damage(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"\"version\":\t1", "\"version\":\t2"},
        {"\"kernels\":\t3", "\"kernels\":\t1"},
        {"\"standard_us\":\t20", "\"standard_us\":\t-1"},
        {"\"standard_us\":\t20", "\"standard_us\":\t0"},
        {"\"kernel\":\t\"fast 64x64\"", "\"kernel\":\t\"\""},
        {"\"kernel\":\t\"fast 64x64\"", "\"kernel\":\t\"f\\u0007\""},
        {"\"kernel\":\t\"fast 64x64\"", "\"kernel\":\tnull"},
        {"\"kernel\":\t\"fast 64x64\"", "\"kernel\":\t\"0123456789012345678901234567890123456789012345678901234567890123\""},
        {"hekla tuning", "hekla_tuning"},
    };
    for (size_t i = 0; i < HK_LENGTH(changes); i++) {
        make_file(1);
        replace_in_file(changes[i][0], changes[i][1]);
        assert_int_equal(count_in_file(&gpu), 0);
    }
    assert_int_equal(warnings, HK_LENGTH(changes));
}

static void another_device_or_driver_is_ignored_and_its_file_left_alone(void **state) {
    (void)state;
    struct hk_device_info others[] = {gpu, gpu, gpu, gpu};
    size_t bytes, after;
    strcpy(others[0].driver, "driver 1.3");
    strcpy(others[1].name, "GPU 2");
    others[2].vendor_id++;
    others[3].device_id++;
    make_file(2);
    char *text = read_text(&bytes);
    for (size_t i = 0; i < HK_LENGTH(others); i++) {
        struct hk_tunings *t = open_as(&others[i]);
        assert_int_equal(warnings, 2 * i + 1);
        assert_int_equal(count_of(t), 0);
        add(t, 5, 1);
        hk_tunings_close(t);
        assert_int_equal(warnings, 2 * i + 2); /* it is not kept */
        char *now = read_text(&after);
        assert_true(after == bytes && !memcmp(now, text, bytes));
        free(now);
    }
    struct hk_device_info twin = gpu; /* on another machine */
    twin.uuid[0]++;
    assert_int_equal(count_in_file(&twin), 2);
    free(text);
}

static void what_cannot_be_kept_is_told_once(void **state) {
    (void)state;
    for (int told = 0; told <= 1; told++) {
        make_file(1);
        replace_in_file("hekla tuning", "hekla_tuning");
        struct hk_tunings *t = open_as(&gpu);
        assert_int_equal(hk_tunings_save(t, told), HK_OK); /* there is nothing to keep yet */
        add(t, 5, 1);
        warnings = 0;
        assert_int_equal(hk_tunings_save(t, told), HK_ERROR_FORMAT);
        assert_int_equal(hk_tunings_save(t, told), HK_ERROR_FORMAT);
        assert_int_equal(warnings, 0);
        hk_tunings_close(t);
        assert_int_equal(warnings, !told);
    }
    struct hk_tunings *t = hk_tunings_open(&(struct hk_device_params){.cache_dir = ""}, &gpu);
    add(t, 0, 1);
    warnings = 0;
    assert_int_equal(hk_tunings_save(t, true), HK_ERROR_IO);
    hk_tunings_close(t); /* who wants no cache need not be warned */
    assert_int_equal(warnings, 0);
}

/* In the cache folder a file is named by the device's UUID, and damage there is replaced. */
static void the_cache_folder_has_a_file_for_each_uuid(void **state) {
    (void)state;
    const struct hk_device_params params = {.cache_dir = folder};
    char name[300];
    struct hk_device_info other = gpu;
    other.uuid[15] = 0xab;
    snprintf(name, sizeof name, "%s/tuning-010200000000000000000000000000ab.json", folder);
    assert_int_equal(hk_file_write(name, "{", 1), HK_OK);
    struct hk_tunings *t = hk_tunings_open(&params, &other);
    assert_int_equal(warnings, 1);
    add(t, 0, 4);
    hk_tunings_close(t);
    t = hk_tunings_open(&params, &gpu);
    assert_int_equal(count_of(t), 0);
    hk_tunings_close(t);
    t = hk_tunings_open(&params, &other);
    assert_int_equal(count_of(t), 4);
    assert_int_equal(warnings, 1);
    hk_tunings_close(t);
    unlink(name);
}

static void sizes_are_limited(void **state) {
    (void)state;
    struct hk_tunings *t = open_as(&gpu);
    add(t, 0, 5000);
    assert_int_equal(count_of(t), 4096);
    hk_tunings_close(t);
    assert_int_equal(count_in_file(&gpu), 4096);
    assert_int_equal(warnings, 0);
    assert_int_equal(truncate(path, (4 << 20) + 1), 0); /* zeros after it */
    assert_int_equal(count_in_file(&gpu), 0);
    assert_int_equal(warnings, 1);
    char long_name[2000];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    t = hk_tunings_open(&(struct hk_device_params){.tuning = long_name}, &gpu);
    assert_int_equal(warnings, 2);
    add(t, 0, 1);
    hk_tunings_close(t);
}

static void nothing_is_kept_where_there_is_no_folder(void **state) {
    (void)state;
    struct hk_tunings *t = hk_tunings_open(&(struct hk_device_params){.tuning = ""}, &gpu);
    add(t, 0, 1);
    hk_tunings_close(t);
    t = hk_tunings_open(&(struct hk_device_params){.cache_dir = ""}, &gpu);
    add(t, 0, 1);
    hk_tunings_close(t);
    assert_int_equal(warnings, 0);
    t = hk_tunings_open(&(struct hk_device_params){.tuning = "/nonexistent/folder/file"}, &gpu);
    add(t, 0, 1);
    hk_tunings_close(t);
    assert_int_equal(warnings, 1);
}

/* Processes that measure at the same time: no entry is lost, and whoever reads meanwhile sees a whole file. */
static void writers_keep_each_others_entries(void **state) {
    (void)state;
    enum { WRITERS = 6, EACH = 12 };
    pid_t ids[WRITERS];
    for (int w = 0; w < WRITERS; w++) {
        ids[w] = fork();
        if (ids[w]) continue;
        struct hk_tunings *t = hk_tunings_open(&(struct hk_device_params){.tuning = path}, &gpu);
        for (int i = 0; i < EACH; i++) {
            const struct hk_tuning e = entry(w * EACH + i);
            hk_tunings_add(t, &e, false);
            if (hk_tunings_save(t, false)) _exit(2);
        }
        hk_tunings_close(t);
        _exit(warnings != 0);
    }
    for (int i = 0; i < 50; i++) assert_true(count_in_file(&gpu) <= WRITERS * EACH);
    for (int w = 0; w < WRITERS; w++) {
        int status;
        waitpid(ids[w], &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(count_in_file(&gpu), WRITERS * EACH);
    assert_int_equal(warnings, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_saved_is_read_back, fresh),
        cmocka_unit_test_setup(what_was_measured_first_stays, fresh),
        cmocka_unit_test_setup(a_damaged_file_counts_as_none, fresh),
        cmocka_unit_test_setup(values_out_of_range_are_damage, fresh),
        cmocka_unit_test_setup(another_device_or_driver_is_ignored_and_its_file_left_alone, fresh),
        cmocka_unit_test_setup(what_cannot_be_kept_is_told_once, fresh),
        cmocka_unit_test_setup(the_cache_folder_has_a_file_for_each_uuid, fresh),
        cmocka_unit_test_setup(sizes_are_limited, fresh),
        cmocka_unit_test_setup(nothing_is_kept_where_there_is_no_folder, fresh),
        cmocka_unit_test_setup(writers_keep_each_others_entries, fresh),
    };
    const char *place = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/hekla-tuning-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/tuning.json", folder);
    hk_set_log(on_log, NULL);
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    const char *const left[] = {"tuning.json", "tuning.json.lock", "tuning-010200000000000000000000000000ab.json.lock",
                                "tuning-01020000000000000000000000000000.json.lock"};
    for (size_t i = 0; i < HK_LENGTH(left); i++) {
        char name[300];
        snprintf(name, sizeof name, "%s/%s", folder, left[i]);
        unlink(name);
    }
    rmdir(folder);
    return failures;
}
