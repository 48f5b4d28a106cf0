/* The shaders that were built in, sorted by name; the table is made by cmake/Shaders.cmake. */
#ifndef HK_VULKAN_SHADERS_H
#define HK_VULKAN_SHADERS_H

#include <stddef.h>
#include <stdint.h>

struct vk_shader {
    const char *name;
    const uint32_t *words; /* SPIR-V */
    size_t bytes;
};

extern const struct vk_shader vk_shaders[];
extern const int vk_shaders_count;

/* A file of shaders/, for shaders that are written at run time: all that others include, and the products' kernels. */
struct vk_glsl_file {
    const char *name, *text;
};

extern const struct vk_glsl_file vk_glsl_files[];
extern const int vk_glsl_files_count; /* at most 64 */

/* NULL where there is none of that name. */
const struct vk_shader *vk_shader_find(const char *name);

#endif
