/* Cooperative matrices (VK_KHR_cooperative_matrix): which ones kernels may use. Where the headers lack the extension, as on
   Debian 12, there are none. */
#include "vulkan/device.h"
#include <stdlib.h>
#include <string.h>

#if defined(VK_KHR_cooperative_matrix)

/* Devices on which they are slower than kernels without, and where that was measured. */
static const struct {
    uint32_t vendor, first_device, last_device;
    const char *reason;
} denied[] = {
    {0x8086, 0x5690, 0x56bf, "Intel Arc A-series: down to 0.0007 of the speed without (llama.cpp issue 24404)"},
};

static const char *denial(const VkPhysicalDeviceProperties *device) {
    for (size_t i = 0; i < HK_LENGTH(denied); i++)
        if (device->vendorID == denied[i].vendor && device->deviceID >= denied[i].first_device &&
            device->deviceID <= denied[i].last_device)
            return denied[i].reason;
    return NULL;
}

/* Kernels run with one size of subgroups, the smallest, which the matrix units of all known devices take. */
static bool can_fix_subgroups(const struct vk_physical *p) {
    const VkPhysicalDeviceVulkan13Properties *const have = &p->properties13;
    return p->features13.subgroupSizeControl && p->features13.computeFullSubgroups &&
           (have->minSubgroupSize == have->maxSubgroupSize ||
            have->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
}

static bool has_features(const struct vk_instance *instance, const struct vk_physical *p) {
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &matrix};
    instance->vkGetPhysicalDeviceFeatures2(p->handle, &features);
    const VkSubgroupFeatureFlags shuffles = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    return matrix.cooperativeMatrix && p->features12.vulkanMemoryModel && p->features12.shaderFloat16 &&
           (p->properties11.subgroupSupportedOperations & shuffles) == shuffles;
}

/* A driver may have the extension, and list matrices of bf16, without the features. */
static bool has_bfloat16(const struct vk_instance *instance, const struct vk_physical *p) {
#if defined(VK_KHR_shader_bfloat16)
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bfloat16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &bfloat16};
    if (!p->bfloat16) return false;
    instance->vkGetPhysicalDeviceFeatures2(p->handle, &features);
    return bfloat16.shaderBFloat16Type && bfloat16.shaderBFloat16CooperativeMatrix;
#else
    (void)instance, (void)p;
    return false;
#endif
}

/* f16 and bf16, as far as the device and what compiled the shaders know them. */
static bool find_dtype(const struct vk_physical *p, bool bfloat16, VkComponentTypeKHR type, enum hk_dtype *dtype) {
    *dtype = HK_F16;
    if (type == VK_COMPONENT_TYPE_FLOAT16_KHR) return vk_shader_find("matmul_cooperative") != NULL;
#if defined(VK_KHR_shader_bfloat16)
    *dtype = HK_BF16;
    if (type == VK_COMPONENT_TYPE_BFLOAT16_KHR)
        return bfloat16 && p->features.features.shaderInt16 && vk_shader_find("matmul_cooperative_bf16") != NULL;
#endif
    (void)p, (void)bfloat16;
    return false;
}

static void add(struct vk_physical *p, const struct hk_cooperative *matrix) {
    if (p->n_cooperative == HK_MAX_COOPERATIVE) return;
    p->cooperative[p->n_cooperative++] = *matrix;
    p->uses_bfloat16 |= matrix->dtype == HK_BF16;
    p->uses_workgroups |= matrix->invocations > 0;
}

/* 16-bit inputs, sums in f32, one subgroup, which has as many elements of a result for each of its invocations. */
static void note(struct vk_physical *p, bool bfloat16, const VkCooperativeMatrixPropertiesKHR *m) {
    enum hk_dtype dtype;
    if (m->scope != VK_SCOPE_SUBGROUP_KHR || m->AType != m->BType || m->CType != VK_COMPONENT_TYPE_FLOAT32_KHR ||
        m->ResultType != VK_COMPONENT_TYPE_FLOAT32_KHR || m->saturatingAccumulation ||
        m->MSize * m->NSize % p->properties13.minSubgroupSize || !find_dtype(p, bfloat16, m->AType, &dtype))
        return;
    add(p, &(struct hk_cooperative){.dtype = dtype, .m = m->MSize, .n = m->NSize, .k = m->KSize});
}

