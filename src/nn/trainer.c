/* Training a language model: the programs of a step and of evaluation, around one tensor of tokens. */
#include "base/base.h" /* hk_fail */
#include <hekla/nn.h>
#include <stdlib.h>

struct hk_trainer {
    struct hk_trainer_params how; /* accumulate is at least 1 */
    struct hk_params *model;
    struct hk_optimizer *optimizer;
    struct hk_tensor *tokens;  /* i32 [batch, length + 1] */
    struct hk_tensor *rng;     /* i32 [4]: seed low, seed high, number of the batch, unused */
    struct hk_tensor *running; /* f32: the losses of the step's batches so far; NULL where there is one batch */
    struct hk_tensor *loss, *evaluated;             /* f32: of the last step, of the last evaluation */
    struct hk_program *batch, *update, *evaluation; /* update: NULL where batch does all of the step */
};

/* ---- Graphs ---- */

/* Mean loss of the tokens held: each row's first length are the input, its last length the targets. */
static struct hk_value *build_loss(struct hk_trainer *t, struct hk_graph *graph, bool training) {
    struct hk_value *tokens = hk_leaf(graph, t->tokens);
    struct hk_value *input = hk_slice(tokens, 1, 0, t->how.length, 1);
    struct hk_value *target = hk_slice(tokens, 1, 1, t->how.length + 1, 1);
    struct hk_model_inputs inputs = {0};
    if (training) {
        inputs.rng = t->how.model.dropout > 0 ? hk_leaf(graph, t->rng) : NULL;
        inputs.checkpoint = t->how.checkpoint;
    }
    return hk_cross_entropy(hk_model_logits(t->model, &t->how.model, input, &inputs), target, NULL);
}

/* One batch is the whole step. */
static void build_step(struct hk_trainer *t, struct hk_graph *graph) {
    struct hk_value *loss = build_loss(t, graph, true);
    hk_store(t->loss, loss);
    hk_optimizer_minimize(t->optimizer, loss);
}

/* One batch of several. */
static void build_part(struct hk_trainer *t, struct hk_graph *graph) {
    const float share = 1 / (float)t->how.accumulate;
    struct hk_value *loss = build_loss(t, graph, true);
    hk_store(t->running, hk_add(hk_leaf(graph, t->running), hk_affine(loss, share, 0)));
    hk_optimizer_accumulate(t->optimizer, loss, share);
}

/* What ends a step of several batches. */
static void build_update(struct hk_trainer *t, struct hk_graph *graph) {
    hk_store(t->loss, hk_leaf(graph, t->running));
    hk_store(t->running, hk_fill(graph, HK_F32, HK_SCALAR, 0));
    hk_optimizer_update_graph(t->optimizer, graph);
}

static void build_evaluation(struct hk_trainer *t, struct hk_graph *graph) {
    hk_store(t->evaluated, build_loss(t, graph, false));
}

static struct hk_program *compile(struct hk_trainer *t, struct hk_device *device, const char *name,
                                  void (*build)(struct hk_trainer *t, struct hk_graph *graph)) {
    const struct hk_compile_params params = {.name = name, .share = t->batch};
    struct hk_graph *graph = hk_graph_create();
    if (!graph) return NULL;
    build(t, graph);
    struct hk_program *program = hk_compile(device, graph, &params);
    hk_graph_destroy(&graph);
    return program;
}

/* ---- Making ---- */

static hk_status check(const struct hk_trainer_params *how) {
    if (how->batch < 1 || how->batch > INT32_MAX)
        return hk_fail(HK_ERROR_INVALID, "batch (%lld) must be at least 1", (long long)how->batch);
    if (how->length < 1 || how->length > how->model.context)
        return hk_fail(HK_ERROR_INVALID, "length (%lld) must be from 1 to the model's context (%lld)",
                       (long long)how->length, (long long)how->model.context);
    if (how->accumulate < 0 || how->accumulate > INT32_MAX)
        return hk_fail(HK_ERROR_INVALID, "accumulate (%lld) must be at least 1", (long long)how->accumulate);
    return HK_OK;
}

static hk_status make_model(struct hk_trainer *t, struct hk_device *device) {
    t->model = hk_params_create(device);
    if (!t->model) return hk_error_status();
    hk_status status = hk_model_declare(t->model, &t->how.model);
    if (!status) status = hk_params_allocate(t->model, t->how.seed);
    if (!status) status = hk_params_set_precision(t->model, t->how.precision);
    if (status) return status;
    if (t->how.precision == HK_F16 && t->how.optimizer.loss_scale == 0) t->how.optimizer.loss_scale = HK_LOSS_SCALE;
    t->optimizer = hk_optimizer_create(t->model, &t->how.optimizer);
    return t->optimizer ? HK_OK : hk_error_status();
}

