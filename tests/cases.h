/* Test cases of ops. tests/ops_FAMILY.c holds, for each line HK_OP(name) of src/op/ops.def, a `const struct hk_case_set
   hk_cases_name`: an op without cases does not link. tests/test_ops.c runs them: on the CPU and on every Vulkan device asked
   for, against each other and the double reference, with inputs as they are and as strided views, outputs and gradients;
   gradients also against finite differences. */
#ifndef HK_TESTS_CASES_H
#define HK_TESTS_CASES_H

#include <hekla/hekla.h>

#define HK_CASE_MAX_INPUTS 7

struct hk_case_input {
    enum hk_dtype dtype; /* HK_F32 or HK_I32 */
    struct hk_shape shape;
    float low, high; /* uniform in [low, high); integers too. Both 0: [-1.5, 1.5) */
};

struct hk_case {
    const char *name; /* what is particular about it: "odd sizes", "row of one" */
    struct hk_case_input inputs[HK_CASE_MAX_INPUTS];
    int n_inputs;
    /* The op on values that hold the inputs. Returns the result (its gradient: of sum(result * random weights)). */
    struct hk_value *(*build)(struct hk_graph *graph, struct hk_value *const *in);
    /* Plain arithmetic in double, optional: in[i] and out dense row-major (integers as doubles). */
    void (*reference)(const struct hk_case *c, const double *const *in, double *out);
    bool gradient;    /* differentiable: compare gradients, and with finite differences */
    bool exact;       /* every device gives the same bits */
    bool no_strided;  /* inputs only as they are (tensors that the op writes, say) */
    double tolerance; /* factor on |x - ref| <= 1e-5 max|ref| + 1e-4 |ref|, with the reason beside it; 0: 1 */
};

/* Something wrong that the op must refuse. */
struct hk_refusal {
    const char *name;
    struct hk_case_input inputs[HK_CASE_MAX_INPUTS];
    int n_inputs;
    struct hk_value *(*build)(struct hk_graph *graph, struct hk_value *const *in);
    const char *message; /* must occur in hk_error_message() after hk_compile fails */
};

struct hk_case_set {
    const struct hk_case *cases;
    int n_cases;
    const struct hk_refusal *refusals;
    int n_refusals;
};

#endif
