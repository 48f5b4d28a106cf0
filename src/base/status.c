/* Status, the calling thread's message, the log, the version. */
#include "base/base.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct error {
    hk_status status;
    char message[1024];
};
static _Thread_local struct error last_error;

static hk_log_fn *log_fn;
static void *log_user;
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;

const char *hk_status_name(hk_status status) {
    static const char *const names[] = {
        [HK_OK] = "ok",
        [HK_ERROR_INVALID] = "invalid argument",
        [HK_ERROR_UNSUPPORTED] = "not supported",
        [HK_ERROR_OUT_OF_MEMORY] = "out of memory",
        [HK_ERROR_NO_DEVICE] = "no such device",
        [HK_ERROR_DEVICE_LOST] = "device lost",
        [HK_ERROR_IO] = "input/output error",
        [HK_ERROR_FORMAT] = "wrong file format",
        [HK_ERROR_NUMERIC] = "not a number",
        [HK_ERROR_INTERNAL] = "internal error",
    };
    const size_t i = (size_t)status;
    return i < HK_LENGTH(names) ? names[i] : "unknown status";
}

const char *hk_error_message(void) { return last_error.message; }
hk_status hk_error_status(void) { return last_error.status; }

hk_status hk_fail(hk_status status, const char *format, ...) {
    char message[sizeof last_error.message]; /* the arguments may be the old message */
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    snprintf(last_error.message, sizeof last_error.message, "%s", message);
    last_error.status = status;
    return status;
}

void hk_set_log(hk_log_fn *log, void *user) { log_fn = log, log_user = user; }

void hk_remark(enum hk_log_level level, const char *format, ...) {
    if (!log_fn) return;
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    pthread_mutex_lock(&log_mutex);
    log_fn(log_user, level, message);
    pthread_mutex_unlock(&log_mutex);
}

const char *hk_version(void) { return HK_VERSION; }

bool hk_environment_flag(const char *name) {
    const char *text = getenv(name);
    return text && !strcmp(text, "1");
}

double hk_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
