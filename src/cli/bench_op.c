/* hekla bench op: one op, or one and its gradients. */
#include "bench.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct op_options {
    const char *op, *shape, *dtype, *transpose, *device, *profile;
    double seconds;
    bool gradient, check;
};

struct op_bench {
    const struct op_options *options;
    const struct op_row *row;
    struct op_sizes sizes;
    enum hk_dtype dtypes[MOST_INPUTS];
};

/* The op on one device. */
struct op_run {
    struct hk_device *device;
    struct hk_tensor *inputs[MOST_INPUTS], *results[1 + MOST_INPUTS]; /* the op's, and the gradients */
    int n_results;
    struct hk_tensor *weights; /* f32, of the result's shape: the gradients are those of sum(result * weights) */
    struct hk_program *program;
};

/* ---- Tensors ---- */

/* The same numbers on every device, in [-1, 1) or (0, 1]; whole ones in [0, below), or of all that i8 holds. */
static bool write_numbers(struct hk_tensor *tensor, uint32_t salt, bool positive, int64_t below) {
    const size_t count = (size_t)hk_tensor_elements(tensor);
    float *data = malloc((count + 1) * sizeof *data);
    if (!data) return false;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = ((uint32_t)i + salt) * 2654435761u >> 7 & 0xffff;
        if (hk_tensor_dtype(tensor) == HK_I32) ((int32_t *)data)[i] = (int32_t)(bits % (uint32_t)below);
        else if (hk_tensor_dtype(tensor) == HK_I8) ((int8_t *)data)[i] = (int8_t)((int32_t)(bits & 255) - 128);
        else data[i] = positive ? (float)(bits + 1) / 65536.0f : (float)bits / 32768.0f - 1;
    }
    const hk_status status = hk_tensor_write(tensor, data, hk_tensor_bytes(tensor));
    free(data);
    return status == HK_OK;
}

/* Puts a copy of the dtype in the tensor's place; NULL there where it cannot. */
static void convert(struct hk_tensor **tensor, enum hk_dtype dtype) {
    struct hk_tensor *from = *tensor;
    if (!from || dtype == hk_tensor_dtype(from)) return;
    struct hk_device *device = hk_tensor_device(from);
    struct hk_tensor *to = hk_tensor_create(device, dtype, hk_tensor_shape(from));
    struct hk_graph *graph = hk_graph_create();
    if (graph && to) hk_store(to, hk_cast(hk_leaf(graph, from), dtype));
    struct hk_program *program = graph && to ? hk_compile(device, graph, NULL) : NULL;
    if (!program || hk_program_run(program) != HK_OK || hk_device_wait(device) != HK_OK) hk_tensor_destroy(&to);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(tensor);
    *tensor = to;
}

static bool make_input(struct op_run *run, const struct op_bench *b, int i) {
    enum hk_dtype dtype = b->dtypes[i];
    const struct hk_shape shape = b->row->input(&b->sizes, i, b->options->transpose, &dtype);
    const int64_t below = b->sizes.size[b->sizes.count - 1];
    struct hk_tensor *tensor = hk_tensor_create(run->device, dtype == HK_I32 || dtype == HK_I8 ? dtype : HK_F32, shape);
    run->inputs[i] = tensor;
    if (!tensor) return false;
    if (b->row->last && i == b->row->n_inputs - 1)
        return hk_tensor_write(tensor, b->row->last, hk_tensor_bytes(tensor)) == HK_OK;
    if (!write_numbers(tensor, 977u * (uint32_t)i, b->row->positive, below)) return false;
    convert(&run->inputs[i], dtype);
    return run->inputs[i] != NULL;
}

static bool make_inputs(struct op_run *run, const struct op_bench *b) {
    for (int i = 0; i < b->row->n_inputs; i++)
        if (!make_input(run, b, i)) return false;
    return true;
}

/* ---- The program ---- */

static bool keep(struct op_run *run, struct hk_value *value) {
    struct hk_tensor *tensor =
        value ? hk_tensor_create(run->device, hk_value_dtype(value), hk_value_shape(value)) : NULL;
    if (!tensor) return false;
    run->results[run->n_results++] = tensor;
    hk_store(tensor, value);
    return true;
}

/* The gradients of all inputs that have one. */
static bool add_gradients(struct op_run *run, const struct op_bench *b, struct hk_value *const *in,
                          struct hk_value *result) {
    struct hk_value *of[MOST_INPUTS], *gradients[MOST_INPUTS];
    int n = 0;
    run->weights = hk_tensor_create(run->device, HK_F32, hk_value_shape(result));
    if (!run->weights || !write_numbers(run->weights, 31, false, 0)) return false;
    struct hk_value *weighted = hk_mul(hk_cast(result, HK_F32), hk_leaf(hk_value_graph(result), run->weights));
    for (int i = 0; i < b->row->n_inputs; i++)
        if (hk_value_dtype(in[i]) != HK_I32) of[n++] = in[i];
    if (hk_gradients(hk_sum(weighted, HK_ALL_AXES, false), of, n, gradients) != HK_OK) return false;
    for (int i = 0; i < n; i++)
        if (!keep(run, gradients[i])) return false;
    return true;
}

