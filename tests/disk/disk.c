#include "disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

int __real_open(const char *path, int flags, ...);
ssize_t __real_read(int fd, void *data, size_t bytes);
ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __real_write(int fd, const void *data, size_t bytes);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_ftruncate(int fd, off_t bytes);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_rmdir(const char *path);
int __real_mkdir(const char *path, mode_t mode);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);

int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *data, size_t bytes);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __wrap___read_chk(int fd, void *data, size_t bytes, size_t size);
ssize_t __wrap___pread_chk(int fd, void *data, size_t bytes, off_t offset, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
int __wrap_fsync(int fd);
int __wrap_close(int fd);
int __wrap_ftruncate(int fd, off_t bytes);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_rmdir(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);

enum { MOST_FDS = 1024, MOST_EVENTS = 4096 };

/* An open file under root. */
struct opened {
    char path[256];
    bool writes, folder;
    int file; /* number in the log */
};

static struct {
    bool on;
    char root[256];
    struct disk_fault fault;
    long calls;
    enum disk_op failed_op;
    char failed_path[256];
    struct opened fds[MOST_FDS];
    int files;
    struct disk_log *log;
} disk;

const char *disk_op_name(enum disk_op op) {
    switch (op) {
    case DISK_OPEN: return "open";
    case DISK_READ: return "read";
    case DISK_MAP: return "mmap";
    case DISK_CREATE: return "create";
    case DISK_WRITE: return "write";
    case DISK_SYNC: return "fsync";
    case DISK_SYNC_FOLDER: return "fsync of the folder";
    case DISK_CLOSE: return "close";
    case DISK_RENAME: return "rename";
    case DISK_UNLINK: return "unlink";
    case DISK_MKDIR: return "mkdir";
    case DISK_TRUNCATE: return "ftruncate";
    }
    return "nothing";
}

void disk_start(const char *root, const struct disk_fault *fault) {
    memset(&disk, 0, sizeof disk);
    snprintf(disk.root, sizeof disk.root, "%s", root);
    if (fault) disk.fault = *fault;
    disk.on = true;
}

void disk_record(const char *root, struct disk_log *log) {
    *log = (struct disk_log){.events = calloc(MOST_EVENTS, sizeof *log->events)};
    if (!log->events) abort();
    disk_start(root, NULL);
    disk.log = log;
}

long disk_stop(void) {
    disk.on = false;
    disk.log = NULL;
    return disk.calls;
}

enum disk_op disk_failed_op(void) { return disk.failed_op; }

const char *disk_failed_path(void) { return disk.failed_path; }

int disk_open_files(void) {
    int count = 0;
    for (int i = 0; i < MOST_FDS; i++) count += disk.fds[i].path[0] != 0;
    return count;
}

void disk_free_log(struct disk_log *log) {
    for (int i = 0; i < log->count; i++) free(log->events[i].data);
    free(log->events);
    *log = (struct disk_log){0};
}

/* ---- What the wrappers share ---- */

static bool is_ours(const char *path) { return disk.on && !strncmp(path, disk.root, strlen(disk.root)); }

static struct opened *find(int fd) {
    return disk.on && fd >= 0 && fd < MOST_FDS && disk.fds[fd].path[0] ? &disk.fds[fd] : NULL;
}

static bool ends_so(const char *path, const char *end) {
    const size_t length = strlen(path), wanted = strlen(end);
    return length >= wanted && !strcmp(path + length - wanted, end);
}

/* Counts the call; true, with errno, if it is to fail. */
static bool fails(enum disk_op op, const char *path) {
    if (!(disk.fault.ops & (unsigned)op)) return false;
    if (disk.fault.only && !ends_so(path, disk.fault.only)) return false;
    disk.calls++;
    if (!disk.fault.at || (disk.fault.lasting ? disk.calls < disk.fault.at : disk.calls != disk.fault.at)) return false;
    disk.failed_op = op;
    snprintf(disk.failed_path, sizeof disk.failed_path, "%s", path);
    errno = disk.fault.error;
    return true;
}

static struct disk_event *note(enum disk_op op, const char *path) {
    if (!disk.log) return NULL;
    if (disk.log->count == MOST_EVENTS) abort();
    struct disk_event *event = &disk.log->events[disk.log->count++];
    event->op = op;
    snprintf(event->path, sizeof event->path, "%s", path);
    return event;
}

static void note_file(enum disk_op op, const struct opened *opened) {
    struct disk_event *event = note(op, opened->path);
    if (event) event->file = opened->file;
}

/* ---- Files ---- */

static void note_open(int fd, const char *path, int flags) {
    struct stat info;
    if (fd >= MOST_FDS) abort();
    struct opened *opened = &disk.fds[fd];
    snprintf(opened->path, sizeof opened->path, "%s", path);
    opened->writes = (flags & O_ACCMODE) != O_RDONLY;
    opened->folder = fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
    opened->file = ++disk.files;
    if (!opened->writes) return;
    note_file(DISK_CREATE, opened);
    if (disk.log) disk.log->events[disk.log->count - 1].truncated = (flags & O_TRUNC) != 0;
}

int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    const bool ours = is_ours(path);
    if (ours && fails((flags & O_ACCMODE) == O_RDONLY ? DISK_OPEN : DISK_CREATE, path)) return -1;
    const int fd = __real_open(path, flags, mode);
    if (ours && fd >= 0) note_open(fd, path, flags);
    return fd;
}

