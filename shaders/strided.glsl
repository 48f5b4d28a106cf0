// Elementwise kernels on strided operands; operand 0 is the output. Before including: `#define OPERANDS n`, and
// `#define EXTRA` with the kernel's own push constants. The other side of this is src/op/strided.c.
layout(constant_id = 1) const uint RANK = 1; // 1 to 5
// Operands have runs of whole units: four elements, or eight where some operand's have 16 bits. An invocation makes one, by
// reading and writing four words at once, and all numbers but bases are in units.
layout(constant_id = 2) const bool FOURS = false;

layout(push_constant) uniform Push {
    uint count;                // elements of the output
    uint size[4];              // of dimensions 0 (innermost) to RANK - 2
    uint base[OPERANDS];       // word of each operand's first element; with FOURS a multiple of four
    uint stride[OPERANDS * 5]; // in elements
    EXTRA
} p;

// Where element i of the output lies in each operand, in elements from its first.
uint[OPERANDS] locate(uint i) {
    uint at[OPERANDS];
    [[unroll]] for (int k = 0; k < OPERANDS; k++) at[k] = 0;
    [[unroll]] for (uint d = 0; d + 1 < RANK; d++) {
        const uint rest = i / p.size[d], c = i - rest * p.size[d];
        [[unroll]] for (int k = 0; k < OPERANDS; k++) at[k] += c * p.stride[k * 5 + d];
        i = rest;
    }
    [[unroll]] for (int k = 0; k < OPERANDS; k++) at[k] += i * p.stride[k * 5 + RANK - 1];
    return at;
}

// Operand k's buffer, of 4-byte elements: name_load(at) is the EACH of them at `at`, as locate() says.
const uint EACH = FOURS ? 4 : 1;
#define OPERAND(k, name)                                                                                                   \
    WORDS(k, name);                                                                                                        \
    layout(set = 0, binding = k, std430) buffer Fours_##name { uvec4 name##_fours[]; };                                    \
    uint[4] name##_load(uint at) {                                                                                         \
        if (!FOURS) return uint[4](name[p.base[k] + at], 0, 0, 0);                                                         \
        const uvec4 v = name##_fours[p.base[k] / 4 + at];                                                                  \
        return uint[4](v.x, v.y, v.z, v.w);                                                                                \
    }

// ... and name_store(at, v).
#define RESULT(k, name)                                                                                                    \
    WORDS(k, name);                                                                                                        \
    layout(set = 0, binding = k, std430) buffer Fours_##name { uvec4 name##_fours[]; };                                    \
    void name##_store(uint at, uint v[4]) {                                                                                \
        if (FOURS) name##_fours[p.base[k] / 4 + at] = uvec4(v[0], v[1], v[2], v[3]);                                       \
        else name[p.base[k] + at] = v[0];                                                                                  \
    }
