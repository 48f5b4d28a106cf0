/* Graphs as src/graph and src/op see them: values, calls, and what an op may do while a graph is built. */
#ifndef HK_GRAPH_GRAPH_H
#define HK_GRAPH_GRAPH_H

#include "backend.h"
#include <hekla/graph.h>

/* Shared memory of tensors; programs and graphs hold references. */
struct hk_storage {
    struct hk_device *device;
    struct hk_buffer *buffer;
    uint64_t bytes;
    _Atomic int references;
};
struct hk_storage *hk_storage_retain(struct hk_storage *storage);
void hk_storage_release(struct hk_storage *storage);

struct hk_tensor {
    struct hk_storage *storage;
    uint64_t offset; /* bytes */
    enum hk_dtype dtype;
    struct hk_shape shape;
};

/* A value is a window on memory: of the op output that it is, of a tensor, or (a view) of another value's root. */
struct hk_value {
    struct hk_graph *graph;
    enum hk_dtype dtype;
    int rank;
    int64_t shape[HK_MAX_RANK];
    int64_t stride[HK_MAX_RANK]; /* elements */
    int64_t offset;              /* elements from the root's first */
    struct hk_value *root;       /* itself unless a view */
    struct hk_call *call;        /* that makes it; NULL for a leaf */
    int output;                  /* which of the call's */
    struct hk_storage *storage;  /* leaf: the tensor's memory, retained by the graph ... */
    uint64_t storage_offset;     /* ... and the tensor's first byte there */
    int64_t extent;              /* root: elements of memory it needs */
    bool kept;                   /* marked by hk_checkpoint */
    int id;                      /* in creation order */
};

/* One op in the graph. */
struct hk_call {
    const struct hk_op *op;
    struct hk_graph *graph;
    int n_inputs, n_outputs;
    struct hk_value **inputs;
    struct hk_value **outputs;
    const void *attrs;
    size_t attrs_bytes;
    int index;   /* in the graph's list */
    int segment; /* checkpoint segment */
};

struct hk_graph {
    struct hk_arena arena;
    hk_status status;   /* of the first op that was given something wrong ... */
    char message[1024]; /* ... and what was said */
    struct hk_call **calls;
    int n_calls, calls_capacity;
    struct hk_value **leaves;
    int n_leaves, leaves_capacity;
    int n_values;
    int segment;        /* the one that new calls belong to */
    uint32_t streams;
};

/* Appends a copy of a call with other inputs; outputs that are views see memory(root) instead of the root. For recomputing
   what checkpointing dropped. NULL with the graph marked when out of memory. */
struct hk_call *hk_graph_repeat(const struct hk_call *call, struct hk_value *(*other)(void *context, struct hk_value *value),
                                void *context);

/* Everything below is for op files. */

/* Marks the graph (which may be NULL) with its first error; returns NULL. */
struct hk_value *hk_graph_fail(struct hk_graph *graph, hk_status status, const char *format, ...) HK_PRINTF(3, 4);

/* The graph of the first of the values; NULL (and no new message) if any is NULL. Marks both graphs if they differ. */
struct hk_graph *hk_graph_of(struct hk_value *const *values, int count);

/* "[32, 784]": in one of a few buffers of the thread that take turns; for messages. */
const char *hk_shape_text(const struct hk_value *value);

/* Adds op(inputs) with a copy of attrs. The op's infer checks the inputs and describes the outputs. Output 0, or NULL with
   the graph marked. Any NULL input gives NULL. Ops without outputs return NULL too. */
struct hk_value *hk_call_op(struct hk_graph *graph, const struct hk_op *op, struct hk_value *const *inputs, int n_inputs,
                            const void *attrs, size_t attrs_bytes);
/* Output i of the call that made value (its output 0). */
struct hk_value *hk_output(struct hk_value *value, int i);

/* For infer: describes output i: dense and row-major ... */
void hk_infer_output(struct hk_call *call, int i, enum hk_dtype dtype, int rank, const int64_t *shape);
/* ... or dense in memory in another order: order[0] is the outermost dimension in memory. */
void hk_infer_output_order(struct hk_call *call, int i, enum hk_dtype dtype, int rank, const int64_t *shape, const int *order);

/* A view: adds a call of op (HK_OP_VIEW, no kernels) whose output sees x's memory as given. offset is from x's first. */
struct hk_value *hk_call_view(const struct hk_op *op, struct hk_value *x, int rank, const int64_t *shape,
                              const int64_t *stride, int64_t offset, const void *attrs, size_t attrs_bytes);

int64_t hk_elements(const struct hk_value *value);
bool hk_is_dense(const struct hk_value *value); /* row-major, without gaps */
int64_t hk_dense_strides(int rank, const int64_t *shape, int64_t *stride); /* such strides; the number of elements */
bool hk_is_float(enum hk_dtype dtype); /* f32, f16, bf16 */
bool hk_same_shape(const struct hk_value *a, const struct hk_value *b);
/* Both see the same bytes of a tensor, or may: their leaves overlap. */
bool hk_share_tensor(const struct hk_value *a, const struct hk_value *b);
/* axis in [0, rank), from the end where negative; -1 with the graph marked where it is out of range. */
int hk_axis(struct hk_value *x, int axis, const char *op_name);

/* The value as an operand that has no memory yet. */
struct hk_operand hk_operand_of(const struct hk_value *value);

/* The call as a step of such operands, for which there is room: first the inputs, then the outputs. */
struct hk_step hk_step_of(const struct hk_call *call, struct hk_operand *operands);

/* A number that no other call of this graph has: an op's stream of random numbers. */
uint32_t hk_graph_stream(struct hk_graph *graph);

#endif
