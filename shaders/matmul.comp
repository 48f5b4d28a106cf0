// c [batch, m, n] = a [batch, m, k] b [batch, k, n] (+ bias [n]) with any element strides: one workgroup per BM x BN tile of c,
// tiles of a and b in shared memory, TM x TN sums per invocation. The workgroup has (BM / TM) * (BN / TN) invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "matmul.glsl"

layout(constant_id = 7) const uint BM = 64; // multiples of 4, as all below
layout(constant_id = 8) const uint BN = 64;
layout(constant_id = 9) const uint BK = 16;
layout(constant_id = 10) const uint TM = 4;
layout(constant_id = 11) const uint TN = 4;
// The next tiles are read while these are multiplied, which takes registers: for where few workgroups are at work at once.
layout(constant_id = 12) const bool AHEAD = false;
// Four elements along the dense dimension are one vector: all rows begin and end at multiples of four.
layout(constant_id = 13) const bool A_FOUR = false;
layout(constant_id = 14) const bool B_FOUR = false;
layout(constant_id = 15) const bool C_FOUR = false;

const uint INVOCATIONS = (BM / TM) * (BN / TN);
const uint QM = TM / 4, QN = TN / 4;                   // an invocation's quads, which lie BM / QM and BN / QN apart
const uint PITCH_A = BM / 4 + 1, PITCH_B = BN / 4 + 1; // in vec4; the odd pitch spreads the banks

shared vec4 tile_a[BK * PITCH_A]; // [BK, BM]
shared vec4 tile_b[BK * PITCH_B]; // [BK, BN]

