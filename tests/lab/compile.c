/* Reaching every pipeline that the library would make on a device: by compiling programs of all kinds there. */
#include "case_run.h"
#include "lab.h"
#include "lab/loop.h"
#include <stdlib.h>
#include <string.h>

#define HK_OP(name) extern const struct hk_case_set hk_cases_##name;
#include "op/ops.def"
#undef HK_OP

static const struct {
    const char *op;
    const struct hk_case_set *cases;
} sets[] = {
#define HK_OP(name) {#name, &hk_cases_##name},
#include "op/ops.def"
#undef HK_OP
};

/* The models that `hekla bench step` has, so that shapes of real use choose the kernels. */
static const char *const models[] = {"gpt-tiny", "gpt-char", "gpt2-124m", "llama-2", "llama-12"};

struct hk_device *lab_open(bool validate) {
    struct hk_device *device = hk_device_open(
        &(struct hk_device_params){.name = "vulkan", .cache_dir = "", .profile = true, .validate = validate});
    if (device) vk_device_of(device)->captures_code = vk_device_of(device)->captures_statistics;
    return device;
}

/* ---- What a device has made ---- */

static int compare(const void *a, const void *b) {
    const struct lab_pipeline *x = a, *y = b;
    const int names = strcmp(x->shader->name, y->shader->name);
    if (names) return names;
    if (x->n_bindings != y->n_bindings) return x->n_bindings - y->n_bindings;
    if (x->n_spec != y->n_spec) return x->n_spec - y->n_spec;
    for (int i = 0; i < x->n_spec; i++)
        if (x->spec[i] != y->spec[i]) return x->spec[i] < y->spec[i] ? -1 : 1;
    return 0;
}

/* The last of the driver's representations is what the device runs. */
double lab_read_loop(struct vk_device *device, VkPipeline pipeline) {
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline};
    VkPipelineExecutableInternalRepresentationKHR list[32] = {{0}}, *last;
    uint32_t count = HK_LENGTH(list);
    double share = -1;
    for (uint32_t i = 0; i < count; i++) list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    if (!device->captures_code) return -1;
    if (device->vk.vkGetPipelineExecutableInternalRepresentationsKHR(device->handle, &which, &count, list)) return -1;
    if (!count || !list[count - 1].isText) return -1;
    for (uint32_t i = 0; i < count; i++)
        if (!(list[i].pData = calloc(1, list[i].dataSize + 1))) abort();
    last = &list[count - 1];
    if (!device->vk.vkGetPipelineExecutableInternalRepresentationsKHR(device->handle, &which, &count, list))
        share = lab_loop_share(last->pData);
    for (uint32_t i = 0; i < count; i++) free(list[i].pData);
    return share;
}

static void add(struct lab *lab, struct vk_device *device, const struct vk_pipeline *p) {
    if (!hk_grow(&lab->pipelines, &lab->capacity, lab->n_pipelines + 1, sizeof *lab->pipelines)) abort();
    struct lab_pipeline *row = &lab->pipelines[lab->n_pipelines++];
    *row = (struct lab_pipeline){
        .shader = p->shader, .n_spec = p->n_spec, .n_bindings = p->n_bindings, .subgroup_size = p->subgroup_size};
    memcpy(row->number, p->statistics.value, sizeof p->statistics.value);
    row->number[LAB_LOOP] = lab_read_loop(device, p->handle);
    memcpy(row->spec, p->spec, sizeof row->spec);
}

/* Those that are written at run time end with the device, and have no name that another run would know. */
static bool is_built_in(const struct vk_shader *shader) {
    return shader >= vk_shaders && shader < vk_shaders + vk_shaders_count;
}

static void collect(struct lab *lab, struct hk_device *device) {
    const struct vk_pipelines *all = &vk_device_of(device)->pipelines;
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (const struct vk_pipeline *p = all->buckets[i]; p; p = p->next)
            if (p->handle && is_built_in(p->shader)) add(lab, vk_device_of(device), p);
}

