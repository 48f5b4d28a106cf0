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
} p;

READ_FLOATS(0, parts);
FLOATS(1, c);
READ_FLOATS(2, bias);

void main() {
    const uint i = item();
    if (i >= p.elements) return;
    float sum = 0;
    for (uint part = 0; part < p.parts; part++) sum += parts[p.base_parts + part * p.elements + i];
    if (BIAS) sum += bias[p.base_bias + i % p.n];
    const uint to = p.base_c + i / (p.n * p.m) * p.c_batch + i / p.n % p.m * p.c_row + i % p.n;
    c[to] = ACCUMULATE ? c[to] + sum : sum;
}
