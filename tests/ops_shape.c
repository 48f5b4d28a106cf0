/* Cases of views, copies, casts, fills and stores. */
#include "cases.h"
#include "support.h"
#include <math.h>
#include <string.h>

#define BUILD(name, expression)                                                                                        \
    static struct hk_value *name(struct hk_graph *graph, struct hk_value *const *in) {                                 \
        (void)graph, (void)in;                                                                                         \
        return expression;                                                                                             \
    }
#define REFERENCE(name) static void name(const struct hk_case *c, const double *const *in, double *out)
#define F(...)                                                                                                         \
    { .shape = __VA_ARGS__ }
#define SET(op)                                                                                                        \
    const struct hk_case_set hk_cases_##op = {op##_cases, COUNT(op##_cases), op##_refusals, COUNT(op##_refusals)};

REFERENCE(same_of) { memcpy(out, in[0], (size_t)test_elements(c->inputs[0].shape) * sizeof *out); }

/* x with dimensions i and j exchanged, any rank. */
static void exchange(const struct hk_case *c, const double *x, double *out, int i, int j) {
    struct hk_shape from = c->inputs[0].shape, to = from;
    const int64_t n = test_elements(from);
    int64_t stride[HK_MAX_RANK], s = 1;
    for (int k = from.rank - 1; k >= 0; k--) stride[k] = s, s *= from.size[k];
    const int64_t size = to.size[i], step = stride[i];
    to.size[i] = to.size[j], to.size[j] = size;
    stride[i] = stride[j], stride[j] = step;
    for (int64_t e = 0; e < n; e++) {
        int64_t rest = e, at = 0;
        for (int k = to.rank - 1; k >= 0; k--) at += rest % to.size[k] * stride[k], rest /= to.size[k];
        out[e] = x[at];
    }
}
REFERENCE(exchange_1_2_of) { exchange(c, in[0], out, 1, 2); }
REFERENCE(exchange_0_1_of) { exchange(c, in[0], out, 0, 1); }
REFERENCE(exchange_last_of) { exchange(c, in[0], out, c->inputs[0].shape.rank - 2, c->inputs[0].shape.rank - 1); }

/* ---- reshape ---- */

BUILD(reshape_flat, hk_reshape(in[0], HK_SHAPE(-1)))
BUILD(reshape_split, hk_reshape(in[0], HK_SHAPE(2, 3, 5, -1)))
BUILD(reshape_transposed, hk_reshape(hk_transpose(in[0]), HK_SHAPE(-1, 3)))
BUILD(reshape_with_ones, hk_reshape(in[0], HK_SHAPE(1, 6, 1, 35, 1)))
BUILD(reshape_heads,
      hk_reshape(hk_permute(hk_reshape(in[0], HK_SHAPE(2, 3, 4, 5)), HK_AXES(0, 2, 1, 3)), HK_SHAPE(8, 3, 5)))
