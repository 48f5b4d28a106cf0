/* What was found on one device, as JSON. */
#include "lab.h"
#include <math.h>
#include <string.h>

static void add_pipeline(cJSON *list, const struct lab_pipeline *p) {
    cJSON *row = cJSON_CreateArray();
    cJSON_AddItemToArray(row, cJSON_CreateString(p->shader->name));
    cJSON_AddItemToArray(row, cJSON_CreateString(lab_spec(p)));
    for (int i = 0; i < LAB_NUMBERS; i++)
        cJSON_AddItemToArray(row, cJSON_CreateNumber(i == LAB_LOOP ? floor(p->number[i] * 10 + 0.5) / 10 : p->number[i]));
    cJSON_AddItemToArray(list, row);
}

static void add_drive(cJSON *list, const struct lab_drive *d) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "model", d->model);
    cJSON_AddNumberToObject(row, "submits", d->submits);
    cJSON_AddNumberToObject(row, "dispatches", d->dispatches);
    cJSON_AddNumberToObject(row, "barriers", d->barriers);
    cJSON_AddNumberToObject(row, "host_us", floor(d->host_us * 10 + 0.5) / 10);
    cJSON_AddItemToArray(list, row);
}

bool lab_write(const struct lab *lab, const char *path) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", lab->label);
    cJSON_AddStringToObject(root, "name", lab->info.name);
    cJSON_AddStringToObject(root, "driver", lab->info.driver);
    cJSON *modules = cJSON_AddArrayToObject(root, "modules");
    for (int i = 0; i < vk_shaders_count; i++) cJSON_AddItemToArray(modules, cJSON_CreateString(vk_shaders[i].name));
    cJSON *drives = cJSON_AddArrayToObject(root, "drives");
    for (int i = 0; i < lab->n_drives; i++) add_drive(drives, &lab->drives[i]);
    cJSON *pipelines = cJSON_AddArrayToObject(root, "pipelines");
    for (int i = 0; i < lab->n_pipelines; i++) add_pipeline(pipelines, &lab->pipelines[i]);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    const bool done = text && !hk_file_write(path, text, strlen(text));
    if (!done) fprintf(stderr, "%s cannot be written\n", path);
    cJSON_free(text);
    return done;
}
