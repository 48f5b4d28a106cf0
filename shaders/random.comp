// Uniform or normal random numbers, or dropout y = x * b where a uniform number is at least a, else 0. An invocation
// makes the four elements of one Philox block. src/op/random.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "math.glsl"
#include "philox.glsl"

layout(constant_id = 1) const uint KIND = 0; // enum random_kind
const uint UNIFORM = 0, NORMAL = 1, DROPOUT = 2;

layout(push_constant) uniform Push {
    uint base_y, base_rng, base_x;
    uint count;       // elements
    uint first_block; // of this window
    uint stream;
    float a, b;
} p;

FLOATS(0, y);
WORDS(1, rng);
FLOATS(2, x);

// Two independent normal numbers from two uniform ones (Box and Muller, 1958).
vec2 normal_pair(float u, float v) {
    const float r = sqrt(-2.0 * log_accurate(1.0 - u)), angle = v * 6.2831853;
    return r * vec2(cos_accurate(angle), sin_accurate(angle));
}

void main() {
    const uint block = item();
    if (block * 4 >= p.count) return;
    const uvec4 counter = uvec4(p.first_block + block, p.stream, rng[p.base_rng + 2], 0);
    const vec4 u = unit_floats(philox(counter, uvec2(rng[p.base_rng], rng[p.base_rng + 1])));
    vec4 result = p.a + p.b * u;
    if (KIND == NORMAL) result = p.a + p.b * vec4(normal_pair(u.x, u.y), normal_pair(u.z, u.w));
    const uint lanes = min(4, p.count - block * 4);
    for (uint lane = 0; lane < lanes; lane++) {
        const uint e = block * 4 + lane;
        if (KIND == DROPOUT) y[p.base_y + e] = u[lane] >= p.a ? x[p.base_x + e] * p.b : 0.0;
        else y[p.base_y + e] = result[lane];
    }
}
