// Rotary embedding (Su et al., 2021): pair i of row t turns by position * base^(-2i / D), over x [B, H, T, D] of any strides but
// D dense. Angles are fixed-point fractions of a turn, so that they are exact for every position: the frequency is a product
// of 64-bit factors, one per bit of i, and position * frequency wraps by itself. An invocation does one pair of all heads.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const bool ADJACENT = false; // pairs (2i, 2i + 1) instead of (i, i + D/2)
layout(constant_id = 2) const bool INVERSE = false;  // turn back: the gradient
layout(constant_id = 3) const bool OFFSET = false;   // add the position that the device holds
const uint FACTORS = 8;

layout(push_constant) uniform Push {
    uint base_x, base_y, base_position;
    int start;
    uint heads, rows, pairs, count; // count: B * T * pairs
    uint x_stride_b, x_stride_h, x_stride_t;
    uint y_stride_b, y_stride_h, y_stride_t;
    uvec2 factors[FACTORS]; // (low, high) of base^(-2 * 2^k / D) * 2^64
} p;

FLOATS(0, x);
FLOATS(1, y);
INTS(2, position);

// The upper 64 bits of a * b.
uvec2 multiply_high(uvec2 a, uvec2 b) {
    uint low_high, high_low_low, high_low_high, low_high_low, low_high_high, low, high, carry1, carry2, unused;
    umulExtended(a.x, b.x, low_high, unused);
    umulExtended(a.y, b.x, high_low_high, high_low_low);
    umulExtended(a.x, b.y, low_high_high, low_high_low);
    umulExtended(a.y, b.y, high, low);
    uint middle = uaddCarry(high_low_low, low_high_low, carry1);
    middle = uaddCarry(middle, low_high, carry2);
    const uint carry_middle = carry1 + carry2;
    low = uaddCarry(low, high_low_high, carry1);
    low = uaddCarry(low, low_high_high, carry2);
    high += carry1 + carry2;
    low = uaddCarry(low, carry_middle, carry1);
    return uvec2(low, high + carry1);
}

// The angle of pair i at a position >= 0, in 2^-32 turns.
uint turn(uint at, uint i) {
    uvec2 frequency = uvec2(0x9391054Au, 0x28BE60DBu); // 2^64 / 2 pi: pair 0 turns by one radian per position
    for (uint k = 0; k < FACTORS; k++)
        if ((i >> k & 1) != 0) frequency = multiply_high(frequency, p.factors[k]);
    uint high, low;
    umulExtended(at, frequency.x, high, low);
    return at * frequency.y + high;
}

// (cos, sin) of u / 2^32 turns: the nearest quarter turn, and polynomials for the rest in [-pi/4, pi/4] (Cephes).
vec2 cos_sin(uint u) {
    const uint quarter = (u + 0x20000000u) >> 30;
    const float a = float(int(u - (quarter << 30))) * 1.46291807926715968e-9; // 2 pi / 2^32
    const float z = a * a;
    const float s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * a + a;
    const float c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1;
    const vec2 turned = (quarter & 1) != 0 ? vec2(-s, c) : vec2(c, s);
    return (quarter & 2) != 0 ? -turned : turned;
}

void main() {
    if (item() >= p.count) return;
    const uint i = item() % p.pairs, t = item() / p.pairs % p.rows, b = item() / p.pairs / p.rows;
    int at = p.start + int(t);
    if (OFFSET) at += position[p.base_position];
    vec2 cs = cos_sin(turn(uint(abs(at)), i));
    if (INVERSE != (at < 0)) cs.y = -cs.y;

    const uint first = ADJACENT ? 2 * i : i, second = ADJACENT ? first + 1 : first + p.pairs;
    uint from = p.base_x + b * p.x_stride_b + t * p.x_stride_t, to = p.base_y + b * p.y_stride_b + t * p.y_stride_t;
    for (uint h = 0; h < p.heads; h++, from += p.x_stride_h, to += p.y_stride_h) {
        const float u = x[from + first], v = x[from + second];
        y[to + first] = u * cs.x - v * cs.y;
        y[to + second] = v * cs.x + u * cs.y;
    }
}
