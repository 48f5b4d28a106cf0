// y[r] += the sum of dy[n] over all positions n with index[n] = r, in an order that is a matter of the positions alone. The
// workgroup of a position leaves if an earlier position has the same index, so each row has one writer. It looks at positions
// by chunks, lists those that have its index, and adds their rows: one row by all invocations, more by ACROSS of them side by
// side, every LANES-th row each. Rows outside of [first_row, first_row + rows), the window that is bound, are left alone.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#include "common.glsl"

layout(constant_id = 1) const bool FOURS = false;
const uint LANES = 4, ACROSS = 64, GROUP = LANES * ACROSS;
const uint LOOKS = 8, CHUNK = LOOKS * GROUP; // positions that an invocation looks at, and all of them
const uint AT_ONCE = 8;                      // rows that an invocation reads ahead

layout(push_constant) uniform Push {
    uint base_dy, base_index, base_y;
    uint count, width;
    int first_row, rows;
} p;

#include "fours.glsl"

FOURS_OF(0, dy)
INTS(1, index);
SET_FOURS_OF(2, y)

shared uint marks[CHUNK / 32]; // bit b of word w: position 32 w + b of the chunk has the index
shared uint found, positions[CHUNK];
shared vec4 sums[GROUP];

// Marks and counts the positions of the chunk that have the index.
void find(uint first, int row) {
    const uint me = gl_LocalInvocationID.x;
    barrier(); // the last chunk's marks and list have been read
    if (me == 0) found = 0;
    if (me < CHUNK / 32) marks[me] = 0;
    barrier();
    [[unroll]] for (uint k = 0; k < LOOKS; k++) {
        const uint place = k * GROUP + me;
        if (first + place < p.count && index[p.base_index + first + place] == row) {
            // without a scope they would be the whole device's, which takes a feature
            atomicOr(marks[place / 32], 1u << place % 32, gl_ScopeWorkgroup, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
            atomicAdd(found, 1u, gl_ScopeWorkgroup, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
        }
    }
    barrier();
}

// Lists what is marked, in order.
void list(uint first) {
    const uint me = gl_LocalInvocationID.x;
    if (me < CHUNK / 32) {
        uint next = 0;
        for (uint w = 0; w < me && found > 1; w++) next += bitCount(marks[w]);
        for (uint bits = marks[me]; bits != 0; bits &= bits - 1) positions[next++] = first + me * 32 + uint(findLSB(bits));
    }
    barrier();
}

void add_one(uint n, uint to) {
    for (uint column = gl_LocalInvocationID.x * 4; column < p.width; column += GROUP * 4)
        y_set(to + column, column, y_four(to + column, column) + dy_four(p.base_dy + n * p.width + column, column));
}

vec4 lane_sum(uint lane, uint column) {
    vec4 sum = vec4(0);
    for (uint i = lane; i < found; i += LANES * AT_ONCE) {
        vec4 v[AT_ONCE];
        [[unroll]] for (uint k = 0; k < AT_ONCE; k++) {
            const uint n = positions[min(i + k * LANES, found - 1)];
            v[k] = dy_four(p.base_dy + n * p.width + column, column);
        }
        [[unroll]] for (uint k = 0; k < AT_ONCE; k++) sum += i + k * LANES < found ? v[k] : vec4(0);
    }
    return sum;
}

void add_all(uint to) {
    const uint me = gl_LocalInvocationID.x;
    for (uint tile = 0; tile < p.width; tile += ACROSS * 4) {
        const uint column = tile + me % ACROSS * 4;
        barrier(); // the last tile's sums have been read
        sums[me] = lane_sum(me / ACROSS, column);
        barrier();
        if (me < ACROSS) {
            vec4 sum = y_four(to + column, column);
            [[unroll]] for (uint i = 0; i < LANES; i++) sum += sums[i * ACROSS + me];
            y_set(to + column, column, sum);
        }
    }
}

void main() {
    const uint mine = group();
    if (mine >= p.count) return;
    const int row = index[p.base_index + mine];
    if (row < p.first_row || row - p.first_row >= p.rows) return;
    const uint to = p.base_y + uint(row - p.first_row) * p.width;
    for (uint first = 0; first < p.count; first += CHUNK) {
        find(first, row);
        if (found > 0) {
            list(first);
            if (positions[0] < mine) return;
            if (found == 1) add_one(positions[0], to);
            else add_all(to);
        }
    }
}
