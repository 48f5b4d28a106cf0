/* What stands around a model: parameter sets, layers, schedules, optimizers' numbers, configs, sampling. On the CPU. */
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

static struct hk_device *device;

static void assert_message(const char *part) {
    if (!strstr(hk_error_message(), part)) print_error("message \"%s\" lacks \"%s\"\n", hk_error_message(), part);
    assert_non_null(strstr(hk_error_message(), part));
}

static float *read_all(struct hk_tensor *tensor) {
    float *x = malloc(hk_tensor_bytes(tensor) + 4);
    assert_non_null(x);
    assert_int_equal(hk_tensor_read(tensor, x, hk_tensor_bytes(tensor)), HK_OK);
    return x;
}

/* ---- Parameter sets ---- */

static const struct hk_init normal = {HK_INIT_NORMAL, 0.5f}, uniform = {HK_INIT_UNIFORM, 2}, one = {HK_INIT_ONE, 0};

static struct hk_params *make_params(bool reversed) {
    struct hk_params *params = hk_params_create(device);
    for (int i = 0; i < 3; i++) {
        const int which = reversed ? 2 - i : i;
        if (which == 0) assert_int_equal(hk_params_declare(params, "bias", HK_SHAPE(5), one), HK_OK);
        if (which == 1) assert_int_equal(hk_params_declare(params, "matrix", HK_SHAPE(301, 7), normal), HK_OK);
        if (which == 2) assert_int_equal(hk_params_declare(params, "cube", HK_SHAPE(3, 1, 11), uniform), HK_OK);
    }
    assert_int_equal(hk_params_allocate(params, 7), HK_OK);
    return params;
}

static void parameters_lie_in_one_slab_decayed_first(void **state) {
    (void)state;
    struct hk_params *params = make_params(false);
    assert_int_equal(hk_params_slab_count(params), 1);
    assert_int_equal(hk_params_elements(params), 5 + 301 * 7 + 33);
    assert_int_equal(hk_params_slab_decayed(params, 0), 2112 + 48); /* each rounded up to 16 */
    assert_int_equal(hk_tensor_elements(hk_params_slab(params, 0)), 2112 + 48 + 16);
    assert_int_equal(hk_tensor_elements(hk_params_gradient_slab(params, 0)), 2112 + 48 + 16);
    float *slab = read_all(hk_params_slab(params, 0));
    int64_t first, covered = 0;
    for (int i = 0; i < hk_params_count(params); i++) {
        struct hk_tensor *tensor = hk_params_tensor(params, i);
        const int64_t n = hk_tensor_elements(tensor);
        float *own = read_all(tensor);
        assert_int_equal(hk_params_place(params, i, &first), 0);
        assert_int_equal(first % 16, 0);
        assert_memory_equal(own, slab + first, (size_t)n * sizeof *own);
        for (int64_t k = n; k % 16; k++) assert_true(slab[first + k] == 0);
        covered += n;
        free(own);
    }
    assert_int_equal(covered, hk_params_elements(params));
    assert_int_equal(hk_params_find(params, "cube"), 2);
    assert_int_equal(hk_params_find(params, "cub"), -1);
    free(slab);
    hk_params_destroy(&params);
}

static void first_values_do_not_depend_on_order(void **state) {
    (void)state;
    struct hk_params *a = make_params(false), *b = make_params(true);
    for (int i = 0; i < hk_params_count(a); i++) {
        struct hk_tensor *tensor = hk_params_tensor(a, i);
        float *x = read_all(tensor), *y = read_all(hk_params_tensor(b, hk_params_find(b, hk_params_name(a, i))));
        assert_memory_equal(x, y, hk_tensor_bytes(tensor));
        free(x);
        free(y);
    }
    hk_params_destroy(&a);
    hk_params_destroy(&b);
}

/* So that a seed means the same in every version. */
static void first_values_are_philox_of_seed_name_and_place(void **state) {
    (void)state;
    enum { N = 1 + (1 << 20) };
    struct hk_params *params = hk_params_create(device);
    hk_params_declare(params, "w", HK_SHAPE(N), uniform);
    assert_int_equal(hk_params_allocate(params, 0x123456789abcdef), HK_OK);
    const uint64_t name = hk_hash("w", 1, 0);
    const uint32_t key[2] = {0x89abcdef, 0x01234567};
    float *x = read_all(hk_params_tensor(params, 0));
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t counter[4] = {i / 4, (uint32_t)name, (uint32_t)(name >> 32), 0};
        uint32_t bits[4];
        hk_philox(counter, key, bits);
        assert_true(x[i] == 2 * (2 * hk_unit_float(bits[i % 4]) - 1));
    }
    free(x);
    hk_params_destroy(&params);
}

