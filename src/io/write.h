/* Writing safetensors from where the tensors lie, and what folders need. Within src/io. */
#ifndef HK_IO_WRITE_H
#define HK_IO_WRITE_H

#include "base/base.h"
#include <hekla/io.h>

/* Puts entry i's data into buffer. */
typedef hk_status safetensors_fetch(void *user, int i, void *buffer);

struct safetensors_metadata {
    const char *const *keys, *const *values;
    int count;
};

/* hk_safetensors_write, but entries without data are fetched one at a time while writing, so that a model in a device's
   memory needs host memory for its largest tensor only. fetch may be NULL where all have data. */
hk_status safetensors_stream(const char *path, const struct hk_safetensors_entry *entries, int count,
                             const struct safetensors_metadata *metadata, safetensors_fetch *fetch, void *user);

#endif
