/* GLSL to SPIR-V at run time, by shaderc. It is opened like the Vulkan loader, not linked: one build of Hekla runs
   where there is none, without fused kernels. */
#include "vulkan/device.h"

#ifdef HK_WITH_SHADERC
#include <dlfcn.h>
#include <shaderc/shaderc.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTIONS(F)                                                                                                   \
    F(compiler_initialize)                                                                                             \
    F(compile_options_initialize)                                                                                      \
    F(compile_options_release)                                                                                         \
    F(compile_options_set_target_env)                                                                                  \
    F(compile_options_set_optimization_level)                                                                          \
    F(compile_into_spv)                                                                                                \
    F(result_get_compilation_status)                                                                                   \
    F(result_get_error_message)                                                                                        \
    F(result_get_bytes)                                                                                                \
    F(result_get_length)                                                                                               \
    F(result_release)

static struct {
#define F(name) __typeof__(shaderc_##name) *name;
    FUNCTIONS(F)
#undef F
} shaderc;

static pthread_once_t once = PTHREAD_ONCE_INIT;
/* One for the process, which all threads compile with: each new one reads GLSL's built-in functions, 150 ms. */
static shaderc_compiler_t compiler;

static bool load_functions(void *library) {
    void *symbol;
#define F(name)                                                                                                        \
    if (!(symbol = dlsym(library, "shaderc_" #name))) return false;                                                    \
    memcpy(&shaderc.name, &symbol, sizeof symbol);
    FUNCTIONS(F)
#undef F
    return true;
}

/* Some distributions' libraries cannot be opened: Debian 12's lacks what glslc, its only user there, brings along. */
static void open_library(void) {
#if defined(__APPLE__)
    static const char *const names[] = {"libshaderc_shared.1.dylib"};
#else
    static const char *const names[] = {"libshaderc_shared.so.1", "libshaderc.so.1"};
#endif
    void *library = NULL;
    for (size_t i = 0; i < HK_LENGTH(names) && !library; i++) library = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
    const char *why = library ? "it lacks functions, or memory" : dlerror();
    if (library && load_functions(library)) compiler = shaderc.compiler_initialize(); /* never closed: others may use it */
    if (!compiler)
        hk_remark(HK_LOG_INFO, "vulkan: elementwise ops are not fused, for want of shaderc: %s", why ? why : "");
}

bool vk_shaderc_available(void) {
    pthread_once(&once, open_library);
    return compiler;
}

/* A copy of the SPIR-V, or NULL with *status set. */
static uint32_t *copy_result(shaderc_compilation_result_t result, size_t *bytes, hk_status *status) {
    if (!result || shaderc.result_get_compilation_status(result) != shaderc_compilation_status_success) {
        *status =
            hk_fail(HK_ERROR_INTERNAL, "shaderc: %s", result ? shaderc.result_get_error_message(result) : "no result");
        return NULL;
    }
    *bytes = shaderc.result_get_length(result);
    uint32_t *words = malloc(*bytes);
    if (words) memcpy(words, shaderc.result_get_bytes(result), *bytes);
    else *status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while compiling a shader");
    return words;
}

hk_status vk_shaderc_compile(const char *text, const char *name, uint32_t **words, size_t *bytes) {
    hk_status status = HK_OK;
    *words = NULL;
    if (!vk_shaderc_available()) return hk_fail(HK_ERROR_UNSUPPORTED, "there is no shaderc to compile %s", name);
    const shaderc_compile_options_t options = shaderc.compile_options_initialize();
    if (options) {
        shaderc.compile_options_set_target_env(options, shaderc_target_env_vulkan, shaderc_env_version_vulkan_1_3);
        shaderc.compile_options_set_optimization_level(options, shaderc_optimization_level_performance);
        const shaderc_compilation_result_t result =
            shaderc.compile_into_spv(compiler, text, strlen(text), shaderc_compute_shader, name, "main", options);
        *words = copy_result(result, bytes, &status);
        if (result) shaderc.result_release(result);
    } else {
        status = hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory for shaderc");
    }
    if (options) shaderc.compile_options_release(options);
    return status;
}

#else
bool vk_shaderc_available(void) { return false; }

hk_status vk_shaderc_compile(const char *text, const char *name, uint32_t **words, size_t *bytes) {
    (void)text, (void)words, (void)bytes;
    return hk_fail(HK_ERROR_UNSUPPORTED, "%s: Hekla was built without shaderc", name);
}
#endif
