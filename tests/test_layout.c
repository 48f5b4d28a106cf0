/* How jobs are laid out for a GPU: a grid has every workgroup that was asked for, and the pieces of a job cover each of
   its elements once, wherever the operands' dimensions, strides and the device's limits put the cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "op/gpu.h"
#include "support.h"
#include <string.h>

static void grids_hold_every_workgroup(void **state) {
    (void)state;
    const struct hk_limits limits = {.max_groups = 7};
    const struct hk_recorder recorder = {.limits = &limits};
    for (uint64_t count = 1; count <= 49; count++) {
        struct hk_dispatch d = {0};
        hk_groups(&recorder, &d, count);
        const uint64_t all = (uint64_t)d.groups[0] * d.groups[1] * d.groups[2];
        assert_true(d.groups[0] <= 7 && d.groups[1] <= 7 && d.groups[2] == 1);
        if (all < count || all >= count + d.groups[1])
            fail_msg("%llu workgroups became %u x %u", (unsigned long long)count, d.groups[0], d.groups[1]);
    }
}

/* ---- Pieces ---- */

enum { OPERANDS = 3, MOST = 4096, RANGE = 1024 + 256, ALIGN = 256 };

/* What a job did: for each element of the first operand, which elements of the others came with it. */
struct job {
    int visits[MOST];
    int64_t with[MOST][OPERANDS];
};

static void visit(struct job *job, const struct hk_operand *o, int dimension, const int64_t at[OPERANDS]) {
    if (dimension == o[0].rank) {
        assert_in_range(at[0], 0, MOST - 1);
        job->visits[at[0]]++;
        for (int k = 0; k < OPERANDS; k++) job->with[at[0]][k] = at[k];
        return;
    }
    for (int64_t i = 0; i < o[0].shape[dimension]; i++) {
        int64_t next[OPERANDS];
        for (int k = 0; k < OPERANDS; k++) next[k] = at[k] + i * o[k].stride[dimension];
        visit(job, o, dimension + 1, next);
    }
}

static void visit_all(struct job *job, const struct hk_operand *o) {
    int64_t at[OPERANDS];
    for (int k = 0; k < OPERANDS; k++) at[k] = (int64_t)(o[k].offset / 4);
    visit(job, o, 0, at);
}

static hk_status piece(void *context, const struct hk_operand *operands) {
    for (int k = 0; k < OPERANDS; k++) {
        assert_true(operands[k].rank == operands[0].rank);
        assert_true(hk_operand_span(&operands[k]) <= RANGE - ALIGN);
    }
    visit_all(context, operands);
    return HK_OK;
}

/* The first dense; the others dense, of another order in memory, with gaps, or broadcast. */
static void make_operands(struct hk_operand o[OPERANDS], uint64_t *random) {
    const int rank = (int)(test_random(random) % 5);
    int64_t shape[HK_MAX_RANK], elements = 1;
    for (int i = 0; i < rank; i++) {
        const int64_t most = MOST / elements;
        shape[i] = 1 + (int64_t)(test_random(random) % (i % 2 ? 3u : 40u));
        if (shape[i] > most) shape[i] = most;
        elements *= shape[i];
    }
    for (int k = 0; k < OPERANDS; k++) {
        o[k] = (struct hk_operand){.dtype = HK_F32, .rank = rank};
        const bool reversed = k && test_random(random) % 3 == 0;
        int64_t stride = k && test_random(random) % 4 == 0 ? 2 : 1;
        for (int i = 0; i < rank; i++) {
            const int d = reversed ? i : rank - 1 - i;
            const bool broadcast = k && test_random(random) % 4 == 0;
            o[k].shape[d] = shape[d];
            o[k].stride[d] = broadcast ? 0 : stride;
            if (!broadcast) stride *= shape[d] + (k && test_random(random) % 4 == 0);
        }
    }
}

static void pieces_cover_each_element_once(void **state) {
    (void)state;
    const struct hk_limits limits = {.max_range = RANGE, .offset_align = ALIGN, .max_groups = 65535};
    const struct hk_recorder recorder = {.limits = &limits};
    struct job *whole = test_malloc(sizeof *whole), *cut = test_malloc(sizeof *cut);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        struct hk_operand o[OPERANDS];
        uint64_t random = seed;
        make_operands(o, &random);
        memset(whole, 0, sizeof *whole);
        memset(cut, 0, sizeof *cut);
        visit_all(whole, o);
        assert_int_equal(hk_for_pieces(&recorder, o, OPERANDS, piece, cut), HK_OK);
        if (memcmp(whole, cut, sizeof *cut))
            fail_msg("seed %llu: the pieces are not the whole", (unsigned long long)seed);
    }
    test_free(whole);
    test_free(cut);
}

/* ---- Parts ---- */

/* What an op records, for limits of the test's own; every range of the scratch memory that it binds lies in what was asked
   for. */
struct recording {
    struct hk_recorder recorder;
    const struct hk_buffer *scratch;
    uint64_t scratch_bytes, used;
    int take, choices; /* which kernel, and of how many */
    int count;
    struct hk_dispatch first, last;
};

