// y[r] += the sum of dy[n] over all positions n with index[n] = r, in the order of n. The workgroup of a position does a tile
// of columns of its row; it leaves if an earlier position has the same index, so each row has one writer. Rows outside of
// [first_row, first_row + rows), the window that is bound, are left alone. The workgroup has LANES invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const uint LANES = 64;
layout(constant_id = 2) const uint BITS = 32; // positions that an invocation looks at in one go: fewer where repeats are near
const uint COLUMNS = 4; // per invocation

layout(push_constant) uniform Push {
    uint base_dy, base_index, base_y;
    uint count, width;
    uint tiles; // workgroups per position
    int first_row, rows;
} p;

FLOATS(0, dy);
INTS(1, index);
FLOATS(2, y);

shared uint matches[LANES]; // bit b of word w: position first + BITS * w + b has the index

void main() {
    const uint mine = group() / p.tiles, me = gl_LocalInvocationID.x;
    if (mine >= p.count) return;
    const int row = index[p.base_index + mine];
    if (row < p.first_row || row - p.first_row >= p.rows) return;
    const uint column = group() % p.tiles * LANES * COLUMNS + me;

    float sum[COLUMNS] = float[COLUMNS](0, 0, 0, 0);
    for (uint first = 0; first < p.count; first += LANES * BITS) {
        uint word = 0;
        const uint from = first + me * BITS;
        for (uint n = from; n < min(from + BITS, p.count); n++)
            if (index[p.base_index + n] == row) word |= 1u << (n - from);
        matches[me] = word;
        barrier();
        for (uint w = 0; w < LANES; w++) {
            for (uint bits = matches[w]; bits != 0; bits &= bits - 1) {
                const uint n = first + w * BITS + uint(findLSB(bits));
                if (n < mine) return;
                for (uint k = 0; k < COLUMNS; k++)
                    if (column + k * LANES < p.width) sum[k] += dy[p.base_dy + n * p.width + column + k * LANES];
            }
        }
        barrier();
    }
    const uint to = p.base_y + uint(row - p.first_row) * p.width + column;
    for (uint k = 0; k < COLUMNS; k++)
        if (column + k * LANES < p.width) y[to + k * LANES] += sum[k];
}
