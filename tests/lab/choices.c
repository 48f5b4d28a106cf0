/* Every kernel that could be chosen for large work, as the device's compiler has it: also those for which the device counts as
   having too few registers, so that one sees whether it has. */
#include "lab.h"
#include "launches.h"
#include "op/attention.h"
#include "vulkan/record.h"
#include <stdlib.h>
#include <string.h>

enum { SIZE = 4096 /* of a product: tiles for all processors */, BLOCK = 32 /* columns that attention has in a turn */ };

/* A kernel of several. What its launches have is the worst of them; their costs are added. */
struct row {
    const char *name;
    bool allowed, standard; /* allowed: with the registers that the device counts as having */
    double registers, spills, occupancy, loop, cost; /* negative: not known */
};

/* ---- What it costs ---- */

/* Multiply-adds of the work, per invocation, in a turn of the kernel's loop over k, or over keys (queries for dk and dv).
   Workgroups that share the depth of a head all compute the same scores, which count once. */
static double products_of(const struct hk_dispatch *d) {
    const uint32_t *const s = d->spec + 7;
    if (launch_is(d, "matmul") || launch_is(d, "matmul_cooperative")) return (double)s[0] * s[1] * s[2] / d->spec[0];
    const uint32_t rows = strstr(d->shader, "cooperative") ? 16 * s[0] : 64, depth = d->spec[1], parts = d->spec[5];
    return (double)rows * BLOCK * depth / (d->spec[0] * parts);
}

/* For each multiply-add, cycles where the driver tells them, else instructions of the hot loop. Neither knows of memory, nor
   how often an inner loop turns that was not unrolled: with a chunk of 4, attention's over a head's depth counts too little. */
static double cost_of(const struct hk_dispatch *d, const double *number, double loop) {
    const double cycles = number[VK_STATISTIC_THROUGHPUT];
    if (cycles > 0) return cycles / products_of(d);
    return loop > 0 ? 100 / loop : -1;
}

static double worse(double a, double b) { return a > b ? a : b; }

static void add(struct row *row, struct vk_device *device, const struct hk_dispatch *d, const struct vk_pipeline *p) {
    const double *const number = p->statistics.value, loop = lab_read_loop(device, p->handle);
    const double cost = cost_of(d, number, loop), occupancy = number[VK_STATISTIC_OCCUPANCY];
    row->registers = worse(row->registers, number[VK_STATISTIC_REGISTERS]);
    row->spills = worse(row->spills, number[VK_STATISTIC_SPILLS]);
    row->occupancy = row->occupancy < 0 || occupancy < row->occupancy ? occupancy : row->occupancy;
    row->loop = row->loop < 0 || loop < row->loop ? loop : row->loop;
    row->cost = cost < 0 || row->cost < 0 ? -1 : row->cost + cost;
}

/* ---- Compiling ---- */

/* What all choices have is left out. */
static bool is_chosen(const struct hk_dispatch *d) {
    return !launch_is(d, "matmul_parts") && !launch_is(d, "attention_parts") && !launch_is(d, "attention_delta");
}

static struct row compile(struct lab *lab, struct vk_device *device, const struct launches *l) {
    struct row row = {.name = l->choice.names[l->take], .occupancy = -1, .loop = -1};
    for (const struct hk_dispatch *d = l->items; d < l->items + l->count; d++) {
        struct vk_launch launch = {.dispatch = *d, .op = l->call->op, .shader = vk_shader_find(d->shader)};
        if (!is_chosen(d)) continue;
        hk_status status = vk_lock(device);
        if (!status) status = vk_pipelines_make(device, &launch, 1);
        vk_unlock(device);
        if (status) lab_fail(lab, "%s: %s", row.name, hk_error_message());
        else add(&row, device, d, launch.pipeline);
    }
    return row;
}

static bool has_name(const struct hk_choice *choice, const char *name) {
    for (int i = 0; i < choice->count; i++)
        if (!strcmp(choice->names[i], name)) return true;
    return false;
}

static void print(const struct row *row) {
    printf("  %s %-42s", row->standard ? "*" : row->allowed ? " " : "-", row->name);
    printf(" registers %4g  spills %3g  occupancy %4g  loop %5.1f  cost %7.3f\n", row->registers, row->spills, row->occupancy,
           row->loop, row->cost);
}

/* With the device's own limits, and with as many registers as there are kernels for. */
static void compile_all(struct lab *lab, struct vk_device *device, const struct hk_call *call) {
    struct hk_limits limits = device->limits;
    struct launches own, l;
    limits.registers = UINT32_MAX;
    launches_record(&own, call, &device->limits, -1);
    launches_record(&l, call, &limits, -1);
    const int kernels = l.choice.count;
    launches_free(&l);
    printf("%s: %s\n", lab->label, own.choice.work);
    for (int take = 0; take < kernels; take++) {
        launches_record(&l, call, &limits, take);
        struct row row = compile(lab, device, &l);
        row.allowed = has_name(&own.choice, row.name);
        row.standard = !strcmp(own.choice.names[own.choice.standard], row.name);
        print(&row);
        launches_free(&l);
    }
    launches_free(&own);
}

/* ---- The work ---- */

/* Whatever it holds: nothing runs. */
static struct hk_value *leaf(struct hk_graph *graph, enum hk_dtype dtype, struct hk_shape shape) {
    return hk_fill(graph, dtype, shape, 0.0);
}

static void compile_product(struct lab *lab, struct vk_device *device, enum hk_dtype dtype) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = leaf(graph, dtype, HK_SHAPE(SIZE, SIZE));
    compile_all(lab, device, hk_matmul(x, x)->root->call);
    hk_graph_destroy(&graph);
}

static void compile_attention(struct lab *lab, struct vk_device *device, enum hk_dtype dtype, int64_t depth) {
    struct hk_graph *graph = hk_graph_create();
    struct hk_value *x = leaf(graph, dtype, HK_SHAPE(4, 16, 1024, depth));
    struct hk_value *y = hk_attention(x, x, x, &(struct hk_attention_params){.causal = true});
    const struct hk_call *forward = y->root->call;
    struct hk_value *in[] = {x, x, x, forward->outputs[ATTENTION_OUT], forward->outputs[ATTENTION_LSE], x};
    struct hk_value *dq = hk_call_op(graph, &hk_op_attention_backward, in, 6, forward->attrs, forward->attrs_bytes);
    compile_all(lab, device, forward);
    compile_all(lab, device, dq->root->call);
    hk_graph_destroy(&graph);
}

int lab_print_choices(const char *label) {
    static const enum hk_dtype dtypes[] = {HK_F32, HK_F16, HK_BF16};
    static const int64_t depths[] = {32, 64, 80, 96, 128, 192, 256};
    struct lab lab = {.label = label};
    struct hk_device *device = lab_open(false);
    if (!device) {
        lab_fail(&lab, "%s", hk_error_message());
        return 1;
    }
    for (size_t i = 0; i < HK_LENGTH(dtypes); i++) compile_product(&lab, vk_device_of(device), dtypes[i]);
    for (size_t i = 0; i < HK_LENGTH(dtypes); i++)
        for (size_t k = 0; k < HK_LENGTH(depths); k++) compile_attention(&lab, vk_device_of(device), dtypes[i], depths[k]);
    hk_device_destroy(&device);
    return lab.failures > 0;
}
