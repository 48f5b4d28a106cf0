/* Messages, JSON lines and numbers for people. */
#include "cli.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void print_message(const char *command, const char *format, va_list args) {
    fflush(stdout);
    fprintf(stderr, "hekla: %s%s", command ? command : "", command ? ": " : "");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int fail_usage(const char *command, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_message(command, format, args);
    va_end(args);
    fprintf(stderr, "Try hekla %s --help\n", command);
    return EXIT_USAGE;
}

int fail_with(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_message(NULL, format, args);
    va_end(args);
    return EXIT_FAILED;
}

int fail_library(void) { return fail_with("%s", hk_error_message()); }

void note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_message(NULL, format, args);
    va_end(args);
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void json_print_line(cJSON *object) {
    char *text = cJSON_PrintUnformatted(object);
    printf("%s\n", text ? text : "{}");
    fflush(stdout);
    cJSON_free(text);
    cJSON_Delete(object);
}

double rounded(double x, int digits) {
    const double scale = pow(10, digits);
    return round(x * scale) / scale;
}

const char *bytes_text(uint64_t bytes, char *text, size_t size) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double x = (double)bytes;
    int unit = 0;
    while (x >= 1000 && unit < COUNT_OF(units) - 1) x /= 1000, unit++;
    snprintf(text, size, x < 10 && unit ? "%.1f %s" : "%.0f %s", x, units[unit]);
    return text;
}

bool output_ok(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return true;
    fail_with("cannot write to the output: %s", strerror(errno));
    return false;
}
