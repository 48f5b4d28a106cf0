/* state.json: how far a run is, and how it is trained. */
#include "io/files.h"
#include "io/json.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_COUNT (INT64_C(1) << 53)

static const char *const schedule_names[] = {"constant", "linear", "cosine"};
static const char *const precision_names[] = {[HK_F32] = "f32", [HK_F16] = "f16", [HK_BF16] = "bf16"};
static const char *const optimizer_names[] = {"sgd", "nesterov", "adam", "adamw"};

static bool add_schedule(cJSON *object, const struct hk_schedule *s) {
    cJSON *item = cJSON_AddObjectToObject(object, "schedule");
    return cJSON_AddStringToObject(item, "kind", schedule_names[s->kind]) && json_add_float(item, "peak", s->peak) &&
           json_add_float(item, "floor", s->floor) && json_add_double(item, "warmup", (double)s->warmup) &&
           json_add_double(item, "steps", (double)s->steps);
}

static bool add_optimizer(cJSON *object, const struct hk_optimizer_params *o) {
    cJSON *item = cJSON_AddObjectToObject(object, "optimizer");
    return cJSON_AddStringToObject(item, "kind", optimizer_names[o->kind]) &&
           json_add_float(item, "momentum", o->momentum) && json_add_float(item, "beta1", o->beta1) &&
           json_add_float(item, "beta2", o->beta2) && json_add_float(item, "epsilon", o->epsilon) &&
           json_add_float(item, "weight_decay", o->weight_decay) && json_add_float(item, "clip", o->clip) &&
           json_add_float(item, "loss_scale", o->loss_scale) &&
           json_add_double(item, "scale_growth", (double)o->scale_growth);
}

char *state_format(const struct hk_run_state *s) {
    cJSON *object = cJSON_CreateObject();
    const char *data = json_is_utf8(s->data, strlen(s->data)) ? s->data : "";
    const bool ok =
        json_add_double(object, "step", (double)s->step) && json_add_double(object, "steps", (double)s->steps) &&
        json_add_double(object, "minutes", s->minutes) && json_add_u64(object, "seed", s->seed) &&
        json_add_double(object, "seconds", s->seconds) && json_add_double(object, "loss", s->loss) &&
        json_add_double(object, "held_out_loss", s->held_out_loss) &&
        json_add_double(object, "batch", (double)s->batch) && json_add_double(object, "length", (double)s->length) &&
        json_add_double(object, "accumulate", (double)s->accumulate) &&
        json_add_double(object, "evaluate_every", (double)s->evaluate_every) && add_schedule(object, &s->schedule) &&
        add_optimizer(object, &s->optimizer) &&
        cJSON_AddStringToObject(object, "precision", precision_names[s->precision]) && cJSON_AddStringToObject(object, "data", data) &&
        json_add_u64(object, "data_hash", s->data_hash);
    return json_finish(object, ok, false);
}

static int index_of(struct json_reader *reader, const char *key, const char *const *names, size_t count) {
    const char *text = json_text(reader, key);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, names[i])) return (int)i;
    if (reader->status == HK_OK) reader->status = hk_fail(HK_ERROR_FORMAT, "\"%s\" is unknown: \"%.32s\"", key, text);
    return 0;
}

static float read_float(struct json_reader *reader, const char *key) {
    return (float)json_number(reader, key, -1e30, 1e30);
}

static void read_schedule(struct json_reader *outer, struct hk_schedule *s) {
    struct json_reader reader = {cJSON_GetObjectItemCaseSensitive(outer->object, "schedule"), outer->status};
    if (!cJSON_IsObject(reader.object)) return; /* a state from elsewhere */
    s->kind = (enum hk_schedule_kind)index_of(&reader, "kind", schedule_names, HK_LENGTH(schedule_names));
    s->peak = read_float(&reader, "peak");
    s->floor = read_float(&reader, "floor");
    s->warmup = json_int(&reader, "warmup", 0, MAX_COUNT);
    s->steps = json_int(&reader, "steps", 0, MAX_COUNT);
    outer->status = reader.status;
}

static void read_optimizer(struct json_reader *outer, struct hk_optimizer_params *o) {
    struct json_reader reader = {cJSON_GetObjectItemCaseSensitive(outer->object, "optimizer"), outer->status};
    if (!cJSON_IsObject(reader.object)) return;
    o->kind = (enum hk_optimizer_kind)index_of(&reader, "kind", optimizer_names, HK_LENGTH(optimizer_names));
    o->momentum = read_float(&reader, "momentum");
    o->beta1 = read_float(&reader, "beta1");
    o->beta2 = read_float(&reader, "beta2");
    o->epsilon = read_float(&reader, "epsilon");
    o->weight_decay = read_float(&reader, "weight_decay");
    o->clip = read_float(&reader, "clip");
    o->loss_scale = (float)json_number_or(&reader, "loss_scale", 0, 0x1p40, 0);
    o->scale_growth = json_int_or(&reader, "scale_growth", 0, 1 << 24, 0);
    outer->status = reader.status;
}

hk_status state_parse(const char *json, size_t bytes, struct hk_run_state *state) {
    cJSON *object = json_parse(json, bytes);
    if (!object) return hk_error_status();
    struct json_reader reader = {object, HK_OK};
    struct hk_run_state s = {0};
    s.step = json_int(&reader, "step", 0, MAX_COUNT);
    s.steps = json_int_or(&reader, "steps", 0, MAX_COUNT, 0);
    s.minutes = json_number_or(&reader, "minutes", 0, 1e12, 0);
    s.seed = json_u64(&reader, "seed");
    s.seconds = json_number_or(&reader, "seconds", 0, 1e15, 0);
    s.loss = json_number_or(&reader, "loss", -1e300, 1e300, NAN);
    s.held_out_loss = json_number_or(&reader, "held_out_loss", -1e300, 1e300, NAN);
    s.batch = json_int_or(&reader, "batch", 0, MAX_COUNT, 0);
    s.length = json_int_or(&reader, "length", 0, MAX_COUNT, 0);
    s.accumulate = json_int_or(&reader, "accumulate", 0, MAX_COUNT, 0);
    s.evaluate_every = json_int_or(&reader, "evaluate_every", 0, MAX_COUNT, 0);
    s.data_hash = json_has(&reader, "data_hash") ? json_u64(&reader, "data_hash") : 0;
    read_schedule(&reader, &s.schedule);
    read_optimizer(&reader, &s.optimizer);
    if (json_has(&reader, "precision")) /* else of a version that had f32 alone */
        s.precision = (enum hk_dtype)index_of(&reader, "precision", precision_names, HK_LENGTH(precision_names));
    const char *data = json_has(&reader, "data") ? json_text(&reader, "data") : "";
    if (strlen(data) < sizeof s.data) strcpy(s.data, data); /* else none, rather than one that is cut */
    cJSON_Delete(object);
    if (reader.status == HK_OK) *state = s;
    return reader.status;
}
