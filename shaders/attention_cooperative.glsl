// What the attention kernels with cooperative matrices have in common. A subgroup has BR rows (queries, or keys in the kernel for
// dk and dv) and goes over blocks of BC columns (keys, or queries). Products of rows and columns, sums in f32, go through shared
// memory, where the subgroup's invocations, some for each row, make the left operand of the next product of them.
#ifdef BF16_ELEMENTS
#define ELEMENT bfloat16_t
#define ELEMENT4 bf16vec4
#else
#define ELEMENT float16_t
#define ELEMENT4 f16vec4
#endif

layout(constant_id = 5) const uint PARTS = 1; // D is so deep that workgroups share it: each has a part of the results
layout(constant_id = 7) const uint SUBGROUPS = 4;
layout(constant_id = 8) const uint MM = 16; // of the matrices; 8 or 16
layout(constant_id = 9) const uint MN = 16;
layout(constant_id = 10) const uint MK = 16;
layout(constant_id = 11) const uint WIDTH = 2; // elements read at once: 8 where all rows begin and end at multiples of 16 bytes

const uint BR = 16, BC = 32, ROWS = SUBGROUPS * BR;
const uint DP = (D + 16 * PARTS - 1) / (16 * PARTS) * 16 * PARTS;
// Rows in shared memory, in vectors of four, 16 bytes longer than they need be, which spreads the banks.
const uint PITCH = (DP + 8) / 4, PITCH_W = (BC + 8) / 4, PITCH_S = (BC + 4) / 4;
const uint LANES = gl_WorkGroupSize.x / SUBGROUPS;
const uint PER_ROW = LANES < BR ? 1 : LANES / BR, TRIPS = BR * PER_ROW / LANES; // invocations per row, and rows of each
const uint OUT_M = BR / MM, OUT_N = DP / PARTS / MN;
const bool UNROLLED = MM == 16 && DP <= 128; // more is too much code, or takes too many registers

#define LEFT coopmat<ELEMENT, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA>
#define RIGHT coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB>
#define SUM coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator>

shared ELEMENT4 weights[ROWS * PITCH_W]; // [row, column], the subgroup's own rows
shared vec4 scores[ROWS * PITCH_S];
shared float factors[ROWS];

uint head, batch;
uint first_element = 0; // of D, in the results

#ifdef BF16_ELEMENTS
ELEMENT4 elements(uint x, uint y) {
    return uintBitsToBFloat16EXT(u16vec4(x & 0xffffu, x >> 16, y & 0xffffu, y >> 16));
}
#else
ELEMENT4 elements(uint x, uint y) { return f16vec4(unpackFloat2x16(x), unpackFloat2x16(y)); }
#endif

// 8 elements of a row from d on, 0 past D.
#define EIGHTS(b, name)                                                                                   \
    layout(set = 0, binding = b, std430) restrict readonly buffer Eights_##name { uvec4 name##8[]; };     \
    uvec4 eight_##name(uint row, uint d) {                                                                \
        if (WIDTH == 8) return name##8[(row + d) / 8];                                                    \
        uvec4 x;                                                                                          \
        [[unroll]] for (uint i = 0; i < 4; i++) x[i] = d + 2 * i < D ? name[(row + d) / 2 + i] : 0;       \
        return x;                                                                                         \
    }

// Rows first .. first + count of an operand to shared memory [count, DP], 0 where there are none.
#define STAGE(target, name, first, count, limit) \
    for (uint e = gl_LocalInvocationID.x; e < (count) * DP / 8; e += gl_WorkGroupSize.x) { \
        const uint r = e / (DP / 8), d = e % (DP / 8) * 8; \
        uvec4 x = uvec4(0); \
        if ((first) + r < limit && d < D) x = eight_##name(name##_at(batch, head, (first) + r), d); \
        target[r * PITCH + d / 4] = elements(x.x, x.y); \
        target[r * PITCH + d / 4 + 1] = elements(x.z, x.w); \
    }

// The subgroup's first row in shared memory.
uint own_rows() { return gl_SubgroupID * BR; }

