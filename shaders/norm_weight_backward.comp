// Gradients of layer norm's and RMS norm's weight (and bias), first half: part k sums its rows_per_part rows,
//     parts[k][0][c] = sum of dy * (x - mean) * rstd,        parts[k][1][c] = sum of dy (layer norm alone).
// A workgroup does 128 neighbouring columns of a part, an invocation four of them in every LANES-th row; their sums are added
// in order. sum_parts.comp is the second half.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

layout(constant_id = 1) const bool CENTERED = true; // layer norm
layout(constant_id = 2) const bool FOURS = false;
layout(constant_id = 3) const uint LANES = 1;
const uint ACROSS = 32; // invocations side by side
const uint AT_ONCE = 4; // rows that an invocation reads ahead

layout(push_constant) uniform Push {
    uint base_dy, base_x, base_mean, base_rstd, base_parts;
    uint rows, width;
    uint rows_per_part, tiles; // tiles: workgroups that cover a row
    uint groups;
} p;

#include "fours.glsl"

FOURS_OF(0, dy)
FOURS_OF(1, x)
READ_FLOATS(2, means);
READ_FLOATS(3, rstds);
SET_FOURS_OF(4, parts)

shared vec4 lanes_dw[ACROSS * LANES], lanes_db[ACROSS * LANES];

void main() {
    if (group() >= p.groups) return;
    const uint part = group() / p.tiles, me = gl_LocalInvocationID.x, lane = me / ACROSS;
    const uint column = (group() % p.tiles * ACROSS + me % ACROSS) * 4;
    const uint first = part * p.rows_per_part, end = min(first + p.rows_per_part, p.rows);

    vec4 dw = vec4(0), db = vec4(0);
    for (uint next = first + lane; next < end; next += LANES * AT_ONCE) {
        vec4 g[AT_ONCE], v[AT_ONCE];
        [[unroll]] for (uint k = 0; k < AT_ONCE; k++) {
            const uint row = min(next + k * LANES, end - 1);
            g[k] = dy_four(p.base_dy + row * p.width + column, column);
            v[k] = x_four(p.base_x + row * p.width + column, column);
            if (CENTERED) v[k] -= means[p.base_mean + row];
            v[k] *= rstds[p.base_rstd + row];
        }
        [[unroll]] for (uint k = 0; k < AT_ONCE; k++) {
            const bool there = next + k * LANES < end;
            dw += there ? g[k] * v[k] : vec4(0);
            db += there ? g[k] : vec4(0);
        }
    }
    lanes_dw[me] = dw;
    lanes_db[me] = db;
    if (LANES > 1) barrier();
    if (lane > 0) return;
    for (uint i = 1; i < LANES; i++) {
        dw += lanes_dw[i * ACROSS + me];
        db += lanes_db[i * ACROSS + me];
    }
    const uint to = p.base_parts + part * p.width * (CENTERED ? 2 : 1) + column;
    parts_set(to, column, dw);
    if (CENTERED) parts_set(to + p.width, column, db);
}