static hk_status no_memory(void) { return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"); }

static hk_status query_subgroup(const struct vk_instance *instance, struct vk_physical *p, bool bfloat16) {
    const PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    uint32_t count = 0;
    if (!get || get(p->handle, &count, NULL) != VK_SUCCESS) return HK_OK;
    VkCooperativeMatrixPropertiesKHR *list = calloc(count + 1, sizeof *list);
    if (!list) return no_memory();
    for (uint32_t i = 0; i < count; i++) list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (get(p->handle, &count, list) < VK_SUCCESS) count = 0;
    for (uint32_t i = 0; i < count; i++) note(p, bfloat16, &list[i]);
    free(list);
    return HK_OK;
}

/* Matrices of whole workgroups, where the device has all that the kernels do with them (VK_NV_cooperative_matrix2). */
static hk_status query_workgroup(const struct vk_instance *instance, struct vk_physical *p, bool bfloat16) {
#if defined(VK_NV_cooperative_matrix2)
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV have = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &have};
    VkPhysicalDeviceCooperativeMatrix2PropertiesNV limits = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_PROPERTIES_NV};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &limits};
    if (!p->cooperative_matrix2 || !p->features11.storageBuffer16BitAccess || !vk_shader_find("matmul_cooperative2"))
        return HK_OK;
    instance->vkGetPhysicalDeviceFeatures2(p->handle, &features);
    if (!have.cooperativeMatrixWorkgroupScope || !have.cooperativeMatrixFlexibleDimensions ||
        !have.cooperativeMatrixReductions || !have.cooperativeMatrixConversions ||
        !have.cooperativeMatrixPerElementOperations || !have.cooperativeMatrixTensorAddressing)
        return HK_OK;
    instance->vkGetPhysicalDeviceProperties2(p->handle, &properties);
    p->cooperative_largest = limits.cooperativeMatrixFlexibleDimensionsMaxDimension;
    const PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV)vkGetInstanceProcAddr(
            instance->handle, "vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV");
    uint32_t count = 0;
    if (!get || get(p->handle, &count, NULL) != VK_SUCCESS) return HK_OK;
    VkCooperativeMatrixFlexibleDimensionsPropertiesNV *list = calloc(count + 1, sizeof *list);
    if (!list) return no_memory();
    for (uint32_t i = 0; i < count; i++)
        list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV;
    if (get(p->handle, &count, list) < VK_SUCCESS) count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const VkCooperativeMatrixFlexibleDimensionsPropertiesNV *const m = &list[i];
        struct hk_cooperative matrix = {
            .m = m->MGranularity, .n = m->NGranularity, .k = m->KGranularity, .invocations = m->workgroupInvocations};
        if (m->scope == VK_SCOPE_WORKGROUP_KHR && m->AType == m->BType && m->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            m->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && !m->saturatingAccumulation &&
            matrix.invocations <= limits.cooperativeMatrixWorkgroupScopeMaxWorkgroupSize &&
            find_dtype(p, bfloat16, m->AType, &matrix.dtype))
            add(p, &matrix);
    }
    free(list);
#else
    (void)instance, (void)p, (void)bfloat16;
#endif
    return HK_OK;
}

/* HEKLA_COOPERATIVE=0: none; 1: a subgroup's alone; for tests and comparisons. */
hk_status vk_cooperative_query(const struct vk_instance *instance, struct vk_physical *p) {
    const char *wanted = getenv("HEKLA_COOPERATIVE"), *const reason = denial(&p->properties.properties);
    p->n_cooperative = 0;
    if (!p->cooperative_matrix || !can_fix_subgroups(p) || !has_features(instance, p)) return HK_OK;
    if (reason) hk_remark(HK_LOG_INFO, "vulkan: cooperative matrices are left alone: %s", reason);
    if (reason || (wanted && !strcmp(wanted, "0"))) return HK_OK;
    const bool bfloat16 = has_bfloat16(instance, p);
    const hk_status status = query_subgroup(instance, p, bfloat16);
    return status || (wanted && !strcmp(wanted, "1")) ? status : query_workgroup(instance, p, bfloat16);
}

void *vk_cooperative_enable(const struct vk_physical *p, struct vk_cooperative_features *room, void *next,
                            const char **extensions, uint32_t *n_extensions) {
    room->none = !p->n_cooperative;
    if (room->none) return next;
    room->matrix = (VkPhysicalDeviceCooperativeMatrixFeaturesKHR){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .pNext = next,
        .cooperativeMatrix = VK_TRUE};
    extensions[(*n_extensions)++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    next = &room->matrix;
#if defined(VK_KHR_shader_bfloat16)
    if (p->uses_bfloat16) {
        room->bfloat16 = (VkPhysicalDeviceShaderBfloat16FeaturesKHR){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR,
            .pNext = next,
            .shaderBFloat16Type = VK_TRUE,
            .shaderBFloat16CooperativeMatrix = VK_TRUE};
        extensions[(*n_extensions)++] = VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME;
        next = &room->bfloat16;
    }
#endif
#if defined(VK_NV_cooperative_matrix2)
    if (p->uses_workgroups) {
        room->workgroup = (VkPhysicalDeviceCooperativeMatrix2FeaturesNV){
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV,
            .pNext = next,
            .cooperativeMatrixWorkgroupScope = VK_TRUE,
            .cooperativeMatrixFlexibleDimensions = VK_TRUE,
            .cooperativeMatrixReductions = VK_TRUE,
            .cooperativeMatrixConversions = VK_TRUE,
            .cooperativeMatrixPerElementOperations = VK_TRUE,
            .cooperativeMatrixTensorAddressing = VK_TRUE};
        extensions[(*n_extensions)++] = VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME;
        next = &room->workgroup;
    }
#endif
    return next;
}

#else

hk_status vk_cooperative_query(const struct vk_instance *instance, struct vk_physical *p) {
    (void)instance;
    p->n_cooperative = 0;
    return HK_OK;
}

void *vk_cooperative_enable(const struct vk_physical *p, struct vk_cooperative_features *room, void *next,
                            const char **extensions, uint32_t *n_extensions) {
    (void)p, (void)extensions, (void)n_extensions;
    room->none = true;
    return next;
}
#endif
