/* Writing safetensors. */
#include "io/json.h"
#include "io/write.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const dtype_names[HK_DTYPE_COUNT] = {"F32", "F16", "BF16", "I32", "U8", "I8"};

static hk_status check_entry(const struct hk_safetensors_entry *e, bool fetched) {
    if (!e->name || !strcmp(e->name, "__metadata__"))
        return hk_fail(HK_ERROR_INVALID, "safetensors: a tensor has no name, or the name __metadata__");
    if (!json_is_utf8(e->name, strlen(e->name)))
        return hk_fail(HK_ERROR_INVALID, "safetensors: a tensor's name is not UTF-8");
    if ((unsigned)e->dtype >= HK_DTYPE_COUNT || e->shape.rank < 0 || e->shape.rank > HK_MAX_RANK)
        return hk_fail(HK_ERROR_INVALID, "safetensors: %.128s has no valid dtype or rank", e->name);
    int64_t need = (int64_t)hk_dtype_size(e->dtype);
    for (int i = 0; i < e->shape.rank; i++)
        if (e->shape.size[i] < 0 || __builtin_mul_overflow(need, e->shape.size[i], &need))
            return hk_fail(HK_ERROR_INVALID, "safetensors: the shape of %.128s is wrong", e->name);
    if ((uint64_t)need != e->bytes || (need && !e->data && !fetched))
        return hk_fail(HK_ERROR_INVALID, "safetensors: %.128s needs %" PRId64 " bytes of data, not %zu", e->name, need,
                       e->data || fetched ? e->bytes : 0);
    return HK_OK;
}

static bool add_entry(cJSON *header, const struct hk_safetensors_entry *e, uint64_t begin) {
    cJSON *item = cJSON_AddObjectToObject(header, e->name);
    bool ok = cJSON_AddStringToObject(item, "dtype", dtype_names[e->dtype]) != NULL;
    cJSON *shape = cJSON_AddArrayToObject(item, "shape"), *range = cJSON_AddArrayToObject(item, "data_offsets");
    for (int i = 0; i < e->shape.rank; i++)
        ok = json_add_item(shape, cJSON_CreateNumber((double)e->shape.size[i])) && ok;
    ok = json_add_item(range, cJSON_CreateNumber((double)begin)) && ok;
    return json_add_item(range, cJSON_CreateNumber((double)(begin + e->bytes))) && ok;
}

static bool add_metadata(cJSON *header, const struct safetensors_metadata *metadata) {
    if (metadata->count == 0) return true;
    cJSON *object = cJSON_AddObjectToObject(header, "__metadata__");
    bool ok = object != NULL;
    for (int i = 0; i < metadata->count; i++)
        ok = cJSON_AddStringToObject(object, metadata->keys[i], metadata->values[i]) && ok;
    return ok;
}

/* The header's text, padded with spaces so that the data begins at a multiple of 8 bytes; NULL when out of memory.
   order receives the entries' indices as they will lie in the file. */
static char *format_header(const struct hk_safetensors_entry *entries, int count,
                           const struct safetensors_metadata *metadata, int *order) {
    cJSON *header = cJSON_CreateObject();
    bool ok = header && add_metadata(header, metadata);
    uint64_t at = 0;
    int placed = 0;
    for (size_t size = 4; size; size /= 2) {
        for (int i = 0; i < count; i++) {
            if (hk_dtype_size(entries[i].dtype) != size) continue;
            ok = ok && add_entry(header, &entries[i], at);
            at += entries[i].bytes;
            order[placed++] = i;
        }
    }
    char *text = ok ? cJSON_PrintUnformatted(header) : NULL;
    cJSON_Delete(header);
    if (!text) return NULL;
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *out = malloc(padded + 1);
    if (out) snprintf(out, padded + 1, "%-*s", (int)padded, text);
    cJSON_free(text);
    return out;
}

static bool write_all(int fd, const void *data, size_t bytes) {
    for (const char *p = data; bytes;) {
        const ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        p += n, bytes -= (size_t)n;
    }
    return true;
}

static hk_status fail_write(const char *path) {
    return hk_fail(HK_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
}

static hk_status write_data(int fd, const char *path, const struct hk_safetensors_entry *entries, int count,
                            const int *order, safetensors_fetch *fetch, void *user) {
    size_t largest = 0;
    for (int i = 0; i < count; i++)
        if (!entries[i].data) largest = HK_MAX(largest, entries[i].bytes);
    void *buffer = largest ? malloc(largest) : NULL;
    if (largest && !buffer)
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes to write %s", largest, path);
    hk_status status = HK_OK;
    for (int i = 0; i < count && status == HK_OK; i++) {
        const struct hk_safetensors_entry *e = &entries[order[i]];
        if (!e->data && e->bytes) status = fetch(user, order[i], buffer);
        if (status == HK_OK && !write_all(fd, e->data ? e->data : buffer, e->bytes)) status = fail_write(path);
    }
    free(buffer);
    return status;
}

/* The whole file to path.part, synced, then under its name. */
static hk_status write_file(const char *path, const char *header, const struct hk_safetensors_entry *entries, int count,
                            const int *order, safetensors_fetch *fetch, void *user) {
    char part[4096];
    uint8_t size[8];
    if ((size_t)snprintf(part, sizeof part, "%s.part", path) >= sizeof part)
        return hk_fail(HK_ERROR_IO, "cannot write %.64s...: the name is too long", path);
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fail_write(part);
    for (int i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)strlen(header) >> (8 * i));
    hk_status status = HK_OK;
    if (!write_all(fd, size, sizeof size) || !write_all(fd, header, strlen(header))) status = fail_write(path);
    if (status == HK_OK) status = write_data(fd, path, entries, count, order, fetch, user);
    if (status == HK_OK && fsync(fd)) status = fail_write(path);
    if (close(fd) && status == HK_OK) status = fail_write(path);
    if (status == HK_OK && rename(part, path)) status = fail_write(path);
    if (status != HK_OK) unlink(part);
    return status;
}

hk_status safetensors_stream(const char *path, const struct hk_safetensors_entry *entries, int count,
                             const struct safetensors_metadata *metadata, safetensors_fetch *fetch, void *user) {
    for (int i = 0; i < count; i++) {
        const hk_status status = check_entry(&entries[i], fetch != NULL);
        if (status != HK_OK) return status;
    }
    int *order = malloc(((size_t)count + 1) * sizeof *order);
    char *header = order ? format_header(entries, count, metadata, order) : NULL;
    const hk_status status = header ? write_file(path, header, entries, count, order, fetch, user)
                                    : hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for the header of %s", path);
    free(header);
    free(order);
    return status;
}

hk_status hk_safetensors_write(const char *path, const struct hk_safetensors_entry *entries, int count,
                               const char *const *keys, const char *const *values, int metadata_count) {
    const struct safetensors_metadata metadata = {keys, values, metadata_count};
    if (!path || count < 0 || metadata_count < 0 || (count && !entries) || (metadata_count && (!keys || !values)))
        return hk_fail(HK_ERROR_INVALID, "safetensors: nothing to write, or no name to write it to");
    return safetensors_stream(path, entries, count, &metadata, NULL, NULL);
}
