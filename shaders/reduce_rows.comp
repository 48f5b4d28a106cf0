// Sums, maxima or first indices of maxima of pieces of dense rows: x [a, rows] -> y [a, pieces], each piece the work of
// WIDTH neighbouring invocations. src/op/reduce_gpu.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const uint WIDTH = 256; // a power of two, at most the workgroup's size
layout(constant_id = 2) const uint KIND = 0;    // enum reduce_kind
layout(constant_id = 3) const uint CARRY = 0;   // bit 0: y and other have what the elements before these gave;
                                                // bit 2: other gets the maxima of argmax
const uint SUM = 0, MAX = 1, ARGMAX = 2, ARGMAX_PIECES = 3;

layout(push_constant) uniform Push {
    uint base_x, base_y, base_other;
    uint items;  // pieces of all rows
    uint pieces; // of one row
    uint piece;  // elements of one
    uint rows;   // elements of a row
    uint columns, blocks; // not used here
    uint first;  // the first element's number in its row
    float scale;
#ifdef PRECEDED // by ops that are part of a kernel written for them and a reduction (src/op/fused_reduce.c): their push constants
    uint w[PRECEDED];
#endif
} p;

FLOATS(0, x);
WORDS(1, y);
WORDS(2, other); // argmax: the maxima at the indices y; argmax of pieces: the indices of the maxima x

// Element i of x: each is loaded once.
#ifdef PRECEDED
float load(uint i);
#else
float load(uint i) { return x[p.base_x + i]; }
#endif

shared float values[256];
shared uint indices[256];

// Whether the first maximum seen so far gives way. NaN wins.
bool better(float value, uint index, float than, uint than_index) {
    if (isnan(than)) return isnan(value) && index < than_index;
    return isnan(value) || value > than || (value == than && index < than_index);
}

void main() {
    const uint me = gl_LocalInvocationID.x, lane = me % WIDTH;
    const uint i = group() * (gl_WorkGroupSize.x / WIDTH) + me / WIDTH;
    float value = KIND == SUM ? 0.0 : uintBitsToFloat(0xff800000u);
    uint index = 0xffffffffu;
    if (i < p.items) {
        const uint row = i / p.pieces, begin = (i - row * p.pieces) * p.piece, end = min(begin + p.piece, p.rows);
        for (uint k = begin + lane; k < end; k += WIDTH) {
            const float v = load(row * p.rows + k);
            if (KIND == SUM) {
                value += v;
            } else if (better(v, p.first + k, value, index)) {
                value = v;
                index = p.first + k;
            }
        }
    }
    values[me] = value;
    indices[me] = index;
    for (uint n = WIDTH / 2; n > 0; n /= 2) {
        barrier();
        if (lane >= n) continue;
        const float other = values[me + n];
        const uint other_index = indices[me + n];
        if (KIND == SUM) {
            value += other;
        } else if (better(other, other_index, value, index)) {
            value = other;
            index = other_index;
        }
        values[me] = value;
        indices[me] = index;
    }
    if (lane != 0 || i >= p.items) return;
    const uint to = p.base_y + i;
    if ((CARRY & 1) != 0) {
        const float before = uintBitsToFloat(KIND == ARGMAX ? other[p.base_other + i] : y[to]);
        if (KIND == SUM) {
            value = before + value;
        } else if (KIND == MAX ? better(before, 0, value, 1) : better(before, y[to], value, index)) {
            value = before;
            index = y[to];
        }
    }
    if (KIND == ARGMAX_PIECES) y[to] = other[p.base_other + i * p.rows + index];
    else y[to] = KIND == ARGMAX ? index : floatBitsToUint(KIND == SUM ? value * p.scale : value);
    if (KIND == ARGMAX && (CARRY & 4) != 0) other[p.base_other + i] = floatBitsToUint(value);
}
