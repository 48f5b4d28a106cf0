#include "faults/every.h"
#include "base/base.h"
#include "support.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_COMPLAINTS = 20, HANG_SECONDS = 120 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 7 }; /* sanitizers: fewer of the calls */
#else
enum { SLOWER = 1 };
#endif

static char folder[256];
static char current[256]; /* what a crash or a hang happened in */

/* ---- Folders ---- */

const char *fault_folder_make(void) {
    const char *place = access("/dev/shm", W_OK) ? getenv("TMPDIR") : "/dev/shm";
    snprintf(folder, sizeof folder, "%s/hekla-faults-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) {
        fprintf(stderr, "cannot make %s\n", folder);
        exit(1);
    }
    job_prepare(folder);
    return folder;
}

void fault_folder_remove(void) {
    char text[300];
    job_clean(folder);
    snprintf(text, sizeof text, "%s/text.txt", folder);
    unlink(text);
    rmdir(folder);
}

/* ---- Crashes and hangs ---- */

static void on_signal(int number) {
    const char *what = number == SIGALRM ? "a hang: " : "a crash: ";
    const ssize_t ignored[] = {write(2, what, strlen(what)), write(2, current, strlen(current)), write(2, "\n", 1)};
    (void)ignored;
    if (number == SIGALRM) _exit(1);
}

static void watch(void) {
    signal(SIGALRM, on_signal);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which say more of a crash */
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
#endif
}

/* ---- One fault ---- */

struct levels {
    long allocations, vulkan, files;
};

static struct levels levels_now(void) {
    return (struct levels){fault_live_allocations(), fault_live_vulkan(), fault_live_files()};
}

/* What the status and the message must be for what failed. */
static const char *check_status(const struct fault_report *r, enum fault_kind kind, hk_status status) {
    const char *message = hk_error_message();
    if (status != hk_error_status()) return "the status is not the thread's last one";
    if (!*message) return "no message";
    hk_status need = HK_ERROR_OUT_OF_MEMORY;
#ifdef HK_WITH_VULKAN
    enum { OUT_OF_HOST_MEMORY = -1, OUT_OF_DEVICE_MEMORY = -2, DEVICE_LOST = -4, TOO_MANY_OBJECTS = -10 };
    if (kind == FAULT_VULKAN && r->result == DEVICE_LOST) {
        if (!strstr(message, "lost")) return "the message does not say that the device is lost";
        need = HK_ERROR_DEVICE_LOST;
    } else if (kind == FAULT_VULKAN && r->result != OUT_OF_HOST_MEMORY && r->result != OUT_OF_DEVICE_MEMORY &&
               r->result != TOO_MANY_OBJECTS) {
        const bool fits = status == HK_ERROR_INTERNAL || status == HK_ERROR_NO_DEVICE || status == HK_ERROR_UNSUPPORTED;
        return fits ? NULL : "another status";
    }
#else
    (void)r, (void)kind;
#endif
    if (status != need) return "another status";
    const bool says = strstr(message, "memory") || strstr(message, "MiB") || strstr(message, "thread") ||
                      strstr(message, "too many objects") || need == HK_ERROR_DEVICE_LOST;
    return says ? NULL : "the message does not say what is missing";
}

static bool may_survive(const struct every *every, const struct fault_report *r) {
    for (const char *const *name = every->survivors; name && *name; name++)
        if (fault_called_by(r, *name)) return true;
    return false;
}

static const char *check_levels(struct levels before, struct levels after) {
    if (before.allocations != after.allocations) return "memory is left behind (or freed twice)";
    if (before.vulkan != after.vulkan) return "Vulkan objects are left behind (or destroyed twice)";
    return before.files == after.files ? NULL : "files are left open";
}

struct course {
    const struct every *every;
    struct job_result right;
    long faults, survived, complaints;
    uint64_t seen[MOST_COMPLAINTS]; /* what was printed, by where it failed */
    int n_seen;
    int again;
    int variants; /* of the last call that failed */
};