/* How much of a read or write takes place; -1: none, it fails. */
static ssize_t allowed(enum disk_op op, int fd, size_t bytes) {
    const struct opened *opened = find(fd);
    if (!opened || !fails(op, opened->path)) return (ssize_t)bytes;
    if (disk.fault.half && !disk.fault.error) return (ssize_t)(bytes + 1) / 2;
    return -1;
}

ssize_t __wrap_read(int fd, void *data, size_t bytes) {
    const ssize_t most = allowed(DISK_READ, fd, bytes);
    return most < 0 ? -1 : __real_read(fd, data, (size_t)most);
}

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset) {
    const ssize_t most = allowed(DISK_READ, fd, bytes);
    return most < 0 ? -1 : __real_pread(fd, data, (size_t)most, offset);
}

/* What a fortified build calls instead. */
ssize_t __wrap___read_chk(int fd, void *data, size_t bytes, size_t size) {
    (void)size;
    return __wrap_read(fd, data, bytes);
}

ssize_t __wrap___pread_chk(int fd, void *data, size_t bytes, off_t offset, size_t size) {
    (void)size;
    return __wrap_pread(fd, data, bytes, offset);
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    const struct opened *opened = find(fd);
    if (opened && fails(DISK_MAP, opened->path)) return MAP_FAILED;
    return __real_mmap(address, bytes, protection, flags, fd, offset);
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes) {
    const struct opened *opened = find(fd);
    const ssize_t most = allowed(DISK_WRITE, fd, bytes);
    if (most < 0) { /* what a full disk took before it was full */
        if (disk.fault.half && __real_write(fd, data, bytes / 2) < 0) abort();
        errno = disk.fault.error;
        return -1;
    }
    const ssize_t written = __real_write(fd, data, (size_t)most);
    struct disk_event *event = opened && written > 0 ? note(DISK_WRITE, opened->path) : NULL;
    if (!event) return written;
    event->file = opened->file;
    event->data = malloc((size_t)written);
    if (!event->data) abort();
    memcpy(event->data, data, (size_t)written);
    event->bytes = (size_t)written;
    return written;
}

int __wrap_fsync(int fd) {
    const struct opened *opened = find(fd);
    const enum disk_op op = opened && opened->folder ? DISK_SYNC_FOLDER : DISK_SYNC;
    if (opened && fails(op, opened->path)) return -1;
    if (opened) note_file(op, opened);
    return 0; /* what a real one does cannot be seen without a power cut, and takes time */
}

int __wrap_ftruncate(int fd, off_t bytes) {
    const struct opened *opened = find(fd);
    if (opened && fails(DISK_TRUNCATE, opened->path)) return -1;
    if (opened) note_file(DISK_TRUNCATE, opened);
    if (opened && disk.log) disk.log->events[disk.log->count - 1].bytes = (size_t)bytes;
    return __real_ftruncate(fd, bytes);
}

/* A close that fails has closed nevertheless, as Linux does it. */
int __wrap_close(int fd) {
    struct opened *opened = find(fd);
    const bool failed = opened && opened->writes && fails(DISK_CLOSE, opened->path);
    if (opened && opened->writes) note_file(DISK_CLOSE, opened);
    if (opened) opened->path[0] = 0;
    const int result = __real_close(fd);
    if (failed) errno = disk.fault.error;
    return failed ? -1 : result;
}

/* ---- Names ---- */

int __wrap_rename(const char *from, const char *to) {
    if (is_ours(to) && fails(DISK_RENAME, to)) return -1;
    const int result = __real_rename(from, to);
    struct disk_event *event = is_ours(to) && result == 0 ? note(DISK_RENAME, from) : NULL;
    if (event) snprintf(event->target, sizeof event->target, "%s", to);
    return result;
}

static int removed(const char *path, int result) {
    if (is_ours(path) && result == 0) note(DISK_UNLINK, path);
    return result;
}

int __wrap_unlink(const char *path) {
    if (is_ours(path) && fails(DISK_UNLINK, path)) return -1;
    return removed(path, __real_unlink(path));
}

int __wrap_rmdir(const char *path) {
    if (is_ours(path) && fails(DISK_UNLINK, path)) return -1;
    return removed(path, __real_rmdir(path));
}

int __wrap_mkdir(const char *path, mode_t mode) {
    if (is_ours(path) && fails(DISK_MKDIR, path)) return -1;
    const int result = __real_mkdir(path, mode);
    if (is_ours(path) && result == 0) note(DISK_MKDIR, path);
    return result;
}
