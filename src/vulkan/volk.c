/* The Vulkan entry points: volk opens the loader at run time, so that a machine without Vulkan has no unmet symbol. */
#define VOLK_IMPLEMENTATION
#include <volk.h>