BUILD(reshape_scalar, hk_reshape(in[0], HK_SCALAR))
BUILD(reshape_broadcast, hk_reshape(hk_broadcast_to(in[0], HK_SHAPE(3, 4)), HK_SHAPE(2, 6)))
BUILD(reshape_nothing, hk_reshape(in[0], HK_SHAPE(0, 7)))
BUILD(reshape_too_few, hk_reshape(in[0], HK_SHAPE(2, 3)))
BUILD(reshape_two_open, hk_reshape(in[0], HK_SHAPE(-1, -1)))
REFERENCE(heads_of) {
    (void)c;
    for (int i = 0; i < 120; i++) out[((i / 60 * 4 + i / 5 % 4) * 3 + i / 20 % 3) * 5 + i % 5] = in[0][i];
}
REFERENCE(repeated_of) {
    (void)c;
    for (int i = 0; i < 12; i++) out[i] = in[0][i % 4];
}
static const struct hk_case reshape_cases[] = {
    {"to one dimension", {F(HK_SHAPE(3, 5, 7))}, 1, reshape_flat, same_of, .gradient = true, .exact = true},
    {"a size left open", {F(HK_SHAPE(6, 35))}, 1, reshape_split, same_of, .gradient = true, .exact = true},
    {"of a transposed value",
     {F(HK_SHAPE(6, 35))},
     1,
     reshape_transposed,
     exchange_0_1_of,
     .gradient = true,
     .exact = true},
    {"ones in between", {F(HK_SHAPE(2, 3, 5, 7))}, 1, reshape_with_ones, same_of, .gradient = true, .exact = true},
    {"views over views", {F(HK_SHAPE(6, 20))}, 1, reshape_heads, heads_of, .gradient = true, .exact = true},
    {"a scalar", {F(HK_SHAPE(1, 1))}, 1, reshape_scalar, same_of, .gradient = true, .exact = true},
    {"of a broadcast value", {F(HK_SHAPE(4))}, 1, reshape_broadcast, repeated_of, .gradient = true},
    {"nothing", {F(HK_SHAPE(7, 0))}, 1, reshape_nothing, same_of, .gradient = true, .exact = true},
};
static const struct hk_refusal reshape_refusals[] = {
    {"too few", {F(HK_SHAPE(7))}, 1, reshape_too_few, "reshape: [2, 3] does not hold the elements of [7]"},
    {"two open sizes", {F(HK_SHAPE(4))}, 1, reshape_two_open, "reshape: [-1, -1] does not hold the elements of [4]"},
};
SET(reshape)

/* ---- permute ---- */

BUILD(permute_middle, hk_permute(in[0], HK_AXES(0, 2, 1, -1)))
BUILD(transpose, hk_transpose(in[0]))
BUILD(permute_six, hk_permute(in[0], HK_AXES(0, 1, 2, 3, 5, 4)))
BUILD(permute_around, hk_permute(in[0], HK_AXES(2, 0, 1)))
BUILD(permute_few, hk_permute(in[0], HK_AXES(1, 0)))
BUILD(permute_twice, hk_permute(in[0], HK_AXES(1, 1)))
static const struct hk_case permute_cases[] = {
    {"the middle", {F(HK_SHAPE(2, 3, 5, 7))}, 1, permute_middle, exchange_1_2_of, .gradient = true, .exact = true},
    {"a matrix", {F(HK_SHAPE(37, 65))}, 1, transpose, exchange_last_of, .gradient = true, .exact = true},
    {"many matrices", {F(HK_SHAPE(3, 130, 33))}, 1, transpose, exchange_last_of, .gradient = true, .exact = true},
    {"rank 6", {F(HK_SHAPE(2, 1, 3, 2, 5, 3))}, 1, permute_six, exchange_last_of, .gradient = true, .exact = true},
    {"all axes go on", {F(HK_SHAPE(3, 3, 3))}, 1, permute_around, .gradient = true, .exact = true},
    {"nothing", {F(HK_SHAPE(0, 3))}, 1, transpose, exchange_last_of, .gradient = true, .exact = true},
};
static const struct hk_refusal permute_refusals[] = {
    {"too few axes", {F(HK_SHAPE(2, 3, 4))}, 1, permute_few, "permute: 2 axes for [2, 3, 4]"},
    {"an axis twice", {F(HK_SHAPE(2, 3))}, 1, permute_twice, "permute: axis 1 is given twice"},
    {"no matrix", {F(HK_SHAPE(3))}, 1, transpose, "transpose: needs two dimensions, x is [3]"},
};
SET(permute)

/* ---- broadcast_to ---- */

BUILD(broadcast_all, hk_broadcast_to(in[0], HK_SHAPE(4, 3, 5)))
BUILD(broadcast_scalar, hk_broadcast_to(in[0], HK_SHAPE(2, 33)))
BUILD(broadcast_nothing, hk_broadcast_to(in[0], HK_SHAPE(2, 0)))
REFERENCE(broadcast_all_of) {
    (void)c;
    for (int i = 0; i < 60; i++) out[i] = in[0][i / 5 % 3];
}
REFERENCE(broadcast_scalar_of) {
    (void)c;
    for (int i = 0; i < 66; i++) out[i] = in[0][0];
}
static const struct hk_case broadcast_to_cases[] = {
    {"both ways", {F(HK_SHAPE(3, 1))}, 1, broadcast_all, broadcast_all_of, .gradient = true},
    {"a scalar", {F({0})}, 1, broadcast_scalar, broadcast_scalar_of, .gradient = true},
    {"to nothing", {F(HK_SHAPE(2, 1))}, 1, broadcast_nothing, .gradient = true},
};
static const struct hk_refusal broadcast_to_refusals[] = {
    {"another size", {F(HK_SHAPE(2, 5))}, 1, broadcast_all, "broadcast_to: [2, 5] does not broadcast to [4, 3, 5]"},
    {"fewer dimensions",
     {F(HK_SHAPE(1, 2, 33))},
     1,
     broadcast_scalar,
     "broadcast_to: [1, 2, 33] does not broadcast to [2, 33]"},
};
SET(broadcast_to)

