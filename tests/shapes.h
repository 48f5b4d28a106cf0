/* Random cases. tests/shapes_FAMILY.c hold, for each line HK_OP(name) of src/op/ops.def, a function hk_shapes_name that
   makes a case of the op with sizes, axes and other attributes drawn at random, with a liking for those that kernels
   get wrong: an op without one does not link. tests/test_shapes.c runs them. */
#ifndef HK_TESTS_SHAPES_H
#define HK_TESTS_SHAPES_H

#include "case_run.h"
#include <stdint.h>

struct shapes {
    uint64_t random;                 /* state of test_random */
    const struct hk_case_set *known; /* the op's cases, whose builders and references may fit any sizes */
    int64_t most;                    /* elements that an input may have */
    struct hk_case c;
    bool on_device; /* sizes that pipelines are made for come from a short list */
    char note[200]; /* attributes, for messages */
    /* What a result's or a gradient's elements typically come to, where those of one case may all lie near 0 because
       their terms cancel: the tolerance is of this. 0: of the largest. */
    double size, gradient_size[HK_CASE_MAX_INPUTS];
    bool no_differences; /* finite differences see nothing: too steep, or nothing at all */
    bool no_repeats;     /* inputs whose elements along a dimension are all the same are too hard */
};
typedef void shapes_make(struct shapes *s);

#define HK_OP(name) shapes_make hk_shapes_##name;
#include "op/ops.def"
#undef HK_OP

/* Whole numbers in [low, high]; true in one of n. */
int64_t shapes_number(struct shapes *s, int64_t low, int64_t high);
bool shapes_one_in(struct shapes *s, int n);

/* A size in [1, most]: powers of two, one more or less, primes, any. */
int64_t shapes_size(struct shapes *s, int64_t most);

/* A shape of a rank in the range with at most s->most elements, seldom with none. */
struct hk_shape shapes_any(struct shapes *s, int low_rank, int high_rank);

/* The shape, some of its dimensions 1, some of the first ones left out: it broadcasts to the shape. */
struct hk_shape shapes_broadcastable(struct shapes *s, struct hk_shape shape);

/* Adds to the note. */
void shapes_note(struct shapes *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds an input. */
void shapes_input(struct shapes *s, enum hk_dtype dtype, struct hk_shape shape, double low, double high);

/* One of the known cases: the first `count` of them (0: all). Its inputs' shapes are for the caller to replace. */
void shapes_known(struct shapes *s, int count);

/* Row-major: the coordinates of element e, and back. */
void shapes_coordinates(struct hk_shape shape, int64_t e, int64_t at[HK_MAX_RANK]);
int64_t shapes_element(struct hk_shape shape, const int64_t at[HK_MAX_RANK]);

/* Where an input may lie: permuted, with gaps, in steps, at odd offsets, and repeated. data's elements that a
   repetition makes one become equal. */
struct placement shapes_place(struct shapes *s, struct hk_shape shape, void *data);

#endif
