// Whole training steps (forward, backward, AdamW) in ggml of the models llama-2 and llama-12 that `hekla bench step` has:
// one JSON line. Built with libggml-dev:
//
//   g++ -O2 ggml_step.cpp -lggml -lggml-base        ggml_step cpu|vulkan llama-2|llama-12
//
// ggml's scheduler sends the ops that its Vulkan backend lacks to the CPU: "splits" is how many parts a step falls into.
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int width = 128, length = 64, vocab = 256, heads = 4, depth = width / heads, nodes = 16384;

struct Layer {
    ggml_tensor *norm1, *q, *k, *v, *out, *norm2, *gate, *up, *down;
};

struct Model {
    ggml_context *context; // of the weights
    std::vector<Layer> layers;
    ggml_tensor *table, *norm, *head, *tokens, *position, *mask;

    ggml_tensor *weight(int64_t in, int64_t out = 1) {
        ggml_tensor *t = out == 1 ? ggml_new_tensor_1d(context, GGML_TYPE_F32, in)
                                  : ggml_new_tensor_2d(context, GGML_TYPE_F32, in, out);
        ggml_set_param(t);
        return t;
    }

    Model(ggml_context *context, int count) : context(context) {
        table = weight(width, vocab), norm = weight(width), head = weight(width, vocab);
        for (int i = 0; i < count; i++)
            layers.push_back({weight(width), weight(width, width), weight(width, width), weight(width, width),
                              weight(width, width), weight(width), weight(width, 4 * width), weight(width, 4 * width),
                              weight(4 * width, width)});
        tokens = ggml_new_tensor_1d(context, GGML_TYPE_I32, length);
        position = ggml_new_tensor_1d(context, GGML_TYPE_I32, length);
        mask = ggml_new_tensor_2d(context, GGML_TYPE_F32, length, length);
    }

    // Small random weights; tokens; positions from 0; 0 where a query sees a key and -inf elsewhere.
    void fill() const {
        for (ggml_tensor *t = ggml_get_first_tensor(context); t; t = ggml_get_next_tensor(context, t)) {
            std::vector<float> numbers(ggml_nelements(t));
            std::vector<int32_t> whole(numbers.size());
            for (int i = 0; i < (int)numbers.size(); i++) {
                whole[i] = t == position ? i : rand() % vocab;
                numbers[i] = t != mask ? 0.1f * ((float)rand() / (float)RAND_MAX - 0.5f)
                             : i % length <= i / length ? 0.0f
                                                        : -INFINITY;
            }
            const void *data = t->type == GGML_TYPE_I32 ? (const void *)whole.data() : numbers.data();
            ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
        }
    }
};

ggml_tensor *normalized(ggml_context *c, ggml_tensor *x, ggml_tensor *weight) {
    return ggml_mul(c, ggml_rms_norm(c, x, 1e-5f), weight);
}

ggml_tensor *attend(ggml_context *c, const Model &m, const Layer &w, ggml_tensor *h) {
    const auto split = [&](ggml_tensor *weight) { return ggml_reshape_3d(c, ggml_mul_mat(c, weight, h), depth, heads, length); };
    const auto by_head = [&](ggml_tensor *t) { return ggml_cont(c, ggml_permute(c, t, 0, 2, 1, 3)); };
    ggml_tensor *q = by_head(ggml_rope(c, split(w.q), m.position, depth, 0));
    ggml_tensor *k = by_head(ggml_rope(c, split(w.k), m.position, depth, 0));
    ggml_tensor *v = ggml_cont(c, ggml_permute(c, split(w.v), 1, 2, 0, 3)); // [T, D, H]
    ggml_tensor *p = ggml_soft_max_ext(c, ggml_mul_mat(c, k, q), m.mask, 1 / std::sqrt((float)depth), 0);
    ggml_tensor *merged = ggml_cont_2d(c, ggml_permute(c, ggml_mul_mat(c, v, p), 0, 2, 1, 3), width, length);
    return ggml_mul_mat(c, w.out, merged);
}

ggml_tensor *logits(ggml_context *c, const Model &m) {
    ggml_tensor *x = ggml_get_rows(c, m.table, m.tokens);
    for (const Layer &w : m.layers) {
        x = ggml_add(c, x, attend(c, m, w, normalized(c, x, w.norm1)));
        ggml_tensor *h = normalized(c, x, w.norm2);
        ggml_tensor *gated = ggml_swiglu_split(c, ggml_mul_mat(c, w.gate, h), ggml_mul_mat(c, w.up, h));
        x = ggml_add(c, x, ggml_mul_mat(c, w.down, gated));
    }
    return ggml_mul_mat(c, m.head, normalized(c, x, m.norm));
}