static void first_values_have_the_distribution_asked_for(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    struct hk_params *params = hk_params_create(device);
    hk_params_declare(params, "normal", HK_SHAPE(N + 3), normal); /* more than is made at once */
    hk_params_declare(params, "uniform", HK_SHAPE(N), uniform);
    assert_int_equal(hk_params_allocate(params, 3), HK_OK);
    for (int i = 0; i < 2; i++) {
        float *x = read_all(hk_params_tensor(params, i));
        double sum = 0, squares = 0, beyond = 0, largest = 0;
        for (int64_t k = 0; k < N; k++) {
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
            beyond += fabsf(x[k]) > 1;
            largest = fmax(largest, fabs((double)x[k]));
        }
        /* N(0, 0.5): 4.55 % beyond two deviations; U(-2, 2): deviation 2 / sqrt(3), half beyond 1. Five standard
         * errors. */
        const double deviation = i ? 2 / sqrt(3) : 0.5, share = i ? 0.5 : 0.0455;
        assert_true(fabs(sum / N) < 5 * deviation / sqrt(N));
        assert_true(fabs(sqrt(squares / N) / deviation - 1) < 5 / sqrt(2.0 * N));
        assert_true(fabs(beyond / N - share) < 5 * sqrt(share / N));
        assert_true(i ? largest <= 2 : largest > 2.2);
        free(x);
    }
    hk_params_destroy(&params);
}

static void a_wrong_declaration_is_the_programs_error(void **state) {
    (void)state;
    struct hk_params *params = hk_params_create(device);
    struct hk_tensor *out = hk_tensor_create(device, HK_F32, HK_SHAPE(1, 3));
    struct hk_graph *graph = hk_graph_create();
    hk_linear_declare(params, "layer", 4, 3, true);
    hk_linear_declare(params, "layer", 4, 3, true);
    assert_message("layer.weight is declared twice");
    hk_params_declare(params, "", HK_SHAPE(1), one);
    assert_int_equal(hk_params_allocate(params, 1), HK_ERROR_INVALID);
    assert_message("layer.weight is declared twice"); /* the first error stays */
    hk_store(out, hk_linear_apply(params, "layer", hk_fill(graph, HK_F32, HK_SHAPE(1, 4), 1)));
    assert_null(hk_compile(device, graph, NULL));
    assert_message("layer.weight is declared twice");
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&out);
    hk_params_destroy(&params);
}

static void wrong_parameters_are_refused(void **state) {
    (void)state;
    char name[200];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    const struct {
        const char *name;
        struct hk_shape shape;
        const char *message;
    } rows[] = {
        {"", HK_SHAPE(1), "a name has 1 to 127 bytes"},
        {name, HK_SHAPE(1), "a name has 1 to 127 bytes"},
        {"x", HK_SHAPE(-1), "the shape is none"},
        {"x", HK_SHAPE(INT64_MAX / 2, 8), "too large"},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        struct hk_params *params = hk_params_create(device);
        assert_int_equal(hk_params_declare(params, rows[i].name, rows[i].shape, one), HK_ERROR_INVALID);
        assert_message(rows[i].message);
        hk_params_destroy(&params);
    }
    struct hk_params *params = make_params(false);
    struct hk_graph *graph = hk_graph_create();
    assert_null(hk_params_use(params, graph, "nothing"));
    assert_int_equal(hk_graph_status(graph), HK_ERROR_INVALID);
    assert_message("there is no parameter nothing");
    assert_int_equal(hk_params_declare(params, "late", HK_SHAPE(1), one), HK_ERROR_INVALID);
    assert_message("allocated already");
    hk_graph_destroy(&graph);
    hk_params_destroy(&params);
}

/* ---- Schedules ---- */

