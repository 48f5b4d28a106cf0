// matmul of two f16 or two bf16 operands by matrices of whole workgroups (VK_NV_cooperative_matrix2), sums in f32: one workgroup
// per BM x BN tile of c. The driver reads from the operands' memory, stages in shared memory and pipelines as its hardware wants.
// Operands and c, and their batch items, begin at multiples of 16 bytes; rows may begin anywhere.
//@ requires GL_KHR_cooperative_matrix GL_NV_cooperative_matrix2
//@ variant bf16 requires GL_EXT_bfloat16: -DBF16_ELEMENTS
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_16bit_storage : require
#ifdef BF16_ELEMENTS
#extension GL_EXT_bfloat16 : require
#define ELEMENT bfloat16_t
#else
#define ELEMENT float16_t
#endif
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint BM = 128;
layout(constant_id = 8) const uint BN = 128;
layout(constant_id = 9) const uint BK = 64;
// Multiples of which the rows' strides are: what is known of them when the pipeline is made lets the driver read more at once.
layout(constant_id = 12) const uint A_WIDTH = 1;
layout(constant_id = 13) const uint B_WIDTH = 1;
layout(constant_id = 14) const uint C_WIDTH = 1;

layout(set = 0, binding = 0, std430) restrict readonly buffer Elements_a { ELEMENT a16[]; };
layout(set = 0, binding = 1, std430) restrict readonly buffer Elements_b { ELEMENT b16[]; };

coopmat<float, gl_ScopeWorkgroup, BM, BN, gl_MatrixUseAccumulator> sum;

uint stride_of(uint stride, uint width) { return stride / width * width; }

// Adds the product of BM rows from row0 and BN columns from column0, for k from first to end. MODE says what is read past the ends
// of the operands: reading within them is faster.
#define MULTIPLY(MODE, first, end)                                                                                 \
    {                                                                                                              \
        tensorLayoutNV<2, MODE> in_a = createTensorLayoutNV(2, MODE), in_b = createTensorLayoutNV(2, MODE);        \
        const uint row_a = stride_of(A_ALONG_K ? p.a_row : p.a_column, A_WIDTH);                                   \
        const uint row_b = stride_of(B_ALONG_N ? p.b_row : p.b_column, B_WIDTH);                                   \
        in_a = setTensorLayoutDimensionNV(in_a, A_ALONG_K ? p.m : p.k, A_ALONG_K ? p.k : p.m);                     \
        in_b = setTensorLayoutDimensionNV(in_b, B_ALONG_N ? p.k : p.n, B_ALONG_N ? p.n : p.k);                     \
        in_a = setTensorLayoutStrideNV(in_a, row_a, 1);                                                            \
        in_b = setTensorLayoutStrideNV(in_b, row_b, 1);                                                            \
        for (uint k = first; k < end; k += BK) {                                                                   \
            coopmat<ELEMENT, gl_ScopeWorkgroup, BM, BK, gl_MatrixUseA> x;                                          \
            coopmat<ELEMENT, gl_ScopeWorkgroup, BK, BN, gl_MatrixUseB> y;                                          \
            if (A_ALONG_K) coopMatLoadTensorNV(x, a16, from_a, sliceTensorLayoutNV(in_a, row0, BM, k, BK));        \
            else coopMatLoadTensorNV(x, a16, from_a, sliceTensorLayoutNV(in_a, k, BK, row0, BM), transposed);      \
            if (B_ALONG_N) coopMatLoadTensorNV(y, b16, from_b, sliceTensorLayoutNV(in_b, k, BK, column0, BN));     \
            else coopMatLoadTensorNV(y, b16, from_b, sliceTensorLayoutNV(in_b, column0, BN, k, BK), transposed);   \
            sum = coopMatMulAdd(x, y, sum);                                                                        \
        }                                                                                                          \
    }

float biased(const in uint row, const in uint column, const in float x, const in uint column0) {
    const uint i = column0 + column;
    return i < p.n ? x + bias[p.base_bias + i] : x;
}

void main() {
    if (group() >= p.groups) return;
    const uint batch = group() / (p.tiles_m * p.tiles_n);
    const uvec2 tile = tile_of(group() % (p.tiles_m * p.tiles_n));
    const uint row0 = tile.x * BM, column0 = tile.y * BN;
    const uint from_a = a_of(batch), from_b = b_of(batch), to_c = p.base_c + c_of(batch);
    const tensorViewNV<2, false, 1, 0> transposed = createTensorViewNV(2, false, 1, 0);
    tensorLayoutNV<2, gl_CooperativeMatrixClampModeConstantNV> in_c =
        createTensorLayoutNV(2, gl_CooperativeMatrixClampModeConstantNV);
    in_c = setTensorLayoutDimensionNV(in_c, p.m, p.n);
    in_c = setTensorLayoutStrideNV(in_c, stride_of(p.c_row, C_WIDTH), 1);
    in_c = sliceTensorLayoutNV(in_c, row0, BM, column0, BN);

    sum = coopmat<float, gl_ScopeWorkgroup, BM, BN, gl_MatrixUseAccumulator>(0.0);
    if (ACCUMULATE) coopMatLoadTensorNV(sum, c, to_c, in_c);
    const uint within = row0 + BM <= p.m && column0 + BN <= p.n ? p.k / BK * BK : 0;
    MULTIPLY(gl_CooperativeMatrixClampModeUndefinedNV, 0, within)
    MULTIPLY(gl_CooperativeMatrixClampModeConstantNV, within, p.k)
    if (BIAS) coopMatPerElementNV(sum, sum, biased, column0);
    coopMatStoreTensorNV(sum, c, to_c, in_c);
}