// How the tile of a side is read. A chunk is WIDTH elements along the dense dimension, a line of the tile LINE chunks; an
// invocation has COUNT chunks, at one place of lines that lie STEP apart, so that neighbours read neighbours. Rows and columns
// past the end are the last one once more: what they give is not stored.
//   begin   where the invocation's first chunks lie, of rows or columns from edge0 of size
//   fetch   the next tile, of which the first ks of k are there (0 are the others), or all
//   put     what was fetched to shared memory
#define SIDE(side, ALONG_K, FOUR, EDGE, PITCH, tile)                                                                   \
    const uint WIDTH_##side = FOUR || ALONG_K ? 4 : 1, UNIT_##side = FOUR ? 4 : 1;                                     \
    const uint LINE_##side = (ALONG_K ? BK : EDGE) / WIDTH_##side, STEP_##side = INVOCATIONS / LINE_##side;            \
    const uint COUNT_##side = EDGE * BK / WIDTH_##side / INVOCATIONS;                                                  \
    uint at_##side[ALONG_K ? COUNT_##side : 1]; /* in units */                                                         \
    vec4 next_##side[EDGE * BK / INVOCATIONS / 4];                                                                     \
                                                                                                                       \
    uint line_##side(uint j) { return gl_LocalInvocationID.x / LINE_##side + j * STEP_##side; }                        \
    uint place_##side() { return gl_LocalInvocationID.x % LINE_##side * WIDTH_##side; }                                \
                                                                                                                       \
    void begin_##side(uint from, uint edge0, uint size, uint edge_stride, uint k_stride) {                             \
        [[unroll]] for (uint j = 0; j < (ALONG_K ? COUNT_##side : 1); j++) {                                           \
            const uint last = size - (ALONG_K ? 1 : UNIT_##side);                                                      \
            const uint edge = min(edge0 + (ALONG_K ? line_##side(j) : place_##side()), last);                          \
            const uint k = ALONG_K ? place_##side() : line_##side(0);                                                  \
            at_##side[j] = (from + edge * edge_stride + k * k_stride) / UNIT_##side;                                   \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    void fetch_##side(uint k_stride, uint ks, bool all) {                                                              \
        [[unroll]] for (uint j = 0; j < COUNT_##side; j++) {                                                           \
            const uint i = ALONG_K ? at_##side[j] : at_##side[0] + j * STEP_##side * k_stride / UNIT_##side;           \
            const uint k = ALONG_K ? place_##side() : line_##side(j);                                                  \
            vec4 chunk = vec4(0);                                                                                      \
            if (FOUR) {                                                                                                \
                if (all || k < ks) chunk = vector_of_##side(i);                                                        \
            } else {                                                                                                   \
                [[unroll]] for (uint e = 0; e < WIDTH_##side; e++)                                                     \
                    if (all || k + e < ks) chunk[e] = side##_at(i + e);                                                \
            }                                                                                                          \
            if (WIDTH_##side == 4) next_##side[j] = chunk;                                                             \
            else next_##side[j / 4][j % 4] = chunk.x;                                                                  \
        }                                                                                                              \
        [[unroll]] for (uint j = 0; j < (ALONG_K ? COUNT_##side : 1); j++)                                             \
            at_##side[j] += ks * k_stride / UNIT_##side;                                                               \
    }                                                                                                                  \
                                                                                                                       \
    void put_##side() {                                                                                                \
        const uint place = place_##side();                                                                             \
        [[unroll]] for (uint j = 0; j < COUNT_##side; j++) {                                                           \
            const uint line = line_##side(j);                                                                          \
            if (ALONG_K)                                                                                               \
                [[unroll]] for (uint e = 0; e < 4; e++)                                                                \
                    tile[(place + e) * PITCH + line / 4][line % 4] = next_##side[j][e];                                \
            else if (FOUR) tile[line * PITCH + place / 4] = next_##side[j];                                            \
            else tile[line * PITCH + place / 4][place % 4] = next_##side[j / 4][j % 4];                                \
        }                                                                                                              \
    }
SIDE(a, A_ALONG_K, A_FOUR, BM, PITCH_A, tile_a)
SIDE(b, !B_ALONG_N, B_FOUR, BN, PITCH_B, tile_b)

uint k_stride_a() { return A_ALONG_K ? 1 : p.a_column; }
uint k_stride_b() { return B_ALONG_N ? p.b_row : 1; }

void fetch(uint ks, bool all) {
    fetch_a(k_stride_a(), ks, all);
    fetch_b(k_stride_b(), ks, all);
}

void put() {
    put_a();
    put_b();
}

vec4 sum[TM * QN];

void multiply(uint quad_m, uint quad_n) {
    [[unroll]] for (uint k = 0; k < BK; k++) {
        vec4 x[QM], y[QN];
        [[unroll]] for (uint q = 0; q < QM; q++) x[q] = tile_a[k * PITCH_A + q * (BM / 4 / QM) + quad_m];
        [[unroll]] for (uint q = 0; q < QN; q++) y[q] = tile_b[k * PITCH_B + q * (BN / 4 / QN) + quad_n];
        [[unroll]] for (uint i = 0; i < TM; i++)
            [[unroll]] for (uint q = 0; q < QN; q++)
                sum[i * QN + q] = fma(vec4(x[i / 4][i % 4]), y[q], sum[i * QN + q]);
    }
}

// Four columns of a row that is there.
void store_quad(uint to, uint row, uint column, vec4 x) {
    if (C_FOUR) store_four(to, row, column, x);
    else [[unroll]] for (uint e = 0; e < 4; e++) store(to, row, column + e, x[e]);
}

void main() {
    if (group() >= p.groups) return;
    const uint batch = group() / (p.tiles_m * p.tiles_n);
    const uvec2 tile = tile_of(group() % (p.tiles_m * p.tiles_n));
    const uint row0 = tile.x * BM, column0 = tile.y * BN;
    const uint quad_m = gl_LocalInvocationID.x / (BN / TN), quad_n = gl_LocalInvocationID.x % (BN / TN);
    begin_a(a_of(batch), row0, p.m, p.a_row, k_stride_a());
    begin_b(b_of(batch), column0, p.n, p.b_column, k_stride_b());
    [[unroll]] for (uint i = 0; i < TM * QN; i++) sum[i] = vec4(0);

    uint k = (p.k - 1) % BK + 1; // the first tiles are what whole ones leave over
    fetch(k, false);
    put();
    while (true) {
        const bool more = k < p.k;
        barrier();
        if (AHEAD && more) fetch(BK, true);
        multiply(quad_m, quad_n);
        if (!more) break;
        barrier();
        if (!AHEAD) fetch(BK, true);
        put();
        k += BK;
    }

    const uint to_c = c_of(batch);
    // one loop, and no `continue` in it: else drivers may not unroll it, and then keep the sums in memory
    [[unroll]] for (uint e = 0; e < TM * QN; e++) {
        const uint i = e / QN, row = row0 + i / 4 * (BM / QM) + quad_m * 4 + i % 4;
        if (row < p.m) store_quad(to_c, row, column0 + e % QN * (BN / QN) + quad_n * 4, sum[e]);
    }
}
