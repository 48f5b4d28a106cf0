/* Every allocation of a whole job on the CPU fails once: malloc's, the arenas', cJSON's, mmap's, threads'. */
#include "faults/every.h"
#include <stdio.h>

/* Without these a job is done right all the same. */
static const char *const survivors[] = {
    "json_parse",                  /* tries again: cJSON does not say what was wrong */
    "step_of_path",                /* in loading: the file under its own name is then taken, and checked */
    "note_event", "program_run",   /* a trace says how many events it lacks */
    NULL,
};

int main(void) {
    faults_install();
    const char *folder = fault_folder_make();
    const struct job plain = {.device = "cpu", .folder = folder, .threads = 1};
    const struct job rich = {.device = "cpu", .folder = folder, .threads = 1, .rich = true};
    const struct job trace = {.device = "cpu", .folder = folder, .threads = 1, .trace = true};
    const struct job threads = {.device = "cpu", .folder = folder, .threads = 4};
    const struct every courses[] = {
        {"memory", plain, FAULT_MEMORY, 1, survivors, 16},
        {"arenas and lists", plain, FAULT_ARENA, 1, survivors, 16},
        {"arenas and lists of a larger graph", rich, FAULT_ARENA, 13, survivors, 16},
        {"memory of a trace", trace, FAULT_MEMORY, 13, survivors, 16},
        {"threads", threads, FAULT_THREAD, 1, survivors, 1},
    };
    bool right = true;
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) right = fault_every(&courses[i]) && right;
    fault_folder_remove();
    return right ? 0 : 1;
}
