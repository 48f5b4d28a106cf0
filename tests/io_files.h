/* What the tests of files share: a folder of the program's own and the files in it, messages, configs. A test fails
   where what it asks for is not to be had. */
#ifndef HK_TESTS_IO_FILES_H
#define HK_TESTS_IO_FILES_H

#include "support.h"

/* Of this process; each test uses names of its own in it. The two are a group's set-up and tear-down. */
extern char io_folder[64];
int io_make_folder(void **unused);
int io_remove_folder(void **unused);

const char *io_path(const char *name);          /* in the folder; until the eighth call after this one */
char *io_read(const char *path, size_t *bytes); /* the caller's to free; a 0 follows the bytes */
void io_write(const char *path, const void *data, size_t bytes);

/* Fail unless the library's last message has the part; unless the configs are the same. */
void io_expect_message(const char *part);
void io_expect_config(const struct hk_model_config *a, const struct hk_model_config *b);

#endif
