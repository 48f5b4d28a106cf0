// What the kernels of all products share: push constants, where a batch item begins in c, and the order of tiles.
layout(push_constant) uniform Push {
    uint base_a, base_b, base_c, base_bias;
    uint rest_a, rest_b; // elements between the word that base names and the first element
    uint m, n, k;
    uint a_row, a_column, b_row, b_column, c_row;
    uint a_outer, a_inner, b_outer, b_inner, c_outer, c_inner; // strides of the two batch dimensions
    uint inner;                                               // size of the inner one
    uint tiles_m, tiles_n, groups;
    uint after[4]; // bases of what ops that follow read and write
} p;

// From c's first element on.
uint c_of(uint batch) { return batch / p.inner * p.c_outer + batch % p.inner * p.c_inner; }

// Row and column of the number-th tile: bands of rows, one after the other, so that tiles that are made at once share operands.
uvec2 tile_of(uint number) {
    const uint BAND = 16, first = number / (BAND * p.tiles_n) * BAND, rows = min(BAND, p.tiles_m - first);
    return uvec2(first + (number - first * p.tiles_n) % rows, (number - first * p.tiles_n) / rows);
}
