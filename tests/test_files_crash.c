/* A power cut or a kill between any two calls of a save: whatever subset of what was not synced is lost, the run loads,
   as it was before or as it was saved, and once the save has returned, as it was saved. No call is left to chance: a
   save is logged once, and every disk that a cut could leave is made from the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "disk/replay.h"
#include "disk/small_run.h"
#include "support.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[64], disk_root[80], after_root[80], run_folder[96], after_run[96];
static struct small_run model;

/* What may be found after a cut, and what the tests looked at. */
struct expected {
    int64_t before, then; /* before: -1: no run yet, so that a save must make one */
    bool moments;         /* the run is one to resume */
};
static struct {
    long disks, old, new;
    uint64_t seen[1 << 16];
} looked;

static bool is_new(uint64_t hash) {
    hash += hash == 0;
    for (size_t i = hash % COUNT(looked.seen);; i = (i + 1) % COUNT(looked.seen)) {
        if (looked.seen[i] == hash) return false;
        if (looked.seen[i]) continue;
        looked.seen[i] = hash;
        return ++looked.disks < COUNT(looked.seen) / 2;
    }
}

struct cut {
    int event;     /* before it, in the log */
    bool done;     /* the save had returned */
    unsigned kept; /* of the changes to names */
    bool all_kept;
    enum replay_loss loss;
};

static void fail_cut(const struct cut *cut, const char *what, const char *message) {
    fail_msg("after a cut before event %d, with changes %#x kept%s and loss %d: %s: %s", cut->event, cut->kept,
             cut->all_kept ? " (all)" : "", (int)cut->loss, what, message);
}

/* The disk under after_root is what the cut left. */
static void check_disk(const struct expected *e, const struct cut *cut) {
    char message[512] = "";
    const int64_t step = small_run_load(&model, after_run, e->moments, message);
    const bool none = step < 0 && e->before < 0 && !cut->done && !hk_run_exists(after_run);
    const bool old = step >= 0 && step == e->before && !cut->done, new = step == e->then;
    if (!none && !old && !new) fail_cut(cut, "the run is neither the old nor the new one", message);
    looked.old += old, looked.new += new;
    if (!cut->all_kept && cut->loss != REPLAY_LOSE) return;
    /* whoever goes on can save, and the next one load that */
    if (small_run_save(&model, after_run, 777, true) != HK_OK) fail_cut(cut, "no save", hk_error_message());
    if (small_run_load(&model, after_run, true, message) != 777) fail_cut(cut, "what was saved is lost", message);
}

/* All that a cut at this moment can leave. */
static void cut_here(const struct replay *disk, const struct expected *e, bool done, int event) {
    const unsigned changes = 1u << replay_pending(disk);
    assert_true(replay_pending(disk) <= 12);
    for (unsigned kept = 0; kept < changes; kept++) {
        for (enum replay_loss loss = REPLAY_KEEP; loss <= REPLAY_LOSE; loss++) {
            if (!is_new(replay_hash(disk, kept, loss) + (uint64_t)done)) continue;
            replay_write(disk, kept, loss, after_root);
            check_disk(e, &(struct cut){event, done, kept, kept == changes - 1, loss});
        }
    }
}

/* Every cut from the event first on. */
static void check_log(const struct disk_log *log, int first, struct replay *disk, const struct expected *e) {
    memset(looked.seen, 0, sizeof looked.seen);
    for (int i = 0; i < first; i++) replay_apply(disk, &log->events[i]);
    for (int i = first; i <= log->count; i++) {
        const bool done = i == log->count;
        const enum disk_op op = done ? DISK_ALL : log->events[i].op;
        /* of a file's writes, before the second and the last: those between leave the same names */
        const bool inner =
            op == DISK_WRITE && log->events[i - 1].op == DISK_WRITE && log->events[i + 1].op == DISK_WRITE;
        if (!inner && op != DISK_CLOSE) cut_here(disk, e, done, i);
        if (!done) replay_apply(disk, &log->events[i]);
    }
}

