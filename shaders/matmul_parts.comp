// c = the sum of the products of parts of k, in their order, with the bias and what c held: after a matmul whose k was cut.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 1) const bool BIAS = false;
layout(constant_id = 2) const bool ACCUMULATE = false;

layout(push_constant) uniform Push {
    uint base_parts, base_c, base_bias;
    uint parts, elements; // elements: of one part's products, [batch, M, N]
    uint m, n, c_batch, c_row;
    uint after[4]; // as matmul_push.glsl has it, and matmul.glsl the functions
} p;

READ_FLOATS(0, parts);
FLOATS(1, c);
READ_FLOATS(2, bias);

#ifdef FOLLOWED
void finish(uint i, uint column, float x);
#else
void finish(uint i, uint column, float x) { c[p.base_c + i] = ACCUMULATE ? c[p.base_c + i] + x : x; }
#endif

void main() {
    const uint i = item();
    if (i >= p.elements) return;
    float sum = 0;
    for (uint part = 0; part < p.parts; part++) sum += parts[p.base_parts + part * p.elements + i];
    if (BIAS) sum += bias[p.base_bias + i % p.n];
    finish(i / (p.n * p.m) * p.c_batch + i / p.n % p.m * p.c_row + i % p.n, i % p.n, sum);
}
