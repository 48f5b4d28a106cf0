// Sums or maxima over pieces of the rows of dense matrices: x [a, rows, columns] -> y [a, pieces, columns]. A workgroup
// has WIDTH columns; its invocations of one column (with FOURS, of four) each take every so many-th row of a piece as there are
// of them. src/op/reduce_gpu.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

layout(constant_id = 1) const uint WIDTH = 64; // a power of two, at most the workgroup's size
layout(constant_id = 2) const uint KIND = 0;   // enum reduce_kind
layout(constant_id = 3) const uint CARRY = 0;  // bit 0: y has the result of the rows before these
layout(constant_id = 4) const bool FOURS = false; // columns and bases are multiples of four
const uint SUM = 0, MAX = 1;
const uint AT_ONCE = 4; // rows that an invocation reads ahead, with FOURS

layout(push_constant) uniform Push {
    uint base_x, base_y, base_other;
    uint items;  // workgroups: blocks of all pieces of all matrices
    uint pieces; // of one matrix
    uint piece;  // rows of one
    uint rows, columns;
    uint blocks; // of WIDTH columns
    uint first;  // not used here, nor is base_other
    float scale;
#ifdef PRECEDED // by ops that are part of a kernel written for them and a reduction (src/op/fused_reduce.c): their push constants
    uint w[PRECEDED];
#endif
} p;

FLOATS(0, x);
FLOATS(1, y);
layout(set = 0, binding = 0, std430) buffer Fours_x { vec4 x_fours[]; };
layout(set = 0, binding = 1, std430) buffer Fours_y { vec4 y_fours[]; };

// Element i, or four that begin there, or at a column of row r from first on. i counts from x's first element where a kernel
// makes x, which it does once for each; else from the binding's first word, BASE included.
#ifdef PRECEDED
#define BASE 0
float load(uint i);
vec4 load_four(uint i);
vec4 load_row(uint first, uint r, uint column, uint end) {
    return r < end ? load_four(first + r * p.columns + column) : vec4(0.0);
}
#else
#define BASE p.base_x
float load(uint i) { return x[i]; }
vec4 load_four(uint i) { return x_fours[i / 4]; }
vec4 load_row(uint first, uint r, uint column, uint end) { return load_four(first + min(r, end - 1) * p.columns + column); }
#endif

shared float values[256];
shared vec4 fours[256];

float none() { return uintBitsToFloat(KIND == SUM ? 0u : 0xff800000u); }

float join(float a, float b) { return KIND == SUM ? a + b : b > a || isnan(b) ? b : a; }
vec4 join_fours(vec4 a, vec4 b) {
    return KIND == SUM ? a + b : vec4(join(a.x, b.x), join(a.y, b.y), join(a.z, b.z), join(a.w, b.w));
}

void reduce_columns(uint first_x, uint first_y, uint block, uint begin, uint end) {
    const uint me = gl_LocalInvocationID.x, lane = me / WIDTH, lanes = gl_WorkGroupSize.x / WIDTH;
    const uint column = block * WIDTH + me % WIDTH;
    float value = none();
    if (column < p.columns)
        for (uint r = begin + lane; r < end; r += lanes) value = join(value, load(first_x + r * p.columns + column));
    values[me] = value;
    for (uint n = lanes / 2; n > 0; n /= 2) {
        barrier();
        if (lane >= n) continue;
        value = join(value, values[me + n * WIDTH]);
        values[me] = value;
    }
    if (lane != 0 || column >= p.columns) return;
    const uint to = first_y + column;
    if ((CARRY & 1) != 0) value = join(y[to], value);
    y[to] = KIND == SUM ? value * p.scale : value;
}

void reduce_fours(uint first_x, uint first_y, uint block, uint begin, uint end) {
    const uint across = WIDTH / 4, me = gl_LocalInvocationID.x, lane = me / across, lanes = gl_WorkGroupSize.x / across;
    const uint column = block * WIDTH + me % across * 4;
    vec4 value = vec4(none());
    if (column < p.columns)
        for (uint r = begin + lane; r < end; r += lanes * AT_ONCE) {
            vec4 v[AT_ONCE];
            [[unroll]] for (uint k = 0; k < AT_ONCE; k++)
                v[k] = load_row(first_x, r + k * lanes, column, end);
            [[unroll]] for (uint k = 0; k < AT_ONCE; k++)
                value = join_fours(value, r + k * lanes < end ? v[k] : vec4(none()));
        }
    fours[me] = value;
    for (uint n = lanes / 2; n > 0; n /= 2) {
        barrier();
        if (lane < n) {
            value = join_fours(value, fours[me + n * across]);
            fours[me] = value;
        }
    }
    if (lane != 0 || column >= p.columns) return;
    const uint to = (first_y + column) / 4;
    if ((CARRY & 1) != 0) value = join_fours(y_fours[to], value);
    y_fours[to] = KIND == SUM ? value * p.scale : value;
}

void main() {
    const uint i = group();
    if (i >= p.items) return;
    const uint block = i % p.blocks, piece = i / p.blocks % p.pieces, a = i / p.blocks / p.pieces;
    const uint begin = piece * p.piece, end = min(begin + p.piece, p.rows);
    const uint first_x = BASE + a * p.rows * p.columns, first_y = p.base_y + (a * p.pieces + piece) * p.columns;
    if (FOURS) reduce_fours(first_x, first_y, block, begin, end);
    else reduce_columns(first_x, first_y, block, begin, end);
}
