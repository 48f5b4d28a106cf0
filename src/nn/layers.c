/* Layers: each names its parameters once (declare) and uses them any number of times (apply). */
#include "base/base.h" /* hk_fail */
#include <hekla/nn.h>
#include <math.h>
#include <stdio.h>

enum {
    NAME_BYTES = 256
}; /* longer than any name that can be declared: too long a prefix is refused, not cut to another */

struct name {
    char text[NAME_BYTES];
};

static struct name join(const char *prefix, const char *last) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%s.%s", prefix, last);
    return name;
}

static hk_status declare(struct hk_params *params, const char *prefix, const char *last, struct hk_shape shape,
                         struct hk_init init) {
    return hk_params_declare(params, join(prefix, last).text, shape, init);
}

static struct hk_value *use(struct hk_params *params, const char *prefix, const char *last, struct hk_value *x) {
    return hk_params_use(params, hk_value_graph(x), join(prefix, last).text);
}

/* NULL where the layer was declared without. */
static struct hk_value *use_bias(struct hk_params *params, const char *prefix, struct hk_value *x) {
    if (!params || hk_params_find(params, join(prefix, "bias").text) < 0) return NULL;
    return use(params, prefix, "bias", x);
}

static const struct hk_init one = {.kind = HK_INIT_ONE}, zero = {.kind = HK_INIT_ZERO};

hk_status hk_linear_declare(struct hk_params *params, const char *prefix, int64_t in, int64_t out, bool bias) {
    const struct hk_init init = {.kind = HK_INIT_UNIFORM, .scale = in > 0 ? 1 / sqrtf((float)in) : 0};
    const hk_status status = declare(params, prefix, "weight", HK_SHAPE(out, in), init);
    return status || !bias ? status : declare(params, prefix, "bias", HK_SHAPE(out), init);
}

struct hk_value *hk_linear_apply(struct hk_params *params, const char *prefix, struct hk_value *x) {
    if (!x) return NULL;
    struct hk_value *weight = hk_params_use_factor(params, hk_value_graph(x), join(prefix, "weight").text);
    return hk_linear(hk_cast(x, hk_params_precision(params)), weight, use_bias(params, prefix, x));
}

hk_status hk_layer_norm_declare(struct hk_params *params, const char *prefix, int64_t width, bool bias) {
    const hk_status status = declare(params, prefix, "weight", HK_SHAPE(width), one);
    return status || !bias ? status : declare(params, prefix, "bias", HK_SHAPE(width), zero);
}

struct hk_value *hk_layer_norm_apply(struct hk_params *params, const char *prefix, struct hk_value *x, float epsilon) {
    if (!x) return NULL;
    return hk_layer_norm(x, use(params, prefix, "weight", x), use_bias(params, prefix, x), epsilon);
}

hk_status hk_rms_norm_declare(struct hk_params *params, const char *prefix, int64_t width) {
    return declare(params, prefix, "weight", HK_SHAPE(width), one);
}

struct hk_value *hk_rms_norm_apply(struct hk_params *params, const char *prefix, struct hk_value *x, float epsilon) {
    if (!x) return NULL;
    return hk_rms_norm(x, use(params, prefix, "weight", x), epsilon);
}

hk_status hk_embedding_declare(struct hk_params *params, const char *prefix, int64_t rows, int64_t width) {
    const struct hk_init init = {.kind = HK_INIT_NORMAL, .scale = 1};
    return declare(params, prefix, "weight", HK_SHAPE(rows, width), init);
}

struct hk_value *hk_embedding_apply(struct hk_params *params, const char *prefix, struct hk_value *index) {
    if (!index) return NULL;
    return hk_embedding(use(params, prefix, "weight", index), index);
}
