/* The file of measurements, UTF-8 JSON:

       {"format": "hekla tuning", "version": 1,
        "device": NAME, "vendor_id": N, "device_id": N, "driver": NAME AND VERSION,      of struct hk_device_info
        "choices": [{"work": TEXT, "kernel": TEXT, "standard": TEXT, "kernels": N, "us": TIME, "standard_us": TIME}, ...]}

   The fields are struct hk_tuning's, times in microseconds. A file that differs from this in anything counts as damaged.
   Writers take turns by a lock on FILE.lock, and each keeps the others' entries. */
#include "graph/tuning.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, MOST_ENTRIES = 4096, MOST_BYTES = 4 << 20, LOCK_TRIES = 200 /* of 10 ms */ };
static const char format[] = "hekla tuning";

struct hk_tunings {
    pthread_mutex_t mutex;
    struct hk_tuning *items;
    int count, capacity;
    char path[1024]; /* "" where nothing is kept */
    bool given;      /* the path is the caller's: a file there that is not of this device is not ours to replace */
    bool changed;    /* since it was saved */
    bool told;       /* the caller knows that it could not be */
    char device[256], driver[256];
    uint32_t vendor_id, device_id;
};

/* ---- Entries; with the mutex held ---- */

static bool is_measured(const struct hk_tuning *tuning) { return tuning->seconds > 0; }

static struct hk_tuning *find(const struct hk_tunings *t, const char *work) {
    for (int i = 0; i < t->count; i++)
        if (!strcmp(t->items[i].work, work)) return &t->items[i];
    return NULL;
}

/* Where there are too many, or no memory, the work is as if it had not been measured. */
static void add(struct hk_tunings *t, const struct hk_tuning *tuning, bool replace) {
    struct hk_tuning *there = find(t, tuning->work);
    if (there && is_measured(there) && !replace) return;
    const int uses = there ? there->uses : 0;
    if (!there) {
        if (t->count >= MOST_ENTRIES || !hk_grow(&t->items, &t->capacity, t->count + 1, sizeof *t->items)) return;
        there = &t->items[t->count++];
    }
    *there = *tuning;
    there->uses = uses;
}

/* ---- Reading ---- */

enum found { NOTHING, OURS, FOREIGN /* another device's or driver's */, DAMAGED };

static bool take_text(const cJSON *object, const char *key, char *out, size_t bytes) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsString(item) || !item->valuestring[0] || strlen(item->valuestring) >= bytes) return false;
    for (const char *c = item->valuestring; *c; c++)
        if (*c < ' ' || *c > '~') return false;
    strcpy(out, item->valuestring);
    return true;
}

static bool take_number(const cJSON *object, const char *key, double low, double high, double *out) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= low && item->valuedouble <= high)) return false;
    *out = item->valuedouble;
    return true;
}

static bool take_entry(const cJSON *object, struct hk_tuning *tuning) {
    double kernels, us, standard_us;
    *tuning = (struct hk_tuning){0};
    if (!take_text(object, "work", tuning->work, sizeof tuning->work) ||
        !take_text(object, "kernel", tuning->kernel, sizeof tuning->kernel) ||
        !take_text(object, "standard", tuning->standard, sizeof tuning->standard) ||
        !take_number(object, "kernels", 2, 1000, &kernels) || !take_number(object, "us", 1e-6, 1e12, &us) ||
        !take_number(object, "standard_us", 1e-6, 1e12, &standard_us))
        return false;
    tuning->kernels = (int)kernels, tuning->seconds = us * 1e-6, tuning->standard_seconds = standard_us * 1e-6;
    return true;
}

static bool is_text(const cJSON *object, const char *key, const char *text) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) && !strcmp(item->valuestring, text);
}

static enum found check_header(const struct hk_tunings *t, const cJSON *file) {
    double version, vendor, device;
    if (!is_text(file, "format", format) || !take_number(file, "version", VERSION, VERSION, &version) ||
        !take_number(file, "vendor_id", 0, UINT32_MAX, &vendor) || !take_number(file, "device_id", 0, UINT32_MAX, &device))
        return DAMAGED;
    const bool same = is_text(file, "device", t->device) && is_text(file, "driver", t->driver) &&
                      vendor == (double)t->vendor_id && device == (double)t->device_id;
    return same ? OURS : FOREIGN;
}