static bool make_program(struct op_run *run, const struct op_bench *b, struct hk_graph *graph) {
    struct hk_value *in[MOST_INPUTS];
    for (int i = 0; i < b->row->n_inputs; i++) in[i] = hk_leaf(graph, run->inputs[i]);
    struct hk_value *result = b->row->build(in, run->inputs, b->options->transpose);
    if (!b->row->in_place && (!result || !keep(run, result))) return false;
    if (b->options->gradient && !add_gradients(run, b, in, result)) return false;
    run->program = hk_compile(run->device, graph, &(struct hk_compile_params){.name = b->row->name});
    return run->program != NULL;
}

static void destroy_run(struct op_run *run) {
    hk_program_destroy(&run->program);
    for (int i = 0; i < MOST_INPUTS; i++) hk_tensor_destroy(&run->inputs[i]);
    for (int i = 0; i < run->n_results; i++) hk_tensor_destroy(&run->results[i]);
    hk_tensor_destroy(&run->weights);
    hk_device_destroy(&run->device);
}

/* run->device is open. */
static int make_run(struct op_run *run, const struct op_bench *b) {
    struct hk_graph *graph = hk_graph_create();
    const bool made = graph && make_inputs(run, b) && make_program(run, b, graph);
    const int status = made ? EXIT_OK : fail_library();
    hk_graph_destroy(&graph);
    return status;
}

/* ---- Checking ---- */

static double number_at(const void *data, enum hk_dtype dtype, int64_t i) {
    if (dtype == HK_F32) return (double)((const float *)data)[i];
    if (dtype == HK_I32) return (double)((const int32_t *)data)[i];
    const uint16_t half = ((const uint16_t *)data)[i];
    return (double)(dtype == HK_F16 ? hk_f32_from_f16(half) : hk_f32_from_bf16(half));
}

/* By how much x misses ref: the largest |x - ref| / (1e-5 max|ref| + 1e-4 |ref|), so that 1 is the most allowed, as in
   the tests of ops. What is stored in 16 bits may differ by one of its own roundings besides, and by one of the largest where
   what it is made of was rounded on the way, for gradients two: of probabilities and of the scores' gradients. Infinite for a
   NaN, and for whole numbers that are not the same. */
static double compare(const void *x, const void *ref, enum hk_dtype dtype, int64_t count, int roundings) {
    const double rounding = dtype == HK_BF16 ? 0x1p-8 : dtype == HK_F16 ? 0x1p-11 : 1e-4;
    const double share = roundings && dtype != HK_F32 ? roundings * rounding : 1e-5;
    double largest = 0, error = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(number_at(ref, dtype, i)));
    for (int64_t i = 0; i < count; i++) {
        const double a = number_at(x, dtype, i), b = number_at(ref, dtype, i);
        const double allowed = share * largest + rounding * fabs(b) + 0x1p-126;
        const double e = dtype == HK_I32 && a != b ? INFINITY : fabs(a - b) / allowed;
        error = e <= error ? error : isnan(e) ? INFINITY : e; /* a NaN is not under anything */
    }
    return error;
}

static bool compare_tensors(struct hk_tensor *x, struct hk_tensor *ref, int roundings, double *error) {
    const size_t bytes = hk_tensor_bytes(x);
    void *a = malloc(bytes + 1), *b = malloc(bytes + 1);
    const bool read = a && b && hk_tensor_read(x, a, bytes) == HK_OK && hk_tensor_read(ref, b, bytes) == HK_OK;
    if (read) *error = fmax(*error, compare(a, b, hk_tensor_dtype(x), hk_tensor_elements(x), roundings));
    free(a);
    free(b);
    return read;
}

/* Another device's results for the same numbers: for a GPU the CPU's, for the CPU those of its kernels in plain C,
   which share no loop with the vectors'. */
