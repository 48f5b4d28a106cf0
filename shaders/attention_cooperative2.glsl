// What the attention kernels with matrices of whole workgroups (VK_NV_cooperative_matrix2) have in common. A workgroup has ROWS
// rows (queries, or keys in the kernel for dk and dv) and goes over blocks of COLUMNS (keys, or queries). Rows of all operands
// begin at multiples of 16 bytes.
#ifdef BF16_ELEMENTS
#define ELEMENT bfloat16_t
#else
#define ELEMENT float16_t
#endif

layout(constant_id = 7) const uint ROWS = 64;
layout(constant_id = 8) const uint COLUMNS = 64;
layout(constant_id = 9) const uint DP = 64; // D, padded to what matrices can have

#define TENSOR tensorLayoutNV<2, gl_CooperativeMatrixClampModeConstantNV>
#define LEFT(rows, columns) coopmat<ELEMENT, gl_ScopeWorkgroup, rows, columns, gl_MatrixUseA>
#define RIGHT(rows, columns) coopmat<ELEMENT, gl_ScopeWorkgroup, rows, columns, gl_MatrixUseB>
#define SUM(rows, columns) coopmat<float, gl_ScopeWorkgroup, rows, columns, gl_MatrixUseAccumulator>

// The operand of a binding as the matrix units read it, and results as they are written.
#define TENSOR_BUFFER(b, name) layout(set = 0, binding = b, std430) buffer Tensor_##name { ELEMENT name##16[]; };

// Matrix x = rows first .. first + count of a head's operand [rows, D] that begins at element `from`, or its transpose with a view.
// Reading within the operand is faster than reading what may reach over its end. LOAD(x, name, from, rows, stride, first, count)
#define LOAD(x, name, from, rows, stride, first, count) LOAD_AS(x, name, from, rows, stride, first, count, )
#define LOAD_TRANSPOSED(x, name, from, rows, stride, first, count) \
    LOAD_AS(x, name, from, rows, stride, first, count, COMMA createTensorViewNV(2, false, 1, 0))
#define COMMA ,
#define LOAD_AS(x, name, from, rows, stride, first, count, VIEW)                                                              \
    if (D == DP && first + count <= rows) {                                                                                   \
        tensorLayoutNV<2> t = createTensorLayoutNV(2);                                                                        \
        t = setTensorLayoutDimensionNV(t, rows, D);                                                                           \
        t = setTensorLayoutStrideNV(t, stride / 8 * 8, 1);                                                                    \
        coopMatLoadTensorNV(x, name##16, from, sliceTensorLayoutNV(t, first, count, 0, DP) VIEW);                             \
    } else {                                                                                                                  \
        coopMatLoadTensorNV(x, name##16, from, sliceTensorLayoutNV(tensor_of(rows, stride), first, count, 0, DP) VIEW);       \
    }

// [rows, D] of one head, whose rows lie `stride` apart; outside is 0.
TENSOR tensor_of(uint rows, uint stride) {
    TENSOR t = createTensorLayoutNV(2, gl_CooperativeMatrixClampModeConstantNV);
    t = setTensorLayoutDimensionNV(t, rows, D);
    return setTensorLayoutStrideNV(t, stride / 8 * 8, 1);
}

// What becomes an operand of the next product, or a result, is rounded to the nearest element first, ties to even: NVIDIA's driver
// cuts off what bf16 has no digits for. What was rounded has none, so it does not matter how a driver converts.
#ifdef BF16_ELEMENTS
float nearest(const in uint row, const in uint column, const in float x) {
    const uint bits = floatBitsToUint(x);
    return uintBitsToFloat(isnan(x) ? 0x7fc00000u : (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}
#define ROUND(x) coopMatPerElementNV(x, x, nearest);
#else
#define ROUND(x)
#endif

const float LOG2_E = 1.44269504088896340736;

uint head, batch;
uint t0, s0; // the first query and the first key of what is multiplied
uint keys;   // that exist

bool sees(uint t, uint s) { return t < p.queries && s < seen_by(t, keys); }
// Whether all queries of a block see all of its keys.
bool all_seen(uint queries, uint block) { return t0 + queries <= p.queries && s0 + block <= seen_by(t0, keys); }
