/* Reading safetensors (https://github.com/huggingface/safetensors, format 1):

       u64 little-endian N | N bytes of JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...} | data

   Files come from strangers: nothing in the header is believed until it was checked. */
#include "io/json.h"
#include <errno.h>
#include <fcntl.h>
#include <hekla/io.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER 100000000u /* the format's own limit */

struct hk_safetensors {
    const uint8_t *data; /* all of it: the caller's memory, or the file's, mapped */
    size_t bytes;
    int fd;        /* of the mapped file; -1: none */
    cJSON *header; /* owns the names */
    const cJSON *metadata;
    struct hk_safetensors_entry *entries;        /* by place in the file */
    const struct hk_safetensors_entry **by_name; /* sorted */
    int count;
};

static bool fail(const char *format, ...) HK_PRINTF(1, 2);
static bool fail(const char *format, ...) {
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    hk_fail(HK_ERROR_FORMAT, "safetensors: %s", message);
    return false;
}

/* Of a mapped file by a system call, which answers with an error where touching the mapping would end the process: the
   file was made shorter since, or the disk fails. */
static bool read_at(const struct hk_safetensors *file, size_t offset, void *out, size_t bytes) {
    if (file->fd < 0 && bytes) memcpy(out, file->data + offset, bytes);
    for (size_t done = 0; file->fd >= 0 && done < bytes;) {
        const ssize_t n = pread(file->fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            hk_fail(HK_ERROR_IO, "cannot read: %s", n ? strerror(errno) : "the file was made shorter meanwhile");
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static bool read_dtype(const char *name, const cJSON *item, enum hk_dtype *dtype) {
    static const char *const names[HK_DTYPE_COUNT] = {"F32", "F16", "BF16", "I32", "U8", "I8"};
    static const char *const others[] = {"BOOL", "I16", "U16", "U32", "I64", "U64", "F64", "F8_E4M3", "F8_E5M2"};
    const char *text = cJSON_GetStringValue(item);
    if (!text) return fail("%.128s has no dtype", name);
    for (int i = 0; i < HK_DTYPE_COUNT; i++) {
        if (strcmp(text, names[i])) continue;
        *dtype = (enum hk_dtype)i;
        return true;
    }
    for (size_t i = 0; i < HK_LENGTH(others); i++) {
        if (strcmp(text, others[i])) continue;
        hk_fail(HK_ERROR_UNSUPPORTED, "safetensors: %.128s is %s; Hekla reads F32, F16, BF16, I32, U8 and I8", name, text);
        return false;
    }
    return fail("%.128s has the unknown dtype \"%.32s\"", name, text);
}

/* elements: the product of the sizes, checked against overflow. */
static bool read_shape(const char *name, const cJSON *item, struct hk_shape *shape, int64_t *elements) {
    if (!cJSON_IsArray(item)) return fail("%.128s has no shape", name);
    const cJSON *size;
    *elements = 1;
    shape->rank = 0;
    cJSON_ArrayForEach(size, item) {
        if (shape->rank == HK_MAX_RANK) return fail("%.128s has more than %d dimensions", name, HK_MAX_RANK);
        int64_t *out = &shape->size[shape->rank++];
        if (!json_size(size, out)) return fail("%.128s has a size that is no whole number from 0 to 2^53", name);
        if (__builtin_mul_overflow(*elements, *out, elements)) return fail("the shape of %.128s overflows", name);
    }
    return true;
}

static bool read_range(const struct hk_safetensors *file, size_t data_start, const cJSON *item, int64_t elements,
                       struct hk_safetensors_entry *entry) {
    const char *name = entry->name;
    const cJSON *first = cJSON_IsArray(item) ? item->child : NULL, *second = first ? first->next : NULL;
    int64_t begin, end, need;
    if (!second || second->next || !json_size(first, &begin) || !json_size(second, &end))
        return fail("%.128s has no data_offsets of two whole numbers", name);
    const size_t have = file->bytes - data_start;
    if (begin > end || (uint64_t)end > have)
        return fail("the data of %.128s, bytes %" PRId64 " to %" PRId64 ", is outside the file's %zu bytes of data",
                    name, begin, end, have);
    if (__builtin_mul_overflow(elements, (int64_t)hk_dtype_size(entry->dtype), &need) || need != end - begin)
        return fail("%.128s has %" PRId64 " bytes of data, its shape and dtype another number", name, end - begin);
    entry->data = file->data + data_start + begin;
    entry->bytes = (size_t)need;
    return true;
}

static bool read_entry(const struct hk_safetensors *file, size_t data_start, const cJSON *item,
                       struct hk_safetensors_entry *entry) {
    int64_t elements = 0;
    entry->name = item->string;
    if (!cJSON_IsObject(item)) return fail("%.128s is not described by an object", entry->name);
    return read_dtype(entry->name, cJSON_GetObjectItemCaseSensitive(item, "dtype"), &entry->dtype) &&
           read_shape(entry->name, cJSON_GetObjectItemCaseSensitive(item, "shape"), &entry->shape, &elements) &&
           read_range(file, data_start, cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), elements, entry);
}

static bool check_metadata(const cJSON *metadata) {
    const cJSON *value;
    if (!cJSON_IsObject(metadata)) return fail("__metadata__ is not an object");
    cJSON_ArrayForEach(value, metadata) {
        if (!cJSON_IsString(value)) return fail("__metadata__ has a value that is no text: \"%.128s\"", value->string);
    }
    return true;
}

static int compare_place(const void *a, const void *b) {
    const struct hk_safetensors_entry *x = a, *y = b;
    const uintptr_t px = (uintptr_t)x->data, py = (uintptr_t)y->data;
    if (px != py) return px < py ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int compare_name(const void *a, const void *b) {
    const struct hk_safetensors_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* The entries, in order of place, must follow each other without gap or overlap, to the end of the file. */
static bool check_tiling(const struct hk_safetensors *file, size_t data_start) {
    const uint8_t *at = file->data + data_start;
    for (int i = 0; i < file->count; i++) {
        const struct hk_safetensors_entry *e = &file->entries[i];
        if ((const uint8_t *)e->data < at) return fail("the data of %.128s overlaps that of another tensor", e->name);
        if ((const uint8_t *)e->data > at) return fail("before the data of %.128s lie bytes of no tensor", e->name);
        at += e->bytes;
    }
    if (at == file->data + file->bytes) return true;
    return fail("%zu bytes at the end belong to no tensor", (size_t)(file->data + file->bytes - at));
}

static bool check_names(struct hk_safetensors *file) {
    for (int i = 0; i < file->count; i++) file->by_name[i] = &file->entries[i];
    qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, compare_name);
    for (int i = 1; i < file->count; i++)
        if (!strcmp(file->by_name[i - 1]->name, file->by_name[i]->name))
            return fail("%.128s is there twice", file->by_name[i]->name);
    return true;
}

static bool read_header_size(const struct hk_safetensors *file, size_t *size) {
    uint8_t first[8];
    uint64_t claim = 0;
    if (file->bytes < sizeof first) return fail("%zu bytes are too few for a header", file->bytes);
    if (!read_at(file, 0, first, sizeof first)) return false;
    for (int i = 0; i < 8; i++) claim |= (uint64_t)first[i] << (8 * i);
    if (claim > file->bytes - 8)
        return fail("the header claims %" PRIu64 " bytes, the file has %zu: it was cut, or is no safetensors file",
                    claim, file->bytes);
    if (claim > MAX_HEADER) return fail("the header claims %" PRIu64 " bytes; the format allows %u", claim, MAX_HEADER);
    *size = (size_t)claim;
    return true;
}

/* Sets header, and data_start. */
static bool read_header(struct hk_safetensors *file, size_t *data_start) {
    size_t size = 0;
    if (!read_header_size(file, &size)) return false;
    char *text = malloc(size + 1);
    if (!text) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "safetensors: no memory for a header of %zu bytes", size);
        return false;
    }
    const bool ok = read_at(file, 8, text, size);
    if (ok) file->header = json_parse(text, size);
    free(text);
    *data_start = 8 + size;
    if (ok && !file->header) hk_fail(hk_error_status(), "safetensors: the header is wrong: %s", hk_error_message());
    return file->header != NULL;
}

static bool read_entries(struct hk_safetensors *file, size_t data_start) {
    const size_t items = (size_t)cJSON_GetArraySize(file->header);
    file->entries = calloc(items + 1, sizeof *file->entries);
    file->by_name = calloc(items + 1, sizeof *file->by_name);
    if (!file->entries || !file->by_name) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "safetensors: no memory for a list of %zu tensors", items);
        return false;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, file->header) {
        if (!strcmp(item->string, "__metadata__")) {
            if (file->metadata) return fail("__metadata__ is there twice");
            if (!check_metadata(item)) return false;
            file->metadata = item;
        } else if (!read_entry(file, data_start, item, &file->entries[file->count++])) {
            return false;
        }
    }
    qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_place);
    return check_names(file) && check_tiling(file, data_start);
}

