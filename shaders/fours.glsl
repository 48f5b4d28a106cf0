// Buffers of floats by fours, in rows of p.width. Constant FOURS is set before including: rows and their lengths are
// multiples of four words. Else fours are made of single words. What of a four lies past the row's end reads as 0 and is not
// written.
bvec4 in_row(uint column) { return lessThan(uvec4(column, column + 1, column + 2, column + 3), uvec4(p.width)); }

// 0 in place of what lies past the row's end.
vec4 within_row(vec4 v, uint column) {
    if (FOURS) return column < p.width ? v : vec4(0);
    return mix(vec4(0), v, in_row(column));
}

// name_four(at, column): words at to at + 3, which are the row's from `column` on.
#define FOURS_OF(b, name)                                                                                                  \
    FLOATS(b, name);                                                                                                       \
    layout(set = 0, binding = b, std430) buffer Fours_##name { vec4 name##_fours[]; };                                     \
    vec4 name##_four(uint at, uint column) {                                                                               \
        if (FOURS) return column < p.width ? name##_fours[at / 4] : vec4(0);                                               \
        const bvec4 inside = in_row(column);                                                                               \
        return vec4(inside.x ? name[at] : 0, inside.y ? name[at + 1] : 0, inside.z ? name[at + 2] : 0,                     \
                    inside.w ? name[at + 3] : 0);                                                                          \
    }

// ... and name_set(at, column, v).
#define SET_FOURS_OF(b, name)                                                                                              \
    FOURS_OF(b, name)                                                                                                      \
    void name##_set(uint at, uint column, vec4 v) {                                                                        \
        if (FOURS) {                                                                                                       \
            if (column < p.width) name##_fours[at / 4] = v;                                                                \
            return;                                                                                                        \
        }                                                                                                                  \
        const bvec4 inside = in_row(column);                                                                               \
        if (inside.x) name[at] = v.x;                                                                                      \
        if (inside.y) name[at + 1] = v.y;                                                                                  \
        if (inside.z) name[at + 2] = v.z;                                                                                  \
        if (inside.w) name[at + 3] = v.w;                                                                                  \
    }