static int check_results(struct op_run *run, const struct op_bench *b, double *error) {
    struct op_run ref = {0};
    const bool is_cpu = hk_device_get_info(run->device)->kind == HK_DEVICE_CPU;
    const char *given = getenv("HEKLA_ISA");
    char isa[16] = "";
    if (given) snprintf(isa, sizeof isa, "%s", given);
    *error = 0;
    if (is_cpu) setenv("HEKLA_ISA", "base", 1);
    ref.device = hk_device_open(&(struct hk_device_params){.name = "cpu"});
    if (is_cpu && given) setenv("HEKLA_ISA", isa, 1);
    if (is_cpu && !given) unsetenv("HEKLA_ISA");
    int status = ref.device ? make_run(&ref, b) : fail_library();
    bool read = status == EXIT_OK && hk_program_run(ref.program) == HK_OK && hk_program_run(run->program) == HK_OK;
    for (int i = 0; read && i < run->n_results; i++)
        read = compare_tensors(run->results[i], ref.results[i], b->row->rounds * (1 + b->options->gradient), error);
    if (read && b->row->in_place) read = compare_tensors(run->inputs[0], ref.inputs[0], 0, error);
    if (status == EXIT_OK && !read) status = fail_library();
    destroy_run(&ref);
    return status;
}

/* ---- Timing ---- */

/* Seconds that repeats runs take, until the device is done; negative: failed. */
static double time_runs(struct op_run *run, int repeats) {
    const double start = now_seconds();
    for (int i = 0; i < repeats; i++)
        if (hk_program_run(run->program) != HK_OK) return -1;
    return hk_device_wait(run->device) == HK_OK ? now_seconds() - start : -1;
}

struct timing {
    double median, least; /* seconds */
    int64_t runs;
};

/* Runs for about so many seconds, in portions long enough that submitting them does not count. */
static int time_op(struct op_run *run, double seconds, struct timing *timing) {
    static double times[MOST_TIMES];
    double once = time_runs(run, 1); /* the first run makes pipelines */
    if (once >= 0) once = time_runs(run, 1);
    if (once < 0) return fail_library();
    const int repeats = once < 0.01 ? (int)(0.01 / fmax(once, 1e-7)) + 1 : 1;
    const double end = now_seconds() + seconds;
    int count = 0;
    do {
        const double time = time_runs(run, repeats);
        if (time < 0) return fail_library();
        times[count++] = time / repeats;
    } while (count < MOST_TIMES && (now_seconds() < end || count < 3));
    timing->median = median(times, count);
    timing->least = times[0];
    timing->runs = (int64_t)count * repeats;
    return EXIT_OK;
}

/* ---- The command ---- */

static void add_numbers(cJSON *object, const struct op_bench *b, const struct timing *t) {
    double elements = 1;
    for (int i = 0; i < b->sizes.count; i++) elements *= (double)b->sizes.size[i];
    cJSON_AddNumberToObject(object, "runs", (double)t->runs);
    cJSON_AddNumberToObject(object, "ms", rounded(t->median * 1e3, 4));
    cJSON_AddNumberToObject(object, "ms_min", rounded(t->least * 1e3, 4));
    if (b->options->gradient) return; /* how much of it is needed is a matter of how it is done */
    cJSON_AddNumberToObject(object, "gflops", rounded(b->row->flops(&b->sizes) / t->median / 1e9, 2));
    if (b->row->touched > 0)
        cJSON_AddNumberToObject(
            object, "gbps",
            rounded(b->row->touched * elements * (double)hk_dtype_size(b->dtypes[0]) / t->median / 1e9, 2));
}

static int print_op(struct op_run *run, const struct op_bench *b, const struct timing *t, double error) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "op", b->row->name);
    cJSON_AddStringToObject(object, "shape", b->options->shape);
    cJSON_AddStringToObject(object, "dtype", b->row->whole ? hk_dtype_name(b->row->whole) : b->options->dtype);
    if (b->row->transposes) cJSON_AddStringToObject(object, "transpose", b->options->transpose);
    if (b->options->gradient) cJSON_AddTrueToObject(object, "gradient");
    add_device(object, run->device);
    add_numbers(object, b, t);
    if (b->options->check && isfinite(error)) cJSON_AddNumberToObject(object, "error", rounded(error, 4));
    if (b->options->check && !isfinite(error)) cJSON_AddStringToObject(object, "error", "infinite");
    json_print_line(object);
    if (error > 1)
        return fail_with("%s: the result misses the reference by %.3g times what rounding explains", b->row->name,
                         error);
    return output_ok() ? EXIT_OK : EXIT_FAILED;
}

static int run_op(const struct op_bench *b) {
    const struct op_options *o = b->options;
    struct op_run run = {.device = open_device(o->device, o->profile != NULL)};
    struct timing timing = {0};
    double error = 0;
    int status = run.device ? make_run(&run, b) : EXIT_FAILED;
    if (status == EXIT_OK && o->check)
        status = check_results(&run, b, &error); /* before what is in place has moved on */
    if (status == EXIT_OK) status = time_op(&run, o->seconds, &timing);
    if (status == EXIT_OK) status = print_op(&run, b, &timing, error);
    if (status == EXIT_OK) status = write_profile(run.device, o->profile);
    destroy_run(&run);
    return status;
}