/* Takes over the mapping and the descriptor, if there is one, also where it fails. */
static struct hk_safetensors *parse(const void *data, size_t bytes, int fd) {
    struct hk_safetensors *file = calloc(1, sizeof *file);
    size_t data_start = 0;
    if (!file) {
        if (fd >= 0) munmap((void *)(uintptr_t)data, bytes), close(fd);
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "safetensors: no memory");
        return NULL;
    }
    file->data = data, file->bytes = bytes, file->fd = fd;
    if (!read_header(file, &data_start) || !read_entries(file, data_start)) hk_safetensors_destroy(&file);
    return file;
}

struct hk_safetensors *hk_safetensors_parse(const void *data, size_t bytes) {
    if (data) return parse(data, bytes, -1);
    hk_fail(HK_ERROR_INVALID, "safetensors: there is nothing to read");
    return NULL;
}

struct hk_safetensors *hk_safetensors_open(const char *path) {
    struct stat info;
    /* a pipe without a writer is refused rather than waited for */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info)) goto fail;
    if (!S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        goto fail;
    }
    if (info.st_size == 0) { /* which mmap refuses */
        hk_fail(HK_ERROR_FORMAT, "%s: safetensors: the file is empty", path);
        close(fd);
        return NULL;
    }
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) goto fail;
    struct hk_safetensors *file = parse(data, (size_t)info.st_size, fd);
    if (!file) hk_fail(hk_error_status(), "%s: %s", path, hk_error_message());
    return file;
