// Sums or maxima over pieces of the rows of dense matrices: x [a, rows, columns] -> y [a, pieces, columns]. A workgroup
// has WIDTH columns; its invocations of one column each take every (workgroup / WIDTH)-th row of a piece.
// src/op/reduce.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const uint WIDTH = 64; // a power of two, at most the workgroup's size
layout(constant_id = 2) const uint KIND = 0;   // enum reduce_kind
layout(constant_id = 3) const uint CARRY = 0;  // bit 0: y has the result of the rows before these
const uint SUM = 0, MAX = 1;

layout(push_constant) uniform Push {
    uint base_x, base_y, base_other;
    uint items;  // workgroups: blocks of all pieces of all matrices
    uint pieces; // of one matrix
    uint piece;  // rows of one
    uint rows, columns;
    uint blocks; // of WIDTH columns
    uint first;  // not used here, nor is base_other
    float scale;
} p;

FLOATS(0, x);
FLOATS(1, y);

shared float values[256];

float join(float a, float b) { return KIND == SUM ? a + b : b > a || isnan(b) ? b : a; }

void main() {
    const uint i = group();
    if (i >= p.items) return;
    const uint me = gl_LocalInvocationID.x, lane = me / WIDTH, lanes = gl_WorkGroupSize.x / WIDTH;
    const uint block = i % p.blocks, piece = i / p.blocks % p.pieces, a = i / p.blocks / p.pieces;
    const uint column = block * WIDTH + me % WIDTH, end = min((piece + 1) * p.piece, p.rows);
    float value = KIND == SUM ? 0.0 : uintBitsToFloat(0xff800000u);
    if (column < p.columns)
        for (uint r = piece * p.piece + lane; r < end; r += lanes)
            value = join(value, x[p.base_x + (a * p.rows + r) * p.columns + column]);
    values[me] = value;
    for (uint n = lanes / 2; n > 0; n /= 2) {
        barrier();
        if (lane >= n) continue;
        value = join(value, values[me + n * WIDTH]);
        values[me] = value;
    }
    if (lane != 0 || column >= p.columns) return;
    const uint to = p.base_y + (a * p.pieces + piece) * p.columns + column;
    if ((CARRY & 1) != 0) value = join(y[to], value);
    y[to] = KIND == SUM ? value * p.scale : value;
}
