/* Parts of the report. A device is {"device", "name", "driver", "drives": [...], "pipelines": [[shader, spec, statistics in
   the order of enum vk_statistic...], ...]}, its pipelines sorted. */
#ifndef HK_LAB_REPORT_H
#define HK_LAB_REPORT_H

#include <cjson/cJSON.h>
#include <stdbool.h>

/* compare.c: prints what got worse by more than a tenth, and how many of it; and which pipelines are new or gone, which is
   no failure. old may be NULL. */
int report_compare(const cJSON *old, const cJSON *now);

/* text.c: a table per device with the worst of each shader's pipelines. */
bool report_write_text(const char *path, const cJSON *devices);

#endif
