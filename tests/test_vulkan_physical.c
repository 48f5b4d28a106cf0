/* What is made of what a driver says of a device: drivers that are not there say it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vulkan/instance.h"
#include <stdio.h>

static const char *extension; /* that the driver has; NULL: none */

static VKAPI_ATTR void VKAPI_CALL say_properties(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *properties) {
    (void)device;
    for (VkBaseOutStructure *s = properties->pNext; s; s = s->pNext)
        switch ((int)s->sType) {
        case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV:
            ((VkPhysicalDeviceShaderSMBuiltinsPropertiesNV *)(void *)s)->shaderSMCount = 132;
            break;
        case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD: {
            VkPhysicalDeviceShaderCorePropertiesAMD *amd = (void *)s;
            amd->shaderEngineCount = 6, amd->shaderArraysPerEngineCount = 2, amd->computeUnitsPerShaderArray = 8;
            break;
        }
#if defined(VK_ARM_shader_core_builtins)
        case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_BUILTINS_PROPERTIES_ARM:
            ((VkPhysicalDeviceShaderCoreBuiltinsPropertiesARM *)(void *)s)->shaderCoreCount = 10;
            break;
#endif
        default: break;
        }
}

static VKAPI_ATTR void VKAPI_CALL say_features(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *features) {
    (void)device, (void)features;
}

static VKAPI_ATTR void VKAPI_CALL say_memory(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2 *memory) {
    (void)device, (void)memory;
}

static VKAPI_ATTR VkResult VKAPI_CALL say_extensions(VkPhysicalDevice device, const char *layer, uint32_t *count,
                                                     VkExtensionProperties *list) {
    (void)device, (void)layer;
    *count = extension ? 1 : 0;
    if (list && extension) snprintf(list->extensionName, sizeof list->extensionName, "%s", extension);
    return VK_SUCCESS;
}

static void processors_are_as_many_as_the_driver_says(void **state) {
    (void)state;
    static const struct {
        const char *extension;
        uint32_t processors;
    } drivers[] = {
        {"VK_NV_shader_sm_builtins", 132},
        {"VK_AMD_shader_core_properties", 6 * 2 * 8},
#if defined(VK_ARM_shader_core_builtins)
        {"VK_ARM_shader_core_builtins", 10},
#endif
        {"VK_EXT_memory_budget", 0},
        {NULL, 0},
    };
    struct vk_instance instance = {.vkGetPhysicalDeviceProperties2 = say_properties,
                                   .vkGetPhysicalDeviceFeatures2 = say_features,
                                   .vkGetPhysicalDeviceMemoryProperties2 = say_memory,
                                   .vkEnumerateDeviceExtensionProperties = say_extensions};
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        struct vk_physical physical;
        extension = drivers[i].extension;
        assert_int_equal(vk_physical_query(&instance, VK_NULL_HANDLE, &physical), HK_OK);
        assert_int_equal(physical.processors, drivers[i].processors);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_are_as_many_as_the_driver_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
