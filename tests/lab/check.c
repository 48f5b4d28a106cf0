/* What must hold for every pipeline and every shader on a device. */
#include "lab.h"
#include <math.h>
#include <string.h>

/* ---- Capabilities ---- */

/* Whether a device that was opened by the library lets a shader use what its SPIR-V declares. */
static bool has_capability(const struct lab *lab, uint32_t capability) {
    const struct vk_physical *p = &lab->physical;
    switch (capability) {
    case 1: /* Shader */ return true;
    case 9: /* Float16 */ return p->features12.shaderFloat16;
    case 11: /* Int64 */ return p->features.features.shaderInt64;
    case 22: /* Int16 */ return p->features.features.shaderInt16;
    case 39: /* Int8 */ return p->features12.shaderInt8;
    case 4433: /* StorageBuffer16BitAccess */ return p->features11.storageBuffer16BitAccess;
    case 4448: /* StorageBuffer8BitAccess */ return p->features12.storageBuffer8BitAccess;
    case 5116: /* BFloat16TypeKHR */
    case 5117: /* BFloat16DotProductKHR */
    case 5118: /* BFloat16CooperativeMatrixKHR */ return p->bfloat16;
    case 5345: /* VulkanMemoryModel */ return p->features12.vulkanMemoryModel;
    case 5361: /* SubgroupBallotKHR */ return true;
    case 6018: /* DotProductInput4x8BitPacked */
    case 6019: /* DotProduct */ return p->features13.shaderIntegerDotProduct;
    case LAB_COOPERATIVE_MATRIX: return p->cooperative_matrix;
    default: return capability >= 61 && capability <= 68; /* GroupNonUniform...: part of Vulkan 1.3 as we use it */
    }
}

/* OpCapability instructions are a module's first, after a header of five words. */
bool lab_declares(const struct vk_shader *shader, uint32_t capability) {
    enum { OP_CAPABILITY = 17 };
    const size_t count = shader->bytes / 4;
    for (size_t i = 5; i + 1 < count && (shader->words[i] & 0xffff) == OP_CAPABILITY; i += shader->words[i] >> 16)
        if (shader->words[i + 1] == capability) return true;
    return false;
}

static bool is_admitted(const struct lab *lab, const struct vk_shader *shader) {
    for (uint32_t capability = 0; capability < 7000; capability++)
        if (lab_declares(shader, capability) && !has_capability(lab, capability)) return false;
    return true;
}

/* ---- Every shader is reached ---- */

enum where { HARDWARE, SOFTWARE, EVERYWHERE };

/* Shaders that a device admits and the library does not choose there. */
static const struct {
    const char *shader;
    enum where where;
    const char *reason;
} unreached[] = {
    {"matmul_direct", HARDWARE, "made for drivers that run on the processor"},
    {"matmul_i8_direct", HARDWARE, "made for drivers that run on the processor"},
    {"attention_rows", HARDWARE, "made for drivers that run on the processor"},
    {"attention_rows_dq", HARDWARE, "made for drivers that run on the processor"},
    {"attention_rows_dkv", HARDWARE, "made for drivers that run on the processor"},
    {"embedding_backward_columns", HARDWARE, "made for drivers that run on the processor"},
    {"matmul", SOFTWARE, "shared memory is slow there: matmul_direct"},
    {"matmul_cooperative", SOFTWARE, "the processor has no such units"},
    {"matmul_cooperative_bf16", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative_bf16", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative_dq", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative_dq_bf16", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative_dkv", SOFTWARE, "the processor has no such units"},
    {"attention_cooperative_dkv_bf16", SOFTWARE, "the processor has no such units"},
    {"matmul_few", SOFTWARE, "shared memory is slow there: matmul_direct"},
    {"matmul_i8", SOFTWARE, "shared memory is slow there: matmul_i8_direct"},
    {"matmul_i8_few", SOFTWARE, "shared memory is slow there: matmul_i8_direct"},
    {"matmul_parts", SOFTWARE, "a few tiles are enough for a few processors"},
};

static bool is_expected(const struct lab *lab, const char *shader) {
    for (size_t i = 0; i < HK_LENGTH(unreached); i++)
        if (!strcmp(unreached[i].shader, shader))
            return unreached[i].where == EVERYWHERE || lab->limits.software == (unreached[i].where == SOFTWARE);
    return false;
}

static bool is_used(const struct lab *lab, const struct vk_shader *shader) {
    for (int i = 0; i < lab->n_pipelines; i++)
        if (lab->pipelines[i].shader == shader) return true;
    return false;
}

static void check_reached(struct lab *lab) {
    for (int i = 0; i < vk_shaders_count; i++) {
        const struct vk_shader *shader = &vk_shaders[i];
        const bool used = is_used(lab, shader), expected = is_expected(lab, shader->name);
        if (used && expected) lab_fail(lab, "%s is used, but listed as one that is not", shader->name);
        if (!used && !expected && is_admitted(lab, shader))
            lab_fail(lab, "%s: the device admits it, and no program used it", shader->name);
    }
}

/* ---- Every pipeline is fit for the device ---- */

