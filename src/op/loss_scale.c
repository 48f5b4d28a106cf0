/* Dynamic loss scaling: whether the step is taken, by the gradients' norm, and how large the next loss is made
   (Micikevicius et al., 2018). A few numbers, kept on the device, so that a recorded program goes on by itself. */
#include "op/rowwise.h"

struct loss_scale_attrs {
    int32_t adaptive; /* Adam's bias correction; else SGD's sign of the first step */
    float grow_after;
};

#ifdef HK_ISA_NAME

/* The same in shaders/loss_scale.comp. */
static const float least_scale = 0x1p-24f, most_scale = 0x1p40f;

static void take(const struct loss_scale_attrs *a, float *scaling, float *hyper) {
    scaling[HK_SCALING_POWER1] *= hyper[HK_HYPER_BETA1];
    scaling[HK_SCALING_POWER2] *= hyper[HK_HYPER_BETA2];
    if (a->adaptive) hyper[HK_HYPER_BIAS1] = 1 - scaling[HK_SCALING_POWER1];
    else hyper[HK_HYPER_BIAS1] = scaling[HK_SCALING_UPDATES] > 0 ? 1.0f : 0.0f;
    hyper[HK_HYPER_BIAS2] = 1 - scaling[HK_SCALING_POWER2];
    scaling[HK_SCALING_UPDATES] += 1;
    scaling[HK_SCALING_GOOD] += 1;
    if (scaling[HK_SCALING_GOOD] < a->grow_after) return;
    scaling[HK_SCALING_SCALE] = HK_MIN(2 * scaling[HK_SCALING_SCALE], most_scale);
    scaling[HK_SCALING_GOOD] = 0;
}

CPU_KERNEL(loss_scale) {
    float *scaling = cpu_data(&step->inputs[0]), *hyper = cpu_data(&step->outputs[0]);
    const float norm = *(const float *)cpu_data(&step->inputs[2]);
    const bool finite = isfinite(norm);
    (void)cpu;
    memcpy(hyper, cpu_data(&step->inputs[1]), HK_HYPER_COUNT * sizeof *hyper);
    hyper[HK_HYPER_UNSCALE] = 1 / scaling[HK_SCALING_SCALE]; /* that the gradients have: before it changes */
    *(float *)cpu_data(&step->outputs[1]) = norm * hyper[HK_HYPER_UNSCALE];
    hyper[HK_HYPER_SKIP] = finite ? 0.0f : 1.0f;
    if (finite) {
        take(step->attrs, scaling, hyper);
        return;
    }
    scaling[HK_SCALING_SCALE] = HK_MAX(scaling[HK_SCALING_SCALE] / 2, least_scale);
    scaling[HK_SCALING_GOOD] = 0;
    scaling[HK_SCALING_SKIPPED] += 1;
}

#else

CPU_DECLARE(loss_scale);

/* scaling, hyper, norm -> hyper, norm */
static bool infer(struct hk_call *call) {
    static const int64_t sizes[] = {HK_SCALING_COUNT, HK_HYPER_COUNT, 1};
    static const char *const names[] = {"scaling", "hyper", "norm"};
    for (int i = 0; i < 3; i++) {
        if (!need_dtype(call, "loss_scale", names[i], i, HK_F32)) return false;
        if (call->inputs[i]->rank != 1 || call->inputs[i]->shape[0] != sizes[i])
            return refuse(call, "loss_scale: %s must be [%lld], it is %s", names[i], (long long)sizes[i],
                          hk_shape_text(call->inputs[i]));
    }
    const float grow_after = ((const struct loss_scale_attrs *)call->attrs)->grow_after;
    if (!(grow_after >= 1 && grow_after <= 0x1p24f))
        return refuse(call, "loss_scale: grow_after (%g) must be from 1 to 2^24", (double)grow_after);
    for (int i = 0; i < 2; i++) hk_infer_output(call, i, HK_F32, 1, &sizes[1 + i]);
    return true;
}

static hk_status gpu(const struct hk_step *step, struct hk_recorder *recorder) {
    const struct loss_scale_attrs *a = step->attrs;
    struct {
        uint32_t base_scaling, base_given, base_norm, base_hyper, base_unscaled;
        int32_t adaptive;
        float grow_after;
    } push = {.adaptive = a->adaptive, .grow_after = a->grow_after};
    struct hk_dispatch d = {.shader = "loss_scale", .spec = {16}, .n_spec = 1};
    HK_PUSH(&d, push);
    hk_bind(&d, &step->inputs[0], HK_READ | HK_WRITE, 0);
    hk_bind(&d, &step->inputs[1], HK_READ, 1);
    hk_bind(&d, &step->inputs[2], HK_READ, 2);
    hk_bind(&d, &step->outputs[0], HK_WRITE, 3);
    hk_bind(&d, &step->outputs[1], HK_WRITE, 4);
    hk_groups(recorder, &d, 1);
    return recorder->record(recorder, &d);
}

const struct hk_op hk_op_loss_scale = {
    .name = "loss_scale", .min_inputs = 3, .max_inputs = 3, .n_outputs = 2, .writes = 1,
    .infer = infer, .cpu = CPU_KERNELS(loss_scale), .gpu = gpu};

struct hk_value *hk_loss_scale(enum hk_optimizer_kind kind, struct hk_tensor *scaling, struct hk_value *hyper,
                               struct hk_value *norm, int64_t grow_after, struct hk_value **unscaled) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){hyper, norm}, 2);
    if (unscaled) *unscaled = NULL;
    if (!graph) return NULL;
    const struct loss_scale_attrs attrs = {.adaptive = kind == HK_ADAM || kind == HK_ADAMW,
                                           .grow_after = (float)grow_after};
    struct hk_value *in[3] = {hk_leaf(graph, scaling), hk_contiguous(hyper), hk_contiguous(norm)};
    if (in[0] && (hk_share_tensor(in[0], in[1]) || hk_share_tensor(in[0], in[2])))
        return hk_graph_fail(graph, HK_ERROR_INVALID, "loss_scale: the tensor shares memory with hyper or norm");
    struct hk_value *result = hk_call_op(graph, &hk_op_loss_scale, in, 3, &attrs, sizeof attrs);
    if (unscaled) *unscaled = hk_output(result, 1);
    return result;
}

#endif
