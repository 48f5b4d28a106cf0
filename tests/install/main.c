/* A stranger's program, in C and in C++: doubles three numbers. */
#include <hekla/hekla.h>
#include <stdio.h>

int main(void) {
    static struct hk_device_params where; /* zero: all defaults */
    float x[3] = {1, 2, 3};
    where.name = "cpu";
    struct hk_device *device = hk_device_open(&where);
    struct hk_tensor *tensor = hk_tensor_create(device, HK_F32, HK_SHAPE(3));
    struct hk_graph *graph = hk_graph_create();
    hk_tensor_write(tensor, x, sizeof x);
    hk_store(tensor, hk_affine(hk_leaf(graph, tensor), 2, 0));
    struct hk_program *program = hk_compile(device, graph, NULL);
    if (!program || hk_program_run(program) || hk_tensor_read(tensor, x, sizeof x)) {
        fprintf(stderr, "%s\n", hk_error_message());
        return 1;
    }
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&tensor);
    hk_device_destroy(&device);
    printf("hekla %s: %g %g %g\n", hk_version(), (double)x[0], (double)x[1], (double)x[2]);
    return x[0] == 2 && x[1] == 4 && x[2] == 6 ? 0 : 1;
}
