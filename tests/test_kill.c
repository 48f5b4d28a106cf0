/* A training that saves after every step is killed at random moments, again and again. Each time what is found is what
   was saved last, or what was just being saved; and in the end its files have the bits of a training left alone.

   200 kills, 1000 with HEKLA_TEST_LONG=1. HEKLA_TEST_SEED chooses the moments (the machine's pace does, too). */
#include "support.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 2, LENGTH = 8, TEXT_BYTES = 4000, STEPS_OF_A_LIFE = 6 };

static const struct hk_trainer_params how = {
    .model = {HK_GPT2, 256, LENGTH, 1, 1, 1, 8, 16, 1e-5f, 0, 0.1f},
    .optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1},
    .batch = BATCH,
    .length = LENGTH,
    .seed = 3,
};

/* What a training tells of itself. */
enum report_kind { BEGAN, SAVING, SAVED };
struct report {
    enum report_kind kind;
    int64_t step;
};

static void need(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "FAILED: %s: %s\n", what, hk_error_message());
    _exit(1);
}

static void tell(int fd, enum report_kind kind, int64_t step) {
    const struct report report = {kind, step};
    if (fd >= 0) need(write(fd, &report, sizeof report) == sizeof report, "a report");
}

static void save(const char *folder, struct hk_trainer *trainer, int64_t step, int fd) {
    const struct hk_run_state state = {.step = step, .seed = how.seed};
    tell(fd, SAVING, step);
    need(hk_run_save(folder, &how.model, hk_trainer_model(trainer), hk_trainer_optimizer(trainer), &state) == HK_OK,
         "saving");
    tell(fd, SAVED, step);
}

static struct hk_text *make_text(void) {
    static uint8_t bytes[TEXT_BYTES];
    for (int i = 0; i < TEXT_BYTES; i++) bytes[i] = (uint8_t)("a small text, over and over; "[i % 29] + i / 1000);
    return hk_text_parse(bytes, sizeof bytes, NULL);
}

/* Goes on with the folder's run, or begins one, to the last step; saves after each, or only the last. */
static void train(const char *folder, int64_t last, bool save_each, int fd) {
    int32_t tokens[BATCH * (LENGTH + 1)];
    struct hk_run_state state = {0};
    struct hk_text *text = make_text();
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "cpu", .threads = 1, .cache_dir = ""});
    struct hk_trainer *trainer = device ? hk_trainer_create(device, &how) : NULL;
    need(text && trainer, "a trainer");
    if (hk_run_exists(folder))
        need(hk_run_load(folder, hk_trainer_model(trainer), hk_trainer_optimizer(trainer), &state) == HK_OK, "loading");
    tell(fd, BEGAN, state.step);
    if (state.step == 0 && save_each) save(folder, trainer, 0, fd);
    for (int64_t step = state.step + 1; step <= last; step++) {
        float loss;
        need(hk_text_batch(text, BATCH, LENGTH, how.seed, (uint64_t)step, tokens) == HK_OK &&
                 hk_trainer_step(trainer, tokens, 1e-3f) == HK_OK && hk_trainer_result(trainer, &loss, NULL) == HK_OK,
             "a step");
        if (save_each || step == last) save(folder, trainer, step, fd);
    }
    hk_trainer_destroy(&trainer);
    hk_device_destroy(&device);
    hk_text_destroy(&text);
}

/* A training in a process of its own, which writes its reports to *fd. */
static pid_t start(const char *folder, int64_t last, bool save_each, int *fd) {
    int pipes[2];
    if (pipe(pipes)) abort();
    const pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        close(pipes[0]);
        train(folder, last, save_each, pipes[1]);
        _exit(0);
    }
    close(pipes[1]);
    *fd = pipes[0];
    return child;
}

static bool end_well(pid_t child, int fd) {
    int status;
    const bool ended = waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    close(fd);
    return ended;
}

static void wait_seconds(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

/* What the kills found. */
struct found {
    int64_t saved, saving; /* the last step of which a save returned, or began; -1: none */
    int before, in_save, between;
};

/* False where what a life began with is not what those before it left. */
static bool follow(struct found *found, int fd) {
    struct report report;
    enum report_kind last = BEGAN;
    bool any = false;
    for (; read(fd, &report, sizeof report) == sizeof report; any = true, last = report.kind) {
        const bool known = found->saved < 0 || report.step == found->saved || report.step == found->saving;
        if (report.kind == BEGAN && !known) {
            fprintf(stderr, "FAILED: found step %lld; step %lld was saved, step %lld was being saved\n",
                    (long long)report.step, (long long)found->saved, (long long)found->saving);
            return false;
        }
        if (report.kind == SAVING) found->saving = report.step;
        else if (report.kind == SAVED || found->saved >= 0) found->saved = report.step;
    }
    if (!any) found->before++;
    else if (last == SAVING) found->in_save++;
    else found->between++;
    return true;
}

static bool kill_one(const char *folder, double seconds, struct found *found) {
    int fd, status;
    const pid_t child = start(folder, INT64_MAX, true, &fd);
    wait_seconds(seconds);
    kill(child, SIGKILL);
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) {
        fprintf(stderr, "FAILED: a training ended before it was killed\n");
        return false;
    }
    const bool ok = follow(found, fd);
    close(fd);
    return ok;
}

static bool same_file(const char *top, const char *name) {
    char command[256];
    snprintf(command, sizeof command, "cmp '%s/killed/%s' '%s/alone/%s' >&2", top, name, top, name);
    return system(command) == 0;
}

/* The seconds that a life takes in which a few steps are made. */
static double measure(const char *folder) {
    int fd;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const pid_t child = start(folder, STEPS_OF_A_LIFE, true, &fd);
    for (struct report report; read(fd, &report, sizeof report) > 0;) {
    }
    if (!end_well(child, fd)) return -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
}

static bool kill_and_compare(const char *top, int kills, uint64_t random) {
    char killed[128], alone[128], measured[128];
    snprintf(killed, sizeof killed, "%s/killed", top);
    snprintf(alone, sizeof alone, "%s/alone", top);
    snprintf(measured, sizeof measured, "%s/measured", top);
    struct found found = {-1, -1, 0, 0, 0};
    const double life = measure(measured);
    for (int i = 0; i < kills; i++)
        if (life < 0 || !kill_one(killed, test_uniform(&random, 0, 1.5 * life), &found)) return false;
    int fd;
    const int64_t last = found.saving + 3;
    printf("%d kills: %d before a training had begun, %d in a save, %d elsewhere; step %lld was reached\n", kills,
           found.before, found.in_save, found.between, (long long)found.saving);
    pid_t child = start(killed, last, true, &fd);
    const bool followed = follow(&found, fd);
    if (!end_well(child, fd) || !followed) return false;
    child = start(alone, last, false, &fd);
    if (!end_well(child, fd)) return false;
    if (!found.in_save) fprintf(stderr, "FAILED: no kill came in a save\n");
    return found.in_save && same_file(top, "model.safetensors") && same_file(top, "optimizer.safetensors") &&
           same_file(top, "state.json");
}

int main(void) {
    const char *seed_text = getenv("HEKLA_TEST_SEED"), *more = getenv("HEKLA_TEST_LONG"), *base = getenv("TMPDIR");
    const uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
    char top[80], command[128];
    printf("HEKLA_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    snprintf(top, sizeof top, "%.40s/hekla-kill-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(top)) return 1;
    signal(SIGPIPE, SIG_IGN);
    const bool ok = kill_and_compare(top, more && *more == '1' ? 1000 : 200, seed);
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command) != 0 || !ok;
}