/* Sorts, and drops what both devices have made. */
static void sort(struct lab *lab) {
    int n = 0;
    qsort(lab->pipelines, (size_t)lab->n_pipelines, sizeof *lab->pipelines, compare);
    for (int i = 0; i < lab->n_pipelines; i++)
        if (!n || compare(&lab->pipelines[n - 1], &lab->pipelines[i])) lab->pipelines[n++] = lab->pipelines[i];
    lab->n_pipelines = n;
}

/* ---- Programs ---- */

static void compile_case(struct lab *lab, struct hk_device *device, const char *op, const struct hk_case *c) {
    for (int layout = LAYOUT_DENSE; layout < LAYOUT_COUNT; layout++) {
        if (layout != LAYOUT_DENSE && c->no_strided) break;
        struct case_run *run = case_run_create(device, c, (enum layout)layout);
        if (!run) lab_fail(lab, "%s, %s, %s: %s", op, c->name, layout_names[layout], hk_error_message());
        case_run_destroy(&run);
    }
}

static void compile_model(struct lab *lab, struct hk_device *device, const char *name) {
    struct hk_trainer_params how = {.optimizer = {.kind = HK_ADAMW, .weight_decay = 0.1f, .clip = 1}, .seed = 1};
    struct hk_generator *generator = NULL;
    if (hk_model_preset(name, &how.model, &how.batch)) {
        lab_fail(lab, "%s: %s", name, hk_error_message());
        return;
    }
    how.length = how.model.context;
    if (!strcmp(name, "gpt2-124m")) how.optimizer.kind = HK_SGD; /* without moments: a shim's memory is 4 GiB */
    struct hk_trainer *trainer = hk_trainer_create(device, &how);
    if (trainer) generator = hk_generator_create(device, hk_trainer_model(trainer), &how.model);
    if (!generator) lab_fail(lab, "%s: %s", name, hk_error_message());
    hk_generator_destroy(&generator);
    hk_trainer_destroy(&trainer);
}

/* Attention and its gradients with the head sizes that models have, up to the largest. */
static struct hk_value *build_attention(struct hk_graph *graph, struct hk_value *const *in) {
    (void)graph;
    return hk_attention(in[0], in[1], in[2], &(struct hk_attention_params){.causal = true});
}

static struct hk_value *build_attention_f16(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *const x[] = {hk_cast(in[0], HK_F16), hk_cast(in[1], HK_F16), hk_cast(in[2], HK_F16)};
    return hk_cast(build_attention(graph, x), HK_F32);
}

static struct hk_value *build_attention_bf16(struct hk_graph *graph, struct hk_value *const *in) {
    struct hk_value *const x[] = {hk_cast(in[0], HK_BF16), hk_cast(in[1], HK_BF16), hk_cast(in[2], HK_BF16)};
    return hk_cast(build_attention(graph, x), HK_F32);
}

static void compile_attention(struct lab *lab, struct hk_device *device) {
    static const int64_t depths[] = {32, 48, 64, 80, 96, 112, 128, 160, 192, 256};
    for (size_t i = 0; i < HK_LENGTH(depths); i++) {
        const struct hk_case_input input = {.dtype = HK_F32, .shape = HK_SHAPE(1, 2, 70, depths[i])};
        const struct hk_case c = {.name = "a head's size",
                                  .inputs = {input, input, input},
                                  .n_inputs = 3,
                                  .build = build_attention,
                                  .gradient = true};
        struct hk_case f16 = c, bf16 = c;
        f16.build = build_attention_f16, bf16.build = build_attention_bf16;
        compile_case(lab, device, "attention", &c);
        compile_case(lab, device, "attention", &f16);
        compile_case(lab, device, "attention", &bf16);
    }
}

/* By itself: a trainer in f16 runs a program when it is made, and these devices run nothing. */
static void compile_loss_scale(struct lab *lab, struct hk_device *device) {
    struct hk_tensor *scaling = hk_tensor_create(device, HK_F32, HK_SHAPE(HK_SCALING_COUNT));
    struct hk_tensor *hyper = hk_tensor_create(device, HK_F32, HK_SHAPE(HK_HYPER_COUNT));
    struct hk_tensor *norm = hk_tensor_create(device, HK_F32, HK_SHAPE(1));
    struct hk_graph *graph = hk_graph_create();
    hk_store(hyper, hk_loss_scale(HK_ADAM, scaling, hk_leaf(graph, hyper), hk_leaf(graph, norm), 2000, NULL));
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program) lab_fail(lab, "loss_scale: %s", hk_error_message());
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&scaling);
    hk_tensor_destroy(&hyper);
    hk_tensor_destroy(&norm);
}