// Adds an AdamW step of each weight to the graph.
void add_updates(ggml_context *c, ggml_context *state, ggml_cgraph *graph, const Model &m, ggml_tensor *hyper) {
    for (ggml_tensor *t = ggml_get_first_tensor(m.context); t; t = ggml_get_next_tensor(m.context, t))
        if (t->flags & GGML_TENSOR_FLAG_PARAM)
            ggml_build_forward_expand(graph, ggml_opt_step_adamw(c, t, ggml_graph_get_grad(graph, t), ggml_dup_tensor(state, t),
                                                                 ggml_dup_tensor(state, t), hyper));
}

std::vector<ggml_backend_t> open_backends(bool vulkan) {
    std::vector<ggml_backend_t> backends;
    ggml_backend_load_all();
    for (size_t i = 0; vulkan && i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (std::string(ggml_backend_dev_name(device)).rfind("Vulkan", 0) == 0)
            backends.push_back(ggml_backend_dev_init(device, nullptr));
    }
    if (vulkan && backends.empty()) return {};
    backends.push_back(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    return backends;
}

int fail(const char *message) {
    fprintf(stderr, "ggml_step: %s\n", message);
    return 1;
}

} // namespace

int main(int argc, char **argv) {
    const std::string where = argc > 1 ? argv[1] : "cpu", name = argc > 2 ? argv[2] : "llama-2";
    std::vector<ggml_backend_t> backends = open_backends(where == "vulkan");
    if (backends.empty()) return fail("no Vulkan device");
    const ggml_init_params arena = {(size_t)64 << 20, nullptr, true};
    ggml_context *c = ggml_init(arena), *state = ggml_init(arena);
    Model model(ggml_init(arena), name == "llama-12" ? 12 : 2);
    ggml_backend_alloc_ctx_tensors(model.context, backends[0]);
    model.fill();

    ggml_tensor *scores = logits(c, model), *targets = ggml_new_tensor_2d(c, GGML_TYPE_F32, vocab, length);
    ggml_tensor *loss = ggml_cross_entropy_loss(c, scores, targets), *hyper = ggml_new_tensor_1d(state, GGML_TYPE_F32, 7);
    ggml_set_input(targets), ggml_set_loss(loss), ggml_set_output(loss);
    ggml_cgraph *graph = ggml_new_graph_custom(c, nodes, true);
    ggml_build_forward_expand(graph, loss);
    ggml_build_backward_expand(c, graph, nullptr);
    add_updates(c, state, graph, model, hyper);
    ggml_backend_buffer_clear(ggml_backend_alloc_ctx_tensors(state, backends[0]), 0);
    const float adamw[7] = {1e-3f, 0.9f, 0.999f, 1e-8f, 0, 10, 1000}; // rate, betas, epsilon, decay, bias corrections
    ggml_backend_tensor_set(hyper, adamw, 0, sizeof adamw);

    ggml_backend_sched_t scheduler =
        ggml_backend_sched_new(backends.data(), nullptr, (int)backends.size(), nodes, false, true);
    if (!ggml_backend_sched_alloc_graph(scheduler, graph)) return fail("out of memory");
    ggml_graph_reset(graph);
    std::vector<float> one_hot((size_t)vocab * length);
    for (int i = 0; i < length; i++) one_hot[(size_t)(i * vocab + (i * 7 + 3) % vocab)] = 1;
    std::vector<double> times;
    float value = 0;
    for (int i = 0; i < 10; i++) {
        const float seed = 1;
        ggml_tensor *gradient = ggml_graph_get_grad_acc(graph, loss);
        ggml_backend_tensor_set(targets, one_hot.data(), 0, ggml_nbytes(targets));
        if (gradient && gradient->buffer) ggml_backend_tensor_set(gradient, &seed, 0, sizeof seed);
        const auto start = std::chrono::steady_clock::now();
        if (ggml_backend_sched_graph_compute(scheduler, graph) != GGML_STATUS_SUCCESS) return fail("a step failed");
        ggml_backend_sched_synchronize(scheduler);
        const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
        ggml_backend_tensor_get(loss, &value, 0, sizeof value);
        if (i >= 3) times.push_back(time.count());
    }
    std::sort(times.begin(), times.end());
    const double ms = times[times.size() / 2];
    printf("{\"peer\": \"ggml %s\", \"model\": \"%s\", \"device\": \"%s\", \"dtype\": \"f32\", \"ms_per_step\": %.3f, "
           "\"ms_min\": %.3f, \"tokens_per_s\": %.0f, \"splits\": %d, \"loss\": %g}\n",
           ggml_version(), name.c_str(), where.c_str(), ms, times[0], length / ms * 1e3,
           ggml_backend_sched_get_n_splits(scheduler), (double)value);
    fflush(stdout);
    _Exit(0); // ggml's own end waits for threads of the driver
}