/* Once for each place. */
static void complain(struct course *c, const char *what, long n, int variant, const struct fault_report *r) {
    char chain[2048] = "nothing failed";
    if (r->fired) fault_describe(r, chain, sizeof chain);
    const uint64_t key = test_hash(chain, test_hash(what, 0));
    bool seen = c->complaints++ > 0 && c->n_seen == MOST_COMPLAINTS;
    for (int i = 0; i < c->n_seen; i++) seen = seen || c->seen[i] == key;
    if (seen) return;
    c->seen[c->n_seen++] = key;
    fprintf(stderr, "FAILED: %s, call %ld, variant %d: %s\n    %s\n    last message (%s): %s\n", c->every->name, n, variant, what,
            chain, hk_status_name(hk_error_status()), hk_error_message());
}

/* The job as it is; NULL where all is right. */
static const char *check_undisturbed(const struct course *c) {
    struct job_result result;
    job_clean(c->every->job.folder);
    if (job_run(&c->every->job, &result)) return "afterwards the same job fails";
    return memcmp(&result, &c->right, sizeof result) ? "afterwards the same job gives other bits" : NULL;
}

/* False where there is no n-th call any more. */
static bool try_one(struct course *c, long n, int variant) {
    const struct levels before = levels_now();
    struct job_result result;
    job_clean(c->every->job.folder);
    snprintf(current, sizeof current, "%s, call %ld, variant %d", c->every->name, n, variant);
    hk_fail(HK_OK, "%s", "");
    alarm(HANG_SECONDS);
    fault_arm(c->every->kind, n, variant);
    const hk_status status = job_run(&c->every->job, &result);
    const struct fault_report *r = fault_disarm();
    const char *wrong = NULL;
    c->variants = r->variants;
    if (r->fired) {
        c->faults++;
        c->survived += !status;
        if (status) wrong = check_status(r, c->every->kind, status);
        else if (!may_survive(c->every, r)) wrong = "nobody said that it failed";
        else if (memcmp(&result, &c->right, sizeof result)) wrong = "the results are not those of an undisturbed job";
        if (!wrong) wrong = check_levels(before, levels_now());
        if (wrong) complain(c, wrong, n, variant, r);
        wrong = c->faults % c->again ? NULL : check_undisturbed(c);
    } else if (status) {
        wrong = "the job fails by itself";
    }
    if (wrong) complain(c, wrong, n, variant, r);
    alarm(0);
    return r->fired;
}

bool fault_every(const struct every *every) {
    const bool all = getenv("HEKLA_TEST_LONG") && atoi(getenv("HEKLA_TEST_LONG"));
    const char *text = getenv("HEKLA_TEST_SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 1;
    uint64_t random = seed;
    struct course c = {.every = every, .again = all ? 1 : every->again};
    const double begin = hk_seconds();
    watch();
    job_clean(every->job.folder);
    if (job_run(&every->job, &c.right)) {
        fprintf(stderr, "FAILED: %s, undisturbed: %s\n", every->name, hk_error_message());
        return false;
    }
    const char *sparse = getenv("HEKLA_TEST_SPARSE"); /* that many times fewer of the calls */
    const int stride = all ? 1 : every->stride * SLOWER * (sparse ? HK_MAX(atoi(sparse), 1) : 1);
    long n = 1 + (long)(test_random(&random) % (uint64_t)stride);
    for (bool fired = true; fired; n += stride) {
        const int first = all ? 0 : (int)(test_random(&random) % 1000);
        fired = try_one(&c, n, first);
        for (int v = 1; all && v < c.variants; v++) try_one(&c, n, v);
    }
    const char *wrong = check_undisturbed(&c);
    if (!c.faults && every->kind != FAULT_THREAD) wrong = "no call was seen"; /* a job may do without threads */
    if (wrong) complain(&c, wrong, n, 0, &(struct fault_report){0});
    printf("%s: %ld faults in %ld calls, %ld of them survived, %ld complaints, %.1f s (HEKLA_TEST_SEED=%llu)\n", every->name,
           c.faults, n, c.survived, c.complaints, hk_seconds() - begin, (unsigned long long)seed);
    fflush(stdout);
    return c.complaints == 0;
}
