/* What the tests share: devices, random numbers, comparing. */
#ifndef HK_TESTS_SUPPORT_H
#define HK_TESTS_SUPPORT_H

#include <hekla/hekla.h>
#include <stdio.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* What a test returns that cannot run here, after saying why: CTest counts it as skipped. */
enum { TEST_SKIPPED = 77, TEST_MAX_DEVICES = 8 };

/* Opens a device. Remarks of the library from warnings on go to stderr. NULL as hk_device_open. */
struct hk_device *test_device_open(const char *name);

/* Opens the devices that HEKLA_TEST_DEVICES lists, with commas between them; "vulkan" is all Vulkan devices, be there
   any or not. Default: "cpu,vulkan". Exits with a message where one that was asked for by name cannot be opened. */
int test_devices_open(struct hk_device *devices[TEST_MAX_DEVICES]);

/* Closes them; false, and says so, where the validation layer had anything to say. */
bool test_devices_close(struct hk_device **devices, int count);

/* The end of a program whose tests ran on them, `failed` of which failed: closes them and returns what main does, 0 only
   if no test failed and the validation layer had nothing to say. (Not a group's tear-down: cmocka says that it failed, but
   returns 0.) */
int test_devices_end(struct hk_device **devices, int count, int failed);

/* Opens them for one test, calls it with each and closes them; false as test_devices_close. */
bool test_on_each_device(void (*test)(struct hk_device *device));

const char *test_device_name(const struct hk_device *device); /* "cpu" or the driver's name */
bool test_is_cpu(const struct hk_device *device);

/* SplitMix64: 64 random bits; and a number in [low, high). */
uint64_t test_random(uint64_t *state);
double test_uniform(uint64_t *state, double low, double high);
uint64_t test_hash(const char *text, uint64_t seed);

int64_t test_elements(struct hk_shape shape);
/* Elements of any dtype as doubles. */
void test_to_doubles(double *out, enum hk_dtype dtype, const void *data, int64_t count);

/* By how much x misses ref: the largest |x - ref| / (1e-5 max|ref| + 1e-4 |ref|), so that 1 is the most allowed;
   infinite where only one of the two is NaN, or they are different infinities. 2^-126 is allowed besides: a GPU may
   take numbers below it as 0. *worst (may be NULL) is where. */
double test_error(const double *x, const double *ref, int64_t count, int64_t *worst);

#endif