static void close_device(struct lab *lab, struct hk_device *device) {
    struct hk_stats stats;
    hk_device_get_stats(device, &stats);
    if (stats.validation_messages)
        lab_fail(lab, "compiling: %llu validation messages", (unsigned long long)stats.validation_messages);
    collect(lab, device);
    hk_device_destroy(&device);
}

/* With bindings so small that tensors need several, as larger ones do on many devices: some kernels are for that alone. */
static void compile_windows(struct lab *lab) {
    setenv("HEKLA_MAX_BINDING", "16384", 1);
    struct hk_device *device = lab_open(false);
    unsetenv("HEKLA_MAX_BINDING");
    for (size_t i = 0; i < HK_LENGTH(sets) && device; i++)
        for (int k = 0; k < sets[i].cases->n_cases; k++) {
            struct case_run *run = case_run_create(device, &sets[i].cases->cases[k], LAYOUT_DENSE);
            /* kernels that bind whole rows refuse, which no real device is too small for */
            if (!run && hk_error_status() != HK_ERROR_UNSUPPORTED)
                lab_fail(lab, "small bindings: %s, %s: %s", sets[i].op, sets[i].cases->cases[k].name, hk_error_message());
            case_run_destroy(&run);
        }
    if (device) close_device(lab, device);
    else lab_fail(lab, "%s", hk_error_message());
}

bool lab_compile(struct lab *lab) {
    struct hk_device *device = lab_open(true);
    if (!device) {
        lab_fail(lab, "%s", hk_error_message());
        return false;
    }
    lab->info = *hk_device_get_info(device);
    lab->limits = vk_device_of(device)->limits;
    lab->physical = vk_device_of(device)->physical;
    for (size_t i = 0; i < HK_LENGTH(sets); i++)
        for (int k = 0; k < sets[i].cases->n_cases; k++)
            compile_case(lab, device, sets[i].op, &sets[i].cases->cases[k]);
    compile_attention(lab, device);
    for (size_t i = 0; i < HK_LENGTH(models); i++) compile_model(lab, device, models[i]);
    compile_loss_scale(lab, device);
    close_device(lab, device);
    compile_windows(lab);
    sort(lab);
    return true;
}

/* ---- Names ---- */

static void print_names(struct vk_device *device, const struct vk_pipeline *p) {
    const VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = p->handle};
    VkPipelineExecutableStatisticKHR list[128] = {{0}};
    uint32_t count = HK_LENGTH(list);
    for (uint32_t i = 0; i < count; i++) list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    if (device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &count, list) != VK_SUCCESS) return;
    printf("%s\n", p->shader->name);
    for (uint32_t i = 0; i < count; i++) {
        const bool is_float = list[i].format == VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR;
        const double value = is_float ? list[i].value.f64 : (double)list[i].value.u64;
        printf("    %-32s %12g  %s\n", list[i].name, value, list[i].description);
    }
}

void lab_print_names(void) {
    struct lab lab = {.label = "names"};
    struct hk_device *device = lab_open(false);
    if (!device) {
        lab_fail(&lab, "%s", hk_error_message());
        return;
    }
    printf("%s, %s\n", hk_device_get_info(device)->name, hk_device_get_info(device)->driver);
    compile_model(&lab, device, "llama-2");
    const struct vk_pipelines *all = &vk_device_of(device)->pipelines;
    for (int i = 0; i < VK_PIPELINE_BUCKETS; i++)
        for (const struct vk_pipeline *p = all->buckets[i]; p; p = p->next)
            if (p->handle && !strncmp(p->shader->name, "matmul", 6) && vk_device_of(device)->captures_statistics)
                print_names(vk_device_of(device), p);
    hk_device_destroy(&device);
}
