// Dynamic loss scaling (Micikevicius et al., 2018): by the scaled gradients' norm, whether the step is taken and what the
// next scale is. scaling is enum hk_scaling, given and hyper enum hk_hyper of graph.h. src/op/loss_scale.c
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

const uint BETA1 = 1, BETA2 = 2, BIAS1 = 5, BIAS2 = 6, UNSCALE = 8, SKIP = 9, HYPER_COUNT = 10;
const uint SCALE = 0, GOOD = 1, UPDATES = 2, SKIPPED = 3, POWER1 = 4, POWER2 = 5;
const float LEAST = 1.0 / 16777216.0, MOST = 1099511627776.0; // 2^-24, 2^40

layout(push_constant) uniform Push {
    uint base_scaling, base_given, base_norm, base_hyper, base_unscaled;
    int adaptive; // Adam's bias correction; else SGD's sign of the first step
    float grow_after;
} p;

FLOATS(0, scaling);
FLOATS(1, given);
FLOATS(2, norm);
FLOATS(3, hyper);
FLOATS(4, unscaled);

void main() {
    if (item() > 0) return;
    const uint s = p.base_scaling, h = p.base_hyper;
    const float scale = scaling[s + SCALE];
    // by its bits: a driver may compute as if there were no infinities
    const bool finite = (floatBitsToUint(norm[p.base_norm]) & 0x7fffffffu) < 0x7f800000u;
    for (uint i = 0; i < HYPER_COUNT; i++) hyper[h + i] = given[p.base_given + i];
    hyper[h + UNSCALE] = 1 / scale;
    unscaled[p.base_unscaled] = norm[p.base_norm] / scale;
    hyper[h + SKIP] = finite ? 0 : 1;
    if (!finite) {
        scaling[s + SCALE] = max(scale / 2, LEAST);
        scaling[s + GOOD] = 0;
        scaling[s + SKIPPED] += 1;
        return;
    }
    const float power1 = scaling[s + POWER1] * given[p.base_given + BETA1];
    const float power2 = scaling[s + POWER2] * given[p.base_given + BETA2];
    const float good = scaling[s + GOOD] + 1;
    hyper[h + BIAS1] = p.adaptive != 0 ? 1 - power1 : scaling[s + UPDATES] > 0 ? 1 : 0;
    hyper[h + BIAS2] = 1 - power2;
    scaling[s + POWER1] = power1;
    scaling[s + POWER2] = power2;
    scaling[s + UPDATES] += 1;
    scaling[s + GOOD] = good < p.grow_after ? good : 0;
    if (good >= p.grow_after) scaling[s + SCALE] = min(2 * scale, MOST);
}