/* ---- slice and its gradient ---- */

BUILD(slice_steps, hk_slice(hk_slice(in[0], 1, 1, 4, 1), 2, 0, 9, 2))
BUILD(slice_end, hk_slice(in[0], -1, -3, 9, 1))
BUILD(slice_nothing, hk_slice(in[0], 0, 1, 1, 1))
BUILD(slice_thirds,
      hk_mul(hk_slice(in[0], -1, 0, 11, 1), hk_add(hk_slice(in[0], -1, 22, 33, 1), hk_slice(in[0], -1, 11, 22, 1))))
BUILD(slice_overlap, hk_mul(hk_slice(in[0], -1, 0, 22, 1), hk_slice(in[0], -1, 11, 33, 1)))
BUILD(slice_halves_and_all, hk_add(hk_mul(hk_slice(in[0], 1, 0, 16, 1), hk_slice(in[0], 1, 16, 32, 1)),
                                   hk_sum(hk_square(in[0]), HK_AXES(1), true)))
BUILD(slice_far, hk_slice(in[0], 1, 2, 9, 1))
REFERENCE(steps_of) {
    (void)c;
    for (int i = 0; i < 2 * 3 * 5; i++) out[i] = in[0][(i / 15 * 5 + i / 5 % 3 + 1) * 9 + i % 5 * 2];
}
REFERENCE(end_of) {
    (void)c;
    for (int i = 0; i < 2 * 5 * 3; i++) out[i] = in[0][i / 3 * 9 + 6 + i % 3];
}
REFERENCE(thirds_of) {
    (void)c;
    for (int i = 0; i < 5 * 11; i++) {
        const double *row = in[0] + i / 11 * 33 + i % 11;
        out[i] = row[0] * (row[11] + row[22]);
    }
}
static const struct hk_case slice_cases[] = {
    {"two axes, in steps", {F(HK_SHAPE(2, 5, 9))}, 1, slice_steps, steps_of, .gradient = true, .exact = true},
    {"from the end", {F(HK_SHAPE(2, 5, 9))}, 1, slice_end, end_of, .gradient = true, .exact = true},
    {"nothing", {F(HK_SHAPE(4, 3))}, 1, slice_nothing, .gradient = true},
};
static const struct hk_refusal slice_refusals[] = {
    {"beyond the end",
     {F(HK_SHAPE(3, 4))},
     1,
     slice_far,
     "slice: 2 to 9 in steps of 1 is out of range for axis 1 of [3, 4]"},
};
SET(slice)
static const struct hk_case slice_backward_cases[] = {
    {"slices that tile", {F(HK_SHAPE(5, 33))}, 1, slice_thirds, thirds_of, .gradient = true},
    {"slices that overlap", {F(HK_SHAPE(5, 33))}, 1, slice_overlap, .gradient = true},
    {"slices that tile, and another use", {F(HK_SHAPE(5, 32))}, 1, slice_halves_and_all, .gradient = true},
    {"in steps", {F(HK_SHAPE(2, 5, 9))}, 1, slice_steps, .gradient = true},
};
static const struct hk_refusal slice_backward_refusals[] = {
    {"of integers", {{HK_I32, HK_SHAPE(3, 4), 0, 9}}, 1, slice_far, "slice: 2 to 9"},
};
SET(slice_backward)

/* ---- concat ---- */

