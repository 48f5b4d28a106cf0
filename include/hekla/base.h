/* Status, messages, logging and version: what every other header builds on. */
#ifndef HEKLA_BASE_H
#define HEKLA_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HK_VERSION_MAJOR 0
#define HK_VERSION_MINOR 1
#define HK_VERSION_PATCH 0
#define HK_VERSION "0.1.0"

#if defined(_WIN32)
#define HK_API
#elif defined(__GNUC__)
#define HK_API __attribute__((visibility("default")))
#else
#define HK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Every action returns one of these; every creator returns NULL where an action would return an error. In both cases
   hk_error_message() says what was wrong, where, and what to do. */
typedef enum hk_status {
    HK_OK = 0,
    HK_ERROR_INVALID,       /* an argument, a shape or a graph is wrong: the caller's mistake */
    HK_ERROR_UNSUPPORTED,   /* well formed, but this device or this version cannot do it */
    HK_ERROR_OUT_OF_MEMORY, /* host or device memory, or over the budget the caller set; the message has need and have */
    HK_ERROR_NO_DEVICE,     /* no such device on this machine; the message lists those there are */
    HK_ERROR_DEVICE_LOST,   /* the driver lost the device: destroy it, open one again, resume */
    HK_ERROR_IO,            /* the operating system refused: no such file, no space, no permission */
    HK_ERROR_FORMAT,        /* a file's content is not what its name promises */
    HK_ERROR_NUMERIC,       /* a NaN or infinity where training cannot go on */
    HK_ERROR_INTERNAL       /* a defect of Hekla or of a driver; please report the message */
} hk_status;

/* "ok", "invalid argument", ... Never NULL. Any thread. */
HK_API const char *hk_status_name(hk_status status);

/* The message and status of the last call that failed on the calling thread ("" and HK_OK where none has). The text is
   valid until the next Hekla call that fails on this thread. */
HK_API const char *hk_error_message(void);
HK_API hk_status hk_error_status(void);

enum hk_log_level { HK_LOG_DEBUG, HK_LOG_INFO, HK_LOG_WARNING, HK_LOG_ERROR };

/* Where the library's remarks go; by default nowhere: the library never prints. The callback may be called from any
   thread, one call at a time, and must not call Hekla. NULL turns logging off. Set it before other threads use Hekla. */
typedef void hk_log_fn(void *user, enum hk_log_level level, const char *message);
HK_API void hk_set_log(hk_log_fn *log, void *user);

/* The version of the library that runs, as HK_VERSION was when it was built. */
HK_API const char *hk_version(void);

#ifdef __cplusplus
}
#endif
#endif
