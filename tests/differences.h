/* Gradients against finite differences. */
#ifndef HK_TESTS_DIFFERENCES_H
#define HK_TESTS_DIFFERENCES_H

#include "case_run.h"

struct differences {
    int checked; /* trials in which rounding left something to compare */
    int failed;
    double error; /* of the last that failed: the two derivatives */
    double expected, found;
    bool broken; /* a run failed: hk_error_message() */
};

/* Of input i. A few trials, each at another point in another direction, so that a kink that happens to lie near one
   point (relu at 0) spoils that trial alone: the gradient is wrong where half of the trials or more fail. */
struct differences differences_check(struct case_run *run, const struct hk_case *c, int i, uint64_t seed);

#endif
