/* A device's pipelines against those of an earlier report. */
#include "lab.h"
#include "report.h"
#include <stdlib.h>
#include <string.h>

static const char *shader_of(const cJSON *row) { return cJSON_GetStringValue(row->child); }
static const char *spec_of(const cJSON *row) { return cJSON_GetStringValue(row->child->next); }

static int compare_rows(const void *a, const void *b) {
    const cJSON *x = *(const cJSON *const *)a, *y = *(const cJSON *const *)b;
    const int shaders = strcmp(shader_of(x), shader_of(y));
    return shaders ? shaders : strcmp(spec_of(x), spec_of(y));
}

struct rows {
    const cJSON **list;
    int count;
};

static struct rows sorted(const cJSON *device) {
    const cJSON *pipelines = cJSON_GetObjectItemCaseSensitive(device, "pipelines"), *row;
    struct rows rows = {calloc((size_t)cJSON_GetArraySize(pipelines) + 1, sizeof(cJSON *)), 0};
    if (!rows.list) abort();
    cJSON_ArrayForEach(row, pipelines) rows.list[rows.count++] = row;
    qsort(rows.list, (size_t)rows.count, sizeof *rows.list, compare_rows);
    return rows;
}

/* Of most numbers more is worse. Negative: not known. */
static bool is_worse(int number, double before, double after) {
    if (before < 0 || after < 0) return number == LAB_LOOP && before > 0; /* a loop that is no longer found */
    return number == VK_STATISTIC_OCCUPANCY || number == LAB_LOOP ? after * 1.1 < before : after > before * 1.1;
}

static int compare_numbers(const char *device, const cJSON *old, const cJSON *now) {
    const cJSON *a = old->child->next->next, *b = now->child->next->next;
    int worse = 0;
    for (int i = 0; i < LAB_NUMBERS && a && b; i++, a = a->next, b = b->next) {
        if (!is_worse(i, a->valuedouble, b->valuedouble)) continue;
        printf("worse: %s: %s (%s): %s %g, was %g\n", device, shader_of(now), spec_of(now), lab_number_name(i),
               b->valuedouble, a->valuedouble);
        worse++;
    }
    return worse;
}

/* How many pipelines of each shader one list has and the other lacks. */
static void print_missing(const char *device, const char *what, const struct rows *here, const struct rows *there) {
    for (int i = 0, count = 0; i < here->count; i++) {
        count += !bsearch(&here->list[i], there->list, (size_t)there->count, sizeof *there->list, compare_rows);
        if (i + 1 < here->count && !strcmp(shader_of(here->list[i]), shader_of(here->list[i + 1]))) continue;
        if (count) printf("%s: %s: %s: %d pipelines\n", what, device, shader_of(here->list[i]), count);
        count = 0;
    }
}

int report_compare(const cJSON *old, const cJSON *now) {
    const char *device = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(now, "device"));
    const char *driver = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(now, "driver"));
    const char *before = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(old, "driver"));
    int worse = 0;
    if (!old) {
        printf("new: %s\n", device);
        return 0;
    }
    if (strcmp(driver, before)) printf("%s: the driver is %s, was %s: differences may be its own\n", device, driver, before);
    struct rows was = sorted(old), is = sorted(now);
    for (int i = 0; i < is.count; i++) {
        const cJSON *const *row = bsearch(&is.list[i], was.list, (size_t)was.count, sizeof *was.list, compare_rows);
        if (row) worse += compare_numbers(device, *row, is.list[i]);
    }
    print_missing(device, "new", &is, &was);
    print_missing(device, "gone", &was, &is);
    free(was.list);
    free(is.list);
    return worse;
}
