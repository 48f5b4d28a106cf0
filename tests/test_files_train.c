/* The program's training on a disk that fails: each call on a file of its run fails once, and from each on the disk is
   full. Training ends with its plan fulfilled, or with a message and a run that goes on, bit for bit, when there is
   room: no checkpoint is lost to a line of metrics, nor the training to a checkpoint on the way.

   Of the places where the disk may fail a random share is tried, all with HEKLA_TEST_LONG=1. HEKLA_TEST_SEED chooses.
 */
#include "cli/cli.h"
#include "disk/replay.h"
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 40 }; /* for each way to fail */

static char top[64], text[80], run_folder[80], messages[80];
static int failures;

static char *read_all(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    char *data = calloc(1, 1 << 20);
    *bytes = file && data ? fread(data, 1, (1 << 20) - 1, file) : 0;
    if (file) fclose(file);
    return data;
}

/* Trains in a child with the fault; its exit status, or -1 if it died. calls: how many counted. */
static int train(const struct disk_fault *fault, bool resume, long *calls) {
    int pipes[2], status;
    if (pipe(pipes)) abort();
    const pid_t child = fork();
    if (child == 0) {
        const int errors = open(messages, O_WRONLY | O_CREAT | O_TRUNC, 0644), nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDOUT_FILENO);
        dup2(errors, STDERR_FILENO);
        char *anew[] = {"train", "--data",  text, "--out",        run_folder, "--device",  "cpu", "--layers",
                        "1",     "--heads", "1",  "--width",      "2",        "--context", "4",   "--batch",
                        "2",     "--steps", "4",  "--eval-every", "2",        "--dropout", "0.1", NULL};
        char *again[] = {"train", "--resume", "--out", run_folder, "--device", "cpu", NULL};
        disk_start(run_folder, fault);
        status = resume ? command_train(COUNT(again) - 1, again) : command_train(COUNT(anew) - 1, anew);
        const long counted = disk_stop();
        if (write(pipes[1], &counted, sizeof counted) != sizeof counted) _exit(99);
        _exit(status);
    }
    close(pipes[1]);
    *calls = 0;
    if (child < 0 || read(pipes[0], calls, sizeof *calls) < 0 || waitpid(child, &status, 0) != child) abort();
    close(pipes[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void fail(const struct disk_fault *fault, const char *what) {
    size_t bytes;
    char *said = read_all(messages, &bytes);
    fprintf(stderr, "FAILED: call %ld%s: %s; the program said: %s\n", fault->at,
            fault->lasting ? " and all after it" : "", what, said);
    free(said);
    failures++;
}

static char path_text[2][128];
static const char *path_of(const char *folder, const char *name) {
    static int next;
    char *path = path_text[next++ % 2];
    snprintf(path, sizeof path_text[0], "%s/%s", folder, name);
    return path;
}

/* Of a run whose last rename failed, the file is still under its ".next" name. */
static bool same_file(const char *name) {
    size_t a_bytes, b_bytes;
    char whole[80], next[128];
    snprintf(whole, sizeof whole, "%s/whole", top);
    snprintf(next, sizeof next, "%s/%s.next", run_folder, name);
    char *a = read_all(access(next, F_OK) ? path_of(run_folder, name) : next, &a_bytes);
    char *b = read_all(path_of(whole, name), &b_bytes);
    const bool same = a_bytes && a_bytes == b_bytes && !memcmp(a, b, a_bytes);
    free(a);
    free(b);
    return same;
}

static bool no_line_is_torn(void) {
    size_t bytes;
    char *lines = read_all(path_of(run_folder, "metrics.jsonl"), &bytes);
    bool whole = !bytes || lines[bytes - 1] == '\n';
    for (char *end, *line = lines; whole && *line; line = end + 1) {
        end = strchr(line, '\n');
        whole = *line == '{' && end[-1] == '}' && memchr(line + 1, '{', (size_t)(end - line - 1)) == NULL;
    }
    free(lines);
    return whole;
}

static bool said_where(void) {
    size_t bytes;
    char *said = read_all(messages, &bytes);
    const bool where = !strncmp(said, "hekla: ", 7) && strstr(said, run_folder);
    free(said);
    return where;
}

static void remove_run(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", run_folder);
    if (system(command) != 0) abort();
}

/* One training with the fault, and one that goes on where it ended. */
static void try_fault(const struct disk_fault *fault) {
    long calls;
    remove_run();
    const int status = train(fault, false, &calls);
    if (status != EXIT_OK && status != EXIT_FAILED) return fail(fault, "it died");
    if (!no_line_is_torn()) fail(fault, "a line of metrics is torn");
    if (status == EXIT_OK && fault->lasting) fail(fault, "it says it went well");
    if (status == EXIT_FAILED && !said_where()) fail(fault, "the message names no file");
    if (status == EXIT_FAILED) {
        const struct disk_fault none = {.at = 0};
        if (train(&none, hk_run_exists(run_folder), &calls) != EXIT_OK) return fail(fault, "it does not go on");
    }
    if (!same_file("model.safetensors") || !same_file("optimizer.safetensors"))
        fail(fault, "the weights are not those of a training left alone");
}

/* What fails: once each, and from there on. */
#define TAKES_SPACE (DISK_CREATE | DISK_WRITE | DISK_SYNC | DISK_SYNC_FOLDER | DISK_CLOSE | DISK_RENAME | DISK_MKDIR)
static void try_faults(uint64_t *random, bool all) {
    for (int lasting = 0; lasting < 2; lasting++) {
        struct disk_fault fault = {.ops = TAKES_SPACE, .error = ENOSPC, .half = true, .lasting = lasting};
        long calls, tried = 0;
        remove_run();
        if (train(&fault, false, &calls) != EXIT_OK || calls < 50) return fail(&fault, "it fails without a fault");
        const long stride = all ? 1 : calls / TRIES + 1;
        const long first = 1 + (long)(test_random(random) % (uint64_t)stride);
        calls--; /* the last one closes the log, to which nothing is left to write */
        for (fault.at = first; fault.at <= calls; fault.at += stride, tried++) try_fault(&fault);
        printf("no space %s: %ld of %ld calls tried\n", lasting ? "from a call on" : "once", tried, calls);
    }
}

static bool said(const char *part) {
    size_t bytes;
    char *text_said = read_all(messages, &bytes);
    const bool found = strstr(text_said, part) != NULL;
    free(text_said);
    return found;
}

/* The training is worth more than its log, and than a checkpoint on the way. */
static void try_what_is_worth_less(void) {
    const struct disk_fault
        log = {.ops = DISK_WRITE, .only = "metrics.jsonl", .at = 2, .error = ENOSPC, .lasting = true},
        save = {.ops = DISK_CREATE, .only = "model.safetensors.next.part", .at = 2, .error = ENOSPC};
    const struct disk_fault *const both[] = {&log, &save};
    for (int i = 0; i < 2; i++) {
        long calls;
        remove_run();
        const int status = train(both[i], false, &calls), wanted = i == 0 ? EXIT_FAILED : EXIT_OK;
        if (status != wanted) fail(both[i], "another exit status");
        if (!said("training goes on")) fail(both[i], "it does not say that it goes on");
        if (i == 0 && !said("metrics.jsonl lacks 3 lines")) fail(both[i], "it does not say what is missing");
        if (!same_file("model.safetensors")) fail(both[i], "it did not train to the end");
    }
}

int main(void) {
    const char *seed_text = getenv("HEKLA_TEST_SEED"), *more = getenv("HEKLA_TEST_LONG");
    uint64_t random = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
    long calls;
    printf("HEKLA_TEST_SEED=%llu\n", (unsigned long long)random);
    snprintf(top, sizeof top, "%s/hekla-train-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(top)) return 1;
    snprintf(text, sizeof text, "%s/text", top);
    snprintf(run_folder, sizeof run_folder, "%s/whole", top);
    snprintf(messages, sizeof messages, "%s/messages", top);
    char command[128];
    snprintf(command, sizeof command, "seq 1 1000 >'%s'", text);
    if (system(command) != 0 || train(&(struct disk_fault){.at = 0}, false, &calls) != EXIT_OK) return 1;
    snprintf(run_folder, sizeof run_folder, "%s/run", top);
    try_faults(&random, more && *more == '1');
    try_what_is_worth_less();
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command) != 0 || failures != 0;
}
