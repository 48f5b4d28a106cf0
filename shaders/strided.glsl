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
    for (int k = 0; k < OPERANDS; k++) at[k] = 0;
    for (uint d = 0; d + 1 < RANK; d++) {
        const uint rest = i / p.size[d], c = i - rest * p.size[d];
        for (int k = 0; k < OPERANDS; k++) at[k] += c * p.stride[k * 5 + d];
        i = rest;
    }
    for (int k = 0; k < OPERANDS; k++) at[k] += i * p.stride[k * 5 + RANK - 1];
    return at;
}

// The same for operands of 4-byte elements, in words of their buffers; with FOURS in fours of words.
uint[OPERANDS] locate_words(uint i) {
    uint at[OPERANDS] = locate(i);
    for (int k = 0; k < OPERANDS; k++) at[k] += FOURS ? p.base[k] / 4 : p.base[k];
    return at;
}

// A buffer's words, and the same by fours: name_fours.
#define WORDS_AND_FOURS(b, name)                                                                                           \
    WORDS(b, name);                                                                                                        \
    WORD_FOURS(b, name##_fours);
