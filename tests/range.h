/* For the tests of what comes out for numbers at the ends of the range: one graph of few inputs, run on every device.
 */
#ifndef HK_TESTS_RANGE_H
#define HK_TESTS_RANGE_H

#include "support.h"
#include <stdint.h>

/* Calls the test with each device that is tested; with the CPU once for each instruction set. Fails where a driver's
   validation layer has something to say. */
void range_each_device(void (*test)(struct hk_device *device));

struct range_input {
    enum hk_dtype dtype; /* HK_F32 or HK_I32 */
    struct hk_shape shape;
    const void *data; /* float or int32_t [elements] */
};

/* Runs build(inputs) on the device and returns its elements as doubles (to be freed). A message and a failed test where
   it cannot. */
typedef struct hk_value *range_build(struct hk_graph *graph, struct hk_value *const *in);
double *range_run(struct hk_device *device, range_build *build, const struct range_input *inputs, int n_inputs);

/* Fails unless |x - ref| <= bound, or both are NaN, or the same infinity; what names the test. */
void range_expect(const char *what, int64_t at, double x, double ref, double bound);

/* Whether the device's test is worth minutes: HEKLA_TEST_LONG=1. */
bool range_is_long(void);

#endif