static struct hk_value *concat_pieces(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *x = hk_cast(in[0], HK_F16);
    (void)graph;
    return hk_concat((struct hk_value *[]){hk_slice(x, 1, 0, 11, 1), hk_slice(x, 1, 11, 16, 1)}, 2, 1);
}
BUILD(concat_middle, hk_concat(in, 3, 1))
BUILD(concat_last, hk_concat(in, 2, -1))
BUILD(concat_bytes, hk_concat((struct hk_value *[]){hk_cast(in[0], HK_U8), hk_cast(in[1], HK_U8)}, 2, -1))
BUILD(concat_halves, hk_concat((struct hk_value *[]){hk_cast(in[0], HK_F16), hk_cast(in[1], HK_F16)}, 2, -1))
BUILD(concat_first, hk_concat(in, 2, 0))
REFERENCE(concat_middle_of) {
    (void)c;
    static const int begin[4] = {0, 3, 7, 8};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 2; i++)
            for (int j = begin[k]; j < begin[k + 1]; j++)
                for (int l = 0; l < 5; l++)
                    out[(i * 8 + j) * 5 + l] = in[k][(i * (begin[k + 1] - begin[k]) + j - begin[k]) * 5 + l];
}
REFERENCE(concat_last_of) {
    const int64_t a = c->inputs[0].shape.size[1], b = c->inputs[1].shape.size[1];
    for (int64_t i = 0; i < c->inputs[0].shape.size[0]; i++) {
        memcpy(out + i * (a + b), in[0] + i * a, (size_t)a * sizeof *out);
        memcpy(out + i * (a + b) + a, in[1] + i * b, (size_t)b * sizeof *out);
    }
}
static const struct hk_case concat_cases[] = {
    {"pieces of rows of whole fours", {{HK_I32, HK_SHAPE(7, 16), -99, 99}}, 1, concat_pieces, same_of, .exact = true},
    {"three in the middle",
     {F(HK_SHAPE(2, 3, 5)), F(HK_SHAPE(2, 4, 5)), F(HK_SHAPE(2, 1, 5))},
     3,
     concat_middle,
     concat_middle_of,
     .gradient = true,
     .exact = true},
    {"the last axis",
     {F(HK_SHAPE(67, 33)), F(HK_SHAPE(67, 31))},
     2,
     concat_last,
     concat_last_of,
     .gradient = true,
     .exact = true},
    {"one is empty",
     {F(HK_SHAPE(3, 0)), F(HK_SHAPE(3, 5))},
     2,
     concat_last,
     concat_last_of,
     .gradient = true,
     .exact = true},
    {"integers",
     {{HK_I32, HK_SHAPE(3, 4), -9, 9}, {HK_I32, HK_SHAPE(3, 5), -9, 9}},
     2,
     concat_last,
     concat_last_of,
     .exact = true},
    {"bytes, a word more than their number",
     {{HK_I32, HK_SHAPE(2, 3), 0, 256}, {HK_I32, HK_SHAPE(2, 1024), 0, 256}},
     2,
     concat_bytes,
     concat_last_of,
     .exact = true},
    {"bytes, rows of whole words",
     {{HK_I32, HK_SHAPE(7, 4), 0, 256}, {HK_I32, HK_SHAPE(7, 8), 0, 256}},
     2,
     concat_bytes,
     concat_last_of,
     .exact = true},
    {"f16, rows of whole words",
     {{HK_I32, HK_SHAPE(9, 6), -256, 256}, {HK_I32, HK_SHAPE(9, 10), -256, 256}},
     2,
     concat_halves,
     concat_last_of,
     .exact = true},
    {"f16, words shared",
     {{HK_I32, HK_SHAPE(9, 5), -256, 256}, {HK_I32, HK_SHAPE(9, 3), -256, 256}},
     2,
     concat_halves,
     concat_last_of,
     .exact = true},
    {"bytes, words shared",
     {{HK_I32, HK_SHAPE(7, 3), 0, 256}, {HK_I32, HK_SHAPE(7, 6), 0, 256}},
     2,
     concat_bytes,
     concat_last_of,
     .exact = true},
};
static const struct hk_refusal concat_refusals[] = {
    {"other sizes",
     {F(HK_SHAPE(2, 3)), F(HK_SHAPE(2, 4))},
     2,
     concat_first,
     "concat: input 1 is f32 [2, 4], but input 0 is f32 [2, 3] (axis 0)"},
    {"other dtypes",
     {F(HK_SHAPE(2, 3)), {HK_I32, HK_SHAPE(2, 3), 0, 9}},
     2,
     concat_first,
     "concat: input 1 is i32 [2, 3]"},
};
SET(concat)

