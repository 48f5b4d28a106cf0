/* Disks that are full, that fail, and folders that are not what they should be: each call on a file fails once, through
   saving, loading, logging and reading texts. Each time there is a status and a message that names the file, a state to
   load, nothing left lying about, and what failed works when the disk does again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "disk/replay.h"
#include "disk/small_run.h"
#include "support.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char top[64], run_folder[96];
static struct small_run model;
/* A run of step 10; and one in which a process was killed after state.json said 20, and before it renamed. */
static struct replay *old_run, *killed_run, *no_run;

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...) {
    char command[512];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command) != 0) fail_msg("%s", command);
}

static const char *in_run(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", run_folder, name);
    return path;
}

static void assert_message(const char *part) {
    if (!strstr(hk_error_message(), part)) fail_msg("the message lacks \"%s\": %s", part, hk_error_message());
}

static void saved(const char *folder, int64_t step) {
    if (small_run_save(&model, folder, step, true) != HK_OK) fail_msg("%s", hk_error_message());
}

static int64_t loaded(char message[512]) { return small_run_load(&model, run_folder, true, message); }

/* Files of the run whose names end so. */
static int count_files(const char *suffix) {
    int count = 0;
    DIR *dir = opendir(run_folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const size_t length = strlen(entry->d_name), end = strlen(suffix);
        count += length >= end && *entry->d_name != '.' && !strcmp(entry->d_name + length - end, suffix);
    }
    if (dir) closedir(dir);
    return count;
}

/* ---- Saving ---- */

struct way {
    const char *name;
    struct disk_fault fault;
    bool harmless; /* the call is to be tried again, or goes on: nothing may fail */
};
/* A full disk still removes files. */
#define TAKES_SPACE (DISK_CREATE | DISK_WRITE | DISK_SYNC | DISK_SYNC_FOLDER | DISK_CLOSE | DISK_RENAME | DISK_MKDIR)
static const struct way ways[] = {
    {"no space once", {.ops = DISK_WRITES, .error = ENOSPC}, false},
    {"no space after half of a write", {.ops = DISK_WRITES, .error = ENOSPC, .half = true}, false},
    {"no space from then on", {.ops = TAKES_SPACE, .error = ENOSPC, .half = true, .lasting = true}, false},
    {"an error of any call", {.ops = DISK_ALL, .error = EIO}, false},
    {"writes that are interrupted", {.ops = DISK_WRITE, .error = EINTR}, true},
    {"writes that are short", {.ops = DISK_WRITE, .half = true}, true},
    {"only short writes", {.ops = DISK_WRITE, .half = true, .lasting = true}, true},
};

static void fail_way(const struct way *way, long n, const char *what) {
    fail_msg("%s, call %ld (%s of %s): %s: %s", way->name, n, disk_op_name(disk_failed_op()), disk_failed_path(), what,
             hk_error_message());
}

/* Saves step 20 over a run of step before (0: none) while the n-th call fails. False where there are fewer calls. */
static bool save_with_fault(const struct way *way, long n, int64_t before) {
    char message[512];
    struct disk_fault fault = way->fault;
    fault.at = n;
    disk_start(top, &fault);
    const hk_status status = small_run_save(&model, run_folder, 20, true);
    const int open_files = disk_open_files();
    const bool reached = disk_stop() >= n;
    if (open_files) fail_way(way, n, "a file was left open");
    if (!reached) return false;
    const bool excused = disk_failed_op() & (DISK_UNLINK | DISK_READS); /* may be without consequence */
    if (status == HK_OK && !way->harmless && !excused) fail_way(way, n, "the save says it went well");
    if (status != HK_OK && way->harmless) fail_way(way, n, "the save failed");
    if (status != HK_OK && (status != HK_ERROR_IO || !strstr(hk_error_message(), top)))
        fail_way(way, n, "wrong status");
    if (count_files(".part") && disk_failed_op() != DISK_UNLINK) fail_way(way, n, "a .part file is left");
    const bool run = before || hk_run_exists(run_folder);
    if (status != HK_OK && !run && count_files("")) fail_way(way, n, "files are left of a run that is none");
    const int64_t step = run ? loaded(message) : 0;
    if (step != 20 && (step != before || status == HK_OK)) fail_way(way, n, message);
    if (step != 20 && count_files(".next") && disk_failed_op() != DISK_UNLINK) fail_way(way, n, "a .next file is left");
    return true;
}

static void try_every_call(int64_t before, void (*prepare)(void)) {
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        long n = 1;
        for (;; n++) {
            char message[512] = "";
            prepare();
            if (!save_with_fault(&ways[w], n, before)) break;
            if (small_run_save(&model, run_folder, 30, true) != HK_OK) fail_way(&ways[w], n, "no save afterwards");
            if (loaded(message) != 30) fail_way(&ways[w], n, message);
            if (count_files(".part") || count_files(".next")) fail_way(&ways[w], n, "leftovers after the next save");
        }
        print_message("%s: %ld calls\n", ways[w].name, n - 1);
        assert_true(n > 20);
    }
}

