#include "replay.h"
#include "support.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_INODES = 256, MOST_NAMES = 64, MOST_CHANGES = 30, MOST_FILES = 4096, PATH_BYTES = 256 };

struct content {
    uint8_t *data;
    size_t bytes;
};
struct inode {
    bool folder;
    struct content now, durable;
};
struct name {
    char path[PATH_BYTES]; /* under root, with a leading '/' */
    int inode;
};
struct names {
    struct name items[MOST_NAMES];
    int count;
};
/* from or to may be empty: made, or removed. */
struct change {
    char from[PATH_BYTES], to[PATH_BYTES];
    int inode;
};
struct replay {
    char root[PATH_BYTES];
    struct inode inodes[MOST_INODES];
    int inode_count;
    struct names now, durable;
    struct change pending[MOST_CHANGES];
    int pending_count;
    int of_file[MOST_FILES]; /* the inode of an open file's number */
};

static void need(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "FAILED: replay: %s\n", what);
    exit(1);
}

static void set_content(struct content *content, const void *data, size_t bytes) {
    uint8_t *copy = malloc(bytes + 1);
    need(copy != NULL, "no memory");
    if (bytes) memcpy(copy, data, bytes);
    free(content->data);
    *content = (struct content){copy, bytes};
}

static int new_inode(struct replay *r, bool folder) {
    need(r->inode_count < MOST_INODES, "too many files");
    r->inodes[r->inode_count].folder = folder;
    return r->inode_count++;
}

/* ---- Names ---- */

static int find_name(const struct names *names, const char *path) {
    for (int i = 0; i < names->count; i++)
        if (!strcmp(names->items[i].path, path)) return i;
    return -1;
}

static void remove_name(struct names *names, const char *path) {
    const int i = find_name(names, path);
    if (i >= 0) names->items[i] = names->items[--names->count];
}

static void change_names(struct names *names, const struct change *change) {
    if (change->from[0]) remove_name(names, change->from);
    if (!change->to[0]) return;
    remove_name(names, change->to);
    need(names->count < MOST_NAMES, "too many names");
    struct name *name = &names->items[names->count++];
    snprintf(name->path, sizeof name->path, "%s", change->to);
    name->inode = change->inode;
}

static void change_both(struct replay *r, const char *from, const char *to, int inode) {
    struct change change = {.inode = inode};
    snprintf(change.from, sizeof change.from, "%s", from);
    snprintf(change.to, sizeof change.to, "%s", to);
    change_names(&r->now, &change);
    need(r->pending_count < MOST_CHANGES, "too many changes without a sync");
    r->pending[r->pending_count++] = change;
}

/* ---- What is there at first ---- */

static void read_file(struct replay *r, const char *path, int inode) {
    FILE *file = fopen(path, "rb");
    need(file != NULL, path);
    fseek(file, 0, SEEK_END);
    const size_t bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(bytes + 1);
    need(data && fread(data, 1, bytes, file) == bytes, path);
    fclose(file);
    set_content(&r->inodes[inode].now, data, bytes);
    set_content(&r->inodes[inode].durable, data, bytes);
    free(data);
}

static void read_folder(struct replay *r, const char *relative) {
    char path[PATH_BYTES * 2], below[PATH_BYTES];
    struct stat info;
    snprintf(path, sizeof path, "%s%s", r->root, relative);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        need((size_t)snprintf(below, sizeof below, "%s/%s", relative, entry->d_name) < sizeof below, "a long name");
        snprintf(path, sizeof path, "%s%s", r->root, below);
        need(stat(path, &info) == 0, path);
        const int inode = new_inode(r, S_ISDIR(info.st_mode));
        change_both(r, "", below, inode);
        r->pending_count = 0;
        if (S_ISDIR(info.st_mode)) read_folder(r, below);
        else read_file(r, path, inode);
    }
    if (dir) closedir(dir);
}

struct replay *replay_create(const char *root) {
    struct replay *r = calloc(1, sizeof *r);
    need(r != NULL, "no memory");
    snprintf(r->root, sizeof r->root, "%s", root);
    read_folder(r, "");
    r->durable = r->now;
    return r;
}

void replay_destroy(struct replay **replay) {
    if (!*replay) return;
    for (int i = 0; i < (*replay)->inode_count; i++) {
        free((*replay)->inodes[i].now.data);
        free((*replay)->inodes[i].durable.data);
    }
    free(*replay);
    *replay = NULL;
}

/* ---- Events ---- */

static const char *relative(const struct replay *r, const char *path) {
    const size_t length = strlen(r->root);
    return !strncmp(path, r->root, length) ? path + length : path;
}