static bool make_tensors(struct hk_trainer *t, struct hk_device *device) {
    t->tokens = hk_tensor_create(device, HK_I32, HK_SHAPE(t->how.batch, t->how.length + 1));
    t->rng = hk_tensor_create(device, HK_I32, HK_SHAPE(4));
    t->loss = hk_tensor_create(device, HK_F32, HK_SCALAR);
    t->evaluated = hk_tensor_create(device, HK_F32, HK_SCALAR);
    if (t->how.accumulate > 1) t->running = hk_tensor_create(device, HK_F32, HK_SCALAR);
    return t->tokens && t->rng && t->loss && t->evaluated && (t->running || t->how.accumulate == 1);
}

static bool make_programs(struct hk_trainer *t, struct hk_device *device) {
    const bool whole = t->how.accumulate == 1;
    t->batch = compile(t, device, "training", whole ? build_step : build_part);
    if (t->batch && !whole) t->update = compile(t, device, "update", build_update);
    if (t->batch && (whole || t->update)) t->evaluation = compile(t, device, "evaluation", build_evaluation);
    return t->evaluation;
}

struct hk_trainer *hk_trainer_create(struct hk_device *device, const struct hk_trainer_params *params) {
    if (!device || !params) return hk_fail(HK_ERROR_INVALID, "hk_trainer_create: an argument is NULL"), NULL;
    if (hk_model_config_check(&params->model) || check(params)) return NULL;
    struct hk_trainer *t = calloc(1, sizeof *t);
    if (!t) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
    t->how = *params;
    if (t->how.accumulate == 0) t->how.accumulate = 1;
    if (make_model(t, device) || !make_tensors(t, device) || !make_programs(t, device)) hk_trainer_destroy(&t);
    return t;
}

void hk_trainer_destroy(struct hk_trainer **trainer) {
    if (!trainer || !*trainer) return;
    struct hk_trainer *t = *trainer;
    hk_program_destroy(&t->evaluation);
    hk_program_destroy(&t->update);
    hk_program_destroy(&t->batch);
    hk_optimizer_destroy(&t->optimizer);
    hk_params_destroy(&t->model);
    hk_tensor_destroy(&t->tokens);
    hk_tensor_destroy(&t->rng);
    hk_tensor_destroy(&t->running);
    hk_tensor_destroy(&t->loss);
    hk_tensor_destroy(&t->evaluated);
    free(t);
    *trainer = NULL;
}

/* ---- Running ---- */

/* Dropout's numbers follow from the seed and the number of the batch alone, so that a resumed run draws the same. */
static hk_status write_rng(struct hk_trainer *t, int64_t batch) {
    const int32_t rng[4] = {(int32_t)(uint32_t)t->how.seed, (int32_t)(uint32_t)(t->how.seed >> 32),
                            (int32_t)(uint32_t)batch, 0};
    return t->how.model.dropout > 0 ? hk_tensor_write(t->rng, rng, sizeof rng) : HK_OK;
}

static hk_status run_batch(struct hk_trainer *t, const int32_t *tokens, int64_t number) {
    hk_status status = hk_tensor_write(t->tokens, tokens, hk_tensor_bytes(t->tokens));
    if (!status) status = write_rng(t, number);
    return status ? status : hk_program_run(t->batch);
}

hk_status hk_trainer_step(struct hk_trainer *trainer, const int32_t *tokens, float lr) {
    if (!trainer || !tokens) return hk_fail(HK_ERROR_INVALID, "hk_trainer_step: an argument is NULL");
    const int64_t count = trainer->how.accumulate, first = hk_optimizer_step(trainer->optimizer) * count;
    hk_status status = hk_optimizer_advance(trainer->optimizer, lr);
    for (int64_t i = 0; !status && i < count; i++)
        status = run_batch(trainer, tokens + i * hk_tensor_elements(trainer->tokens), first + i);
    return status || !trainer->update ? status : hk_program_run(trainer->update);
}

hk_status hk_trainer_result(struct hk_trainer *trainer, float *loss, float *norm) {
    if (!trainer) return hk_fail(HK_ERROR_INVALID, "hk_trainer_result: the trainer is NULL");
    hk_status status = loss ? hk_tensor_read(trainer->loss, loss, sizeof *loss) : HK_OK;
    if (!status && norm) status = hk_tensor_read(hk_optimizer_norm(trainer->optimizer), norm, sizeof *norm);
    return status;
}

hk_status hk_trainer_evaluate(struct hk_trainer *trainer, const int32_t *tokens, float *loss) {
    if (!trainer || !tokens || !loss) return hk_fail(HK_ERROR_INVALID, "hk_trainer_evaluate: an argument is NULL");
    hk_status status = hk_tensor_write(trainer->tokens, tokens, hk_tensor_bytes(trainer->tokens));
    if (!status) status = hk_program_run(trainer->evaluation);
    return status ? status : hk_tensor_read(trainer->evaluated, loss, sizeof *loss);
}

struct hk_params *hk_trainer_model(struct hk_trainer *trainer) {
    return trainer->model;
}
struct hk_optimizer *hk_trainer_optimizer(struct hk_trainer *trainer) {
    return trainer->optimizer;
}

const struct hk_program_info *hk_trainer_program(const struct hk_trainer *trainer) {
    return hk_program_get_info(trainer->batch);
}
