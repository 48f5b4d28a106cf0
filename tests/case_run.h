/* One case of an op, compiled for one device with inputs laid out in one way: its result, and its gradients. */
#ifndef HK_TESTS_CASE_RUN_H
#define HK_TESTS_CASE_RUN_H

#include "cases.h"

/* How the inputs lie in memory. In the last two, NaN lies between their elements. */
enum layout {
    LAYOUT_DENSE,
    LAYOUT_PADDED,   /* rows are dense, with gaps between them */
    LAYOUT_PERMUTED, /* the last dimension is the outermost in memory, and the innermost has every other element */
    LAYOUT_COUNT
};
extern const char *const layout_names[LAYOUT_COUNT];

/* Where an input's elements lie in its tensor. */
struct placement {
    int rank;                   /* of the memory; 1 for a number of rank 0 */
    int dimension[HK_MAX_RANK]; /* dimension i of the input is this one of the memory */
    int64_t size[HK_MAX_RANK];  /* of the memory */
    int64_t begin[HK_MAX_RANK], step[HK_MAX_RANK];
    bool repeated[HK_MAX_RANK]; /* one element there is seen as many as the input has: a stride of 0 */
    bool dense;
};

/* Inputs dense and row-major: float or int32_t [elements]. */
struct case_inputs {
    void *data[HK_CASE_MAX_INPUTS];
};
bool case_inputs_make(const struct hk_case *c, uint64_t *random, struct case_inputs *inputs);
void case_inputs_free(struct case_inputs *inputs);

/* What came out, as doubles; grads[i] NULL where input i has no gradient. Compared bit by bit through raw. */
struct case_results {
    double *result, *grads[HK_CASE_MAX_INPUTS];
    int64_t elements;
    uint64_t bits; /* hash of all that was read */
    uint64_t result_bits;
};
void case_results_free(struct case_results *results);

struct case_run;
/* NULL: hk_error_message(). */
struct case_run *case_run_create(struct hk_device *device, const struct hk_case *c, enum layout layout);
/* The same with a place of its own for each input. */
struct case_run *case_run_create_placed(struct hk_device *device, const struct hk_case *c,
                                        const struct placement placements[HK_CASE_MAX_INPUTS]);
void case_run_destroy(struct case_run **run);

/* Writes the inputs and, where results will go, NaN; runs; reads. The gradients are of sum(result * weights), the
   weights following from the case alone. results must be freed; false: hk_error_message(). */
bool case_run_evaluate(struct case_run *run, const struct case_inputs *inputs, struct case_results *results);

/* sum(result * weights) in double, and the root of the sum of the squares of its terms. */
double case_run_weighted(const struct case_run *run, const struct case_results *results, double *magnitude);

#endif
