// delta [B, H, T] = sum over D of out * dout: one invocation per query, for the backward pass of attention.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "attention.glsl"

READ_FLOATS(0, y);
READ_FLOATS(1, g);
FLOATS(2, delta);

void main() {
    if (group() >= p.groups) return;
    const uint tile = group() % p.tiles, h = group() / p.tiles % p.heads, b = group() / p.tiles / p.heads;
    const uint t = tile * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (t >= p.queries) return;
    float sum = 0;
    for (uint d = 0; d < D; d++) sum = fma(y[p.base[0] + out_at(b, h, t) + d], g[p.base[1] + g_at(b, h, t) + d], sum);
    delta[p.base[2] + lse_at(b, h, t)] = sum;
}