/* All entries are right before the first is taken. */
static enum found take_file(struct hk_tunings *t, const cJSON *file) {
    const enum found found = check_header(t, file);
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(file, "choices"), *choice;
    struct hk_tuning tuning;
    if (found != OURS) return found;
    if (!cJSON_IsArray(choices) || cJSON_GetArraySize(choices) > MOST_ENTRIES) return DAMAGED;
    cJSON_ArrayForEach(choice, choices) if (!take_entry(choice, &tuning)) return DAMAGED;
    cJSON_ArrayForEach(choice, choices) if (take_entry(choice, &tuning)) add(t, &tuning, false);
    return OURS;
}

/* Adds what the file has and t has not. */
static enum found load(struct hk_tunings *t) {
    struct stat info;
    char *text = NULL;
    size_t bytes;
    if (!t->path[0] || stat(t->path, &info)) return NOTHING;
    if (!S_ISREG(info.st_mode) || info.st_size > MOST_BYTES || hk_file_read(t->path, &text, &bytes)) return DAMAGED;
    cJSON *file = cJSON_ParseWithOpts(text, NULL, true);
    const enum found found = strlen(text) == bytes && file ? take_file(t, file) : DAMAGED;
    cJSON_Delete(file);
    free(text);
    return found;
}

/* ---- Writing ---- */

static bool add_entry(cJSON *choices, const struct hk_tuning *tuning) {
    cJSON *item = cJSON_CreateObject();
    const bool done = item && cJSON_AddStringToObject(item, "work", tuning->work) &&
                      cJSON_AddStringToObject(item, "kernel", tuning->kernel) &&
                      cJSON_AddStringToObject(item, "standard", tuning->standard) &&
                      cJSON_AddNumberToObject(item, "kernels", tuning->kernels) &&
                      cJSON_AddNumberToObject(item, "us", tuning->seconds * 1e6) &&
                      cJSON_AddNumberToObject(item, "standard_us", tuning->standard_seconds * 1e6);
    if (done && cJSON_AddItemToArray(choices, item)) return true;
    cJSON_Delete(item);
    return false;
}

static char *make_text(const struct hk_tunings *t) {
    cJSON *file = cJSON_CreateObject(), *choices = NULL;
    bool done = cJSON_AddStringToObject(file, "format", format) && cJSON_AddNumberToObject(file, "version", VERSION) &&
                cJSON_AddStringToObject(file, "device", t->device) &&
                cJSON_AddNumberToObject(file, "vendor_id", t->vendor_id) &&
                cJSON_AddNumberToObject(file, "device_id", t->device_id) &&
                cJSON_AddStringToObject(file, "driver", t->driver) && (choices = cJSON_AddArrayToObject(file, "choices"));
    for (int i = 0; i < t->count && done; i++)
        if (is_measured(&t->items[i])) done = add_entry(choices, &t->items[i]);
    char *text = done ? cJSON_Print(file) : NULL;
    cJSON_Delete(file);
    return text;
}

static hk_status write_file(const struct hk_tunings *t) {
    char *text = make_text(t);
    if (!text) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    const hk_status status = hk_file_write(t->path, text, strlen(text));
    cJSON_free(text);
    return status;
}

static hk_status save(struct hk_tunings *t) {
    if (!t->changed) return HK_OK;
    if (!t->path[0]) return hk_fail(HK_ERROR_IO, "tuning: there is no place to keep what was measured");
    char name[sizeof t->path + 8];
    snprintf(name, sizeof name, "%s.lock", t->path);
    const int lock = hk_file_lock(name, O_RDWR | O_CREAT, LOCK_TRIES); /* one who has it may have been stopped */
    if (lock < 0) return hk_fail(HK_ERROR_IO, "tuning: %s cannot be locked: %s", name, strerror(errno));
    const enum found found = load(t);
    hk_status status;
    if (t->given && (found == FOREIGN || found == DAMAGED))
        status = hk_fail(HK_ERROR_FORMAT, "tuning: %s is %s and is left alone", t->path,
                         found == FOREIGN ? "of another device" : "damaged or no file of tunings");
    else status = write_file(t);
    t->changed = status != HK_OK;
    close(lock);
    return status;
}