static void prepare_none(void) {
    replay_write(no_run, 0, REPLAY_KEEP, run_folder);
    assert_int_equal(rmdir(run_folder), 0);
}

static void prepare_old(void) { replay_write(old_run, 0, REPLAY_KEEP, run_folder); }
static void prepare_killed(void) { replay_write(killed_run, 0, REPLAY_KEEP, run_folder); }

static void a_first_save_that_fails_leaves_nothing(void **unused) {
    (void)unused;
    try_every_call(0, prepare_none);
}

static void a_save_that_fails_leaves_the_old_state(void **unused) {
    (void)unused;
    try_every_call(10, prepare_old);
}

static void a_save_that_fails_after_one_that_was_killed_loses_neither(void **unused) {
    (void)unused;
    try_every_call(20, prepare_killed);
}

/* ---- Loading ---- */

static const struct way read_ways[] = {
    {"an error once", {.ops = DISK_READS, .error = EIO}, false},
    {"errors from then on", {.ops = DISK_READS, .error = EIO, .lasting = true}, false},
    {"no permission from then on", {.ops = DISK_OPEN, .error = EACCES, .lasting = true}, false},
    {"reads that are interrupted", {.ops = DISK_READ, .error = EINTR}, true},
    {"only short reads", {.ops = DISK_READ, .half = true, .lasting = true}, true},
};

static void a_load_that_fails_says_so_and_works_later(void **unused) {
    (void)unused;
    char message[512];
    for (size_t w = 0; w < sizeof read_ways / sizeof *read_ways; w++) {
        const struct way *way = &read_ways[w];
        long n = 1;
        for (;; n++) {
            struct disk_fault fault = way->fault;
            fault.at = n;
            prepare_old();
            disk_start(top, &fault);
            const int64_t step = loaded(message);
            const int open_files = disk_open_files();
            if (disk_stop() < n) break;
            if (open_files) fail_way(way, n, "a file was left open");
            if (step != 10 && (way->harmless || hk_error_status() != HK_ERROR_IO || !strstr(message, run_folder)))
                fail_way(way, n, "wrong status");
            if (step == 10 && way->fault.lasting && !way->harmless) fail_way(way, n, "it says it went well");
            if (loaded(message) != 10) fail_way(way, n, "it does not load later");
        }
        print_message("%s: %ld calls\n", way->name, n - 1);
        assert_true(n > 3);
    }
}

static void a_file_made_shorter_while_open_is_an_error(void **unused) {
    (void)unused;
    enum { COUNT_OF_FLOATS = 100000 };
    float *data = calloc(COUNT_OF_FLOATS, sizeof *data);
    const struct hk_safetensors_entry entry = {"w", HK_F32, HK_SHAPE(COUNT_OF_FLOATS), data,
                                               COUNT_OF_FLOATS * sizeof *data};
    char path[96];
    snprintf(path, sizeof path, "%s/shrinks", top);
    assert_int_equal(hk_safetensors_write(path, &entry, 1, NULL, NULL, 0), HK_OK);
    struct hk_safetensors *file = hk_safetensors_open(path);
    assert_non_null(file);
    assert_int_equal(hk_safetensors_read(file, hk_safetensors_entry(file, 0), data), HK_OK);
    assert_int_equal(truncate(path, 50000), 0);
    assert_int_equal(hk_safetensors_read(file, hk_safetensors_entry(file, 0), data), HK_ERROR_IO);
    assert_message("w: cannot read: the file was made shorter");
    hk_safetensors_destroy(&file);
    free(data);
}

static void a_text_that_cannot_be_read_says_so(void **unused) {
    (void)unused;
    char path[96];
    snprintf(path, sizeof path, "%s/text", top);
    shell("seq 1 20000 >'%s'", path);
    struct hk_text *text = hk_text_open(path, NULL);
    const uint64_t hash = hk_text_hash(text);
    hk_text_destroy(&text);
    for (size_t w = 0; w < sizeof read_ways / sizeof *read_ways; w++) {
        struct disk_fault fault = read_ways[w].fault;
        for (fault.at = 1;; fault.at++) {
            disk_start(top, &fault);
            text = hk_text_open(path, NULL);
            const int open_files = disk_open_files();
            const bool reached = disk_stop() >= fault.at;
            assert_int_equal(open_files, 0);
            if (reached && !text) assert_message(path);
            if (text && hk_text_hash(text) != hash) fail_way(&read_ways[w], fault.at, "another text");
            if (!reached || read_ways[w].harmless) assert_non_null(text);
            else assert_null(text);
            hk_text_destroy(&text);
            if (!reached) break;
        }
    }
}