/* ---- pad ---- */

BUILD(pad_both, hk_pad(in[0], (int64_t[]){1, 0, 3}, (int64_t[]){0, 2, 1}, 7.5f))
BUILD(pad_vector, hk_pad(in[0], (int64_t[]){2}, (int64_t[]){3}, -1))
BUILD(pad_negative, hk_pad(in[0], (int64_t[]){2}, (int64_t[]){-3}, 0))
REFERENCE(pad_both_of) {
    (void)c;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            for (int k = 0; k < 9; k++) {
                const bool inside = i >= 1 && j < 3 && k >= 3 && k < 8;
                out[(i * 5 + j) * 9 + k] = inside ? in[0][((i - 1) * 3 + j) * 5 + k - 3] : 7.5;
            }
}
REFERENCE(pad_vector_of) {
    const int64_t n = c->inputs[0].shape.size[0];
    for (int64_t i = 0; i < n + 5; i++) out[i] = i >= 2 && i < n + 2 ? in[0][i - 2] : -1;
}
static const struct hk_case pad_cases[] = {
    {"three axes", {F(HK_SHAPE(2, 3, 5))}, 1, pad_both, pad_both_of, .gradient = true, .exact = true},
    {"a vector", {F(HK_SHAPE(1031))}, 1, pad_vector, pad_vector_of, .gradient = true, .exact = true},
    {"nothing", {F(HK_SHAPE(0))}, 1, pad_vector, pad_vector_of, .gradient = true, .exact = true},
};
static const struct hk_refusal pad_refusals[] = {
    {"negative", {F(HK_SHAPE(5))}, 1, pad_negative, "pad: axis 0 gets 2 elements before and -3 after"},
    {"integers", {{HK_I32, HK_SHAPE(5), 0, 9}}, 1, pad_vector, "pad: x must be f32, it is i32"},
};
SET(pad)

/* ---- copy ---- */

BUILD(copy_transposed, hk_contiguous(hk_transpose(in[0])))
BUILD(copy_bytes, hk_contiguous(hk_transpose(hk_cast(in[0], HK_U8))))
BUILD(copy_halves, hk_contiguous(hk_transpose(hk_cast(in[0], HK_F16))))
BUILD(copy_broadcast, hk_contiguous(hk_broadcast_to(in[0], HK_SHAPE(4, 3, 5))))
BUILD(copy_rows, hk_contiguous(hk_permute(in[0], HK_AXES(1, 0, 2))))
BUILD(copy_rows_of_halves, hk_contiguous(hk_permute(hk_cast(in[0], HK_F16), HK_AXES(1, 0, 2))))
/* [A, B, C] -> [B, A, C] */
REFERENCE(exchange_first_of) {
    const int64_t *size = c->inputs[0].shape.size;
    for (int64_t a = 0; a < size[0]; a++)
        for (int64_t b = 0; b < size[1]; b++)
            for (int64_t i = 0; i < size[2]; i++)
                out[(b * size[0] + a) * size[2] + i] = in[0][(a * size[1] + b) * size[2] + i];
}
static const struct hk_case copy_cases[] = {
    {"rows of whole fours", {F(HK_SHAPE(5, 3, 12))}, 1, copy_rows, exchange_first_of, .exact = true},
    {"rows of halves, whole fours", {{HK_I32, HK_SHAPE(5, 3, 24), -99, 99}}, 1, copy_rows_of_halves, exchange_first_of,
     .exact = true},
    {"rows of halves, less than whole fours", {{HK_I32, HK_SHAPE(5, 3, 12), -99, 99}}, 1, copy_rows_of_halves,
     exchange_first_of, .exact = true},
    {"a transposed matrix",
     {F(HK_SHAPE(37, 65))},
     1,
     copy_transposed,
     exchange_last_of,
     .gradient = true,
     .exact = true},
    {"large transposed matrices", {F(HK_SHAPE(2, 257, 131))}, 1, copy_transposed, exchange_last_of, .exact = true},
    {"bytes", {{HK_I32, HK_SHAPE(7, 11), 0, 256}}, 1, copy_bytes, exchange_last_of, .exact = true},
    {"halves", {{HK_I32, HK_SHAPE(5, 13), -99, 99}}, 1, copy_halves, exchange_last_of, .exact = true},
    {"broadcast", {F(HK_SHAPE(3, 1))}, 1, copy_broadcast, broadcast_all_of, .gradient = true},
    {"rank 6", {F(HK_SHAPE(2, 1, 3, 2, 5, 3))}, 1, permute_six, exchange_last_of, .exact = true},
};
static const struct hk_refusal copy_refusals[] = {
    {"no matrix", {F(HK_SHAPE(3))}, 1, copy_transposed, "transpose: needs two dimensions"}};