static void create(struct replay *r, const struct disk_event *event, const char *path) {
    const int i = find_name(&r->now, path), inode = i >= 0 ? r->now.items[i].inode : new_inode(r, false);
    if (i < 0) change_both(r, "", path, inode);
    need(event->file < MOST_FILES, "too many open files");
    r->of_file[event->file] = inode;
    if (event->truncated) set_content(&r->inodes[inode].now, "", 0);
}

/* All that the library writes, it appends. */
static void append(struct content *content, const void *data, size_t bytes) {
    content->data = realloc(content->data, content->bytes + bytes + 1);
    need(content->data != NULL, "no memory");
    memcpy(content->data + content->bytes, data, bytes);
    content->bytes += bytes;
}

static bool lies_in(const char *path, const char *folder) {
    const size_t length = strlen(folder);
    return !strncmp(path, folder, length) && path[length] == '/' && !strchr(path + length + 1, '/');
}

/* What is pending in the folder becomes durable, in order. */
static void sync_folder(struct replay *r, const char *folder) {
    int left = 0;
    for (int i = 0; i < r->pending_count; i++) {
        const struct change change = r->pending[i];
        if (lies_in(*change.to ? change.to : change.from, folder)) change_names(&r->durable, &change);
        else r->pending[left++] = change;
    }
    r->pending_count = left;
}

void replay_apply(struct replay *r, const struct disk_event *event) {
    const char *path = relative(r, event->path);
    struct inode *file = &r->inodes[r->of_file[event->file]];
    switch (event->op) {
    case DISK_CREATE: create(r, event, path); break;
    case DISK_WRITE: append(&file->now, event->data, event->bytes); break;
    case DISK_TRUNCATE: file->now.bytes = event->bytes; break;
    case DISK_SYNC: set_content(&file->durable, file->now.data, file->now.bytes); break;
    case DISK_SYNC_FOLDER: sync_folder(r, path); break;
    case DISK_UNLINK: change_both(r, path, "", 0); break;
    case DISK_MKDIR: change_both(r, "", path, new_inode(r, true)); break;
    case DISK_RENAME: {
        const int i = find_name(&r->now, path);
        need(i >= 0, "a rename of nothing");
        change_both(r, path, relative(r, event->target), r->now.items[i].inode);
        break;
    }
    default: break;
    }
}

/* ---- After a power cut ---- */

int replay_pending(const struct replay *r) { return r->pending_count; }

static struct names names_left(const struct replay *r, unsigned kept) {
    struct names names = r->durable;
    for (int i = 0; i < r->pending_count; i++)
        if (kept >> i & 1) change_names(&names, &r->pending[i]);
    return names;
}

static struct content content_left(const struct inode *inode, enum replay_loss loss) {
    const struct content *now = &inode->now, *durable = &inode->durable;
    const bool same = now->bytes == durable->bytes && (!now->bytes || !memcmp(now->data, durable->data, now->bytes));
    if (same || loss == REPLAY_KEEP) return *now;
    if (loss == REPLAY_LOSE) return *durable;
    const size_t half = durable->bytes < now->bytes ? (durable->bytes + now->bytes) / 2 : now->bytes / 2;
    return (struct content){now->data, half};
}

static uint64_t hash(const void *data, size_t bytes) {
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 1099511628211u;
    return sum;
}

uint64_t replay_hash(const struct replay *r, unsigned kept, enum replay_loss loss) {
    const struct names names = names_left(r, kept);
    uint64_t sum = 0; /* in any order */
    for (int i = 0; i < names.count; i++) {
        const struct content content = content_left(&r->inodes[names.items[i].inode], loss);
        sum += test_hash(names.items[i].path, hash(content.data, content.bytes));
    }
    return sum;
}

static void remove_all(const char *root) {
    char path[PATH_BYTES * 2];
    DIR *dir = opendir(root);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(path, sizeof path, "%.255s/%.255s", root, entry->d_name);
        if (unlink(path)) remove_all(path);
    }
    if (dir) closedir(dir);
    rmdir(root);
}

/* Nothing where the folder it lay in is lost. */
static void write_file(const char *path, struct content content) {
    FILE *file = fopen(path, "wb");
    if (!file) return;
    need(fwrite(content.data ? (const void *)content.data : "", 1, content.bytes, file) == content.bytes, path);
    need(fclose(file) == 0, path);
}

void replay_write(const struct replay *r, unsigned kept, enum replay_loss loss, const char *root) {
    const struct names names = names_left(r, kept);
    char path[PATH_BYTES * 2];
    remove_all(root);
    need(mkdir(root, 0755) == 0, root);
    for (int files = 0; files < 2; files++) { /* folders first */
        for (int i = 0; i < names.count; i++) {
            const struct inode *inode = &r->inodes[names.items[i].inode];
            snprintf(path, sizeof path, "%s%s", root, names.items[i].path);
            if (inode->folder && !files) mkdir(path, 0755);
            if (!inode->folder && files) write_file(path, content_left(inode, loss));
        }
    }
}