static int make_folder(void **unused) {
    (void)unused;
    const char *base = getenv("TMPDIR");
    if (!base || !*base) base = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* thousands of small files */
    snprintf(top, sizeof top, "%.40s/hekla-crash-XXXXXX", base);
    if (!mkdtemp(top)) return -1;
    snprintf(disk_root, sizeof disk_root, "%s/disk", top);
    snprintf(after_root, sizeof after_root, "%s/after", top);
    snprintf(run_folder, sizeof run_folder, "%s/run", disk_root);
    snprintf(after_run, sizeof after_run, "%s/run", after_root);
    model = small_run_open();
    return 0;
}

static void clear(const char *folder) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static int remove_folder(void **unused) {
    (void)unused;
    small_run_close(&model);
    clear(top);
    return 0;
}

static int begin(void **unused) {
    (void)unused;
    clear(disk_root);
    looked.disks = looked.old = looked.new = 0;
    return mkdir(disk_root, 0755);
}

static int report(void **unused) {
    (void)unused;
    print_message("%ld disks: %ld with the old state, %ld with the new\n", looked.disks, looked.old, looked.new);
    return 0;
}

static void saved(int64_t step, bool moments) {
    if (small_run_save(&model, run_folder, step, moments) != HK_OK) fail_msg("%s", hk_error_message());
}

/* Logs a save of the step, and checks every cut in it. */
static void check_save(const struct expected *e, bool moments) {
    struct disk_log log;
    struct replay *disk = replay_create(disk_root);
    disk_record(disk_root, &log);
    saved(e->then, moments);
    disk_stop();
    assert_true(log.count > 20); /* it goes through our calls */
    check_log(&log, 0, disk, e);
    disk_free_log(&log);
    replay_destroy(&disk);
}

static void the_first_save_makes_a_run_or_none(void **unused) {
    (void)unused;
    check_save(&(struct expected){-1, 10, true}, true);
    assert_true(looked.new > 0);
}

static void a_save_keeps_the_old_state_or_has_the_new(void **unused) {
    (void)unused;
    saved(10, true);
    check_save(&(struct expected){10, 20, true}, true);
    assert_true(looked.old > 0 && looked.new > 0);
}

static void so_does_one_without_moments(void **unused) {
    (void)unused;
    saved(10, true);
    check_save(&(struct expected){10, 20, false}, false);
    assert_true(looked.old > 0 && looked.new > 0);
}

static void so_does_a_save_right_after_another(void **unused) {
    (void)unused;
    struct disk_log log;
    saved(10, true);
    struct replay *disk = replay_create(disk_root);
    disk_record(disk_root, &log);
    saved(20, true);
    const int first = log.count;
    saved(30, true);
    disk_stop();
    check_log(&log, first, disk, &(struct expected){20, 30, true});
    disk_free_log(&log);
    replay_destroy(&disk);
}

/* What is found after a kill in the first save is itself saved to, and cut again. */
static void check_second_cut(const struct replay *killed) {
    char message[512];
    struct disk_log log;
    replay_write(killed, (1u << 30) - 1, REPLAY_KEEP, disk_root);
    struct replay *disk = replay_create(disk_root);
    disk_record(disk_root, &log);
    const int64_t found = small_run_load(&model, run_folder, true, message);
    if (found != 10 && found != 20) fail_msg("%s", message);
    saved(30, true);
    disk_stop();
    check_log(&log, 0, disk, &(struct expected){found, 30, true});
    disk_free_log(&log);
    replay_destroy(&disk);
}

static void so_does_a_save_after_one_that_was_killed(void **unused) {
    (void)unused;
    saved(10, true);
    struct disk_log log;
    struct replay *disk = replay_create(disk_root);
    disk_record(disk_root, &log);
    saved(20, true);
    disk_stop();
    for (int i = 0; i < log.count; i++) {
        const enum disk_op op = log.events[i].op;
        if (op == DISK_RENAME || op == DISK_UNLINK || op == DISK_SYNC) check_second_cut(disk);
        replay_apply(disk, &log.events[i]);
    }
    check_second_cut(disk);
    disk_free_log(&log);
    replay_destroy(&disk);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_save_makes_a_run_or_none, begin, report),
        cmocka_unit_test_setup_teardown(a_save_keeps_the_old_state_or_has_the_new, begin, report),
        cmocka_unit_test_setup_teardown(so_does_one_without_moments, begin, report),
        cmocka_unit_test_setup_teardown(so_does_a_save_right_after_another, begin, report),
        cmocka_unit_test_setup_teardown(so_does_a_save_after_one_that_was_killed, begin, report),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
