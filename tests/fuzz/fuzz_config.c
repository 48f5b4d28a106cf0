/* Configs that lie: what is accepted passes the model's own check, and can be written and read again. */
#include <hekla/hekla.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct hk_model_config config, again;
    if (hk_config_parse((const char *)data, bytes, &config)) return 0;
    if (hk_model_config_check(&config)) __builtin_trap();
    char *text = hk_config_format(&config);
    if (!text || hk_config_parse(text, strlen(text), &again)) __builtin_trap();
    free(text);
    return 0;
}
