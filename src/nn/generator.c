/* Generation: the model run forward on few tokens at a time, its keys and values kept in caches. */
#include "base/base.h" /* hk_fail */
#include <hekla/nn.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 16 }; /* tokens of a prompt at once */

/* The model on `count` tokens. */
struct runner {
    int64_t count;
    struct hk_tensor *tokens; /* i32 [1, count] */
    struct hk_program *program;
};

struct hk_generator {
    struct hk_model_config config;
    struct hk_params *params;
    struct hk_tensor **keys, **values; /* per layer [1, KV, context, D] */
    struct hk_tensor *position;        /* i32 [1]: of the first token given */
    struct hk_tensor *last;            /* i32 [1]: which of the tokens given has the logits */
    struct hk_tensor *logits;          /* f32 [1, vocab] */
    struct runner one, chunk;          /* chunk has no program where the context is shorter */
    int32_t *history;                  /* [context] */
    int64_t length, cached;            /* tokens in the history, and of these in the caches */
};

/* ---- Making ---- */

static struct hk_program *compile(struct hk_generator *g, struct hk_device *device, struct hk_tensor *tokens) {
    const struct hk_compile_params params = {.name = "generation"};
    const int64_t count = hk_tensor_elements(tokens);
    struct hk_graph *graph = hk_graph_create();
    if (!graph) return NULL;
    const struct hk_model_inputs inputs = {
        .position = hk_leaf(graph, g->position), .keys = g->keys, .values = g->values};
    struct hk_value *logits =
        hk_model_logits(g->params, &g->config, hk_leaf(graph, tokens), &inputs); /* [1, count, vocab] */
    logits = hk_reshape(logits, HK_SHAPE(count, g->config.vocab));
    hk_store(g->logits, hk_embedding(logits, hk_leaf(graph, g->last))); /* one row of them */
    struct hk_program *program = hk_compile(device, graph, &params);
    hk_graph_destroy(&graph);
    return program;
}

static bool make_runner(struct hk_generator *g, struct hk_device *device, struct runner *runner, int64_t count) {
    runner->count = count;
    runner->tokens = hk_tensor_create(device, HK_I32, HK_SHAPE(1, count));
    runner->program = runner->tokens ? compile(g, device, runner->tokens) : NULL;
    return runner->program;
}

static bool make_caches(struct hk_generator *g, struct hk_device *device) {
    const struct hk_model_config *c = &g->config;
    const struct hk_shape shape = HK_SHAPE(1, c->kv_heads ? c->kv_heads : c->heads, c->context, c->width / c->heads);
    for (int64_t i = 0; i < c->layers; i++) {
        g->keys[i] = hk_tensor_create(device, HK_F32, shape);
        g->values[i] = g->keys[i] ? hk_tensor_create(device, HK_F32, shape) : NULL;
        if (!g->values[i]) return false;
    }
    return true;
}

static bool make(struct hk_generator *g, struct hk_device *device) {
    const struct hk_model_config *c = &g->config;
    g->keys = calloc((size_t)c->layers, sizeof(struct hk_tensor *));
    g->values = calloc((size_t)c->layers, sizeof(struct hk_tensor *));
    g->history = calloc((size_t)c->context, sizeof *g->history);
    if (!g->keys || !g->values || !g->history) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
        return false;
    }
    g->position = hk_tensor_create(device, HK_I32, HK_SHAPE(1));
    g->last = hk_tensor_create(device, HK_I32, HK_SHAPE(1));
    g->logits = hk_tensor_create(device, HK_F32, HK_SHAPE(1, c->vocab));
    if (!g->position || !g->last || !g->logits || !make_caches(g, device)) return false;
    return make_runner(g, device, &g->one, 1) && (c->context < CHUNK || make_runner(g, device, &g->chunk, CHUNK));
}

struct hk_generator *hk_generator_create(struct hk_device *device, struct hk_params *params,
                                         const struct hk_model_config *config) {
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_generator_create: the device is NULL"), NULL;
    if (hk_params_status(params) || hk_model_config_check(config)) return NULL;
    struct hk_generator *g = calloc(1, sizeof *g);
    if (!g) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
    g->params = params;
    g->config = *config;
    if (!make(g, device)) hk_generator_destroy(&g);
    return g;
}

static void destroy_runner(struct runner *runner) {
    hk_program_destroy(&runner->program);
    hk_tensor_destroy(&runner->tokens);
}

void hk_generator_destroy(struct hk_generator **generator) {
    if (!generator || !*generator) return;
    struct hk_generator *g = *generator;
    destroy_runner(&g->one);
    destroy_runner(&g->chunk);
    for (int64_t i = 0; g->keys && g->values && i < g->config.layers; i++) {
        hk_tensor_destroy(&g->keys[i]);
        hk_tensor_destroy(&g->values[i]);
    }
    hk_tensor_destroy(&g->position);
    hk_tensor_destroy(&g->last);
    hk_tensor_destroy(&g->logits);
    free(g->keys);
    free(g->values);
    free(g->history);
    free(g);
    *generator = NULL;
}

/* ---- Running ---- */

static void remember(struct hk_generator *g, int32_t token) {
    const int64_t context = g->config.context;
    if (g->length == context) { /* every kept token gets another position, so nothing cached is of use */
        g->length = context / 2;
        g->cached = 0;
        memmove(g->history, g->history + context - g->length, (size_t)g->length * sizeof *g->history);
    }
    g->history[g->length++] = token;
}

/* Puts the next tokens of the history into the caches.
   A chunk may be longer than what is left of the history. What follows is then computed from token 0 and lands in the
   caches behind the history: no token before sees it (attention is causal), and it is written over before one after
   does. */
static hk_status run_some(struct hk_generator *g) {
    const int64_t left = g->length - g->cached;
    const bool fits = g->chunk.program && g->cached + CHUNK <= g->config.context;
    const struct runner *runner = left > 1 && fits ? &g->chunk : &g->one;
    const int64_t count = HK_MIN(left, runner->count);
    const int32_t position = (int32_t)g->cached, last = (int32_t)count - 1;
    int32_t tokens[CHUNK] = {0};
    memcpy(tokens, g->history + g->cached, (size_t)count * sizeof *tokens);
    hk_status status = hk_tensor_write(runner->tokens, tokens, (size_t)runner->count * sizeof *tokens);
    if (!status) status = hk_tensor_write(g->position, &position, sizeof position);
    if (!status) status = hk_tensor_write(g->last, &last, sizeof last);
    if (!status) status = hk_program_run(runner->program);
    if (!status) g->cached += count;
    return status;
}

hk_status hk_generator_feed(struct hk_generator *generator, const int32_t *tokens, int64_t count, float *logits) {
    if (!generator || !tokens || !logits) return hk_fail(HK_ERROR_INVALID, "hk_generator_feed: an argument is NULL");
    if (count < 1) return hk_fail(HK_ERROR_INVALID, "hk_generator_feed: there must be at least one token");
    for (int64_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= generator->config.vocab)
            return hk_fail(HK_ERROR_INVALID, "hk_generator_feed: token %d is not in the vocabulary of %lld", tokens[i],
                           (long long)generator->config.vocab);
    for (int64_t i = 0; i < count; i++) remember(generator, tokens[i]);
    while (generator->cached < generator->length) {
        const hk_status status = run_some(generator);
        if (status) return status;
    }
    return hk_tensor_read(generator->logits, logits, hk_tensor_bytes(generator->logits));
}
