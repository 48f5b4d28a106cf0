// What the attention kernels with shared memory have in common. A workgroup of 256 has a tile of 64 rows (queries, or keys in
// the kernel for dk and dv) and goes over blocks of 32 columns (keys, or queries). Invocation (y, x) of 16 x 16 holds rows
// 4 y .. 4 y + 3, columns x and x + 16 of a block of scores, and elements x, x + 16, ... of the four rows of the result.
layout(constant_id = 4) const uint CHUNK = 16; // how much of D is staged for a product of rows and columns, and unrolled
layout(constant_id = 5) const uint PARTS = 1;  // D is so deep that workgroups share it: each has a part of the results

const bool FEW_REGISTERS = CHUNK < 16;
const uint ROWS = 64, COLUMNS = 32;
const uint PITCH = ROWS / 4 + 1;                // of what is stored by rows, in vec4
const uint ELEMENTS = (D + 16 * PARTS - 1) / (16 * PARTS); // of a result's row per invocation
const uint SLICE = ELEMENTS > 4 ? 128 / ELEMENTS : COLUMNS; // columns staged at a time for the product with the scores

uint tile_y() { return gl_LocalInvocationID.x / 16; }
uint first_element = 0; // of D, in the results

uint tile_x() { return gl_LocalInvocationID.x % 16; }

// Stages elements from .. from + CHUNK of D of rows row0 .. row0 + ROWS as [CHUNK, ROWS], 0 outside.
#define STAGE_ROWS(target, name, address, row0, limit, from) \
    for (uint e = gl_LocalInvocationID.x; e < ROWS * CHUNK; e += 256) { \
        const uint d = e % CHUNK, r = e / CHUNK; \
        const bool inside = row0 + r < limit && from + d < D; \
        target[d * PITCH + r / 4][r % 4] = inside ? name[address(row0 + r) + from + d] : 0.0; \
    }

// The same of columns, as [CHUNK, COLUMNS + 1].
#define STAGE_COLUMNS(target, name, address, column0, limit, from) \
    for (uint e = gl_LocalInvocationID.x; e < COLUMNS * CHUNK; e += 256) { \
        const uint d = e % CHUNK, c = e / CHUNK; \
        const bool inside = column0 + c < limit && from + d < D; \
        target[d * (COLUMNS + 1) + c] = inside ? name[address(column0 + c) + from + d] : 0.0; \
    }

// The results' elements of SLICE columns, as [SLICE, ELEMENTS * 16].
#define STAGE_SLICE(target, name, address, column0, limit) \
    for (uint e = gl_LocalInvocationID.x; e < SLICE * ELEMENTS * 16; e += 256) { \
        const uint d = first_element + e % (ELEMENTS * 16), c = e / (ELEMENTS * 16); \
        const bool inside = column0 + c < limit && d < D; \
        target[e] = inside ? name[address(column0 + c) + d] : 0.0; \
    }

// sum [ELEMENTS] += scores [columns from .. from + SLICE, ROWS] of the block times the staged slice. Drivers unroll the loop,
// which hides the latency of shared memory and takes registers: not where these are few.
#define ADD_SLICE(sum, scores, slice, from) \
    if (FEW_REGISTERS) { \
        [[dont_unroll]] ADD_COLUMNS(sum, scores, slice, from) \
    } else { \
        ADD_COLUMNS(sum, scores, slice, from) \
    }
#define ADD_COLUMNS(sum, scores, slice, from) \
    for (uint c = 0; c < min(SLICE, COLUMNS - from); c++) { \
        const vec4 weight = scores[(from + c) * PITCH + tile_y()]; \
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) \
            sum[i] = fma(weight, vec4(slice[c * ELEMENTS * 16 + tile_x() + i * 16]), sum[i]); \
    }
