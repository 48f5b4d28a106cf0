/* A disk that can fail: the linker puts it between the library and the system's calls on files (--wrap). Of the calls
   on what lies under one folder it fails the n-th, or keeps a log from which replay.h makes what a power cut leaves.

   One thread at a time. Calls of the test itself count too, but for those of stdio. Nothing is really synced. */
#ifndef HK_TESTS_DISK_H
#define HK_TESTS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum disk_op {
    DISK_OPEN = 1, /* to read */
    DISK_READ = 2,
    DISK_MAP = 4,
    DISK_CREATE = 8, /* to write */
    DISK_WRITE = 16,
    DISK_SYNC = 32,
    DISK_SYNC_FOLDER = 64,
    DISK_CLOSE = 128, /* of what was opened to write */
    DISK_RENAME = 256,
    DISK_UNLINK = 512, /* a file or a folder */
    DISK_MKDIR = 1024,
    DISK_TRUNCATE = 2048
};
enum { DISK_READS = DISK_OPEN | DISK_READ | DISK_MAP, DISK_ALL = 4095, DISK_WRITES = DISK_ALL & ~DISK_READS };
const char *disk_op_name(enum disk_op op);

struct disk_fault {
    unsigned ops;     /* those that count */
    const char *only; /* on paths that end so; NULL: all */
    long at;          /* the first of them that fails, from 1; 0: none */
    bool lasting;     /* and all after it */
    int error;        /* its errno */
    bool half;        /* of a read or write, half is done: all of the failure where there is no error (a short one) */
};

/* From here on calls under root count, and fail as told (fault may be NULL). */
void disk_start(const char *root, const struct disk_fault *fault);
/* No more. How many calls counted. */
long disk_stop(void);
/* What the last call that was failed was, and on which file. */
enum disk_op disk_failed_op(void);
const char *disk_failed_path(void);
/* Files under root that were opened since disk_start and not closed. */
int disk_open_files(void);

/* ---- What was done, in order ---- */

struct disk_event {
    enum disk_op op; /* one of DISK_WRITES */
    int file;        /* which open file; of CREATE, WRITE, SYNC, CLOSE, TRUNCATE */
    bool truncated;  /* CREATE: emptied it */
    char path[256], target[256];
    void *data; /* WRITE */
    size_t bytes;
};
/* Between disk_record and disk_stop; the log is the caller's to free by disk_free_log. */
struct disk_log {
    struct disk_event *events;
    int count;
};
void disk_record(const char *root, struct disk_log *log);
void disk_free_log(struct disk_log *log);

#endif
