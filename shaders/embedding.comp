// y[n] = table[index[n]] for rows of `width`: one workgroup per position n. The table is bound in windows: a dispatch writes
// the rows whose index lies in [first_row, first_row + rows), and the first window's, NaN where the index lies in none.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base_table, base_index, base_y;
    uint count, width;
    int first_row, rows, table_rows;
} p;

FLOATS(0, table);
INTS(1, index);
FLOATS(2, y);

void main() {
    const uint n = group(), me = gl_LocalInvocationID.x;
    if (n >= p.count) return;
    const int at = index[p.base_index + n];
    const bool missing = at < 0 || at >= p.table_rows;
    if (missing ? p.first_row > 0 : at < p.first_row || at - p.first_row >= p.rows) return;
    const uint to = p.base_y + n * p.width, from = p.base_table + (missing ? 0 : uint(at - p.first_row) * p.width);
    for (uint i = me; i < p.width; i += gl_WorkGroupSize.x) y[to + i] = missing ? uintBitsToFloat(0x7fc00000u) : table[from + i];
}
