// to = from, any dtypes and strides. Where the elements of `to` are smaller than a word, each invocation makes a whole word of
// it: `to` is dense, and of words at its ends only the bits that are its own are set, or its rows are of whole words.
// src/op/strided.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define OPERANDS 2
#define EXTRA uint rest_to, rest_from; // elements between the word that base names and the first element
#include "strided.glsl"
#include "convert.glsl"

layout(constant_id = 2) const uint FROM = F32;
layout(constant_id = 3) const uint TO = F32;

WORDS(0, to);
WORDS(1, from);

uint converted(uint at) {
    const uint per_word = elements_per_word(FROM), e = at + p.rest_from;
    return convert(element_of(from[p.base[1] + e / per_word], e % per_word, FROM), FROM, TO);
}

void main() {
    const uint i = item(), per_word = elements_per_word(TO);
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
