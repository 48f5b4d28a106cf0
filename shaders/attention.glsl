// What all attention kernels share: push constants, and which keys a query sees. q and dout [B, H, T, D], k and v [B, Hkv, S, D]
// with strides of their own, D dense; out, dq, dk and dv dense as [B, T or S, heads, D]; lse and delta dense [B, H, T].
layout(constant_id = 1) const uint D = 64;
layout(constant_id = 2) const bool CAUSAL = false;

layout(push_constant) uniform Push {
    uint base[8]; // of the bindings
    uint queries, keys, heads, shared_by; // T, S, H, and how many heads of queries share one of keys
    uint tiles, groups;                   // per head, and in all
    float scale;
    uint unused;
    uint q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, g_batch, g_head, g_row;
} p;

const float LOWEST = -3.402823466e38;

uint q_at(uint b, uint h, uint t) { return b * p.q_batch + h * p.q_head + t * p.q_row; }
uint k_at(uint b, uint h, uint s) { return b * p.k_batch + h / p.shared_by * p.k_head + s * p.k_row; }
uint v_at(uint b, uint h, uint s) { return b * p.v_batch + h / p.shared_by * p.v_head + s * p.v_row; }
uint g_at(uint b, uint h, uint t) { return b * p.g_batch + h * p.g_head + t * p.g_row; }
uint out_at(uint b, uint h, uint t) { return ((b * p.queries + t) * p.heads + h) * D; }
uint lse_at(uint b, uint h, uint t) { return (b * p.heads + h) * p.queries + t; }

// How many of the keys that exist query t sees.
uint seen_by(uint t, uint keys) {
    return CAUSAL ? uint(clamp(int(t + 1 + keys) - int(p.queries), 0, int(keys))) : keys;
}
// The first query that sees a key.
uint first_to_see(uint key) { return CAUSAL ? uint(max(int(key + p.queries) - int(p.keys), 0)) : 0; }
