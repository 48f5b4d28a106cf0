// loss = the sum of losses [rows] / count, count = the sum of kept [rows] (none: NaN). One workgroup; each invocation's sum is
// compensated (Kahan, 1965), so that the number of rows does not show in the error.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"

layout(push_constant) uniform Push {
    uint base_loss, base_kept, base_mean, base_count;
    uint rows;
} p;

FLOATS(0, losses);
FLOATS(1, kepts);
FLOATS(2, mean);
FLOATS(3, count);

void main() {
    precise float sum = 0, lost = 0;
    float kept = 0;
    for (uint i = gl_LocalInvocationID.x; i < p.rows; i += gl_WorkGroupSize.x) {
        precise const float add = losses[p.base_loss + i] - lost;
        precise const float next = sum + add;
        lost = (next - sum) - add;
        sum = next;
        kept += kepts[p.base_kept + i];
    }
    const vec2 total = group_sum(vec2(sum, kept));
    if (gl_LocalInvocationID.x != 0) return;
    mean[p.base_mean] = total.y > 0 ? total.x / total.y : uintBitsToFloat(0x7fc00000u);
    count[p.base_count] = total.y;
}
