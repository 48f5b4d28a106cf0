/* Files that several write at once: caches, which every process of a user shares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 3, ROUNDS = 60, LONGEST = 200000 };

static char folder[] = "/tmp/hekla-file-XXXXXX";
static char path[sizeof folder + 8];

/* Its own letter, as often as the letter's number says: whole files are told from mixed ones. */
static size_t fill(char *data, int letter) {
    const size_t bytes = (size_t)(LONGEST / (letter + 1));
    memset(data, 'a' + letter, bytes);
    return bytes;
}

static bool is_whole(const char *data, size_t bytes) {
    static char expected[LONGEST];
    const int letter = bytes ? data[0] - 'a' : 0;
    return letter >= 0 && letter < 2 * WRITERS && fill(expected, letter) == bytes && !memcmp(data, expected, bytes);
}

static bool file_is_whole(void) {
    char *data;
    size_t bytes;
    if (hk_file_read(path, &data, &bytes)) return false;
    const bool whole = is_whole(data, bytes);
    free(data);
    return whole;
}

static void *write_often(void *letter) {
    char *data = malloc(LONGEST);
    intptr_t failures = data ? 0 : ROUNDS;
    for (int i = 0; data && i < ROUNDS; i++)
        if (hk_file_write(path, data, fill(data, (int)(intptr_t)letter))) failures++;
    free(data);
    return (void *)failures;
}

/* Failures of threads that write the letters from first on. */
static intptr_t write_from_threads(int first) {
    pthread_t threads[WRITERS];
    intptr_t failures = 0;
    for (int i = 0; i < WRITERS; i++)
        if (pthread_create(&threads[i], NULL, write_often, (void *)(intptr_t)(first + i))) abort();
    for (int i = 0; i < WRITERS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        failures += (intptr_t)failed;
    }
    return failures;
}

static void writers_of_one_file_leave_it_whole(void **unused) {
    (void)unused;
    const pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) _exit(write_from_threads(WRITERS) != 0);
    const pid_t reader = fork();
    assert_true(reader >= 0);
    while (reader == 0)
        if (access(path, F_OK) == 0 && !file_is_whole()) _exit(1);
    assert_int_equal(write_from_threads(0), 0);
    int status;
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_int_equal(status, 0);
    assert_int_equal(kill(reader, SIGTERM), 0);
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM); /* it has found nothing wrong so far */
    assert_true(file_is_whole());
    char part[sizeof path + 8];
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_not_equal(access(part, F_OK), 0);
}

static void what_a_killed_writer_left_is_written_over(void **unused) {
    (void)unused;
    char part[sizeof path + 8], *data = malloc(LONGEST);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *left = fopen(part, "w");
    assert_non_null(left);
    assert_int_equal(fwrite(data, 1, fill(data, 0), left), LONGEST);
    assert_int_equal(fclose(left), 0);
    assert_int_equal(hk_file_write(path, data, fill(data, 5)), HK_OK);
    free(data);
    assert_true(file_is_whole());
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/file", folder);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_of_one_file_leave_it_whole),
        cmocka_unit_test(what_a_killed_writer_left_is_written_over),
    };
    const int failed = cmocka_run_group_tests_name("file", tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