/* ---- Metrics ---- */

static int64_t metrics_lines(void) {
    int64_t lines = 0;
    FILE *file = fopen(in_run("metrics.jsonl"), "r");
    assert_non_null(file);
    char line[256];
    for (; fgets(line, sizeof line, file); lines++)
        if (*line != '{' || !strstr(line, "}\n")) fail_msg("a line is torn: %s", line);
    fclose(file);
    return lines;
}

static void a_metrics_line_that_does_not_fit_is_taken_back(void **unused) {
    (void)unused;
    const struct hk_metric metric = {"loss", 0.5};
    for (long at = 1; at <= 3; at++) {
        prepare_old();
        const struct disk_fault fault = {.ops = DISK_WRITE | DISK_CLOSE, .at = at, .error = ENOSPC, .half = true};
        disk_start(top, &fault);
        struct hk_metrics *metrics = hk_metrics_open(run_folder, 10);
        assert_non_null(metrics);
        for (int64_t step = 11; step <= 13; step++) {
            const hk_status status = hk_metrics_write(metrics, step, &metric, 1);
            assert_int_equal(status, step - 10 == at ? HK_ERROR_IO : HK_OK);
            if (status != HK_OK) assert_message("metrics.jsonl: No space left");
        }
        hk_metrics_close(&metrics);
        disk_stop();
        assert_int_equal(metrics_lines(), 2);
        metrics = hk_metrics_open(run_folder, 13); /* which would cut from a torn line on */
        hk_metrics_close(&metrics);
        assert_int_equal(metrics_lines(), 2);
    }
}

static void metrics_that_cannot_be_cut_stay(void **unused) {
    (void)unused;
    const struct hk_metric metric = {"loss", 0.5};
    for (long at = 1;; at++) {
        prepare_old();
        struct hk_metrics *metrics = hk_metrics_open(run_folder, 10);
        for (int64_t step = 11; step <= 13; step++) hk_metrics_write(metrics, step, &metric, 1);
        hk_metrics_close(&metrics);
        const struct disk_fault fault = {.ops = DISK_ALL, .at = at, .error = EIO, .half = true};
        disk_start(top, &fault);
        metrics = hk_metrics_open(run_folder, 12);
        const bool opened = metrics != NULL;
        hk_metrics_close(&metrics);
        if (disk_stop() < at) break;
        if (!opened) assert_message(top);
        const int64_t lines = metrics_lines();
        if (lines != 2 && (opened || lines != 3)) fail_msg("call %ld: %d lines", at, (int)lines);
    }
    assert_int_equal(metrics_lines(), 2);
}

/* ---- Folders that are not what they should be ---- */

static const char *const names[] = {"config.json", "state.json", "model.safetensors", "optimizer.safetensors"};

static void a_folder_in_place_of_a_file_is_refused_and_kept(void **unused) {
    (void)unused;
    char message[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        prepare_old();
        shell("cd '%s' && rm %s && mkdir %s && echo kept >%s/inside", run_folder, names[i], names[i], names[i]);
        assert_int_equal(loaded(message), -1);
        if (!strstr(message, names[i])) fail_msg("%s: %s", names[i], message);
        assert_int_equal(small_run_save(&model, run_folder, 20, true), HK_ERROR_IO);
        assert_message(names[i]);
        assert_int_equal(count_files(".part") + count_files(".next"), 0);
        shell("test \"$(cat '%s/inside')\" = kept", in_run(names[i]));
    }
}

static void a_pipe_in_place_of_a_model_is_not_waited_for(void **unused) {
    (void)unused;
    char message[512];
    prepare_old();
    shell("cd '%s' && rm model.safetensors && mkfifo model.safetensors", run_folder);
    assert_int_equal(loaded(message), -1);
    assert_true(strstr(message, "model.safetensors") != NULL);
}

/* In a child that is no longer root, as whom nothing is unreadable. */
static void check_without_permission(void) {
    char message[512];
    if (geteuid() == 0 && (setgid(65534) || setuid(65534))) _exit(77);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/locked%zu", top, i);
        if (small_run_load(&model, path, true, message) != -1 || hk_error_status() != HK_ERROR_IO) _exit(1);
        if (!strstr(message, names[i]) || !strstr(message, "Permission denied")) _exit(2);
        if (small_run_save(&model, path, 20, true) != HK_ERROR_IO) _exit(3);
        if (!strstr(hk_error_message(), path)) _exit(4);
    }
    _exit(0);
}

