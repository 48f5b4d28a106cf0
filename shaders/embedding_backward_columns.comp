// y[index[n]] += dy[n] for n in order, where index[n] lies in [first_row, first_row + rows): an invocation does a column of all
// positions. For drivers that run on a processor, where a few long loops cost less than many workgroups; see
// embedding_backward.comp.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base_dy, base_index, base_y;
    uint count, width;
    int first_row, rows;
} p;

FLOATS(0, dy);
INTS(1, index);
FLOATS(2, y);

void main() {
    const uint column = item();
    if (column >= p.width) return;
    for (uint n = 0; n < p.count; n++) {
        const int row = index[p.base_index + n];
        if (row < p.first_row || row - p.first_row >= p.rows) continue;
        y[p.base_y + uint(row - p.first_row) * p.width + column] += dy[p.base_dy + n * p.width + column];
    }
}
