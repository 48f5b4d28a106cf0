/* Sampling: which token follows, from logits. Nothing is allocated: the cuts are found by counting, not by sorting. */
#include "base/base.h" /* hk_philox */
#include <hekla/nn.h>
#include <math.h>
#include <string.h>

/* Tokens in the order of their logits, ties in the order of their numbers: those up to and including the cut are kept.
 */
struct cut {
    uint32_t key;  /* the cut's logit, as order_of gives it */
    int64_t token; /* among equal keys, up to this one */
};

/* A number that is greater where x is greater; NaN is least of all. */
static uint32_t order_of(float x) {
    uint32_t bits;
    if (isnan(x)) return 0;
    if (x == 0) x = 0; /* -0 is 0 */
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct draw {
    const float *logits;
    int64_t vocab;
    double temperature;
    float highest;
    struct cut cut;
};

static bool is_kept(const struct draw *d, int64_t token) {
    const uint32_t key = order_of(d->logits[token]);
    return key > d->cut.key || (key == d->cut.key && token <= d->cut.token);
}

/* Not normalized; 1 for the most likely. */
static double probability(const struct draw *d, int64_t token) {
    const float x = d->logits[token];
    if (isnan(x)) return 0;
    return x == d->highest ? 1 : exp(((double)x - (double)d->highest) / d->temperature);
}

static double weight(const struct draw *d, int64_t token, bool count) {
    return !is_kept(d, token) ? 0 : count ? 1 : probability(d, token);
}

static double total_weight(const struct draw *d) {
    double sum = 0;
    for (int64_t i = 0; i < d->vocab; i++) sum += weight(d, i, false);
    return sum;
}

/* The weight of the kept tokens whose keys begin with the given bits, by the byte that follows these. */
static void weigh_bytes(const struct draw *d, uint32_t prefix, int shift, bool count, double weights[256]) {
    memset(weights, 0, 256 * sizeof *weights);
    for (int64_t i = 0; i < d->vocab; i++) {
        const uint32_t key = order_of(d->logits[i]);
        if ((uint64_t)key >> (shift + 8) == (uint64_t)prefix >> (shift + 8))
            weights[key >> shift & 0xff] += weight(d, i, count);
    }
}

/* Keeps as few of the kept tokens as weigh at least `target`, the most likely first. The cut's key is found byte by
   byte from the highest. */
static void keep_weight(struct draw *d, double target, bool count) {
    double weights[256], above = 0;
    uint32_t key = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        weigh_bytes(d, key, shift, count, weights);
        int byte = 255;
        while (byte > 0 && above + weights[byte] < target) above += weights[byte--];
        key |= (uint32_t)byte << shift;
    }
    int64_t last = -1; /* with all of the weight not reached for rounding, the last of them */
    for (int64_t i = 0; i < d->vocab && above < target; i++) {
        if (order_of(d->logits[i]) != key || !is_kept(d, i)) continue;
        above += weight(d, i, count);
        last = i;
    }
    d->cut = (struct cut){key, last};
}

static int32_t most_likely(const float *logits, int64_t vocab) {
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (order_of(logits[i]) > order_of(logits[best])) best = i;
    return (int32_t)best;
}

/* [0, 1), 53 bits */
static double uniform(uint64_t seed, uint64_t position) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
    uint32_t bits[4];
    hk_philox(counter, key, bits);
    return (double)(((uint64_t)bits[0] << 32 | bits[1]) >> 11) * 0x1p-53;
}

int32_t hk_sample(const float *logits, int64_t vocab, const struct hk_sampling *sampling, uint64_t position) {
    const int32_t best = most_likely(logits, vocab);
    if (!sampling || !(sampling->temperature > 0)) return best;
    struct draw d = {.logits = logits,
                     .vocab = vocab,
                     .temperature = (double)sampling->temperature,
                     .highest = logits[best],
                     .cut = {0, vocab}};
    if (sampling->top_k > 0 && sampling->top_k < vocab) keep_weight(&d, sampling->top_k, true);
    if (sampling->top_p > 0 && sampling->top_p < 1) keep_weight(&d, (double)sampling->top_p * total_weight(&d), false);
    const double target = uniform(sampling->seed, position) * total_weight(&d);
    double sum = 0;
    int64_t token = best;
    for (int64_t i = 0; i < vocab; i++) {
        const double w = weight(&d, i, false);
        if (w == 0) continue;
        token = i;
        if ((sum += w) > target) break;
    }
    return (int32_t)token;
}
