// What all matmul kernels share: constants 1 to 4, push constants, buffers, batches and the epilogue.
layout(constant_id = 1) const bool A_ALONG_K = true;   // a's columns are dense, else its rows
layout(constant_id = 2) const bool B_ALONG_N = true;   // b's columns are dense, else its rows
layout(constant_id = 3) const bool BIAS = false;
layout(constant_id = 4) const bool ACCUMULATE = false; // add to what c holds: a window of k after the first

layout(push_constant) uniform Push {
    uint base_a, base_b, base_c, base_bias;
    uint m, n, k;
    uint a_row, a_column, b_row, b_column, c_row;
    uint a_outer, a_inner, b_outer, b_inner, c_outer, c_inner; // strides of the two batch dimensions
    uint inner;                                               // size of the inner one
    uint tiles_m, tiles_n, groups;
} p;

READ_FLOATS(0, a);
READ_FLOATS(1, b);
FLOATS(2, c);
READ_FLOATS(3, bias);

uint a_of(uint batch) { return p.base_a + batch / p.inner * p.a_outer + batch % p.inner * p.a_inner; }
uint b_of(uint batch) { return p.base_b + batch / p.inner * p.b_outer + batch % p.inner * p.b_inner; }
uint c_of(uint batch) { return p.base_c + batch / p.inner * p.c_outer + batch % p.inner * p.c_inner; }

void store(uint to, uint row, uint column, float x) {
    if (column >= p.n) return;
    const uint i = to + row * p.c_row + column;
    if (BIAS) x += bias[p.base_bias + column];
    c[i] = ACCUMULATE ? c[i] + x : x;
}