SET(copy)

/* ---- cast: each dtype to each, by way of f32 or i32 inputs ---- */

BUILD(to_f16, hk_cast(in[0], HK_F16))
BUILD(to_bf16, hk_cast(in[0], HK_BF16))
BUILD(to_i32, hk_cast(in[0], HK_I32))
BUILD(to_u8, hk_cast(in[0], HK_U8))
BUILD(to_i8, hk_cast(in[0], HK_I8))
BUILD(to_f32, hk_cast(in[0], HK_F32))
BUILD(f16_and_back, hk_cast(hk_cast(in[0], HK_F16), HK_F32))
BUILD(bf16_and_back, hk_cast(hk_cast(in[0], HK_BF16), HK_F32))
BUILD(f16_to_all, hk_cast(hk_cast(hk_cast(hk_cast(in[0], HK_F16), HK_U8), HK_BF16), HK_I32))
BUILD(u8_to_all, hk_cast(hk_cast(hk_cast(hk_cast(in[0], HK_U8), HK_F16), HK_BF16), HK_F32))
BUILD(i8_to_all, hk_cast(hk_cast(hk_cast(hk_cast(in[0], HK_I8), HK_F16), HK_BF16), HK_I32))
BUILD(i8_and_back, hk_cast(hk_cast(in[0], HK_I8), HK_F32))
BUILD(halves_to_i8, hk_cast(hk_affine(hk_cast(in[0], HK_F32), 0.5f, 0), HK_I8))
BUILD(i8_to_u8, hk_cast(hk_cast(in[0], HK_I8), HK_U8))
BUILD(u8_to_i8, hk_cast(hk_cast(in[0], HK_U8), HK_I8))
BUILD(to_none, hk_cast(in[0], (enum hk_dtype)77))
REFERENCE(f16_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++)
        out[i] = hk_f32_from_f16(hk_f16_from_f32((float)in[0][i]));
}
REFERENCE(bf16_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++)
        out[i] = hk_f32_from_bf16(hk_bf16_from_f32((float)in[0][i]));
}
REFERENCE(i32_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++)
        out[i] = fmin(fmax(trunc(in[0][i]), INT32_MIN), INT32_MAX);
}
REFERENCE(u8_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++) out[i] = fmin(fmax(trunc(in[0][i]), 0), 255);
}
REFERENCE(i8_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++) out[i] = fmin(fmax(rint(in[0][i]), -128), 127);
}
REFERENCE(halves_to_i8_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++) out[i] = fmin(fmax(rint(in[0][i] / 2), -128), 127);
}
REFERENCE(i8_to_u8_of) {
    for (int64_t i = 0; i < test_elements(c->inputs[0].shape); i++) out[i] = fmin(fmax(in[0][i], 0), 127);
}
#define WIDE(lowest, highest) {{.shape = HK_SHAPE(5, 67), .low = lowest, .high = highest}}, 1
static const struct hk_case cast_cases[] = {
    {"f32 to f16", WIDE(-1.5f, 1.5f), to_f16, f16_of, .exact = true},
    {"f32 to f16, subnormal", WIDE(-1e-6f, 1e-6f), to_f16, f16_of, .exact = true},
    {"f32 to f16, infinite", WIDE(-80000, 80000), to_f16, f16_of, .exact = true},
    {"f32 to bf16", WIDE(-1.5f, 1.5f), to_bf16, bf16_of, .exact = true},
    {"f32 to i32", WIDE(-99, 99), to_i32, i32_of, .exact = true},
    {"f32 to i32, clamped", WIDE(-4e9f, 4e9f), to_i32, i32_of, .exact = true},
    {"f32 to u8", WIDE(-99, 399), to_u8, u8_of, .exact = true},
    {"i32 to f32", {{HK_I32, HK_SHAPE(5, 67), -2e9f, 2e9f}}, 1, to_f32, .exact = true},
    {"i32 to u8", {{HK_I32, HK_SHAPE(3), -99, 399}}, 1, to_u8, u8_of, .exact = true},
    {"f32 to i8", WIDE(-200, 200), to_i8, i8_of, .exact = true},
    {"f32 to i8, clamped", WIDE(-4e9f, 4e9f), to_i8, i8_of, .exact = true},
    {"halves to i8: to even", {{HK_I32, HK_SHAPE(7, 67), -300, 300}}, 1, halves_to_i8, halves_to_i8_of, .exact = true},
    {"i32 to i8", {{HK_I32, HK_SHAPE(7, 11), -300, 300}}, 1, to_i8, i8_of, .exact = true},
    {"i32 to i8, clamped", {{HK_I32, HK_SHAPE(7, 11), -2e9f, 2e9f}}, 1, to_i8, i8_of, .exact = true},
    {"i8 to f32", WIDE(-200, 200), i8_and_back, i8_of, .exact = true},
    {"i8, f16, bf16, i32", {{HK_I32, HK_SHAPE(9, 13), -128, 128}}, 1, i8_to_all, same_of, .exact = true},
    {"i8 to u8", {{HK_I32, HK_SHAPE(9, 13), -300, 300}}, 1, i8_to_u8, i8_to_u8_of, .exact = true},
    {"u8 to i8", {{HK_I32, HK_SHAPE(9, 13), -300, 300}}, 1, u8_to_i8, i8_to_u8_of, .exact = true},
    {"i32 to f16", {{HK_I32, HK_SHAPE(7), -3000, 3000}}, 1, to_f16, f16_of, .exact = true},
    {"f16 and back", WIDE(-1.5f, 1.5f), f16_and_back, f16_of, .exact = true},
    {"f16 and back, subnormal", WIDE(-1e-5f, 1e-5f), f16_and_back, f16_of, .exact = true},
    {"bf16 and back", WIDE(-1.5f, 1.5f), bf16_and_back, bf16_of, .exact = true},
    {"f16, u8, bf16, i32", WIDE(0, 255), f16_to_all, .exact = true},
    {"u8, f16, bf16, f32", {{HK_I32, HK_SHAPE(9, 13), 0, 256}}, 1, u8_to_all, same_of, .exact = true},
    {"nothing", {F(HK_SHAPE(0))}, 1, to_u8, u8_of, .exact = true},
};
static const struct hk_refusal cast_refusals[] = {{"no dtype", {F(HK_SHAPE(3))}, 1, to_none, "cast: 77 is no dtype"}};
SET(cast)

