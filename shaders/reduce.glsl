// Reductions over a workgroup of 16 to 256 invocations (a power of two): in a fixed order, in two barriers, for every subgroup
// size. All invocations must call them, and all get the result. Calls may follow each other without a barrier between.
#include "math.glsl"

shared vec2 reduce_all[256];
shared vec2 reduce_few[16];
shared float reduce_all_floats[256];
shared float reduce_few_floats[16];

#define GROUP_SUM(type, all, few)                                                                                          \
    type group_sum(type x) {                                                                                               \
        const uint me = gl_LocalInvocationID.x;                                                                            \
        all[me] = x;                                                                                                       \
        barrier();                                                                                                         \
        if (me < 16) {                                                                                                     \
            type part = all[me];                                                                                           \
            for (uint i = me + 16; i < gl_WorkGroupSize.x; i += 16) part += all[i];                                        \
            few[me] = part;                                                                                                \
        }                                                                                                                  \
        barrier();                                                                                                         \
        type total = few[0];                                                                                               \
        for (uint i = 1; i < 16; i++) total += few[i];                                                                     \
        return total;                                                                                                      \
    }

GROUP_SUM(vec2, reduce_all, reduce_few)
GROUP_SUM(float, reduce_all_floats, reduce_few_floats)

// The log-sum-exp of numbers seen so far, as (m, s) = (their maximum, sum of exp(number - m)); none yet: LOGSUM_EMPTY.
// (Milakov and Gimelshein, 2018)
const vec2 LOGSUM_EMPTY = vec2(-3.402823466e38, 0);

vec2 logsum_add(vec2 ms, float x) {
    const float e = exp_or_nan(-abs(x - ms.x));
    return x > ms.x ? vec2(x, ms.y * e + 1) : vec2(ms.x, ms.y + e);
}

vec2 logsum_join(vec2 a, vec2 b) {
    const float m = max(a.x, b.x);
    return vec2(m, a.y * exp_or_nan(a.x - m) + b.y * exp_or_nan(b.x - m));
}

vec2 group_logsum(vec2 ms) {
    const uint me = gl_LocalInvocationID.x;
    reduce_all[me] = ms;
    barrier();
    if (me < 16) {
        vec2 part = reduce_all[me];
        for (uint i = me + 16; i < gl_WorkGroupSize.x; i += 16) part = logsum_join(part, reduce_all[i]);
        reduce_few[me] = part;
    }
    barrier();
    vec2 total = reduce_few[0];
    for (uint i = 1; i < 16; i++) total = logsum_join(total, reduce_few[i]);
    // The maximum itself counts 1: there is none where all are -inf. And inf - inf is NaN. Drivers differ in what follows.
    if (total.y < 0.5 || isinf(total.x)) total.y = uintBitsToFloat(0x7fc00000u);
    return total;
}
