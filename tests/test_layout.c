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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_hold_every_workgroup),
        cmocka_unit_test(pieces_cover_each_element_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
