/* Runs fuzz_one on each file of a folder (good-NAME must be accepted, bad-NAME refused), and on thousands of seeded
   mutations of each.

     fuzz_NAME_corpus FOLDER [FILE MUTATION]

   HEKLA_TEST_SEED is the seed, which is printed; else the clock's. With FILE and MUTATION only that one is run, and
   written to stdout before, to put it into the corpus. HEKLA_TEST_LONG=1 runs a hundred times as many. */
#include "fuzz.h"
#include "mutate.h"
#include "support.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FILES = 256, MUTATIONS = 3000, MOST_STEPS = 4, ONCE = -1 };

struct file {
    char name[128];
    uint8_t *data;
    size_t bytes;
};
static struct file files[MOST_FILES];
static int file_count;
static uint64_t seed;
static bool safetensors;

/* Where the child is, for the parent to tell when it has died. */
struct place {
    int file;
    long mutation; /* ONCE: the file itself */
    long accepted;
};

static bool read_one(const char *folder, const char *name) {
    struct file *file = &files[file_count];
    char path[4096];
    snprintf(file->name, sizeof file->name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    fseek(f, 0, SEEK_END);
    file->bytes = (size_t)ftell(f);
    rewind(f);
    file->data = malloc(file->bytes + 1);
    const bool ok = file->data && fread(file->data, 1, file->bytes, f) == file->bytes;
    fclose(f);
    file_count++;
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static bool read_files(const char *folder) {
    DIR *dir = opendir(folder);
    bool ok = dir != NULL;
    for (struct dirent *entry; ok && (entry = readdir(dir));)
        if (*entry->d_name != '.') ok = file_count < MOST_FILES && read_one(folder, entry->d_name);
    if (dir) closedir(dir);
    qsort(files, (size_t)file_count, sizeof *files, by_name);
    return ok && file_count > 0;
}

/* In memory of exactly that size, so that the address sanitizer sees what is read past it. */
static bool run_exact(const uint8_t *data, size_t bytes) {
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy) abort();
    if (bytes) memcpy(copy, data, bytes);
    const bool accepted = fuzz_one(copy, bytes);
    free(copy);
    return accepted;
}

/* Mutation number i of a file follows from the seed, the file's name and i alone, given the same corpus. */
static size_t make_mutation(const struct file *file, long i, uint8_t *buffer) {
    uint64_t state = test_hash(file->name, seed + (uint64_t)i * 0x9e3779b97f4a7c15u);
    size_t bytes = file->bytes;
    memcpy(buffer, file->data, bytes);
    for (uint64_t steps = 1 + test_random(&state) % MOST_STEPS; steps; steps--) {
        const struct file *other = &files[test_random(&state) % (uint64_t)file_count];
        bytes = safetensors ? mutate_safetensors(buffer, bytes, other->data, other->bytes, &state)
                            : mutate(buffer, bytes, other->data, other->bytes, &state);
    }
    return bytes;
}

/* In a child, so that whatever ends it can be told. */
static int run_all(struct place *place, long mutations) {
    int failed = 0;
    for (place->file = 0; place->file < file_count; place->file++) {
        const struct file *file = &files[place->file];
        place->mutation = ONCE;
        const bool good = !strncmp(file->name, "good-", 5), accepted = run_exact(file->data, file->bytes);
        if (accepted != good) {
            fprintf(stderr, "FAILED: %s was %s: %s\n", file->name, accepted ? "accepted" : "refused",
                    accepted ? "it must not be" : hk_error_message());
            failed = 1;
        }
        uint8_t *buffer = malloc(file->bytes + MOST_STEPS * MUTATION_GROWTH);
        if (!buffer) return 1;
        for (place->mutation = 0; place->mutation < mutations; place->mutation++)
            place->accepted += run_exact(buffer, make_mutation(file, place->mutation, buffer));
        free(buffer);
    }
    return failed;
}

static int replay(const char *name, long mutation) {
    for (int i = 0; i < file_count; i++) {
        if (strcmp(files[i].name, name)) continue;
        uint8_t *buffer = malloc(files[i].bytes + MOST_STEPS * MUTATION_GROWTH);
        if (!buffer) return 1;
        const size_t bytes = make_mutation(&files[i], mutation, buffer);
        fwrite(buffer, 1, bytes, stdout);
        fflush(stdout);
        fprintf(stderr, "%s\n", run_exact(buffer, bytes) ? "accepted" : hk_error_message());
        free(buffer);
        return 0;
    }
    fprintf(stderr, "no file %s\n", name);
    return 2;
}

static int run_in_child(long mutations) {
    struct place *place = mmap(NULL, sizeof *place, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return 1;
    int status;
    const pid_t child = fork();
    if (child == 0) exit(run_all(place, mutations));
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || place->file == file_count)) {
        printf("%d files, %ld mutations of each, of which %ld were accepted\n", file_count, mutations, place->accepted);
        return WEXITSTATUS(status);
    }
    fprintf(stderr, "FAILED: died on %s, mutation %ld; HEKLA_TEST_SEED=%llu replays it\n", files[place->file].name,
            place->mutation, (unsigned long long)seed);
    return 1;
}

int main(int argc, char **argv) {
    const char *seed_text = getenv("HEKLA_TEST_SEED"), *more = getenv("HEKLA_TEST_LONG");
    if (argc != 2 && argc != 4) return fprintf(stderr, "usage: %s FOLDER [FILE MUTATION]\n", argv[0]), 2;
    seed = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
    safetensors = strstr(argv[1], "safetensors") != NULL;
    if (!read_files(argv[1])) return fprintf(stderr, "cannot read the files of %s\n", argv[1]), 1;
    if (argc == 4) return replay(argv[2], strtol(argv[3], NULL, 10));
    printf("HEKLA_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    const int status = run_in_child(more && *more == '1' ? 100L * MUTATIONS : MUTATIONS);
    for (int i = 0; i < file_count; i++) free(files[i].data);
    return status;
}
