/* Trains a small network to tell the arms of two spirals apart, on the fastest device of the machine. */
#include <hekla/hekla.h>
#include <math.h>
#include <stdio.h>

int main(void) {
    float points[1000][2], result[2]; /* loss and accuracy */
    int32_t arms[1000];
    for (int i = 0; i < 1000; i++) {
        const double radius = i / 1000.0, angle = 9 * radius + 3.14159 * (arms[i] = i % 2);
        points[i][0] = (float)(radius * cos(angle)), points[i][1] = (float)(radius * sin(angle));
    }
    struct hk_device *device = hk_device_open(NULL);
    if (!device) return fprintf(stderr, "%s\n", hk_error_message()), 1;
    struct hk_params *params = hk_params_create(device);
    hk_linear_declare(params, "hidden", 2, 256, true);
    hk_linear_declare(params, "output", 256, 2, true);
    hk_params_allocate(params, 1);
    struct hk_optimizer *adam = hk_optimizer_create(params, &(struct hk_optimizer_params){.kind = HK_ADAM});
    struct hk_tensor *x = hk_tensor_from(device, HK_F32, HK_SHAPE(1000, 2), points);
    struct hk_tensor *y = hk_tensor_from(device, HK_I32, HK_SHAPE(1000), arms);
    struct hk_tensor *results = hk_tensor_create(device, HK_F32, HK_SHAPE(2));

    struct hk_graph *graph = hk_graph_create(); /* one step of training: described once, run often */
    struct hk_value *hidden = hk_relu(hk_linear_apply(params, "hidden", hk_leaf(graph, x)));
    struct hk_value *logits = hk_linear_apply(params, "output", hidden), *target = hk_leaf(graph, y);
    struct hk_value *loss = hk_cross_entropy(logits, target, NULL);
    struct hk_value *right = hk_cast(hk_equal(hk_argmax(logits, HK_AXES(1), false), target), HK_F32);
    struct hk_value *both[] = {hk_reshape(loss, HK_SHAPE(1)), hk_mean(right, HK_AXES(0), true)};
    hk_store(results, hk_concat(both, 2, 0));
    hk_optimizer_minimize(adam, loss);
    struct hk_program *step = hk_compile(device, graph, NULL);
    if (!step) return fprintf(stderr, "%s\n", hk_error_message()), 1; /* of any mistake above */
    for (int i = 1; i <= 1000; i++) {
        hk_optimizer_advance(adam, 0.01f);
        if (hk_program_run(step) || hk_tensor_read(results, result, sizeof result)) return 1;
        if (i % 100 == 0) printf("step %4d: loss %.4f, accuracy %.1f %%\n", i, result[0], 100 * result[1]);
    }
}
