/* What the benches share. Each prints one JSON line. */
#ifndef HK_CLI_BENCH_H
#define HK_CLI_BENCH_H

#include "cli.h"

#define MOST_TIMES 100000

int bench_step(int argc, char **argv);
int bench_op(int argc, char **argv);
int bench_generate(int argc, char **argv);
int bench_start(int argc, char **argv);

double median(double *times, int64_t count); /* sorts them, so times[0] is then the least */
void add_device(cJSON *object, struct hk_device *device);
/* Tokens in [0, vocab), others for each seed. */
void random_tokens(int32_t *tokens, int64_t count, int64_t vocab, uint64_t seed);

#define OPTION_MODEL(variable)                                                                                         \
    {                                                                                                                  \
        .name = "model", .kind = OPTION_TEXT, .value = (variable), .argument = "NAME",                                 \
        .help = "gpt-tiny, gpt-char, gpt2-124m, llama-2 or llama-12"                                                   \
    }

/* ---- hekla bench op: what it can time, as data (bench_rows.c) ---- */

enum { MOST_SIZES = 5, MOST_INPUTS = 5 };

struct op_sizes {
    int count;
    int64_t size[MOST_SIZES]; /* as --shape gives them */
};

struct op_row {
    const char *name, *shape; /* "softmax", "ROWSxCOLUMNS" */
    int least_sizes, most_sizes;
    int n_inputs;
    bool transposes;   /* --transpose has a meaning */
    bool positive;     /* its inputs are */
    const float *last; /* the numbers of its last input; NULL: random ones, like all others */
    bool in_place;     /* it writes its first input, and there is no other result */
    bool forward_only;
    enum hk_dtype whole; /* the dtype of its inputs where that is one of whole numbers; HK_F32: --dtype says it */
    bool rounds;       /* what is made on the way is rounded to 16 bits too, where the inputs have them */
    /* Shape of input i; its dtype is --dtype's where it is not HK_I32. */
    struct hk_shape (*input)(const struct op_sizes *sizes, int i, const char *transpose, enum hk_dtype *dtype);
    /* tensors: those of the inputs, for what writes in place. */
    struct hk_value *(*build)(struct hk_value *const *in, struct hk_tensor *const *tensors, const char *transpose);
    double (*flops)(const struct op_sizes *sizes); /* forward */
    double touched;                                /* elements read and written, per element of input 0, forward */
};

extern const struct op_row op_rows[];
extern const int op_rows_count;

#endif
