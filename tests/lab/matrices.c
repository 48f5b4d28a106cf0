/* Where a device has cooperative matrices of a dtype, products of that dtype are made with them. What the device has is
   asked of the driver here, not of the library. */
#include "lab.h"
#include <stdlib.h>
#include <string.h>

#if defined(VK_KHR_cooperative_matrix)

enum { MOST_PROPERTIES = 128 };

static const struct {
    enum hk_dtype dtype;
    const char *name, *shader;
    int type; /* VkComponentTypeKHR */
} dtypes[] = {
    {HK_F16, "f16", "matmul_cooperative", VK_COMPONENT_TYPE_FLOAT16_KHR},
    {HK_BF16, "bf16", "matmul_cooperative_bf16", 1000141000 /* VK_COMPONENT_TYPE_BFLOAT16_KHR: newer than many headers */},
};

/* One of each kind of tile, and sizes that are no multiples of any. m, n, k; few rows are another kernel's. */
static const int64_t sizes[][3] = {{2048, 2048, 512}, {256, 192, 64}, {64, 64, 64}, {33, 130, 70}};

static bool has_matrices(struct hk_device *d, int type) {
    const struct vk_device *device = vk_device_of(d);
    const PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            device->instance.handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    VkCooperativeMatrixPropertiesKHR list[MOST_PROPERTIES] = {{0}};
    uint32_t count = MOST_PROPERTIES;
    for (uint32_t i = 0; i < count; i++) list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (!device->physical.cooperative_matrix || !get || get(device->physical.handle, &count, list) < 0) return false;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].scope == VK_SCOPE_SUBGROUP_KHR && (int)list[i].AType == type && (int)list[i].BType == type &&
            list[i].CType == VK_COMPONENT_TYPE_FLOAT32_KHR && list[i].ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR)
            return true;
    return false;
}

/* c = a b, or with both transposed. */
static bool compile_product(struct hk_device *device, enum hk_dtype dtype, const int64_t size[3], bool transposed) {
    const int64_t m = size[0], n = size[1], k = size[2];
    struct hk_tensor *a = hk_tensor_create(device, dtype, transposed ? HK_SHAPE(k, m) : HK_SHAPE(m, k));
    struct hk_tensor *b = hk_tensor_create(device, dtype, transposed ? HK_SHAPE(n, k) : HK_SHAPE(k, n));
    struct hk_tensor *c = hk_tensor_create(device, HK_F32, HK_SHAPE(m, n));
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = hk_leaf(graph, a), *y = hk_leaf(graph, b);
    hk_store(c, transposed ? hk_matmul(hk_transpose(x), hk_transpose(y)) : hk_matmul(x, y));
    struct hk_program *program = hk_compile(device, graph, NULL);
    const bool done = program != NULL;
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&a);
    hk_tensor_destroy(&b);
    hk_tensor_destroy(&c);
    return done;
}

/* Of all that the device has made. */
static void check_pipelines(struct lab *lab, const struct hk_device *device, const char *dtype) {
    const struct vk_pipelines *all = &((const struct vk_device *)device)->pipelines;
    int with = 0;
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (const struct vk_pipeline *p = all->buckets[i]; p; p = p->next) {
            const bool cooperative = lab_declares(p->shader, LAB_COOPERATIVE_MATRIX);
            if (!cooperative && !strncmp(p->shader->name, "matmul", 6) && strcmp(p->shader->name, "matmul_parts"))
                lab_fail(lab, "a product of %s is made by %s, without the device's matrices", dtype, p->shader->name);
            with += cooperative;
        }
    if (!with) lab_fail(lab, "no product of %s is made with the device's matrices", dtype);
}

static void check_dtype(struct lab *lab, size_t which) {
    struct hk_device *device = lab_open(false);
    if (!device) {
        lab_fail(lab, "%s", hk_error_message());
        return;
    }
    if (has_matrices(device, dtypes[which].type)) {
        if (!vk_shader_find(dtypes[which].shader)) {
            printf("%s: not checked: products of %s: glslc and the headers here are too old for %s\n", lab->label, dtypes[which].name,
                   dtypes[which].shader);
        } else {
            for (size_t i = 0; i < HK_LENGTH(sizes); i++)
                for (int transposed = 0; transposed < 2; transposed++)
                    if (!compile_product(device, dtypes[which].dtype, sizes[i], transposed))
                        lab_fail(lab, "a product of %s: %s", dtypes[which].name, hk_error_message());
            check_pipelines(lab, device, dtypes[which].name);
        }
    }
    hk_device_destroy(&device);
}

void lab_check_matrices(struct lab *lab) {
    if (lab->limits.software) return; /* the processor has no such units: multiplying plainly is faster */
    for (size_t i = 0; i < HK_LENGTH(dtypes); i++) check_dtype(lab, i);
}

#else

void lab_check_matrices(struct lab *lab) {
    printf("%s: not checked: cooperative matrices: these Vulkan headers lack them\n", lab->label);
}
#endif