static hk_status keep(struct hk_recorder *recorder, const struct hk_dispatch *dispatch) {
    struct recording *r = (struct recording *)recorder;
    if (!r->count++) r->first = *dispatch;
    r->last = *dispatch;
    for (int i = 0; i < dispatch->n_bindings; i++) {
        const struct hk_binding *b = &dispatch->bindings[i];
        assert_true(b->bytes <= recorder->limits->max_range);
        if (b->buffer != r->scratch) continue;
        assert_true(b->offset + b->bytes <= r->scratch_bytes);
        r->used = HK_MAX(r->used, b->offset + b->bytes);
    }
    return HK_OK;
}

static int take(struct hk_recorder *recorder, const struct hk_choice *choice) {
    struct recording *r = (struct recording *)recorder;
    for (int i = 0; i < choice->count; i++)
        for (int k = 0; k < i; k++) assert_string_not_equal(choice->names[i], choice->names[k]);
    r->choices = choice->count;
    return r->take < choice->count ? r->take : choice->standard;
}

/* Of the call that makes the value, with the kernel of that number; -1: the standard one. */
static struct recording record_call(const struct hk_value *value, const struct hk_limits *limits, int kernel) {
    static struct hk_buffer memory, scratch;
    const struct hk_call *call = value->root->call;
    struct recording r = {.recorder = {.limits = limits, .record = keep, .choose = kernel < 0 ? NULL : take},
                          .scratch = &scratch, .take = kernel};
    struct hk_operand in[4], out[2];
    for (int i = 0; i < call->n_inputs; i++) in[i] = hk_operand_of(call->inputs[i]), in[i].buffer = &memory;
    for (int i = 0; i < call->n_outputs; i++) out[i] = hk_operand_of(call->outputs[i]), out[i].buffer = &memory;
    r.scratch_bytes = hk_call_scratch(call, limits);
    const struct hk_step step = {.op = call->op, .attrs = call->attrs, .n_inputs = call->n_inputs, .n_outputs = call->n_outputs,
                                 .inputs = in, .outputs = out,
                                 .scratch = {.buffer = &scratch, .dtype = HK_U8, .rank = 1, .stride = {1}}};
    assert_int_equal(call->op->gpu(&step, &r.recorder), HK_OK);
    return r;
}

/* Whatever it holds: nothing runs. */
static struct hk_value *leaf(struct hk_graph *graph, enum hk_dtype dtype, struct hk_shape shape) {
    struct hk_value *x = hk_fill(graph, dtype, shape, 0.0);
    assert_non_null(x);
    return x;
}

static struct hk_limits limits_of(uint32_t processors) {
    return (struct hk_limits){.max_range = 1u << 31, .offset_align = 256, .max_invocations = 1024, .shared_memory = 49152,
                              .subgroup_size = 32, .max_groups = 65535, .processors = processors, .registers = 256};
}

static void products_of_few_tiles_are_made_in_parts(void **state) {
    (void)state;
    static const struct {
        int64_t m, n, k;
        uint32_t processors;
        bool software;
        uint32_t parts;
    } cases[] = {
        {768, 768, 16384, 132, false, 4}, /* 36 tiles of 128 by 128 */
        {768, 768, 16384, 32, false, 1},  /* enough for all */
        {768, 768, 16384, 132, true, 1},
        {768, 768, 1040, 132, false, 1},  /* too short, and no multiple */
        {64, 64, 65536, 132, false, 16},
        {1, 768, 4096, 132, false, 4},    /* 48 tiles of one row */
        {1, 768, 4100, 132, false, 1},
        {4096, 4096, 4096, 132, false, 1},
    };
    for (size_t i = 0; i < HK_LENGTH(cases); i++) {
        struct hk_limits limits = limits_of(cases[i].processors);
        limits.software = cases[i].software;
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *a = leaf(graph, HK_F16, HK_SHAPE(cases[i].m, cases[i].k)),
                        *b = leaf(graph, HK_F16, HK_SHAPE(cases[i].k, cases[i].n));
        const struct recording r = record_call(hk_matmul(a, b), &limits, -1);
        assert_int_equal(r.count, cases[i].parts > 1 ? 2 : 1);
        assert_int_equal(!strcmp(r.last.shader, "matmul_parts"), cases[i].parts > 1);
        assert_int_equal(r.used, cases[i].parts > 1 ? cases[i].parts * cases[i].m * cases[i].n * 4 : 0);
        hk_graph_destroy(&graph);
    }
}