/* ---- store: every result of a case is stored; here, views ---- */

BUILD(identity, in[0])
static struct hk_value *store_other(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_add(in[0], hk_cast(in[0], HK_I32));
}
static const struct hk_case store_cases[] = {
    {"an input", {F(HK_SHAPE(3, 5, 37))}, 1, identity, same_of, .gradient = true, .exact = true},
    {"a transposed view", {F(HK_SHAPE(37, 65))}, 1, transpose, exchange_last_of, .gradient = true, .exact = true},
    {"bytes of an odd size", {{HK_I32, HK_SHAPE(3, 7), 0, 256}}, 1, to_u8, same_of, .exact = true},
    {"nothing", {F(HK_SHAPE(0, 3))}, 1, identity, same_of, .gradient = true, .exact = true},
};
static const struct hk_refusal store_refusals[] = {
    {"what is wrong already", {F(HK_SHAPE(3))}, 1, store_other, "add: dtypes must both be"}};
SET(store)

/* ---- fill and arange ---- */

BUILD(fill_f32, hk_fill(graph, HK_F32, HK_SHAPE(3, 5, 37), -2.5))
BUILD(fill_f16, hk_fill(graph, HK_F16, HK_SHAPE(7), -2.5))
BUILD(fill_u8, hk_fill(graph, HK_U8, HK_SHAPE(3, 7), 300))
BUILD(fill_i8, hk_fill(graph, HK_I8, HK_SHAPE(3, 7), -2.5))
BUILD(fill_i8_clamped, hk_fill(graph, HK_I8, HK_SHAPE(5), -1000))
BUILD(fill_i32, hk_fill(graph, HK_I32, HK_SCALAR, -3e9))
BUILD(fill_nothing, hk_fill(graph, HK_F32, HK_SHAPE(3, 0), 1))
BUILD(fill_negative, hk_fill(graph, HK_F32, HK_SHAPE(3, -2), 1))
REFERENCE(fill_f32_of) {
    (void)c, (void)in;
    for (int i = 0; i < 3 * 5 * 37; i++) out[i] = -2.5;
}
REFERENCE(fill_f16_of) {
    (void)c, (void)in;
    for (int i = 0; i < 7; i++) out[i] = -2.5;
}
REFERENCE(fill_u8_of) {
    (void)c, (void)in;
    for (int i = 0; i < 21; i++) out[i] = 255;
}
REFERENCE(fill_i8_of) {
    (void)c, (void)in;
    for (int i = 0; i < 21; i++) out[i] = -2;
}
REFERENCE(fill_i8_clamped_of) {
    (void)c, (void)in;
    for (int i = 0; i < 5; i++) out[i] = -128;
}
REFERENCE(fill_i32_of) {
    (void)c, (void)in;
    out[0] = INT32_MIN;
}
static const struct hk_case fill_cases[] = {
    {"f32", .build = fill_f32, .reference = fill_f32_of, .exact = true},
    {"f16", .build = fill_f16, .reference = fill_f16_of, .exact = true},
    {"bytes, clamped", .build = fill_u8, .reference = fill_u8_of, .exact = true},
    {"signed bytes, to even", .build = fill_i8, .reference = fill_i8_of, .exact = true},
    {"signed bytes, clamped", .build = fill_i8_clamped, .reference = fill_i8_clamped_of, .exact = true},
    {"a clamped integer", .build = fill_i32, .reference = fill_i32_of, .exact = true},
    {"nothing", .build = fill_nothing, .exact = true},
};
static const struct hk_refusal fill_refusals[] = {
    {"a negative size", .build = fill_negative, .message = "fill: size 1 of the shape is -2"}};
