// Gradients of layer norm's and RMS norm's weight (and bias), first half: part k sums its rows_per_part rows in order,
//     parts[k][0][c] = sum of dy * (x - mean) * rstd,        parts[k][1][c] = sum of dy (layer norm alone).
// An invocation owns a column of a part; a workgroup, neighbouring columns. sum_parts.comp is the second half.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm

layout(push_constant) uniform Push {
    uint base_dy, base_x, base_mean, base_rstd, base_parts;
    uint rows, width;
    uint rows_per_part, tiles; // tiles: workgroups that cover a row
    uint groups;
} p;

FLOATS(0, dy);
FLOATS(1, x);
FLOATS(2, means);
FLOATS(3, rstds);
FLOATS(4, parts);

void main() {
    if (group() >= p.groups) return;
    const uint part = group() / p.tiles;
    const uint column = group() % p.tiles * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (column >= p.width) return;
    const uint first = part * p.rows_per_part, end = min(first + p.rows_per_part, p.rows);

    float dw = 0, db = 0;
    for (uint row = first; row < end; row++) {
        const float g = dy[p.base_dy + row * p.width + column];
        float v = x[p.base_x + row * p.width + column];
        if (CENTERED) v -= means[p.base_mean + row];
        dw += g * v * rstds[p.base_rstd + row];
        db += g;
    }
    const uint to = p.base_parts + part * p.width * (CENTERED ? 2 : 1) + column;
    parts[to] = dw;
    if (CENTERED) parts[to + p.width] = db;
}