static void scratch_memory_holds_all_parts(void **state) {
    (void)state;
    uint64_t random = 7;
    int with = 0;
    for (int round = 0; round < 2000; round++) {
        struct hk_limits limits = limits_of(1u << test_random(&random) % 10);
        if (test_random(&random) % 2) limits.max_range = 16384ull << test_random(&random) % 8;
        const int64_t m = 1 + (int64_t)(test_random(&random) % 300), n = 1 + (int64_t)(test_random(&random) % 300),
                      k = (int64_t)(1 + test_random(&random) % 20) * (test_random(&random) % 2 ? 512 : 250),
                      batch = 1 + (int64_t)(test_random(&random) % 3);
        const enum hk_dtype dtype = test_random(&random) % 2 ? HK_F32 : HK_BF16;
        struct hk_graph *graph = hk_graph_create();
        struct hk_value *a = leaf(graph, dtype, HK_SHAPE(batch, m, k)), *b = leaf(graph, dtype, HK_SHAPE(batch, k, n));
        with += record_call(hk_matmul(a, b), &limits, -1).used > 0;
        hk_graph_destroy(&graph);
    }
    assert_in_range(with, 500, 1900);
}

/* Each kernel is there to be measured, in parts and not. */
static void parts_are_a_choice(void **state) {
    (void)state;
    const struct hk_limits limits = limits_of(132);
    int of[2] = {0};
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *c = hk_matmul(leaf(graph, HK_F32, HK_SHAPE(64, 4096)), leaf(graph, HK_F32, HK_SHAPE(4096, 64)));
    struct recording r = {.choices = 1};
    for (int i = 0; i < r.choices; i++) {
        r = record_call(c, &limits, i);
        assert_int_equal(r.count, 1 + (r.used > 0));
        of[r.used > 0]++;
    }
    assert_int_equal(of[0], 4);
    assert_int_equal(of[1], 4);
    hk_graph_destroy(&graph);
}

/* q [batch, heads, queries, depth] on as many heads of keys. */
static struct recording record_attention(const int64_t q[4], int64_t keys, const struct hk_limits *limits) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *k = leaf(graph, HK_F16, HK_SHAPE(q[0], q[1], keys, q[3]));
    struct hk_value *y = hk_attention(leaf(graph, HK_F16, HK_SHAPE(q[0], q[1], q[2], q[3])), k, k, NULL);
    const struct recording r = record_call(y, limits, -1);
    hk_graph_destroy(&graph);
    return r;
}

static void few_queries_have_their_keys_in_parts(void **state) {
    (void)state;
    static const struct {
        int64_t q[4], keys;
        bool software;
        uint32_t processors;
        const char *shader;
        int64_t parts;
    } cases[] = {
        {{1, 8, 1, 64}, 4096, false, 132, "attention_few", 16}, /* of 256 keys */
        {{1, 8, 4, 64}, 65536, false, 132, "attention_few", 32},
        {{1, 8, 5, 64}, 4096, false, 132, "attention", 1},
        {{1, 8, 1, 64}, 511, false, 132, "attention_few", 1},
        {{64, 32, 1, 128}, 1024, false, 132, "attention_few", 1}, /* workgroups for all */
        {{1, 1, 1, 64}, 4096, true, 2, "attention_few", 8},
        {{1, 8, 1, 64}, 4096, true, 2, "attention_few", 1},
        {{1, 8, 3, 64}, 4096, true, 2, "attention_rows", 1},
        {{1, 8, 3, 128}, 4096, true, 2, "attention_few", 1},
    };
    for (size_t i = 0; i < HK_LENGTH(cases); i++) {
        struct hk_limits limits = limits_of(cases[i].processors);
        limits.software = cases[i].software;
        const int64_t *const q = cases[i].q, parts = cases[i].parts;
        const struct recording r = record_attention(q, cases[i].keys, &limits);
        assert_string_equal(r.first.shader, cases[i].shader);
        assert_int_equal(r.count, parts > 1 ? 2 : 1);
        assert_int_equal(!strcmp(r.last.shader, "attention_parts"), parts > 1);
        assert_int_equal(r.used, parts > 1 ? q[0] * q[1] * q[2] * parts * (q[3] + 1) * 4 : 0);
    }
}

static void scratch_memory_holds_all_parts_of_keys(void **state) {
    (void)state;
    uint64_t random = 11;
    int with = 0;
    for (int round = 0; round < 2000; round++) {
        struct hk_limits limits = limits_of(1u << test_random(&random) % 10);
        limits.max_range = 1u << (20 + test_random(&random) % 4); /* all that one item of the batch has */
        const int64_t q[] = {1 + (int64_t)(test_random(&random) % 8), 1 + (int64_t)(test_random(&random) % 4),
                             1 + (int64_t)(test_random(&random) % 5), 32};
        with += record_attention(q, 1 + (int64_t)(test_random(&random) % 3000), &limits).used > 0;
    }
    assert_in_range(with, 500, 1900);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_hold_every_workgroup),
        cmocka_unit_test(pieces_cover_each_element_once),
        cmocka_unit_test(products_of_few_tiles_are_made_in_parts),
        cmocka_unit_test(scratch_memory_holds_all_parts),
        cmocka_unit_test(parts_are_a_choice),
        cmocka_unit_test(few_queries_have_their_keys_in_parts),
        cmocka_unit_test(scratch_memory_holds_all_parts_of_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