SET(fill)

BUILD(arange_f32, hk_arange(graph, HK_F32, 1031, -3, 0.25))
BUILD(arange_i32, hk_arange(graph, HK_I32, 1031, 7, -3))
BUILD(arange_u8, hk_arange(graph, HK_U8, 77, 1, 2))
BUILD(arange_negative, hk_arange(graph, HK_F32, -1, 0, 1))
REFERENCE(arange_f32_of) {
    (void)c, (void)in;
    for (int i = 0; i < 1031; i++) out[i] = -3 + 0.25 * i;
}
REFERENCE(arange_i32_of) {
    (void)c, (void)in;
    for (int i = 0; i < 1031; i++) out[i] = 7 - 3 * i;
}
REFERENCE(arange_u8_of) {
    (void)c, (void)in;
    for (int i = 0; i < 77; i++) out[i] = 1 + 2 * i;
}
static const struct hk_case arange_cases[] = {
    {"f32", .build = arange_f32, .reference = arange_f32_of, .exact = true},
    {"i32", .build = arange_i32, .reference = arange_i32_of, .exact = true},
    {"bytes", .build = arange_u8, .reference = arange_u8_of, .exact = true},
};
static const struct hk_refusal arange_refusals[] = {
    {"a negative count", .build = arange_negative, .message = "arange: the count is -1"}};
SET(arange)
