/* The lab's report tells how much of a kernel's hot loop multiplies: of each driver's kind of assembly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lab/loop.h"
#include <string.h>

#define EXPECT(text, share) assert_float_equal(lab_loop_share(text), share, 1e-9)

static void test_radv(void **state) {
    (void)state;
    EXPECT("BB0:\n"
           "\tv_fma_f32 v0, v1, v2, v0                ; d6130000 04020501\n" /* before the loop */
           "BB1:\n"
           "\tds_load_b128 v[4:7], v3 offset:16       ; dbfc0010\n"
           "\ts_waitcnt lgkmcnt(0)                    ; bf89fc07\n" /* waits */
           "\tv_fmac_f32_e32 v0, v4, v5               ; 56000b04\n"
           "\ts_delay_alu instid0(VALU_DEP_3)         ; bf870003\n" /* a hint */
           "\tv_fmac_f32_e32 v1, v4, v6               ; 56020d04\n"
           "\ts_cbranch_scc1 BB2                      ; bfa20001\n"
           "\tv_mad_u32_u24 v3, 16, v8, v3            ; d60b0003\n" /* of integers */
           "\ts_branch BB1                            ; bfa0fff0\n"
           "BB2:\n"
           "\ts_endpgm                                ; bfb00000\n",
           100.0 * 2 / 6);
}

static void test_pairs_and_matrices(void **state) {
    (void)state;
    EXPECT("BB1:\n"
           "\tv_dual_fmac_f32 v0, v4, v5 :: v_dual_fmac_f32 v1, v4, v6 ; c8000b04\n"
           "\tv_dual_fmac_f32 v2, v4, v5 :: v_dual_mov_b32 v3, 0       ; c8000b04\n"
           "\ts_cbranch_scc0 BB1\n",
           100.0 * 3 / 5);
    EXPECT("BB1:\n"
           "\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; cc404000\n"
           "\ts_cbranch_scc0 BB1\n",
           50);
}

/* The hot loop holds no other loop, and has the most multiply-adds of those. */
static void test_nested(void **state) {
    (void)state;
    EXPECT("BB1:\n\tv_fma_f32 v0, v1, v2, v0\n"
           "\tv_fma_f32 v0, v1, v2, v0\n\tv_fma_f32 v0, v1, v2, v0\n\tv_fma_f32 v0, v1, v2, v0\n"
           "BB2:\n"
           "\tv_add_f32 v0, v0, v0\n"
           "\ts_cbranch_scc0 BB2\n"
           "BB3:\n"
           "\tv_fma_f32 v0, v1, v2, v0\n"
           "\ts_cbranch_vccz BB3\n" /* one way back, and another */
           "\tv_fma_f32 v0, v1, v2, v0\n"
           "\ts_cbranch_scc0 BB3\n"
           "\ts_branch BB1\n",
           50);
}

static void test_nvk(void **state) {
    (void)state;
    EXPECT("block.u 0 L2 [] -> {\n"
           "      r1       = mov 0x0                 // delay=1\n"
           "} -> [1]\n"
           "block.u 1 L4 [0, 1] -> {\n"
           "      r4..8    = lds.b128 [r3+0x10]      // delay=2 wr:0\n"
           "      r0       = ffma r4 r5 r0           // delay=4 wt=000001\n"
           "@!p0  r1       = ffma r4 r6 r1           // delay=4\n"
           "                 nop L4                  // delay=1\n"
           "@p1              bra pT L4               // delay=1\n"
           "} -> [1, 2]\n"
           "block.u 2 L5 [1] -> {\n"
           "                 exit                    // delay=1\n"
           "} -> []\n",
           50);
    /* the way out lies within */
    EXPECT("block.u 0 L4 [2] -> {\n"
           "      r0       = ffma r4 r5 r0           // delay=4\n"
           "                 bra !up0 L7             // delay=1\n"
           "} -> [1, 2]\n"
           "block.u 1 L6 [0] -> {\n"
           "      r4       = mov r0                  // delay=4\n"
           "                 exit                    // delay=1\n"
           "} -> []\n"
           "block.u 2 L7 [0] -> {\n"
           "                 bra L4                  // delay=1\n"
           "} -> [0]\n",
           100.0 / 3);
}

static void test_turnip(void **state) {
    (void)state;
    EXPECT("l10:\n"
           "(ss)br !p0.x, #l20\n"
           "(sy)(rpt2)mad.f32 r0.x, r4.x, (r)r5.x, (r)r0.x\n" /* three of them */
           "(nop3) mad.f32 r1.x, r4.x, r5.y, r1.x\n"
           "(rpt5)nop\n"
           "mad.u24 r2.x, r3.x, r4.x, r5.x\n"
           "(ss)(sy)jump #l10\n"
           "l20:\n"
           "end\n",
           100.0 * 4 / 7);
}

static void test_nothing(void **state) {
    (void)state;
    EXPECT("", -1);
    EXPECT("BB0:\n\tv_fma_f32 v0, v1, v2, v0\n\ts_cbranch_scc0 BB1\nBB1:\n\ts_endpgm\n", -1); /* unrolled */
    EXPECT("BB0:\n\tv_add_f32 v0, v1, v2\n\ts_cbranch_scc0 BB0\n", -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_radv),   cmocka_unit_test(test_pairs_and_matrices),
        cmocka_unit_test(test_nested), cmocka_unit_test(test_nvk),
        cmocka_unit_test(test_turnip), cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