static void schedules_follow_their_formulas(void **state) {
    (void)state;
    struct hk_schedule s = {HK_SCHEDULE_COSINE, 1e-3f, 1e-4f, 10, 110};
    const double peak = (double)s.peak, below = (double)s.floor;
    for (int kind = HK_SCHEDULE_CONSTANT; kind <= HK_SCHEDULE_COSINE; kind++) {
        s.kind = (enum hk_schedule_kind)kind;
        for (int64_t step = 1; step <= 200; step++) {
            const double done = fmin((double)(step - 10) / 100, 1);
            double lr = peak;
            if (step < 10) lr = peak * (double)step / 10;
            else if (kind == HK_SCHEDULE_LINEAR) lr = below + (peak - below) * (1 - done);
            else if (kind == HK_SCHEDULE_COSINE) lr = below + (peak - below) * (1 + cos(M_PI * done)) / 2;
            assert_true(fabs((double)hk_schedule_at(&s, step) - lr) <= 1e-9);
        }
    }
    const struct hk_schedule nothing = {HK_SCHEDULE_COSINE, 1, 0.5f, 0, 0};
    assert_true(hk_schedule_at(&nothing, 1) == 0.5f);
}

/* ---- Optimizers ---- */

/* Three steps on loss = sum((w - 1)^2 * weight) with a parameter that the loss does not use, in double beside it. */
static void adamw_decays_matrices_alone_and_clips(void **state) {
    (void)state;
    const struct hk_optimizer_params how = {.kind = HK_ADAMW, .weight_decay = 0.2f, .clip = 0.5f};
    struct hk_params *params = hk_params_create(device);
    hk_params_declare(params, "vector", HK_SHAPE(4), one);
    hk_params_declare(params, "matrix", HK_SHAPE(2, 2), one);
    hk_params_declare(params, "unused", HK_SHAPE(1, 3), one);
    hk_params_allocate(params, 1);
    struct hk_optimizer *optimizer = hk_optimizer_create(params, &how);
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *vector = hk_params_use(params, graph, "vector");
    struct hk_value *matrix = hk_reshape(hk_params_use(params, graph, "matrix"), HK_SHAPE(4));
    hk_optimizer_minimize(optimizer,
                          hk_sum(hk_affine(hk_add(vector, matrix), 3, 0), HK_ALL_AXES, false)); /* gradient 3 */
    struct hk_program *program = hk_compile(device, graph, NULL);
    assert_non_null(program);
    for (int step = 1; step <= 3; step++) {
        assert_int_equal(hk_optimizer_advance(optimizer, 0.1f), HK_OK);
        assert_int_equal(hk_program_run(program), HK_OK);
    }
    float *v = read_all(hk_params_tensor(params, 0)), *m = read_all(hk_params_tensor(params, 1));
    float *u = read_all(hk_params_tensor(params, 2)), norm;
    double expected = 1, unused = 1;
    for (int step = 1; step <= 3; step++) expected = expected * (1 - 0.1 * 0.2) - 0.1, unused *= 1 - 0.1 * 0.2;
    assert_int_equal(hk_tensor_read(hk_optimizer_norm(optimizer), &norm, sizeof norm), HK_OK);
    assert_true(fabs((double)norm - sqrt(72)) < 1e-5);      /* before clipping */
    assert_true(fabs((double)v[3] - (1 - 3 * 0.1)) < 1e-5); /* a constant gradient moves Adam by lr */
    assert_true(fabs((double)m[3] - expected) < 1e-5);
    assert_true(fabs((double)u[2] - unused) < 1e-5);
    assert_int_equal(hk_optimizer_step(optimizer), 3);
    assert_non_null(hk_optimizer_moment(optimizer, 1, 0));
    assert_null(hk_optimizer_moment(optimizer, 2, 0));
    assert_null(hk_optimizer_moment(optimizer, 0, 1));
    free(v);
    free(m);
    free(u);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_optimizer_destroy(&optimizer);
    hk_params_destroy(&params);
}

