/* metrics.jsonl: one JSON object a line. */
#include "io/files.h"
#include "io/json.h"
#include <errno.h>
#include <fcntl.h>
#include <hekla/io.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct hk_metrics {
    int fd;
    off_t end; /* of the last whole line; -1: not a file that has one */
    bool torn; /* part of a line follows it */
    char path[4096];
};

/* Whether a line (without its end) is an object whose step is at most last_step. False with *unknown where there is no
   memory to find out. */
static bool keeps(const char *line, size_t bytes, int64_t last_step, bool *unknown) {
    cJSON *object = json_parse(line, bytes);
    int64_t step;
    const bool keep = object && json_size(cJSON_GetObjectItemCaseSensitive(object, "step"), &step) && step <= last_step;
    *unknown = !object && hk_error_status() == HK_ERROR_OUT_OF_MEMORY;
    cJSON_Delete(object);
    return keep;
}

/* A line cut short by a crash does not stay. */
size_t metrics_kept(const char *text, size_t bytes, int64_t last_step) {
    size_t kept = 0;
    bool unknown = false;
    while (kept < bytes) {
        const char *end = memchr(text + kept, '\n', bytes - kept);
        if (!end || !keeps(text + kept, (size_t)(end - text) - kept, last_step, &unknown)) break;
        kept = (size_t)(end - text) + 1;
    }
    return unknown ? SIZE_MAX : kept;
}

static hk_status cut(const char *path, int64_t last_step) {
    char *text;
    size_t bytes;
    if (access(path, F_OK)) return HK_OK;
    hk_status status = hk_file_read(path, &text, &bytes);
    if (status != HK_OK) return status;
    const size_t kept = metrics_kept(text, bytes, last_step);
    if (kept == SIZE_MAX) status = hk_error_status();
    else if (kept < bytes) status = hk_file_write(path, text, kept);
    free(text);
    return status;
}

struct hk_metrics *hk_metrics_open(const char *folder, int64_t last_step) {
    if (hk_folder_make(folder) != HK_OK) return NULL;
    struct hk_metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "no memory for metrics");
        return NULL;
    }
    metrics->fd = -1;
    if ((size_t)snprintf(metrics->path, sizeof metrics->path, "%s/metrics.jsonl", folder) >= sizeof metrics->path) {
        hk_fail(HK_ERROR_IO, "the folder's name is too long: %.64s...", folder);
    } else if (cut(metrics->path, last_step) == HK_OK) {
        metrics->fd = open(metrics->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (metrics->fd < 0) hk_fail(HK_ERROR_IO, "cannot open %s: %s", metrics->path, strerror(errno));
        else metrics->end = lseek(metrics->fd, 0, SEEK_END);
    }
    if (metrics->fd < 0) hk_metrics_close(&metrics);
    return metrics;
}

/* A line that did not fit is taken back, so that those after it can be read. */
static bool take_back(struct hk_metrics *metrics) {
    if (metrics->torn && metrics->end >= 0) metrics->torn = ftruncate(metrics->fd, metrics->end) != 0;
    return !metrics->torn || metrics->end < 0;
}

static hk_status write_line(struct hk_metrics *metrics, const char *line, size_t bytes) {
    ssize_t written = -1;
    if (take_back(metrics)) { /* at once: a kill leaves the whole line or none */
        do written = write(metrics->fd, line, bytes);
        while (written < 0 && errno == EINTR);
    }
    if (written == (ssize_t)bytes) {
        if (metrics->end >= 0) metrics->end += written;
        return HK_OK;
    }
    const hk_status status =
        hk_fail(HK_ERROR_IO, "cannot write %s: %s", metrics->path, strerror(written < 0 ? errno : ENOSPC));
    metrics->torn = true;
    take_back(metrics);
    return status;
}

hk_status hk_metrics_write(struct hk_metrics *metrics, int64_t step, const struct hk_metric *values, int count) {
    cJSON *object = cJSON_CreateObject();
    bool ok = cJSON_AddNumberToObject(object, "step", (double)step) != NULL;
    for (int i = 0; i < count; i++) ok = json_add_float(object, values[i].name, (float)values[i].value) && ok;
    char *line = json_finish(object, ok, true);
    if (!line) return HK_ERROR_OUT_OF_MEMORY;
    const hk_status status = write_line(metrics, line, strlen(line));
    free(line);
    return status;
}

void hk_metrics_close(struct hk_metrics **metrics) {
    if (!metrics || !*metrics) return;
    if ((*metrics)->fd >= 0) close((*metrics)->fd);
    free(*metrics);
    *metrics = NULL;
}
