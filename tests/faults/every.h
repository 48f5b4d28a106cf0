/* A job, disturbed at every call of a kind, one after the other. */
#ifndef HK_TESTS_FAULT_EVERY_H
#define HK_TESTS_FAULT_EVERY_H

#include "faults/job.h"
#include "faults/faults.h"

struct every {
    const char *name; /* "memory on the CPU" */
    struct job job;
    enum fault_kind kind;
    int stride;            /* every so many n, from one that the seed chooses; with HEKLA_TEST_LONG=1 every n, and every variant */
    /* Functions (a NULL ends them) by whose calls a fault may pass without a failure, since the library can do without. The
       results must be right even so. */
    const char *const *survivors;
    int again; /* after every so many faults the job is done undisturbed; with HEKLA_TEST_LONG=1 after each */
};

/* Each time: a status with a message that says what is missing, nothing left behind, and then the same job done right. False,
   with what was wrong on stderr, where that does not hold. */
bool fault_every(const struct every *every);

/* In memory where there is a file system for it: many jobs write many files. Never NULL. */
const char *fault_folder_make(void);
void fault_folder_remove(void);

#endif
