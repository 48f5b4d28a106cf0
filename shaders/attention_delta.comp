// delta [B, H, T] = sum over D of out * dout: one invocation per query, for the backward pass of attention.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define DOUT 1
#include "attention.glsl"

OPERAND(0, y)
OPERAND(1, g)
FLOATS(2, delta);

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint t = tile * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (t >= p.queries) return;
    const uint at_y = out_at(0, b, h, t), at_g = g_at(b, h, t);
    vec2 sum = vec2(0);
    for (uint d = 0; d < D; d += 2) sum = fma(load_y(at_y, d), load_g(at_g, d), sum);
    delta[p.base[2] + lse_at(b, h, t)] = sum.x + sum.y;
}
