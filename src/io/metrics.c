/* metrics.jsonl: one JSON object a line. */
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
    char path[4096];
};

/* Whether a line (without its end) is an object whose step is at most last_step. */
static bool keeps(const char *line, size_t bytes, int64_t last_step) {
    cJSON *object = json_parse(line, bytes);
    int64_t step;
    const bool keep = object && json_size(cJSON_GetObjectItemCaseSensitive(object, "step"), &step) && step <= last_step;
    cJSON_Delete(object);
    return keep;
}

/* The bytes of the leading lines that stay. A line cut short by a crash does not. */
static size_t kept_bytes(const char *text, size_t bytes, int64_t last_step) {
    size_t kept = 0;
    while (kept < bytes) {
        const char *end = memchr(text + kept, '\n', bytes - kept);
        if (!end || !keeps(text + kept, (size_t)(end - text) - kept, last_step)) break;
        kept = (size_t)(end - text) + 1;
    }
    return kept;
}

static hk_status cut(const char *path, int64_t last_step) {
    char *text;
    size_t bytes;
    if (access(path, F_OK)) return HK_OK;
    hk_status status = hk_file_read(path, &text, &bytes);
    if (status != HK_OK) return status;
    const size_t kept = kept_bytes(text, bytes, last_step);
    if (kept < bytes) status = hk_file_write(path, text, kept);
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
    }
    if (metrics->fd < 0) hk_metrics_close(&metrics);
    return metrics;
}

hk_status hk_metrics_write(struct hk_metrics *metrics, int64_t step, const struct hk_metric *values, int count) {
    cJSON *object = cJSON_CreateObject();
    bool ok = cJSON_AddNumberToObject(object, "step", (double)step) != NULL;
    for (int i = 0; i < count; i++) ok = json_add_float(object, values[i].name, (float)values[i].value) && ok;
    char *line = json_finish(object, ok, true);
    if (!line) return HK_ERROR_OUT_OF_MEMORY;
    const size_t bytes = strlen(line);
    const ssize_t written = write(metrics->fd, line, bytes); /* at once: a kill leaves the whole line or none */
    free(line);
    if (written == (ssize_t)bytes) return HK_OK;
    return hk_fail(HK_ERROR_IO, "cannot write %s: %s", metrics->path, written < 0 ? strerror(errno) : "no space left");
}

void hk_metrics_close(struct hk_metrics **metrics) {
    if (!metrics || !*metrics) return;
    if ((*metrics)->fd >= 0) close((*metrics)->fd);
    free(*metrics);
    *metrics = NULL;
}
