// One optimizer step in place on [count] parameters: SGD (with momentum, Nesterov's), Adam (Kingma and Ba, 2014), AdamW
// (Loshchilov and Hutter, 2017), as PyTorch computes them. The first `decayed` elements take weight decay. hyper is enum
// hk_hyper of graph.h; norm is the gradient's global norm, for clipping.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

const uint SGD = 0, MOMENTUM = 1, NESTEROV = 2, ADAM = 3, ADAMW = 4; // enum optimizer_rule of optimizer.c
layout(constant_id = 1) const uint RULE = ADAMW;
layout(constant_id = 2) const bool CLIP = true;
layout(constant_id = 3) const uint STRETCH = 4; // elements per invocation

const uint LR = 0, BETA1 = 1, BETA2 = 2, EPSILON = 3, DECAY = 4, BIAS1 = 5, BIAS2 = 6, MAX_NORM = 7,
           UNSCALE = 8, SKIP = 9;

layout(push_constant) uniform Push {
    uint base_p, base_m, base_v, base_g, base_hyper, base_norm;
    uint count, decayed;
} p;

FLOATS(0, params);
FLOATS(1, moment1);
FLOATS(2, moment2);
FLOATS(3, grads);
FLOATS(4, hypers);
FLOATS(5, norm);

float hyper(uint i) { return hypers[p.base_hyper + i]; }

// min(1, max_norm / (norm + 1e-6)) over the loss's scale; NaN where the norm is.
float clip_factor() {
    const float unscaled = hyper(UNSCALE) > 0 ? hyper(UNSCALE) : 1;
    if (!CLIP || hyper(MAX_NORM) <= 0) return unscaled;
    const float factor = hyper(MAX_NORM) / (norm[p.base_norm] + 1e-6);
    return factor >= 1 ? unscaled : factor * unscaled;
}

void main() {
    if (hyper(SKIP) > 0.5) return;
    const float lr = hyper(LR), beta1 = hyper(BETA1), clip = clip_factor();
    uint i = group() * gl_WorkGroupSize.x * STRETCH + gl_LocalInvocationID.x;
    for (uint k = 0; k < STRETCH && i < p.count; k++, i += gl_WorkGroupSize.x) {
        const float decay = i < p.decayed ? hyper(DECAY) : 0;
        float x = params[p.base_p + i], g = grads[p.base_g + i] * clip;
        if (RULE == ADAMW) x *= 1 - lr * decay;
        else g += decay * x;
        if (RULE == SGD) {
            x -= lr * g;
        } else if (RULE == MOMENTUM || RULE == NESTEROV) {
            const float m = hyper(BIAS1) == 0 ? g : beta1 * moment1[p.base_m + i] + g; // the first velocity is the gradient
            moment1[p.base_m + i] = m;
            x -= lr * (RULE == NESTEROV ? g + beta1 * m : m);
        } else {
            const float m = moment1[p.base_m + i] + (1 - beta1) * (g - moment1[p.base_m + i]);
            const float v = hyper(BETA2) * moment2[p.base_v + i] + (1 - hyper(BETA2)) * g * g;
            moment1[p.base_m + i] = m;
            moment2[p.base_v + i] = v;
            x -= lr / hyper(BIAS1) * m / (sqrt(v) / sqrt(hyper(BIAS2)) + hyper(EPSILON));
        }
        params[p.base_p + i] = x;
    }
}