/* ---- What devices and backends call ---- */

/* Named by the device's UUID, which the driver's version is part of. */
static void set_path(struct hk_tunings *t, const struct hk_device_params *params, const struct hk_device_info *info) {
    char folder[900], name[33];
    int n = 0;
    t->given = params->tuning != NULL;
    if (t->given) n = snprintf(t->path, sizeof t->path, "%s", params->tuning);
    if ((size_t)n >= sizeof t->path) {
        hk_remark(HK_LOG_WARNING, "tuning: %.64s... is too long a name: nothing is kept", params->tuning);
        t->path[0] = 0;
    }
    if (t->given || !hk_cache_folder(params->cache_dir, folder, sizeof folder)) return;
    for (int i = 0; i < 16; i++) snprintf(name + 2 * i, 3, "%02x", info->uuid[i]);
    snprintf(t->path, sizeof t->path, "%s/tuning-%s.json", folder, name);
}

struct hk_tunings *hk_tunings_open(const struct hk_device_params *params, const struct hk_device_info *info) {
    struct hk_tunings *t = calloc(1, sizeof *t);
    if (!t) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
        return NULL;
    }
    pthread_mutex_init(&t->mutex, NULL);
    snprintf(t->device, sizeof t->device, "%s", info->name);
    snprintf(t->driver, sizeof t->driver, "%s", info->driver);
    t->vendor_id = info->vendor_id, t->device_id = info->device_id;
    set_path(t, params, info);
    const enum found found = load(t);
    if (found == DAMAGED) hk_remark(HK_LOG_WARNING, "tuning: %s is damaged and is ignored", t->path);
    if (found == FOREIGN)
        hk_remark(HK_LOG_WARNING, "tuning: %s is of another device or driver than %s, %s and is ignored", t->path, t->device,
                  t->driver);
    return t;
}

void hk_tunings_close(struct hk_tunings *t) {
    if (!t) return;
    if (t->path[0] && save(t) && !t->told)
        hk_remark(HK_LOG_WARNING, "what was measured is not kept: %s", hk_error_message());
    pthread_mutex_destroy(&t->mutex);
    free(t->items);
    free(t);
}

bool hk_tunings_find(struct hk_tunings *t, const char *work, int uses, struct hk_tuning *tuning) {
    pthread_mutex_lock(&t->mutex);
    struct hk_tuning *there = find(t, work);
    if (there) there->uses += uses, *tuning = *there;
    pthread_mutex_unlock(&t->mutex);
    return there;
}

bool hk_tunings_empty(struct hk_tunings *t) {
    pthread_mutex_lock(&t->mutex);
    const bool empty = !t->count;
    pthread_mutex_unlock(&t->mutex);
    return empty;
}

void hk_tunings_add(struct hk_tunings *t, const struct hk_tuning *tuning, bool replace) {
    pthread_mutex_lock(&t->mutex);
    add(t, tuning, replace);
    if (is_measured(tuning)) t->changed = true, t->told = false;
    pthread_mutex_unlock(&t->mutex);
}

hk_status hk_tunings_save(struct hk_tunings *t, bool told) {
    pthread_mutex_lock(&t->mutex);
    const hk_status status = save(t);
    t->told = status && (t->told || told);
    pthread_mutex_unlock(&t->mutex);
    return status;
}

int hk_tunings_copy(struct hk_tunings *t, struct hk_tuning *out, int capacity) {
    pthread_mutex_lock(&t->mutex);
    const int count = t->count, n = HK_MIN(count, capacity);
    if (n > 0) memcpy(out, t->items, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&t->mutex);
    return count;
}