enum { LEAST_LOOP = 75 }; /* per cent of multiply-adds in the loop of a product of f32 by large tiles */

/* By its specialization constants: dtypes, what is made of c at once, and that operands are read in vectors. */
static bool is_large_product(const struct lab_pipeline *p) {
    return !strcmp(p->shader->name, "matmul") && !p->spec[5] && !p->spec[6] && p->spec[7] >= 64 && p->spec[8] >= 64 &&
           p->spec[13] && p->spec[14];
}

/* Subgroups that a processor holds at once, per unit of the driver's occupancy. Of kernels with barriers it should hold two
   workgroups, so that one computes while the other waits. */
static const struct {
    int driver; /* VkDriverId */
    double subgroups;
} occupancies[] = {
    {VK_DRIVER_ID_MESA_RADV, 4}, /* occupancy is of one SIMD of four */
    {VK_DRIVER_ID_MESA_NVK, 1},
    {VK_DRIVER_ID_MESA_TURNIP, 1},
    {26 /* VK_DRIVER_ID_MESA_HONEYKRISP */, 1.0 / 32}, /* invocations */
};

static double resident_invocations(const struct lab *lab, const struct lab_pipeline *p) {
    const double occupancy = p->number[VK_STATISTIC_OCCUPANCY];
    for (size_t i = 0; i < HK_LENGTH(occupancies) && occupancy >= 0; i++)
        if (occupancies[i].driver == (int)lab->physical.properties12.driverID)
            return occupancy * occupancies[i].subgroups * lab->physical.properties13.minSubgroupSize;
    return INFINITY;
}

/* Where a pipeline falls short, as is known. */
static const struct {
    const char *device, *shader; /* device: how its label begins */
    const char *what, *reason;
} shortfalls[] = {
    {"turnip", "attention", "occupancy", "registers for one workgroup: tiles of fewer than 64 rows would take less"},
    {"turnip", "attention_dq", "occupancy", "registers for one workgroup: tiles of fewer than 64 rows would take less"},
    {"turnip", "attention_dkv", "occupancy", "registers for one workgroup: tiles of fewer than 64 rows would take less"},
    {"turnip-7", "attention_dq", "spills", "one or two at a head size of 256"},
    {"m1", "attention", "occupancy", "448 invocations at a head size of 256"},
    {"m1", "attention_dq", "occupancy", "448 invocations at a head size of 256"},
    {"m1", "attention_dkv", "occupancy", "448 invocations at head sizes of 128 and more, of f16"},
};

/* Pipelines that each row explained. */
static int explained[HK_LENGTH(shortfalls)];

static bool is_device(const struct lab *lab, size_t row) {
    return !strncmp(shortfalls[row].device, lab->label, strlen(shortfalls[row].device));
}

static void fall_short(struct lab *lab, const struct lab_pipeline *p, const char *what, double value) {
    for (size_t i = 0; i < HK_LENGTH(shortfalls); i++) {
        if (!is_device(lab, i) || strcmp(shortfalls[i].shader, p->shader->name) || strcmp(shortfalls[i].what, what)) continue;
        explained[i]++;
        return;
    }
    lab_fail(lab, "%s (%s): %s %g", p->shader->name, lab_spec(p), what, value);
}

static void print_shortfalls(struct lab *lab) {
    for (size_t i = 0; i < HK_LENGTH(shortfalls); i++) {
        if (!is_device(lab, i)) continue;
        if (explained[i])
            printf("%s: known: %s: %s of %d pipelines: %s\n", lab->label, shortfalls[i].shader, shortfalls[i].what,
                   explained[i], shortfalls[i].reason);
        else lab_fail(lab, "%s is listed for its %s, and no longer falls short", shortfalls[i].shader, shortfalls[i].what);
    }
}

static void check_pipeline(struct lab *lab, const struct lab_pipeline *p) {
    const double *value = p->number;
    if (value[VK_STATISTIC_SPILLS] > 0) fall_short(lab, p, "spills", value[VK_STATISTIC_SPILLS]);
    if (value[VK_STATISTIC_SCRATCH] > 0) fall_short(lab, p, "scratch", value[VK_STATISTIC_SCRATCH]);
    if (value[VK_STATISTIC_SHARED] > lab->limits.shared_memory)
        fall_short(lab, p, "shared memory", value[VK_STATISTIC_SHARED]);
    if (resident_invocations(lab, p) < 2.0 * p->spec[0]) fall_short(lab, p, "occupancy", value[VK_STATISTIC_OCCUPANCY]);
    if (is_large_product(p) && value[LAB_LOOP] >= 0 && value[LAB_LOOP] < LEAST_LOOP) fall_short(lab, p, "loop", value[LAB_LOOP]);
    if (!lab->info.software && value[VK_STATISTIC_INSTRUCTIONS] <= 0)
        lab_fail(lab, "%s (%s): the driver says nothing of it", p->shader->name, lab_spec(p));
}

void lab_check(struct lab *lab) {
    check_reached(lab);
    for (int i = 0; i < lab->n_pipelines; i++) check_pipeline(lab, &lab->pipelines[i]);
    print_shortfalls(lab);
}