static void files_that_may_not_be_read_are_refused(void **unused) {
    (void)unused;
    int status;
    shell("chmod 755 '%s'", top);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        shell("cp -r '%s/old' '%s/locked%zu' && chmod 000 '%s/locked%zu/%s'", top, top, i, top, i, names[i]);
    const pid_t child = fork();
    if (child == 0) check_without_permission();
    assert_int_equal(waitpid(child, &status, 0), child);
    shell("chmod -R u+rwX '%s'", top);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("skipped: root here cannot become somebody else\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* As in folders that share files by links: what a link points to is not ours to change. */
static void a_linked_file_is_read_and_replaced_but_not_written_through(void **unused) {
    (void)unused;
    char message[512];
    prepare_old();
    shell("cd '%s' && mkdir -p ../shared && mv model.safetensors ../shared/ && ln -s ../shared/model.safetensors .",
          run_folder);
    assert_int_equal(loaded(message), 10);
    saved(run_folder, 20);
    assert_int_equal(loaded(message), 20);
    shell("cmp '%s/old/model.safetensors' '%s/shared/model.safetensors'", top, top);
    shell("ln -s '%s' '%s/link'", run_folder, top); /* the folder itself may be one */
    char link[96];
    snprintf(link, sizeof link, "%s/link", top);
    saved(link, 30);
    assert_int_equal(loaded(message), 30);
    prepare_old();
    shell("cd '%s' && rm state.json && ln -s nowhere state.json", run_folder);
    assert_int_equal(loaded(message), -1);
    assert_true(strstr(message, "state.json") != NULL);
}

static void what_is_of_no_run_is_not_overwritten(void **unused) {
    (void)unused;
    static const char *const theirs[] = {"tokenizer.json", "optimizer.safetensors"};
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) {
        prepare_none();
        shell("mkdir '%s' && echo '{\"model\":{\"type\":\"WordPiece\"}}' >'%s'", run_folder, in_run(theirs[i]));
        assert_int_not_equal(small_run_save(&model, run_folder, 10, true), HK_OK);
        assert_message(theirs[i]);
        assert_message("choose another folder");
        assert_int_equal(count_files(""), 1);
        shell("grep -q WordPiece '%s'", in_run(theirs[i]));
    }
    /* the bytes tokenizer is what a save would write, however it was written */
    prepare_none();
    shell("mkdir '%s' && { echo; cat '%s/old/tokenizer.json'; } >'%s'", run_folder, top, in_run("tokenizer.json"));
    saved(run_folder, 10);
    shell("test -z \"$(head -n 1 '%s')\"", in_run("tokenizer.json"));
}

static int make_folder(void **unused) {
    (void)unused;
    const char *base = getenv("TMPDIR");
    if (!base || !*base) base = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* thousands of small files */
    snprintf(top, sizeof top, "%.40s/hekla-faults-XXXXXX", base);
    if (!mkdtemp(top)) return -1;
    snprintf(run_folder, sizeof run_folder, "%s/run", top);
    model = small_run_open();
    char folder[96];
    snprintf(folder, sizeof folder, "%s/old", top);
    saved(folder, 10);
    old_run = replay_create(folder);
    snprintf(folder, sizeof folder, "%s/new", top);
    saved(folder, 20);
    shell("cd '%s' && mkdir none && cp -r old killed && cp new/state.json killed && cd new && "
          "for f in *.safetensors; do cp $f ../killed/$f.next; done",
          top);
    snprintf(folder, sizeof folder, "%s/killed", top);
    killed_run = replay_create(folder);
    snprintf(folder, sizeof folder, "%s/none", top);
    no_run = replay_create(folder);
    return 0;
}

static int remove_folder(void **unused) {
    (void)unused;
    small_run_close(&model);
    replay_destroy(&old_run);
    replay_destroy(&killed_run);
    replay_destroy(&no_run);
    shell("rm -rf '%s'", top);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_save_that_fails_leaves_nothing),
        cmocka_unit_test(a_save_that_fails_leaves_the_old_state),
        cmocka_unit_test(a_save_that_fails_after_one_that_was_killed_loses_neither),
        cmocka_unit_test(a_load_that_fails_says_so_and_works_later),
        cmocka_unit_test(a_file_made_shorter_while_open_is_an_error),
        cmocka_unit_test(a_text_that_cannot_be_read_says_so),
        cmocka_unit_test(a_metrics_line_that_does_not_fit_is_taken_back),
        cmocka_unit_test(metrics_that_cannot_be_cut_stay),
        cmocka_unit_test(a_folder_in_place_of_a_file_is_refused_and_kept),
        cmocka_unit_test(a_pipe_in_place_of_a_model_is_not_waited_for),
        cmocka_unit_test(files_that_may_not_be_read_are_refused),
        cmocka_unit_test(a_linked_file_is_read_and_replaced_but_not_written_through),
        cmocka_unit_test(what_is_of_no_run_is_not_overwritten),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
