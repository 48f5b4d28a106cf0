// to = from, any dtypes and strides. Where the elements of `to` are smaller than a word, each invocation makes a whole word of
// it: `to` is dense, and of words at its ends only the bits that are its own are set, or its rows are of whole words.
// With FOURS (see strided.glsl) it makes a unit of elements, whole vectors of both. src/op/strided.c
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA uint rest_to, rest_from; // elements between the word that base names and the first element
#include "strided.glsl"
#include "convert.glsl"

layout(constant_id = 3) const uint FROM = F32;
layout(constant_id = 4) const uint TO = F32;

WORDS(0, to);
WORDS(1, from);
layout(set = 0, binding = 0, std430) buffer Fours_to { uvec4 to_fours[]; };
layout(set = 0, binding = 1, std430) buffer Fours_from { uvec4 from_fours[]; };

uint converted(uint at) {
    const uint per_word = elements_per_word(FROM), e = at + p.rest_from;
    return convert(element_of(from[p.base[1] + e / per_word], e % per_word, FROM), FROM, TO);
}

// With FOURS: elements of a unit, and fours that hold a unit.
const bool SMALL_FROM = FROM == F16 || FROM == BF16, SMALL_TO = TO == F16 || TO == BF16;
const uint UNIT = SMALL_FROM || SMALL_TO ? 8 : 4;
const uint FOURS_FROM = SMALL_FROM || UNIT == 4 ? 1 : 2, FOURS_TO = SMALL_TO || UNIT == 4 ? 1 : 2;

uint pair(uint low, uint high) { return low & 0xffffu | high << 16; }

void convert_unit(uint to_at, uint from_at) {
    uint e[8];
    [[unroll]] for (uint k = 0; k < FOURS_FROM; k++) {
        const uvec4 v = from_fours[p.base[1] / 4 + from_at * FOURS_FROM + k];
        const uvec4 low = v & 0xffffu, high = v >> 16;
        if (SMALL_FROM) e = uint[8](low.x, high.x, low.y, high.y, low.z, high.z, low.w, high.w);
        else e[4 * k] = v.x, e[4 * k + 1] = v.y, e[4 * k + 2] = v.z, e[4 * k + 3] = v.w;
    }
    [[unroll]] for (uint k = 0; k < UNIT; k++) e[k] = convert(e[k], FROM, TO);
    [[unroll]] for (uint k = 0; k < FOURS_TO; k++)
        to_fours[p.base[0] / 4 + to_at * FOURS_TO + k] =
            SMALL_TO ? uvec4(pair(e[0], e[1]), pair(e[2], e[3]), pair(e[4], e[5]), pair(e[6], e[7]))
                     : uvec4(e[4 * k], e[4 * k + 1], e[4 * k + 2], e[4 * k + 3]);
}

void main() {
    const uint i = item(), per_word = elements_per_word(TO);
    if (FOURS) {
        if (i >= p.count) return;
        const uint at[2] = locate(i);
        convert_unit(at[0], at[1]);
        return;
    }
    if (per_word == 1) {
        if (i >= p.count) return;
        const uint at[2] = locate(i);
        to[p.base[0] + at[0]] = converted(at[1]);
        return;
    }
    const uint end = p.rest_to + p.count, lane_bits = 32 / per_word, lane_mask = (1u << lane_bits) - 1;
    uint word = 0, mask = 0, place = 0;
    if (i * per_word >= end) return;
    for (uint lane = 0; lane < per_word; lane++) {
        const uint e = i * per_word + lane;
        if (e < p.rest_to || e >= end) continue;
        const uint at[2] = locate(e - p.rest_to);
        word |= (converted(at[1]) & lane_mask) << (lane * lane_bits);
        place = (at[0] + p.rest_to) / per_word;
        mask |= lane_mask << (lane * lane_bits);
    }
    place += p.base[0];
    to[place] = mask == 0xffffffffu ? word : (to[place] & ~mask) | word;
}
