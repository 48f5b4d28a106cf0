/* hekla eval */
#include "cli.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct eval_options {
    const char *folder, *data, *device;
    bool all, json;
};

/* The program that computes the mean loss of a batch, and its tensors. */
struct evaluator {
    struct hk_tensor *tokens, *targets, *loss; /* i32 [B, T] twice, f32 */
    struct hk_program *program;
    int64_t batch, length;
    int32_t *rows, *inputs, *wanted; /* [B, T + 1], [B, T], [B, T] */
};

static void evaluator_destroy(struct evaluator *e) {
    hk_program_destroy(&e->program);
    hk_tensor_destroy(&e->tokens);
    hk_tensor_destroy(&e->targets);
    hk_tensor_destroy(&e->loss);
    free(e->rows);
    free(e->inputs);
    free(e->wanted);
}

static struct hk_program *compile(struct evaluator *e, struct loaded_model *model) {
    struct hk_graph *graph = hk_graph_create();
    if (!graph) return NULL;
    struct hk_value *logits = hk_model_logits(model->params, &model->config, hk_leaf(graph, e->tokens), NULL);
    hk_store(e->loss, hk_cross_entropy(logits, hk_leaf(graph, e->targets), NULL));
    struct hk_program *program = hk_compile(model->device, graph, &(struct hk_compile_params){.name = "evaluation"});
    hk_graph_destroy(&graph);
    return program;
}

static bool evaluator_create(struct evaluator *e, struct loaded_model *model) {
    const size_t tokens = (size_t)(e->batch * e->length);
    e->tokens = hk_tensor_create(model->device, HK_I32, HK_SHAPE(e->batch, e->length));
    e->targets = hk_tensor_create(model->device, HK_I32, HK_SHAPE(e->batch, e->length));
    e->loss = hk_tensor_create(model->device, HK_F32, HK_SCALAR);
    if (!e->tokens || !e->targets || !e->loss) return false;
    e->rows = malloc((tokens + (size_t)e->batch) * sizeof *e->rows);
    e->inputs = malloc(tokens * sizeof *e->inputs);
    e->wanted = malloc(tokens * sizeof *e->wanted);
    if (e->rows && e->inputs && e->wanted) e->program = compile(e, model);
    return e->program != NULL;
}

/* Mean loss of one batch. */
static hk_status evaluate_batch(struct evaluator *e, const struct hk_text *text, int64_t part, int64_t parts,
                                float *loss) {
    const size_t bytes = (size_t)(e->batch * e->length) * sizeof(int32_t);
    hk_status status = hk_text_evaluation(text, e->batch, e->length, part, parts, e->rows);
    if (status != HK_OK) return status;
    for (int64_t b = 0; b < e->batch; b++) {
        for (int64_t t = 0; t < e->length; t++) {
            const int32_t *row = e->rows + b * (e->length + 1) + t;
            e->inputs[b * e->length + t] = row[0];
            e->wanted[b * e->length + t] = row[1];
        }
    }
    status = hk_tensor_write(e->tokens, e->inputs, bytes);
    if (status == HK_OK) status = hk_tensor_write(e->targets, e->wanted, bytes);
    if (status == HK_OK) status = hk_program_run(e->program);
    if (status == HK_OK) status = hk_tensor_read(e->loss, loss, sizeof *loss);
    return status;
}

static void print_result(const struct eval_options *o, double loss, int64_t tokens) {
    const double bits = loss / log(2);
    if (o->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "loss", loss);
        cJSON_AddNumberToObject(object, "perplexity", exp(loss));
        cJSON_AddNumberToObject(object, "bits_per_byte", bits);
        cJSON_AddNumberToObject(object, "tokens", (double)tokens);
        json_print_line(object);
    } else {
        printf("loss %.4f nats/byte   perplexity %.3f   bits per byte %.4f\n(%s of %s, %" PRId64 " bytes)\n", loss,
               exp(loss), bits, o->all ? "all" : "the last tenth, which training leaves out,", o->data, tokens);
    }
}

static int evaluate(const struct eval_options *o, struct loaded_model *model, const struct hk_text *text) {
    struct evaluator e = {.batch = 16, .length = model->config.context};
    const int64_t have = hk_text_tokens(text, true), per_part = e.batch * e.length;
    const int64_t parts = have > per_part ? (have - 1 + per_part - 1) / per_part : 1;
    double sum = 0;
    bool ok = evaluator_create(&e, model);
    for (int64_t part = 0; part < parts && ok; part++) {
        float loss = 0;
        ok = evaluate_batch(&e, text, part, parts, &loss) == HK_OK;
        sum += (double)loss;
    }
    evaluator_destroy(&e);
    if (!ok) return fail_library();
    print_result(o, sum / (double)parts, have);
    return output_ok() ? EXIT_OK : EXIT_FAILED;
}

int command_eval(int argc, char **argv) {
    struct eval_options o = {0};
    struct option_row rows[] = {
        {.name = "data", .kind = OPTION_TEXT, .value = &o.data, .argument = "FILE", .help = "the text to predict"},
        {.name = "all",
         .kind = OPTION_FLAG,
         .value = &o.all,
         .help = "all of it, not only the last tenth, which training leaves out"},
        OPTION_DEVICE(&o.device),
        OPTION_JSON(&o.json),
    };
    const struct command_line line = {
        .command = "eval",
        .usage = "DIR --data FILE [options]",
        .about = "Measures how well the model in DIR predicts a text: loss, perplexity, bits per byte.",
        .rows = rows,
        .n_rows = COUNT_OF(rows),
        .operand = &o.folder,
        .operand_name = "DIR"};
    int status;
    if (!options_parse(&line, argc, argv, &status)) return status;
    if (!o.data) return fail_usage("eval", "--data FILE is missing");
    struct hk_text *text = hk_text_open(o.data, &(struct hk_text_params){.held_out = o.all ? 1.0f : 0.0f});
    if (!text) return fail_library();
    struct loaded_model model;
    status = model_load(&model, o.folder, o.device);
    if (status == EXIT_OK) {
        status = evaluate(&o, &model, text);
        model_unload(&model);
    }
    hk_text_destroy(&text);
    return status;
}
