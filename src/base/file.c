/* Whole files, atomic replacement, folders. */
#include "base/base.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

hk_status hk_file_read(const char *path, char **data, size_t *bytes) {
    char *buffer = NULL;
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return hk_fail(HK_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &info)) goto fail;
    if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        goto fail;
    }
    /* what has no size (a pipe) is read until it ends */
    size_t capacity = info.st_size > 0 ? (size_t)info.st_size : 65536, used = 0;
    buffer = malloc(capacity + 1);
    if (!buffer) goto fail;
    for (;;) {
        const ssize_t n = read(fd, buffer + used, capacity - used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) goto fail;
        if (n == 0) break;
        used += (size_t)n;
        if (used < capacity) continue;
        char *grown = realloc(buffer, capacity * 2 + 1);
        if (!grown) goto fail;
        buffer = grown, capacity *= 2;
    }
    close(fd);
    buffer[used] = 0;
    *data = buffer, *bytes = used;
    return HK_OK;
fail:
    hk_fail(errno == ENOMEM ? HK_ERROR_OUT_OF_MEMORY : HK_ERROR_IO, "cannot read %s: %s", path, strerror(errno));
    free(buffer);
    close(fd);
    return hk_error_status();
}

static bool write_all(int fd, const char *data, size_t bytes) {
    while (bytes) {
        const ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        data += n, bytes -= (size_t)n;
    }
    return true;
}

int hk_file_lock(const char *path, int flags, int tries) {
    const int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0) return -1;
    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK && --tries > 0) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        } else if (errno != EINTR) {
            const int error = errno;
            close(fd);
            errno = error;
            return -1;
        }
    }
    return fd;
}

bool hk_has_no_locks(int error) {
    return error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == EBADF;
}

/* A file of that name, which one writer at a time has: whoever finds it taken waits, and finds it renamed then. What a
   killed writer left is in it. Where a file system has no locks, writers are not kept apart. */
static int open_part(const char *part) {
    enum { LOCK_TRIES = 1000 /* of 10 ms: one who has it may have been stopped */ };
    for (;;) {
        struct stat mine, named;
        int fd = hk_file_lock(part, O_WRONLY | O_CREAT, LOCK_TRIES);
        if (fd < 0 && hk_has_no_locks(errno)) fd = open(part, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0) return -1;
        if (fstat(fd, &mine) == 0 && stat(part, &named) == 0 && mine.st_ino == named.st_ino) return fd;
        close(fd);
    }
}

hk_status hk_file_write(const char *path, const void *data, size_t bytes) {
    char part[4096];
    if ((size_t)snprintf(part, sizeof part, "%s.part", path) >= sizeof part)
        return hk_fail(HK_ERROR_IO, "cannot write %.64s...: the name is too long", path);
    const int fd = open_part(part);
    if (fd < 0) return hk_fail(HK_ERROR_IO, "cannot write %s: %s", part, strerror(errno));
    const int lock = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* closing tells of errors, and is not to give the name away before it is renamed */
    bool ok = lock >= 0 && ftruncate(fd, 0) == 0 && write_all(fd, data, bytes) && fsync(fd) == 0;
    int error = errno;
    if (close(fd) && ok) ok = false, error = errno;
    if (ok && rename(part, path)) ok = false, error = errno;
    if (!ok) unlink(part);
    if (lock >= 0) close(lock);
    return ok ? HK_OK : hk_fail(HK_ERROR_IO, "cannot write %s: %s", path, strerror(error));
}

hk_status hk_folder_sync(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* some file systems cannot sync a folder; one that may be written to but not read cannot be opened */
    const bool ok = fd >= 0 ? fsync(fd) == 0 || errno == EINVAL : errno == EACCES;
    if (!ok) hk_fail(HK_ERROR_IO, "cannot sync %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return ok ? HK_OK : HK_ERROR_IO;
}

/* The name of a new folder lies in its parent. */
static hk_status sync_parent(const char *path) {
    char parent[4096];
    const char *end = strrchr(path, '/');
    const int length = end ? (int)HK_MAX(end - path, 1) : 0;
    snprintf(parent, sizeof parent, "%.*s", length, path);
    return hk_folder_sync(length ? parent : ".");
}

static hk_status make_one(const char *path) {
    struct stat info;
    if (mkdir(path, 0777) == 0) return sync_parent(path);
    const int error = errno;
    if (error == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return HK_OK;
    return hk_fail(HK_ERROR_IO, "cannot make folder %s: %s", path, strerror(error));
}

hk_status hk_folder_make(const char *path) {
    char name[4096];
    if ((size_t)snprintf(name, sizeof name, "%s", path) >= sizeof name)
        return hk_fail(HK_ERROR_IO, "cannot make folder %.64s...: the name is too long", path);
    for (char *p = name + 1; *name && *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        const hk_status status = make_one(name);
        if (status != HK_OK) return status;
        *p = '/';
    }
    return make_one(name);
}

bool hk_cache_folder(const char *dir, char *path, size_t bytes) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (dir) n = *dir ? snprintf(path, bytes, "%s", dir) : -1;
    else if (cache && *cache) n = snprintf(path, bytes, "%s/hekla", cache);
    else if (home && *home) n = snprintf(path, bytes, "%s/.cache/hekla", home);
    else n = -1;
    return n > 0 && (size_t)n < bytes && hk_folder_make(path) == HK_OK;
}
