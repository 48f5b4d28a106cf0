/* From a graph to steps whose memory is decided. */
#ifndef HK_GRAPH_PLAN_H
#define HK_GRAPH_PLAN_H

#include "graph/graph.h"

/* Something that needs memory from step `first` to step `last`; place() sets block and offset. */
struct hk_lifetime {
    uint64_t bytes; /* rounded up by place() */
    int first, last;
    int block;
    uint64_t offset;
};

enum { HK_MEMORY_ALIGN = 256, HK_MAX_BLOCKS = 64 };

/* Gives each lifetime a place in one of a few blocks of at most max_block bytes, such that no two that live at once overlap:
   largest first, each into the smallest gap that holds it. Sets the blocks' sizes and *n_blocks. HK_ERROR_OUT_OF_MEMORY where
   one lifetime is larger than max_block. */
hk_status hk_place(struct hk_lifetime *lifetimes, int count, uint64_t max_block, uint64_t blocks[HK_MAX_BLOCKS], int *n_blocks);

/* A memory that a root value has in the program: a part of the arena, or of a tensor. */
struct hk_memory {
    struct hk_storage *storage; /* of the tensor; NULL: the arena, at lifetime's place */
    uint64_t offset;            /* in the storage, bytes */
    struct hk_lifetime lifetime;
};

/* What the graph comes to: the calls that run, in order, and the memory of each root. Freed by hk_layout_free. */
struct hk_layout {
    struct hk_call **calls;
    int n_calls;
    const struct hk_limits *limits; /* of the GPU; NULL: the CPU */
    struct hk_memory *memories; /* those of roots, then the scratch of each call that has some */
    int n_memories;
    int *memory_of;  /* by value id (of roots): index into memories, -1 where none */
    int *scratch_of; /* by call position: index into memories, -1 where none */
    uint64_t blocks[HK_MAX_BLOCKS];
    int n_blocks;
    uint64_t value_bytes;   /* without using any memory twice */
    int n_fused;            /* calls that others' kernels run */
    struct hk_arena arena;  /* of the calls that are not the graph's */
};

/* Moves each store up to where what it stores is ready, with the elementwise call that makes that for it alone. */
void hk_store_early(struct hk_layout *layout);

/* Groups of elementwise calls may have one call more, which makes their input (a product, at the head) or reduces their result
   (at the tail): none, heads or both where no more memory is held, as far as one can see where the groups are made, or all. */
enum hk_ends { HK_NO_ENDS, HK_CAREFUL_HEADS, HK_CAREFUL_ENDS, HK_ALL_ENDS };

/* Makes one call of several, where that gains; the graph stays as it is. False: out of memory. */
bool hk_fuse(const struct hk_graph *graph, enum hk_fusing how, enum hk_ends ends, struct hk_layout *layout);

/* For the device; fuses as much as takes no more memory. */
hk_status hk_layout_make(const struct hk_graph *graph, const struct hk_device_base *device, struct hk_layout *layout);
void hk_layout_free(struct hk_layout *layout);

#endif
