// cache[b][h][position + t][d] = rows[b][h][t][d] for those t that the cache has room for; position is read on the device. Any
// strides but d dense. An invocation does one element.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(push_constant) uniform Push {
    uint base_cache, base_rows, base_position;
    uint count, heads, rows_length, width; // count: B * H * T * D
    int room;
    uint cache_stride_b, cache_stride_h;
    uint rows_stride_b, rows_stride_h, rows_stride_t;
    int first; // of these rows among all T
} p;

FLOATS(0, cache);
FLOATS(1, rows);
INTS(2, position);

void main() {
    if (item() >= p.count) return;
    const uint d = item() % p.width, t = item() / p.width % p.rows_length;
    const uint h = item() / p.width / p.rows_length % p.heads, b = item() / p.width / p.rows_length / p.heads;
    const int start = position[p.base_position];
    const int at = start + p.first + int(t);
    if (start > p.room || at < 0 || at >= p.room) return;
    cache[p.base_cache + b * p.cache_stride_b + h * p.cache_stride_h + uint(at) * p.width + d] =
        rows[p.base_rows + b * p.rows_stride_b + h * p.rows_stride_h + t * p.rows_stride_t + d];
}
