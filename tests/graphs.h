/* For the tests of graphs: small f32 tensors on the device that a test runs on now. */
#ifndef HK_TESTS_GRAPHS_H
#define HK_TESTS_GRAPHS_H

#include "support.h"

/* Those that the program opened, and the one that all below works on. */
extern struct hk_device *graph_devices[TEST_MAX_DEVICES], *graph_device;
extern int n_graph_devices;
#define ON_EACH_DEVICE                                                                                                 \
    for (int device_number = 0; device_number < n_graph_devices && (graph_device = graph_devices[device_number]);      \
         device_number++)

/* A tensor of the shape with these numbers, or with zeros where data is NULL. */
struct hk_tensor *graph_tensor(struct hk_shape shape, const float *data);
#define TENSOR(shape, ...) graph_tensor(shape, (const float[]){__VA_ARGS__})

void graph_run(struct hk_graph *graph); /* compiles it and runs it once */

/* Stores d loss / d leaf(x), and returns it. */
struct hk_value *graph_store_gradient(struct hk_value *loss, struct hk_tensor *x, struct hk_tensor *grad);

/* Fails unless t begins with these numbers, but for roundings. */
void graph_expect(struct hk_tensor *t, const float *wanted, int count);
#define EXPECT(t, ...)                                                                                                 \
    do {                                                                                                               \
        const float wanted[] = {__VA_ARGS__};                                                                          \
        graph_expect(t, wanted, COUNT(wanted));                                                                        \
    } while (0)

/* Fails unless compiling says the graph's error, kept since it happened. */
void graph_refused(struct hk_graph *graph, hk_status status, const char *message);

#endif
