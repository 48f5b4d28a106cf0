#include "shapes.h"
#include "support.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int64_t shapes_number(struct shapes *s, int64_t low, int64_t high) {
    return low + (int64_t)(test_random(&s->random) % (uint64_t)(high - low + 1));
}

bool shapes_one_in(struct shapes *s, int n) { return test_random(&s->random) % (uint64_t)n == 0; }

int64_t shapes_size(struct shapes *s, int64_t most) {
    static const int64_t primes[] = {3,   5,   7,   11,  13,  19,  23,   37,   61,  67,
                                     101, 131, 251, 263, 509, 521, 1021, 1033, 2053};
    int64_t size = 1, power = 0;
    if (most <= 1) return 1;
    while (2ll << power <= most) power++;
    switch (test_random(&s->random) % 8) {
    case 0: size = 1; break;
    case 1: size = shapes_number(s, 1, most); break;
    case 2: size = primes[shapes_number(s, 0, COUNT(primes) - 1)]; break;
    case 3: size = shapes_number(s, 1, most < 8 ? most : 8); break;
    default: size = (1ll << shapes_number(s, 0, power)) + shapes_number(s, -1, 1);
    }
    return size < 1 ? 1 : size > most ? most : size;
}

struct hk_shape shapes_any(struct shapes *s, int low_rank, int high_rank) {
    struct hk_shape shape = {.rank = (int)shapes_number(s, low_rank, high_rank)};
    int64_t left = s->most;
    for (int i = 0; i < shape.rank; i++) shape.size[i] = 1;
    for (int i = 0; i < shape.rank; i++) {
        const int d = (int)shapes_number(s, 0, shape.rank - 1); /* some stay 1 */
        if (shape.size[d] > 1) continue;
        shape.size[d] = shapes_size(s, left);
        left /= shape.size[d];
    }
    if (shape.rank && shapes_one_in(s, 32)) shape.size[shapes_number(s, 0, shape.rank - 1)] = 0;
    return shape;
}

struct hk_shape shapes_broadcastable(struct shapes *s, struct hk_shape shape) {
    const int dropped = shapes_one_in(s, 3) ? (int)shapes_number(s, 0, shape.rank) : 0;
    struct hk_shape result = {.rank = shape.rank - dropped};
    for (int i = 0; i < result.rank; i++) result.size[i] = shapes_one_in(s, 4) ? 1 : shape.size[i + dropped];
    return result;
}

void shapes_note(struct shapes *s, const char *format, ...) {
    const size_t used = strlen(s->note);
    va_list args;
    va_start(args, format);
    vsnprintf(s->note + used, sizeof s->note - used, format, args);
    va_end(args);
}

void shapes_input(struct shapes *s, enum hk_dtype dtype, struct hk_shape shape, double low, double high) {
    s->c.inputs[s->c.n_inputs++] =
        (struct hk_case_input){.dtype = dtype, .shape = shape, .low = (float)low, .high = (float)high};
}

void shapes_known(struct shapes *s, int count) {
    const int n = count ? count : s->known->n_cases;
    s->c = s->known->cases[shapes_number(s, 0, n - 1)];
    shapes_note(s, "as in \"%s\" ", s->c.name);
}

void shapes_coordinates(struct hk_shape shape, int64_t e, int64_t at[HK_MAX_RANK]) {
    for (int i = shape.rank - 1; i >= 0; i--) at[i] = e % shape.size[i], e /= shape.size[i];
}

int64_t shapes_element(struct hk_shape shape, const int64_t at[HK_MAX_RANK]) {
    int64_t e = 0;
    for (int i = 0; i < shape.rank; i++) e = e * shape.size[i] + at[i];
    return e;
}

/* Element by element what is at the same place with the repeated dimensions' coordinates 0. */
static void repeat(struct hk_shape shape, const struct placement *p, uint32_t *data) {
    const int64_t n = test_elements(shape);
    for (int64_t e = 0; e < n; e++) {
        int64_t at[HK_MAX_RANK];
        shapes_coordinates(shape, e, at);
        for (int i = 0; i < shape.rank; i++)
            if (p->repeated[p->dimension[i]]) at[i] = 0;
        data[e] = data[shapes_element(shape, at)];
    }
}

struct placement shapes_place(struct shapes *s, struct hk_shape shape, void *data) {
    struct placement p = {.rank = shape.rank ? shape.rank : 1, .dense = shapes_one_in(s, 4)};
    const bool permuted = shapes_one_in(s, 2), gaps = shapes_one_in(s, 2), steps = shapes_one_in(s, 4),
               repeats = shapes_one_in(s, 6) && !s->no_repeats;
    for (int i = 0; i < p.rank; i++) p.dimension[i] = i;
    for (int i = p.rank - 1; permuted && i > 0; i--) {
        const int k = (int)shapes_number(s, 0, i), other = p.dimension[k];
        p.dimension[k] = p.dimension[i], p.dimension[i] = other;
    }
    for (int i = 0; i < p.rank; i++) {
        const int d = p.dimension[i];
        p.repeated[d] = repeats && shape.rank && shapes_one_in(s, 2);
        const int64_t size = p.repeated[d] || !shape.rank ? 1 : shape.size[i];
        p.begin[d] = gaps && shapes_one_in(s, 2) ? shapes_number(s, 0, 3) : 0;
        p.step[d] = steps && shapes_one_in(s, 2) ? shapes_number(s, 1, 3) : 1;
        p.size[d] = p.begin[d] + (size ? (size - 1) * p.step[d] + 1 : 0) + (gaps ? shapes_number(s, 0, 3) : 0);
    }
    if (!p.dense) repeat(shape, &p, data);
    return p;
}
