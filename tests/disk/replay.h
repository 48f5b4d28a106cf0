/* What a power cut can leave of a folder, made from a log of what was done in it (disk.h).

   The rules are those that POSIX leaves a file system, not those that one keeps: what was written to a file since its
   last fsync may be lost; of the names made, moved and removed in a folder since the folder's last fsync, any may be
   lost and any other kept. */
#ifndef HK_TESTS_REPLAY_H
#define HK_TESTS_REPLAY_H

#include "disk.h"

struct replay;
/* What lies under root now, all of it durable. */
struct replay *replay_create(const char *root);
void replay_destroy(struct replay **replay);
/* The event took place. */
void replay_apply(struct replay *replay, const struct disk_event *event);
/* Changes to names that a power cut may lose: at most 30. */
int replay_pending(const struct replay *replay);

enum replay_loss { REPLAY_KEEP, REPLAY_HALVE, REPLAY_LOSE }; /* of data that was not synced */

/* Which disk it would be: bit i of kept says that pending change i is not lost. */
uint64_t replay_hash(const struct replay *replay, unsigned kept, enum replay_loss loss);
/* Makes that disk under another folder, in place of what is there. */
void replay_write(const struct replay *replay, unsigned kept, enum replay_loss loss, const char *root);

#endif
