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

shared vec4 scores[COLUMNS * PITCH]; // [column, row]; in the end results

uint head, batch;
uint first_element = 0; // of D, in the results

uint tile_y() { return gl_LocalInvocationID.x / 16; }
uint tile_x() { return gl_LocalInvocationID.x % 16; }

// Stages elements from .. from + CHUNK of D of rows row0 .. row0 + ROWS as [CHUNK, ROWS], 0 outside.
#define STAGE_ROWS(target, name, row0, limit, from) \
    for (uint e = gl_LocalInvocationID.x; e < ROWS * CHUNK / 2; e += 256) { \
        const uint d = e % (CHUNK / 2) * 2, r = e / (CHUNK / 2); \
        const bool inside = row0 + r < limit && from + d < D; \
        const vec2 x = inside ? load_##name(name##_at(batch, head, row0 + r), from + d) : vec2(0); \
        target[d * PITCH + r / 4][r % 4] = x.x; \
        target[(d + 1) * PITCH + r / 4][r % 4] = x.y; \
    }

// The same of columns, as [CHUNK, COLUMNS + 1].
#define STAGE_COLUMNS(target, name, column0, limit, from) \
    for (uint e = gl_LocalInvocationID.x; e < COLUMNS * CHUNK / 2; e += 256) { \
        const uint d = e % (CHUNK / 2) * 2, c = e / (CHUNK / 2); \
        const bool inside = column0 + c < limit && from + d < D; \
        const vec2 x = inside ? load_##name(name##_at(batch, head, column0 + c), from + d) : vec2(0); \
        target[d * (COLUMNS + 1) + c] = x.x; \
        target[(d + 1) * (COLUMNS + 1) + c] = x.y; \
    }

// The results' elements of SLICE columns, as [SLICE, ELEMENTS * 16].
#define STAGE_SLICE(target, name, column0, limit) \
    for (uint e = gl_LocalInvocationID.x * 2; e < SLICE * ELEMENTS * 16; e += 512) { \
        const uint d = first_element + e % (ELEMENTS * 16), c = e / (ELEMENTS * 16); \
        const bool inside = column0 + c < limit && d < D; \
        const vec2 x = inside ? load_##name(name##_at(batch, head, column0 + c), d) : vec2(0); \
        target[e] = x.x; \
        target[e + 1] = x.y; \
    }

// sum [ELEMENTS] += scores [columns from .. from + SLICE, ROWS] of the block times the staged slice. Drivers unroll the loop,
// which hides the latency of shared memory and takes registers: not where these are few.
#define ADD_SLICE(sum, slice, from) \
    if (FEW_REGISTERS) { \
        [[dont_unroll]] ADD_COLUMNS(sum, slice, from) \
    } else { \
        ADD_COLUMNS(sum, slice, from) \
    }
#define ADD_COLUMNS(sum, slice, from) \
    for (uint c = 0; c < min(SLICE, COLUMNS - from); c++) { \
        const vec4 weight = scores[(from + c) * PITCH + tile_y()]; \
        [[unroll]] for (uint i = 0; i < ELEMENTS; i++) \
            sum[i] = fma(weight, vec4(slice[c * ELEMENTS * 16 + tile_x() + i * 16]), sum[i]); \
    }

// Stores sum [ELEMENTS] of rows row0 .. of which there are `limit`, row r at element to(r) of the result. 16-bit elements
// are exchanged first, for a word is one invocation's: 32 of each row at once.
#define STORE_TILE(name, sum, row0, limit, to) \
    if (TYPE == F32) { \
        [[unroll]] for (uint e = 0; e < 4 * ELEMENTS; e++) { \
            const uint r = tile_y() * 4 + e / ELEMENTS, d = first_element + tile_x() + e % ELEMENTS * 16; \
            if (row0 + r < limit && d < D) name[to(row0 + r) + d] = floatBitsToUint(sum[e % ELEMENTS][e / ELEMENTS]); \
        } \
    } else { \
        [[unroll]] for (uint i = 0; i < ELEMENTS; i += 2) { \
            barrier(); \
            scores[tile_x() * PITCH + tile_y()] = sum[i]; \
            if (i + 1 < ELEMENTS) scores[(tile_x() + 16) * PITCH + tile_y()] = sum[i + 1]; \
            barrier(); \
            for (uint e = gl_LocalInvocationID.x; e < ROWS * 16; e += 256) { \
                const uint r = e / 16, c = e % 16 * 2, d = first_element + i * 16 + c; \
                if (row0 + r >= limit || d >= D || (i + 1 == ELEMENTS && c >= 16)) continue; \
                store_##name(to(row0 + r), d, vec2(scores[c * PITCH + r / 4][r % 4], scores[(c + 1) * PITCH + r / 4][r % 4])); \
            } \
        } \
    }
