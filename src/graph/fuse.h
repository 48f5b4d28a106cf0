/* Between what makes groups of calls (fuse.c) and what makes one call of each (fuse_call.c). */
#ifndef HK_GRAPH_FUSE_H
#define HK_GRAPH_FUSE_H

#include "graph/plan.h"
#include "op/fused.h"

/* Calls are told by their positions in the layout. */
struct group {
    int at;          /* the position where it runs */
    int first, last; /* its members, linked by next */
    int n_members;
    int head, tail; /* the member that is not elementwise, -1: none */
};

struct fuser {
    struct hk_layout *layout;
    enum hk_fusing how;
    enum hk_ends ends;
    int *group_of;        /* by position: index of a group, that of its first member; -1: not elementwise */
    struct group *groups; /* by index */
    int *next;            /* by position: the member after it, -1 at the end */
    int *position;        /* by index in the graph: of the call; -1: it does not run */
    int *first_user;      /* by value id (of roots): where its users begin ... */
    int *users;           /* ... in this list of positions */
};

static inline struct hk_call *call_at(const struct fuser *f, int position) { return f->layout->calls[position]; }

static inline struct hk_value *result_at(const struct fuser *f, int position) { return call_at(f, position)->outputs[0]; }

/* What all that the group makes has the elements of: what its first call makes or, as a tail, reads. */
static inline const struct hk_value *made_by(const struct fuser *f, int g) {
    return f->groups[g].tail == g ? call_at(f, g)->inputs[0]->root : result_at(f, g);
}

/* -1: a tensor's leaf. */
static inline int maker_of(const struct fuser *f, const struct hk_value *value) {
    const struct hk_call *call = value->root->call;
    return call ? f->position[call->index] : -1;
}

/* The call at the position, if there is one, is of one of two groups. */
static inline bool is_member(const struct fuser *f, int position, int a, int b) {
    const int g = position < 0 ? -1 : f->group_of[position];
    return g >= 0 && (g == a || g == b);
}

/* Others than the two groups read some of the root. */
static inline bool used_outside(const struct fuser *f, const struct hk_value *root, int a, int b) {
    for (int i = f->first_user[root->id]; i < f->first_user[root->id + 1]; i++)
        if (!is_member(f, f->users[i], a, b)) return true;
    return false;
}

/* All of its root, element by element. */
static inline bool is_whole(const struct hk_value *value) {
    return value->offset == 0 && hk_is_dense(value) && hk_elements(value) == hk_elements(value->root) &&
           hk_is_dense(value->root);
}

/* What a group reads and makes: the operands of its call.
   inputs: of the head, then of the others, each once. outputs: that of the head first, if others than the group read it; that
   of the tail first.
   shape: of all that is made; beside a head, which often makes what is seen in another shape, calls whose operands lie as the
   result does, or are one number, may have another with as many elements. */
struct outline {
    struct hk_value *inputs[HK_CHUNK_INPUTS + HK_FUSED_INPUTS], *outputs[HK_FUSED_OUTPUTS];
    int n_inputs, n_outputs;
    int n_head; /* inputs of the head */
    const struct hk_call *head, *tail;
    bool keeps; /* the head's output, or what the tail reads */
    const struct hk_value *shape;
};

/* Of a group (a == b), or of what two would be together, of which one at most has a head or a tail and b runs later. False: no
   kernel does both in one. */
bool hk_fuse_outline(const struct fuser *f, int a, int b, struct outline *o);

/* The call that does all that the group's calls do, in the layout's arena. NULL: out of memory. */
struct hk_call *hk_fuse_call(const struct fuser *f, int g);

#endif