fail:
    hk_fail(errno == ENOMEM ? HK_ERROR_OUT_OF_MEMORY : HK_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return NULL;
}

void hk_safetensors_destroy(struct hk_safetensors **file) {
    if (!file || !*file) return;
    struct hk_safetensors *f = *file;
    if (f->fd >= 0) munmap((void *)(uintptr_t)f->data, f->bytes), close(f->fd);
    cJSON_Delete(f->header);
    free(f->entries);
    free(f->by_name);
    free(f);
    *file = NULL;
}

hk_status hk_safetensors_read(const struct hk_safetensors *file, const struct hk_safetensors_entry *entry,
                              void *buffer) {
    if (!file || !entry || (entry->bytes && !buffer))
        return hk_fail(HK_ERROR_INVALID, "safetensors: nothing to read, or nowhere to put it");
    if (read_at(file, (size_t)((const uint8_t *)entry->data - file->data), buffer, entry->bytes)) return HK_OK;
    return hk_fail(hk_error_status(), "%s: %s", entry->name, hk_error_message());
}

int hk_safetensors_count(const struct hk_safetensors *file) { return file ? file->count : 0; }

const struct hk_safetensors_entry *hk_safetensors_entry(const struct hk_safetensors *file, int i) {
    return file && i >= 0 && i < file->count ? &file->entries[i] : NULL;
}

const struct hk_safetensors_entry *hk_safetensors_find(const struct hk_safetensors *file, const char *name) {
    if (!file || !name) return NULL;
    const struct hk_safetensors_entry wanted = {.name = name}, *key = &wanted, **found;
    found = bsearch(&key, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_name);
    return found ? *found : NULL;
}

const char *hk_safetensors_metadata(const struct hk_safetensors *file, const char *key) {
    if (!file || !file->metadata || !key) return NULL;
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file->metadata, key));
}