static void wrong_optimizers_are_refused(void **state) {
    (void)state;
    const struct {
        struct hk_optimizer_params how;
        const char *message;
    } rows[] = {
        {{.kind = (enum hk_optimizer_kind)9}, "no kind 9"},
        {{.momentum = 1}, "momentum (1)"},
        {{.kind = HK_ADAM, .beta2 = 1.5f}, "beta2 (1.5)"},
        {{.weight_decay = -1}, "weight_decay (-1)"},
        {{.clip = NAN}, "must not be negative"},
    };
    struct hk_params *params = make_params(false);
    for (int i = 0; i < COUNT(rows); i++) {
        assert_null(hk_optimizer_create(params, &rows[i].how));
        assert_message(rows[i].message);
    }
    struct hk_graph *graph = hk_graph_create();
    hk_optimizer_minimize(NULL, hk_fill(graph, HK_F32, HK_SCALAR, 0));
    assert_null(hk_compile(device, graph, NULL)); /* with the message of the failed creation */
    assert_message("must not be negative");
    hk_graph_destroy(&graph);
    hk_params_destroy(&params);
    params = hk_params_create(device);
    assert_null(hk_optimizer_create(params, NULL));
    assert_message("not allocated");
    hk_params_destroy(&params);
}

/* ---- Configs ---- */

static void wrong_configs_are_refused(void **state) {
    (void)state;
    const struct hk_model_config good = {.vocab = 65, .context = 64, .layers = 2, .heads = 4, .width = 128};
    struct {
        struct hk_model_config config;
        const char *message;
    } rows[13];
    for (int i = 0; i < COUNT(rows); i++) rows[i].config = good;
    rows[0].config.heads = 5, rows[0].message = "heads (5) do not divide width (128)";
    rows[1].config.vocab = 0, rows[1].message = "vocab (0) must be from 1";
    rows[2].config.kv_heads = 3, rows[2].message = "kv_heads (3) do not divide heads (4)";
    rows[3].config.kv_heads = 2, rows[3].message = "which GPT-2 does not have";
    rows[4].config.width = 4096, rows[4].message = "a head's width (1024, width / heads) must be at most 256";
    rows[5].config.family = HK_LLAMA, rows[5].config.width = 12, rows[5].message = "must be even";
    rows[6].config.dropout = 1, rows[6].message = "dropout (1)";
    rows[7].config.dropout = NAN, rows[7].message = "dropout (nan)";
    rows[8].config.layers = 1001, rows[8].message = "layers (1001) must be from 1 to 1000";
    rows[9].config.width = INT64_MIN, rows[9].message = "width (-9223372036854775808)";
    rows[10].config.epsilon = -1, rows[10].message = "epsilon (-1)";
    rows[11].config.family = HK_LLAMA, rows[11].config.rope_base = INFINITY, rows[11].message = "rope_base (inf)";
    rows[12].config.family = (enum hk_family)2, rows[12].message = "no model family 2";
    assert_int_equal(hk_model_config_check(&good), HK_OK);
    for (int i = 0; i < COUNT(rows); i++) {
        assert_int_equal(hk_model_config_check(&rows[i].config), HK_ERROR_INVALID);
        assert_message(rows[i].message);
    }
}

static void presets_are_the_models_that_bench_measures(void **state) {
    (void)state;
    const struct {
        const char *name;
        int64_t parameters, batch;
    } rows[] = {{"gpt-tiny", 4 * (12 * 128 * 128 + 13 * 128) + 128 * (65 + 64 + 2), 12},
                {"llama-2", 2 * ((4 + 12) * 128 * 128 + 2 * 128) + 128 * (256 + 256 + 1), 1}};
    for (int i = 0; i < COUNT(rows); i++) {
        struct hk_params *params = hk_params_create(device);
        struct hk_model_config config;
        int64_t batch;
        assert_int_equal(hk_model_preset(rows[i].name, &config, &batch), HK_OK);
        assert_int_equal(hk_model_declare(params, &config), HK_OK);
        assert_int_equal(hk_params_elements(params), rows[i].parameters);
        assert_int_equal(batch, rows[i].batch);
        hk_params_destroy(&params);
    }
    struct hk_model_config config;
    assert_int_equal(hk_model_preset("gpt-5", &config, NULL), HK_ERROR_INVALID);
    assert_message("no model \"gpt-5\"; there are: gpt-tiny, gpt-char, gpt2-124m, llama-2, llama-12");
}

/* ---- Sampling ---- */

