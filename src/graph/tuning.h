/* What was measured of kernels, in memory and in a file. Any thread may call any function. */
#ifndef HK_GRAPH_TUNING_H
#define HK_GRAPH_TUNING_H

#include "base/base.h"
#include <hekla/device.h>

struct hk_tunings;

/* Reads the file, if there is a good one. NULL only when out of memory. */
struct hk_tunings *hk_tunings_open(const struct hk_device_params *params, const struct hk_device_info *info);
void hk_tunings_close(struct hk_tunings *tunings); /* may be NULL */

/* Copies what is known of the work, measured or not, and counts so many uses; false where it is nothing. */
bool hk_tunings_find(struct hk_tunings *tunings, const char *work, int uses, struct hk_tuning *tuning);
bool hk_tunings_empty(struct hk_tunings *tunings);

/* Adds an entry. What is measured already stays, unless it is to be replaced. */
void hk_tunings_add(struct hk_tunings *tunings, const struct hk_tuning *tuning, bool replace);

/* Puts what was measured since the last time in the file, with what other processes put there. What cannot be kept is tried
   again when the tunings are closed, which warns unless the user has been told. */
hk_status hk_tunings_save(struct hk_tunings *tunings, bool told);

int hk_tunings_copy(struct hk_tunings *tunings, struct hk_tuning *out, int capacity);

#endif