// scores [BR, BC] of the subgroup = its rows times all columns, both staged [, DP].
#define MULTIPLY_SCORES(rows, columns) \
    if (UNROLLED) { \
        [[unroll]] for (uint j = 0; j < BC; j += MN) \
            MULTIPLY_BLOCK(rows, columns, [[unroll]]) \
    } else { \
        [[dont_unroll]] for (uint j = 0; j < BC; j += MN) \
            MULTIPLY_BLOCK(rows, columns, [[dont_unroll]]) \
    }
#define MULTIPLY_BLOCK(rows, columns, HOW) \
    { \
        SUM product[OUT_M]; \
        [[unroll]] for (uint i = 0; i < OUT_M; i++) product[i] = SUM(0.0); \
        HOW for (uint k = 0; k < DP; k += MK) { \
            RIGHT y; \
            coopMatLoad(y, columns, j * PITCH + k / 4, PITCH, gl_CooperativeMatrixLayoutColumnMajor); \
            [[unroll]] for (uint i = 0; i < OUT_M; i++) { \
                LEFT x; \
                coopMatLoad(x, rows, (own_rows() + i * MM) * PITCH + k / 4, PITCH, gl_CooperativeMatrixLayoutRowMajor); \
                product[i] = coopMatMulAdd(x, y, product[i]); \
            } \
        } \
        [[unroll]] for (uint i = 0; i < OUT_M; i++) \
            coopMatStore(product[i], scores, (own_rows() + i * MM) * PITCH_S + j / 4, PITCH_S, gl_CooperativeMatrixLayoutRowMajor); \
    }

// result [OUT_M * OUT_N] += weights [BR, BC] of the subgroup times the staged columns [BC, DP].
#define ADD_WEIGHTED(result, columns) \
    if (UNROLLED) { \
        [[unroll]] for (uint k = 0; k < BC; k += MK) \
            ADD_BLOCK(result, columns) \
    } else { \
        [[dont_unroll]] for (uint k = 0; k < BC; k += MK) \
            ADD_BLOCK(result, columns) \
    }
#define ADD_BLOCK(result, columns) \
    { \
        LEFT x[OUT_M]; \
        [[unroll]] for (uint i = 0; i < OUT_M; i++) \
            coopMatLoad(x[i], weights, (own_rows() + i * MM) * PITCH_W + k / 4, PITCH_W, gl_CooperativeMatrixLayoutRowMajor); \
        [[unroll]] for (uint j = 0; j < OUT_N; j++) { \
            RIGHT y; \
            coopMatLoad(y, columns, k * PITCH + (first_element + j * MN) / 4, PITCH, gl_CooperativeMatrixLayoutRowMajor); \
            [[unroll]] for (uint i = 0; i < OUT_M; i++) \
                result[i * OUT_N + j] = coopMatMulAdd(x[i], y, result[i * OUT_N + j]); \
        } \
    }

// Stores the subgroup's rows of which there are `limit`, from row0 on, by way of the scores' memory; row r is at to(r).
#define STORE_MATRICES(name, result, row0, limit, to) \
    [[unroll]] for (uint j = 0; j < OUT_N; j++) { \
        subgroupBarrier(); \
        [[unroll]] for (uint i = 0; i < OUT_M; i++) \
            coopMatStore(result[i * OUT_N + j], scores, (own_rows() + i * MM) * PITCH_S, PITCH_S, gl_CooperativeMatrixLayoutRowMajor); \
        subgroupBarrier(); \
        for (uint e = gl_SubgroupInvocationID; e < BR * MN / 4; e += LANES) { \
            const uint r = e / (MN / 4), d = e % (MN / 4) * 4; \
            const vec4 x = scores[(own_rows() + r) * PITCH_S + d / 4]; \
            const uint element = first_element + j * MN + d; \
            if (row0 + r >= limit) continue; \
            if (element < D) store_##name(to(row0 + r), element, x.xy); \
            if (element + 2 < D) store_##name(to(row0 + r), element + 2, x.zw); \
        } \
    }

// Where an invocation's rows are: of trip i row own_rows() + row_of_trip(i), and of its columns every PER_ROW-th four.
uint row_of_trip(uint trip) { return trip * (BR / TRIPS) + gl_SubgroupInvocationID / PER_ROW; }
uint first_four() { return gl_SubgroupInvocationID % PER_ROW; }
const uint FOURS = BC / 4 / PER_ROW;