static void sampling_follows_the_probabilities(void **state) {
    (void)state;
    enum { N = 40000 };
    const float logits[] = {1, -2, 0.5f, 0.5f, -INFINITY, NAN, 2};
    const struct {
        struct hk_sampling how;
        bool kept[7];
    } rows[] = {
        {{.temperature = 1, .seed = 1}, {1, 1, 1, 1, 0, 0, 1}},
        {{.temperature = 0.5f, .seed = 2}, {1, 1, 1, 1, 0, 0, 1}},
        {{.temperature = 1, .top_k = 3, .seed = 3}, {1, 0, 1, 0, 0, 0, 1}}, /* of the equal ones, the first */
        {{.temperature = 1, .top_k = 100, .seed = 4}, {1, 1, 1, 1, 0, 0, 1}},
        {{.temperature = 1, .top_p = 0.74f, .seed = 5}, {1, 0, 0, 0, 0, 0, 1}}, /* 0.546 + 0.201 */
        {{.temperature = 1, .top_p = 0.8f, .seed = 6}, {1, 0, 1, 0, 0, 0, 1}},
        {{.temperature = 1, .top_k = 2, .top_p = 0.5f, .seed = 7},
         {0, 0, 0, 0, 0, 0, 1}}, /* 0.73 of what top_k leaves */
        {{.temperature = 1, .top_p = 1e-9f, .seed = 8}, {0, 0, 0, 0, 0, 0, 1}},
    };
    for (int r = 0; r < COUNT(rows); r++) {
        double p[COUNT(logits)] = {0}, total = 0, drawn[COUNT(logits)] = {0};
        for (int i = 0; i < COUNT(logits); i++)
            if (rows[r].kept[i]) total += p[i] = exp((double)logits[i] / (double)rows[r].how.temperature);
        for (uint64_t n = 0; n < N; n++) drawn[hk_sample(logits, COUNT(logits), &rows[r].how, n)]++;
        for (int i = 0; i < COUNT(logits); i++) {
            const double share = p[i] / total;
            assert_true(fabs(drawn[i] / N - share) <= 5 * sqrt(share * (1 - share) / N)); /* five standard errors */
        }
    }
}

static void sampling_repeats(void **state) {
    (void)state;
    float logits[300];
    uint64_t random = 5;
    int differ = 0;
    for (int i = 0; i < COUNT(logits); i++) logits[i] = (float)test_uniform(&random, -1, 1);
    const struct hk_sampling how = {.temperature = 1, .seed = 11}, other = {.temperature = 1, .seed = 12};
    for (uint64_t n = 0; n < 100; n++) {
        assert_int_equal(hk_sample(logits, COUNT(logits), &how, n), hk_sample(logits, COUNT(logits), &how, n));
        differ += hk_sample(logits, COUNT(logits), &how, n) != hk_sample(logits, COUNT(logits), &other, n);
    }
    assert_true(differ > 80);
}

static void the_most_likely_is_the_first_of_equals(void **state) {
    (void)state;
    const float logits[] = {-3, 2, 2, 1}, zeros[] = {-0.0f, 0.0f}, none[] = {NAN, NAN},
                least[] = {-INFINITY, -INFINITY};
    const struct hk_sampling how = {.temperature = 1, .top_k = 1};
    assert_int_equal(hk_sample(logits, 4, NULL, 0), 1);
    assert_int_equal(hk_sample(zeros, 2, NULL, 0), 0);
    for (uint64_t n = 0; n < 50; n++) {
        assert_int_equal(hk_sample(logits, 4, &how, n), 1);
        assert_int_equal(hk_sample(none, 2, &how, n), 0);
        assert_int_equal(hk_sample(least, 2, &how, n), 0);
    }
}

static int open_device(void **state) {
    (void)state;
    device = test_device_open("cpu");
    return device ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    return test_devices_close(&device, 1) ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_lie_in_one_slab_decayed_first),
        cmocka_unit_test(first_values_do_not_depend_on_order),
        cmocka_unit_test(first_values_are_philox_of_seed_name_and_place),
        cmocka_unit_test(first_values_have_the_distribution_asked_for),
        cmocka_unit_test(a_wrong_declaration_is_the_programs_error),
        cmocka_unit_test(wrong_parameters_are_refused),
        cmocka_unit_test(schedules_follow_their_formulas),
        cmocka_unit_test(adamw_decays_matrices_alone_and_clips),
        cmocka_unit_test(wrong_optimizers_are_refused),
        cmocka_unit_test(wrong_configs_are_refused),
        cmocka_unit_test(presets_are_the_models_that_bench_measures),
        cmocka_unit_test(sampling_follows_the_probabilities),
        cmocka_unit_test(sampling_repeats),
        cmocka_unit_test(the_most_likely_is_the_first_of_equals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
