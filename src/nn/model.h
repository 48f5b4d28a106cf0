/* What model.c (the parameters) and decoder.c (the mathematics) share. */
#ifndef HK_NN_MODEL_H
#define HK_NN_MODEL_H

#include <hekla/nn.h>

struct hk_model_name {
    char text[128];
};
/* "h.3.ln_1.weight", "model.layers.3.input_layernorm.weight" */
struct hk_model_name hk_model_layer_name(enum hk_family family, int64_t layer, const char *last);

/* The config with every "0: default" replaced by the default. */
struct hk_model_config hk_model_filled_in(const struct hk_model_config *config);

#endif
