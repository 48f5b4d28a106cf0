// What all attention kernels share: push constants, operands, and which keys a query sees. q and dout [B, H, T, D], k and v
// [B, Hkv, S, D] with strides of their own, D dense; out, dq, dk and dv dense as [B, T or S, heads, D]; lse and delta dense
// [B, H, T]. All but lse and delta are of one dtype; of 16-bit ones two lie in a word, and rows are of whole words.
#include "convert.glsl"

layout(constant_id = 1) const uint D = 64;
layout(constant_id = 2) const bool CAUSAL = false;
layout(constant_id = 6) const uint TYPE = F32;

layout(push_constant) uniform Push {
    uint base[8]; // of the bindings
    uint queries, keys, heads, shared_by; // T, S, H, and how many heads of queries share one of keys
    uint tiles, groups;                   // per head, and in all
    float scale;
    uint key_parts;                       // of attention_few
    uint q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row;
} p;

const float LOWEST = -3.402823466e38;

// Elements d and d + 1 of the row at element `row` of an operand; 0 past D.
#define OPERAND(b, name)                                                                              \
    READ_WORDS(b, name);                                                                              \
    vec2 load_##name(uint row, uint d) {                                                              \
        if (TYPE != F32) return pair_of(name[(row + d) / 2]);                                         \
        return vec2(uintBitsToFloat(name[row + d]), d + 1 < D ? uintBitsToFloat(name[row + d + 1]) : 0.0); \
    }
vec2 pair_of(uint word) {
    return TYPE == F16 ? unpackHalf2x16(word) : uintBitsToFloat(uvec2(word << 16, word & 0xffff0000u));
}

// The same of results: what lies past D is not stored.
#define RESULT(b, name)                                                     \
    WORDS(b, name);                                                         \
    void store_##name(uint row, uint d, vec2 x) {                           \
        if (TYPE != F32) {                                                  \
            name[(row + d) / 2] = word_of(x);                               \
        } else {                                                            \
            name[row + d] = floatBitsToUint(x.x);                           \
            if (d + 1 < D) name[row + d + 1] = floatBitsToUint(x.y);        \
        }                                                                   \
    }
uint word_of(vec2 x) {
    return TYPE == F16 ? f16_from_f32(x.x) | f16_from_f32(x.y) << 16 : bf16_from_f32(x.x) | bf16_from_f32(x.y) << 16;
}

// For kernels that have a row in registers: its product with a row of memory.
const uint PAIRS = (D + 1) / 2;
#define DOT(name)                                                                               \
    float dot_##name(vec2 x[PAIRS], uint row) {                                                 \
        vec2 sum = vec2(0);                                                                     \
        [[unroll]] for (uint i = 0; i < PAIRS; i++) sum = fma(x[i], load_##name(row, 2 * i), sum); \
        return sum.x + sum.y;                                                                   \
    }

// Where rows of the bindings 0 to 2 begin, and of dout and of results.
uint first_of(uint binding) { return TYPE == F32 ? p.base[binding] : 2 * p.base[binding]; }
uint q_at(uint b, uint h, uint t) { return first_of(0) + b * p.q_batch + h * p.q_head + t * p.q_row; }
uint k_at(uint b, uint h, uint s) { return first_of(1) + b * p.k_batch + h / p.shared_by * p.k_head + s * p.k_row; }
uint v_at(uint b, uint h, uint s) { return first_of(2) + b * p.v_batch + h / p.shared_by * p.v_head + s * p.v_row; }
#ifndef DOUT
#define DOUT 3
#endif
uint g_at(uint b, uint h, uint t) { return first_of(DOUT) + b * p.g_batch + h * p.g_head + t * p.g_row; }
uint out_at(uint binding, uint b, uint h, uint t) { return first_of(binding) + ((b * p.queries + t) * p.heads + h) * D; }
uint kv_out_at(uint binding, uint b, uint h, uint s) {
    return first_of(binding) + ((b * p.keys + s) * (p.heads / p.shared_by) + h / p.shared_by) * D;
}
uint lse_at(uint b, uint h, uint t) { return (b * p.heads + h) * p.queries + t; }

// How many of the keys that exist query t sees.
uint seen_by(uint t, uint keys) {
    return CAUSAL ? uint(clamp(int(t + 1 + keys) - int(p.queries), 0, int(keys))) : keys;
}
// The first query that sees a key.
uint first_to_see(uint key) { return CAUSAL ? uint(max(int(key + p.queries) - int(p.keys), 0)) : 0; }
