/* Cases of random numbers and dropout, against a Philox written for the test. */
#include "cases.h"
#include "support.h"
#include <math.h>

/* Philox 4x32-10: the state and key after each round, as the paper's figure has it. */
static uint32_t random_bits(const double *rng, int64_t element, uint32_t stream) {
    uint32_t counter[4] = {(uint32_t)(element / 4), stream, (uint32_t)(int32_t)rng[2], 0};
    uint32_t key[2] = {(uint32_t)(int32_t)rng[0], (uint32_t)(int32_t)rng[1]};
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = 0xD2511F53ull * counter[0], product1 = 0xCD9E8D57ull * counter[2];
        const uint32_t next[4] = {(uint32_t)(product1 >> 32) ^ counter[1] ^ key[0], (uint32_t)product1,
                                  (uint32_t)(product0 >> 32) ^ counter[3] ^ key[1], (uint32_t)product0};
        for (int i = 0; i < 4; i++) counter[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter[element % 4];
}
static double unit(const double *rng, int64_t element, uint32_t stream) {
    return (random_bits(rng, element, stream) >> 8) / 16777216.0;
}

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph;                                                                                                   \
        return expression;                                                                                             \
    }
#define REFERENCE(name) static void name(const struct hk_case *c, const double *const *in, double *out)
#define RNG                                                                                                            \
    { HK_I32, HK_SHAPE(4), -2e9f, 2e9f }
#define SET(op)                                                                                                        \
    const struct hk_case_set hk_cases_##op = {op##_cases, COUNT(op##_cases), op##_refusals, COUNT(op##_refusals)};

BUILD(uniform_unit, hk_random_uniform(in[0], HK_SHAPE(3, 5, 37), 0, 1))
BUILD(uniform_range, hk_random_uniform(in[0], HK_SHAPE(4099), -2, 3))
BUILD(uniform_second, (hk_random_uniform(in[0], HK_SHAPE(5), 0, 1), hk_random_uniform(in[0], HK_SHAPE(7), 0, 1)))
BUILD(uniform_nothing, hk_random_uniform(in[0], HK_SHAPE(0, 3), 0, 1))
REFERENCE(unit_of) {
    (void)c;
    for (int i = 0; i < 3 * 5 * 37; i++) out[i] = unit(in[0], i, 0);
}
REFERENCE(range_of) {
    (void)c;
    for (int i = 0; i < 4099; i++) out[i] = -2 + 5 * unit(in[0], i, 0);
}
REFERENCE(second_of) {
    (void)c;
    for (int i = 0; i < 7; i++) out[i] = unit(in[0], i, 1);
}
/* Random123's known answer: counter 0 and key 0 give 6627e8d5 e169c58d bc57ac4c 9b00dbd8. */
REFERENCE(known_of) {
    static const uint32_t known[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    (void)c, (void)in;
    for (int i = 0; i < 4; i++) out[i] = (known[i] >> 8) / 16777216.0;
}
BUILD(uniform_four, hk_random_uniform(in[0], HK_SHAPE(4), 0, 1))
static const struct hk_case random_uniform_cases[] = {
    {"in [0, 1)", {RNG}, 1, uniform_unit, unit_of, .exact = true},
    {"in a range", {RNG}, 1, uniform_range, range_of, .tolerance = 1},
    {"the second of a graph", {RNG}, 1, uniform_second, second_of, .exact = true},
    {"the known answer", {{HK_I32, HK_SHAPE(4), 0, 1}}, 1, uniform_four, known_of, .exact = true},
    {"nothing", {RNG}, 1, uniform_nothing, .exact = true},
};
static const struct hk_refusal random_uniform_refusals[] = {
    {"rng of floats", {{.shape = HK_SHAPE(4)}}, 1, uniform_four, "random_uniform: rng must be i32 [4], it is f32 [4]"}};
SET(random_uniform)

BUILD(normal, hk_random_normal(in[0], HK_SHAPE(4099), 1, 0.5f))
REFERENCE(normal_of) {
    (void)c;
    for (int i = 0; i < 4099; i++) {
        const int first = i / 2 * 2;
        const double u = unit(in[0], first, 0), v = unit(in[0], first + 1, 0), angle = 2 * M_PI * v;
        out[i] = 1 + 0.5 * sqrt(-2 * log(1 - u)) * (i % 2 ? sin(angle) : cos(angle));
    }
}
static const struct hk_case random_normal_cases[] = {
    {"mean and deviation", {RNG}, 1, normal, normal_of, .tolerance = 1}};
static const struct hk_refusal random_normal_refusals[] = {
    {"rng too short", {{HK_I32, HK_SHAPE(3), 0, 9}}, 1, normal, "random_normal: rng must be i32 [4], it is i32 [3]"}};
SET(random_normal)

BUILD(dropout, hk_dropout(in[0], 0.25f, in[1]))
BUILD(dropout_none, hk_dropout(in[0], 0, in[1]))
BUILD(dropout_all, hk_dropout(in[0], 1, in[1]))
REFERENCE(dropout_of) {
    const int64_t n = test_elements(c->inputs[0].shape);
    for (int64_t i = 0; i < n; i++) out[i] = unit(in[1], i, 0) >= 0.25 ? in[0][i] / 0.75 : 0;
}
REFERENCE(dropout_none_of) {
    const int64_t n = test_elements(c->inputs[0].shape);
    for (int64_t i = 0; i < n; i++) out[i] = in[0][i];
}
static const struct hk_case dropout_cases[] = {
    {"odd sizes", {{.shape = HK_SHAPE(3, 5, 37)}, RNG}, 2, dropout, dropout_of, .gradient = true, .exact = true},
    {"probability 0",
     {{.shape = HK_SHAPE(67)}, RNG},
     2,
     dropout_none,
     dropout_none_of,
     .gradient = true,
     .exact = true},
    {"many workgroups", {{.shape = HK_SHAPE(3, 4099)}, RNG}, 2, dropout, dropout_of, .exact = true},
    {"nothing", {{.shape = HK_SHAPE(0)}, RNG}, 2, dropout, .gradient = true},
};
static const struct hk_refusal dropout_refusals[] = {
    {"all of it",
     {{.shape = HK_SHAPE(3)}, RNG},
     2,
     dropout_all,
     "dropout: the probability is 1, it must be at least 0 and below 1"}};
SET(dropout)
