/* 16-bit floating point: every number, and what lies between any two of them, is converted as IEEE 754 says, by the
   host's functions and by the op cast on every device. The reference rounds the exact value in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALL = 1 << 16, AROUND = 6 };

struct format {
    const char *name;
    enum hk_dtype dtype;
    int fraction_bits, least_exponent; /* of the smallest normal number */
    uint16_t infinity;
    uint16_t (*from_f32)(float x);
    float (*to_f32)(uint16_t x);
};

static const struct format formats[] = {
    {"f16", HK_F16, 10, -14, 0x7c00, hk_f16_from_f32, hk_f32_from_f16},
    {"bf16", HK_BF16, 7, -126, 0x7f80, hk_bf16_from_f32, hk_f32_from_bf16},
};

static struct hk_device *devices[TEST_MAX_DEVICES];
static int n_devices;

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- The reference ---- */

static bool is_nan(const struct format *f, uint16_t x) { return (x & 0x7fff) > f->infinity; }

static double value_of(const struct format *f, uint16_t x) {
    const int exponent = (x & 0x7fff) >> f->fraction_bits, fraction = x & ((1 << f->fraction_bits) - 1);
    const int hidden = exponent ? 1 << f->fraction_bits : 0;
    const double size = ldexp(hidden + fraction, f->least_exponent - f->fraction_bits + (exponent ? exponent - 1 : 0));
    return x & 0x8000 ? -size : size;
}

/* x, finite or infinite, to the nearest number, of two the even one. */
static uint16_t nearest(const struct format *f, double x) {
    const double size = fabs(x);
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (size == 0) return sign;
    int exponent = isinf(size) ? 2000 : ilogb(size);
    if (exponent < f->least_exponent) exponent = f->least_exponent;
    const double units = nearbyint(ldexp(size, f->fraction_bits - exponent)); /* even where two are as near */
    const double bits =
        ldexp(exponent - f->least_exponent, f->fraction_bits) + units; /* a carry is the next exponent */
    return (uint16_t)(sign | (bits < f->infinity ? (uint16_t)bits : f->infinity));
}

/* ---- What is converted ---- */

/* Around each number: itself, the middle to the next one, and the neighbours of both. */
static float *make_inputs(const struct format *f) {
    float *x = test_malloc(ALL * AROUND * sizeof *x);
    for (uint32_t i = 0; i < ALL; i++) {
        const uint32_t here = bits_of(f->to_f32((uint16_t)i));
        /* of subnormal f16 the middle is no bit pattern in the middle */
        const uint32_t next = is_nan(f, (uint16_t)(i + 1)) ? here : bits_of(f->to_f32((uint16_t)(i + 1)));
        const float half = (f->to_f32((uint16_t)i) + float_of(next)) / 2;
        const uint32_t middle = isfinite(half) ? bits_of(half) : here + 0x0fffu;
        const uint32_t around[AROUND] = {here, here + 1, here - 1, middle, middle + 1, middle - 1};
        for (int k = 0; k < AROUND; k++) x[i * AROUND + (uint32_t)k] = float_of(around[k]);
    }
    return x;
}

static void check(const struct format *f, const char *who, float x, uint16_t got) {
    if (isnan(x)) {
        if (!is_nan(f, got)) fail_msg("%s: NaN 0x%08x became 0x%04x in %s", who, bits_of(x), got, f->name);
        return;
    }
    const uint16_t want = nearest(f, (double)x);
    if (got != want) fail_msg("%s: %.9g became 0x%04x in %s, not 0x%04x", who, (double)x, got, f->name, want);
}

static void the_hosts_functions_round_to_nearest_even(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(formats); i++) {
        const struct format *f = &formats[i];
        float *x = make_inputs(f);
        for (int k = 0; k < ALL * AROUND; k++) check(f, "host", x[k], f->from_f32(x[k]));
        for (uint32_t n = 0; n < ALL; n++) {
            const float wide = f->to_f32((uint16_t)n);
            if (is_nan(f, (uint16_t)n)) assert_true(isnan(wide));
            else if ((n & 0x7fff) == f->infinity) assert_true(isinf(wide) && !signbit(wide) == !(n >> 15));
            else assert_true((double)wide == value_of(f, (uint16_t)n));
        }
        test_free(x);
    }
}

/* Casts count elements of `from` on the device. */
static void cast(struct hk_device *device, enum hk_dtype dtype, const void *from, enum hk_dtype to_dtype, void *to,
                 int64_t count) {
    struct hk_tensor *x = hk_tensor_from(device, dtype, HK_SHAPE(count), from);
    struct hk_tensor *y = hk_tensor_create(device, to_dtype, HK_SHAPE(count));
    struct hk_graph *graph = hk_graph_create();
    hk_store(y, hk_cast(hk_leaf(graph, x), to_dtype));
    struct hk_program *program = hk_compile(device, graph, NULL);
    assert_non_null(program);
    assert_int_equal(hk_program_run(program), HK_OK);
    assert_int_equal(hk_tensor_read(y, to, hk_tensor_bytes(y)), HK_OK);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_tensor_destroy(&y);
}

static void casts_round_to_nearest_even(void **state) {
    (void)state;
    for (int d = 0; d < n_devices; d++)
        for (int i = 0; i < COUNT(formats); i++) {
            const struct format *f = &formats[i];
            float *x = make_inputs(f), *wide = test_malloc(ALL * sizeof *wide);
            uint16_t *narrow = test_malloc(ALL * AROUND * sizeof *narrow), *all = test_malloc(ALL * sizeof *all);
            for (uint32_t n = 0; n < ALL; n++) all[n] = (uint16_t)n;
            cast(devices[d], HK_F32, x, f->dtype, narrow, ALL * AROUND);
            for (int k = 0; k < ALL * AROUND; k++) check(f, test_device_name(devices[d]), x[k], narrow[k]);
            cast(devices[d], f->dtype, all, HK_F32, wide, ALL);
            for (uint32_t n = 0; n < ALL; n++) {
                const float want = f->to_f32((uint16_t)n);
                if (is_nan(f, (uint16_t)n) ? !isnan(wide[n]) : bits_of(wide[n]) != bits_of(want))
                    fail_msg("%s: %s 0x%04x became %.9g, not %.9g", test_device_name(devices[d]), f->name, n,
                             (double)wide[n], (double)want);
            }
            test_free(x), test_free(wide), test_free(narrow), test_free(all);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hosts_functions_round_to_nearest_even),
        cmocka_unit_test(casts_round_to_nearest_even),
    };
    n_devices = test_devices_open(devices);
    return test_devices_end(devices, n_devices, cmocka_run_group_tests(tests, NULL, NULL));
}