/* "512x384x128"; false for anything else. */
static bool parse_sizes(const char *text, const struct op_row *row, struct op_sizes *sizes) {
    for (sizes->count = 0; text && *text;) {
        char *end;
        const long long size = strtoll(text, &end, 10);
        if (end == text || size < 1 || size > INT32_MAX || sizes->count == MOST_SIZES) return false;
        sizes->size[sizes->count++] = size;
        if (*end && (*end != 'x' || !end[1])) return false;
        text = *end ? end + 1 : end;
    }
    return sizes->count >= row->least_sizes && sizes->count <= row->most_sizes;
}

/* "f32,f16": of the first input, of the second; the last is of all that follow, too. */
static bool parse_dtypes(const char *text, enum hk_dtype dtypes[MOST_INPUTS]) {
    static const enum hk_dtype all[] = {HK_F32, HK_F16, HK_BF16};
    for (int i = 0; i < MOST_INPUTS; i++) {
        const size_t length = strcspn(text, ",");
        int k = 0;
        while (k < COUNT_OF(all) && (strncmp(text, hk_dtype_name(all[k]), length) || hk_dtype_name(all[k])[length]))
            k++;
        if (k == COUNT_OF(all)) return false;
        dtypes[i] = all[k];
        if (text[length]) text += length + 1;
    }
    return !strchr(text, ',');
}

static int check_op(struct op_bench *b) {
    const struct op_options *o = b->options;
    char names[256] = "";
    for (int i = 0; i < op_rows_count; i++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", op_rows[i].name);
        if (o->op && !strcmp(o->op, op_rows[i].name)) b->row = &op_rows[i];
    }
    if (!b->row) return fail_usage("bench op", "--op must be one of %s", names);
    if (!parse_sizes(o->shape, b->row, &b->sizes))
        return fail_usage("bench op", "--shape must be %s with %s, like 64x32x128", b->row->shape, b->row->name);
    if (!parse_dtypes(o->dtype, b->dtypes))
        return fail_usage("bench op", "--dtype must be f32, f16 or bf16, or one for each input, like f32,f16");
    for (int i = 0; b->row->whole && i < MOST_INPUTS; i++) b->dtypes[i] = b->row->whole;
    if (strlen(o->transpose) != 2 || strspn(o->transpose, "nt") != 2)
        return fail_usage("bench op", "--transpose must be nn, nt, tn or tt, not \"%s\"", o->transpose);
    if (o->gradient && b->row->forward_only) return fail_usage("bench op", "%s has no gradient", b->row->name);
    return EXIT_OK;
}

int bench_op(int argc, char **argv) {
    struct op_options o = {.dtype = "f32", .transpose = "nn", .seconds = 1};
    struct option_row rows[] = {
        {.name = "op",
         .kind = OPTION_TEXT,
         .value = &o.op,
         .argument = "NAME",
         .help = "matmul, attention, softmax, ..."},
        {.name = "shape", .kind = OPTION_TEXT, .value = &o.shape, .argument = "SIZES", .help = "MxNxK for matmul, ..."},
        {.name = "dtype",
         .kind = OPTION_TEXT,
         .value = &o.dtype,
         .argument = "NAME",
         .help = "f32, f16 or bf16, of single inputs: f32,f16 (default f32)"},
        {.name = "transpose",
         .kind = OPTION_TEXT,
         .value = &o.transpose,
         .argument = "nt",
         .help = "which matrices lie transposed in memory: nn, nt, tn or tt (default nn)"},
        {.name = "gradient",
         .kind = OPTION_FLAG,
         .value = &o.gradient,
         .help = "time the op with the gradients of all its inputs"},
        {.name = "check",
         .kind = OPTION_FLAG,
         .value = &o.check,
         .help = "compare with the CPU's result, on the CPU with that of its plain kernels"},
        {.name = "seconds",
         .kind = OPTION_NUMBER,
         .value = &o.seconds,
         .high = 3600,
         .argument = "S",
         .help = "how long to time it (default 1)"},
        OPTION_DEVICE(&o.device),
        OPTION_PROFILE(&o.profile),
    };
    char about[1200];
    int n = snprintf(about, sizeof about,
                     "Times one op: ms is the median of a run, gflops and gbps follow from it (each "
                     "operand\nread and written once). Ops and their sizes:");
    for (int i = 0; i < op_rows_count; i++)
        n += snprintf(about + n, sizeof about - (size_t)n, "\n  %-14s %s", op_rows[i].name, op_rows[i].shape);
    const struct command_line line = {.command = "bench op",
                                      .usage = "--op NAME --shape SIZES [options]",
                                      .about = about,
                                      .rows = rows,
                                      .n_rows = COUNT_OF(rows)};
    struct op_bench bench = {.options = &o};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    status = check_op(&bench);
    return status == EXIT_OK ? run_op(&bench) : status;
}
