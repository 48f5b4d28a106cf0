/* The hot loop of a kernel, in the assembly that a driver tells of it. */
#ifndef HK_LAB_LOOP_H
#define HK_LAB_LOOP_H

/* Of RADV's, NVK's or Turnip's text. A loop is a label that a later branch goes back to (its top), and all after it from which
   such a branch is reached without passing the top again: not what a driver lays out between and is left for good. The hot one
   has the most multiply-adds, of f32 or 16 bits or of matrices, of those that hold no other loop. Gives how many of its
   instructions they are, in per cent; -1 where no such loop has any, as where the driver has unrolled all. Both halves of a
   pair count, and repeats as often as they are done; what only waits (no-ops, counters, hints) does not count. */
double lab_loop_share(const char *assembly);

#endif
