/* Groups of elementwise calls that run as one, op/fused.h: a value that only its group reads takes no memory, and what
   several of the calls read is read once. A group may have one call more at its head, whose result the others read, or at its
   tail, which reads what the others make: one whose row names an op that does it and elementwise calls in one.

   Calls are told by their positions in the layout. Each such call begins as a group of its own, which runs where
   the call is. Two groups become one where the later reads what the earlier makes, or both read the same: all of it
   then runs where one of the two did, if what it reads is there then and still the same, if nobody wants its results
   before, and if no more memory is held between the two places than without. */
#include "graph/plan.h"
#include "op/fused.h"
#include <stdlib.h>
#include <string.h>

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

/* ---- Values, who makes and who reads them ---- */

static struct hk_call *call_at(const struct fuser *f, int position) { return f->layout->calls[position]; }

static struct hk_value *result_at(const struct fuser *f, int position) { return call_at(f, position)->outputs[0]; }

/* What all that the group makes has the elements of: what its first call makes or, as a tail, reads. */
static const struct hk_value *made_by(const struct fuser *f, int g) {
    return f->groups[g].tail == g ? call_at(f, g)->inputs[0]->root : result_at(f, g);
}

/* The position where the call that was at a position runs. */
static int time_of(const struct fuser *f, int position) {
    const int g = f->group_of[position];
    return g < 0 ? position : f->groups[g].at;
}

static uint64_t bytes_of(const struct hk_value *root) { return (uint64_t)root->extent * hk_dtype_size(root->dtype); }

/* -1: a tensor's leaf. */
static int maker_of(const struct fuser *f, const struct hk_value *value) {
    const struct hk_call *call = value->root->call;
    return call ? f->position[call->index] : -1;
}

static bool is_member(const struct fuser *f, int position, int a, int b) {
    const int g = position < 0 ? -1 : f->group_of[position];
    return g >= 0 && (g == a || g == b);
}

static bool used_outside(const struct fuser *f, const struct hk_value *root, int a, int b) {
    for (int i = f->first_user[root->id]; i < f->first_user[root->id + 1]; i++)
        if (!is_member(f, f->users[i], a, b)) return true;
    return false;
}

/* When others than group g read it last; -1: never. */
static int last_use(const struct fuser *f, const struct hk_value *root, int g) {
    int last = -1;
    for (int i = f->first_user[root->id]; i < f->first_user[root->id + 1]; i++)
        if (!is_member(f, f->users[i], g, g)) last = HK_MAX(last, time_of(f, f->users[i]));
    return last;
}

static void find_users(struct fuser *f, int n_values) {
    const struct hk_layout *layout = f->layout;
    for (int i = 0; i < layout->n_calls; i++)
        for (int k = 0; k < layout->calls[i]->n_inputs; k++) f->first_user[layout->calls[i]->inputs[k]->root->id + 2]++;
    for (int v = 0; v < n_values; v++) f->first_user[v + 2] += f->first_user[v + 1];
    for (int i = 0; i < layout->n_calls; i++)
        for (int k = 0; k < layout->calls[i]->n_inputs; k++)
            f->users[f->first_user[layout->calls[i]->inputs[k]->root->id + 1]++] = i;
}

/* ---- What two groups would be together ---- */

/* inputs: of the head, then of the others, each once. outputs: that of the head first, if others than the group read it; that
   of the tail first.
   shape: of all that is made; beside a head, which often makes what is seen in another shape, calls whose operands lie as the
   result does, or are one number, may have another with as many elements. */
struct outline {
    struct hk_value *inputs[HK_CHUNK_INPUTS + HK_FUSED_INPUTS], *outputs[HK_FUSED_OUTPUTS];
    int n_inputs, n_outputs;
    const struct hk_call *head, *tail;
    bool keeps; /* the head's output, or what the tail reads */
    const struct hk_value *shape;
};

static int number_of(struct hk_value *const *list, int count, const struct hk_value *value) {
    for (int i = 0; i < count; i++)
        if (list[i] == value) return i;
    return -1;
}

static bool add_distinct(struct hk_value **list, int *count, int most, struct hk_value *value) {
    if (number_of(list, *count, value) >= 0) return true;
    if (*count == most) return false;
    list[(*count)++] = value;
    return true;
}

/* All of its root, element by element. */
static bool is_whole(const struct hk_value *value) {
    return value->offset == 0 && hk_is_dense(value) && hk_elements(value) == hk_elements(value->root) &&
           hk_is_dense(value->root);
}

/* A view that is all of its root, as it is, is that. */
static struct hk_value *without_views(struct hk_value *value) { return is_whole(value) ? value->root : value; }

/* Whether the call's shape can be that of all. */
static bool agree_on_shape(struct outline *o, const struct hk_call *call, const struct hk_value *in) {
    const struct hk_value *out = call->outputs[0];
    const int64_t elements = hk_elements(in);
    if (elements == 1 || (elements == hk_elements(out) && hk_is_dense(in))) return true;
    if (!o->shape) o->shape = out;
    return hk_same_shape(o->shape, out);
}

/* A head reads nothing that its group makes. */
static bool add_head(const struct fuser *f, int head, int a, int b, struct outline *o) {
    const struct hk_call *call = call_at(f, head);
    for (int k = 0; k < call->n_inputs; k++) {
        if (is_member(f, maker_of(f, call->inputs[k]), a, b)) return false;
        o->inputs[o->n_inputs++] = call->inputs[k];
    }
    o->head = call;
    o->keeps = used_outside(f, call->outputs[0], a, b);
    if (o->keeps) o->outputs[o->n_outputs++] = call->outputs[0];
    return true;
}

/* A tail reads all of what one call of its group makes. */
static bool add_tail(const struct fuser *f, int tail, int a, int b, struct outline *o) {
    struct hk_call *call = call_at(f, tail);
    struct hk_value *in = call->inputs[0];
    o->tail = call;
    o->keeps = used_outside(f, in->root, a, b);
    o->outputs[o->n_outputs++] = call->outputs[0];
    if (a == b && f->groups[a].n_members == 1) o->inputs[o->n_inputs++] = in;
    else if (!is_member(f, maker_of(f, in), a, b) || !is_whole(in)) return false;
    return true;
}

static bool is_elsewhere(const struct outline *o, const struct hk_call *call) { return call == o->head || call == o->tail; }

/* What the elementwise calls of group g read from outside of both, and make for it. False: more than one kernel takes, or one
   reads what another makes in another order. */
static bool add_group(const struct fuser *f, int g, int a, int b, struct outline *o) {
    const int n_head = o->head ? o->head->n_inputs : 0, most = HK_FUSED_INPUTS - (o->head != NULL);
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) {
        const struct hk_call *call = call_at(f, m);
        for (int k = 0; k < call->n_inputs && !is_elsewhere(o, call); k++) {
            struct hk_value *in = call->inputs[k];
            const bool inside = is_member(f, maker_of(f, in), a, b);
            int n = o->n_inputs - n_head;
            if (inside ? !is_whole(in) || in->root->call == o->tail : !agree_on_shape(o, call, in)) return false;
            if (!inside && !add_distinct(o->inputs + n_head, &n, most, in)) return false;
            o->n_inputs = n_head + n;
        }
        if (is_elsewhere(o, call) || !used_outside(f, call->outputs[0], a, b)) continue;
        if (!add_distinct(o->outputs, &o->n_outputs, HK_FUSED_OUTPUTS, call->outputs[0])) return false;
    }
    return true;
}

/* The value as one of the group's shape, where it has as many elements. */
static struct hk_value in_shape(const struct hk_value *value, const struct hk_value *shape) {
    struct hk_value result = *value;
    int64_t stride = 1;
    if (hk_same_shape(value, shape) || !hk_is_dense(value) || hk_elements(value) != hk_elements(shape)) return result;
    result.rank = shape->rank;
    for (int i = shape->rank - 1; i >= 0; stride *= shape->shape[i--])
        result.shape[i] = shape->shape[i], result.stride[i] = stride;
    return result;
}

static int head_inputs(const struct outline *o) { return o->head ? o->head->n_inputs : 0; }

/* The outputs that come before those of the elementwise calls, and how many these have. */
static int first_output(const struct outline *o) { return o->tail || (o->head && o->keeps); }

static int step_outputs(const struct outline *o) { return o->n_outputs - first_output(o) + (o->tail && !o->keeps); }

/* The operands of the group's call: values as they are for the head, and the others in the shape of all. */
static void shape_operands(const struct outline *o, struct hk_value *inputs, struct hk_value *outputs) {
    for (int k = 0; k < o->n_inputs; k++)
        inputs[k] = k < head_inputs(o) ? *o->inputs[k] : in_shape(o->inputs[k], o->shape);
    for (int k = 0; k < o->n_outputs; k++)
        outputs[k] = o->tail && k == 0 ? *o->outputs[k] : in_shape(o->outputs[k], o->shape);
}

static const struct hk_op *op_of(const struct outline *o) {
    return o->head ? o->head->op->followed : o->tail ? o->tail->op->preceded : &hk_op_fused;
}

/* All but the last op's own attributes and the steps. */
static struct hk_preceded preceded_of(const struct outline *o) {
    const struct hk_value *read = o->tail->inputs[0];
    return (struct hk_preceded){.shape = hk_value_shape(o->shape),
                                .read = hk_value_shape(read),
                                .last = o->keeps ? number_of(o->outputs + 1, o->n_outputs - 1, read->root) : o->n_outputs - 1,
                                .keeps = o->keeps,
                                .steps = {.n_inputs = o->n_inputs, .n_outputs = step_outputs(o)}};
}

/* Whether the device's kernels can do it, and gain. */
static bool fits(const struct fuser *f, const struct outline *o) {
    struct hk_value inputs[HK_LENGTH(o->inputs)], outputs[HK_FUSED_OUTPUTS];
    struct hk_value *in[HK_LENGTH(o->inputs)], *out[HK_FUSED_OUTPUTS];
    const struct hk_followed followed = {.n_inputs = head_inputs(o), .keeps = o->keeps,
                                         .steps = {.n_inputs = o->n_inputs - head_inputs(o) + 1, .n_outputs = step_outputs(o)}};
    struct hk_preceded preceded;
    const struct hk_call call = {.op = op_of(o), .inputs = in, .n_inputs = o->n_inputs, .outputs = out,
                                 .n_outputs = o->n_outputs, .attrs = o->tail ? (const void *)&preceded : &followed};
    if (!call.op->fits) return true;
    if (o->tail) preceded = preceded_of(o);
    shape_operands(o, inputs, outputs);
    for (int k = 0; k < o->n_inputs; k++) in[k] = &inputs[k];
    for (int k = 0; k < o->n_outputs; k++) out[k] = &outputs[k];
    return call.op->fits(&call, f->layout->limits);
}

static bool outline_of(const struct fuser *f, int a, int b, struct outline *o) {
    const struct group *first = &f->groups[a], *other = &f->groups[b];
    const int head = HK_MAX(first->head, other->head), tail = HK_MAX(first->tail, other->tail);
    const int n_ends = (first->head >= 0) + (first->tail >= 0) + (a != b) * ((other->head >= 0) + (other->tail >= 0));
    *o = (struct outline){0};
    if (n_ends > 1) return false;
    if (head >= 0 && !add_head(f, head, a, b, o)) return false;
    if (tail >= 0 && !add_tail(f, tail, a, b, o)) return false;
    if (!add_group(f, a, a, b, o) || (a != b && !add_group(f, b, a, b, o))) return false;
    if (o->n_inputs - head_inputs(o) + (o->head != NULL) + step_outputs(o) > HK_FUSED_OPERANDS) return false;
    if (!o->shape) o->shape = o->tail ? made_by(f, a) : result_at(f, f->groups[b].last);
    return a == b || fits(f, o);
}

/* ---- Where they would run ---- */

/* A call that runs between the two places writes a tensor that the group reads. */
static bool is_overwritten(const struct fuser *f, const struct outline *o, int begin, int end) {
    for (int k = 0; k < o->n_inputs; k++)
        for (int t = begin + 1; o->inputs[k]->root->storage && t < end; t++)
            for (int i = 0; i < call_at(f, t)->n_inputs; i++)
                if (call_at(f, t)->op->writes >> i & 1 && hk_share_tensor(call_at(f, t)->inputs[i], o->inputs[k]))
                    return true;
    return false;
}

static bool is_empty(const struct fuser *f, int begin, int end) {
    for (int t = begin + 1; t < end; t++)
        if (time_of(f, t) == t) return false;
    return true;
}

/* The memory in the arena that input k is of, NULL where there is none or an earlier input is of it too. */
static const struct hk_value *arena_root(const struct outline *o, int k) {
    const struct hk_value *root = o->inputs[k]->root;
    for (int i = 0; i < k; i++)
        if (o->inputs[i]->root == root) return NULL;
    return root->storage ? NULL : root;
}

/* May group a wait for the later b? *growth: bytes of memory held more meanwhile: what it reads, less what it makes. */
static bool can_wait(const struct fuser *f, int a, int b, int64_t *growth) {
    const int begin = f->groups[a].at, end = f->groups[b].at;
    struct outline own;
    *growth = 0;
    if (!outline_of(f, a, a, &own) || is_overwritten(f, &own, begin, end)) return false;
    for (int k = 0; k < own.n_outputs; k++) {
        const struct hk_value *out = own.outputs[k];
        for (int i = f->first_user[out->id]; i < f->first_user[out->id + 1]; i++)
            if (time_of(f, f->users[i]) < end && !is_member(f, f->users[i], a, a)) return false;
        *growth -= (int64_t)bytes_of(out);
    }
    for (int k = 0; k < own.n_inputs; k++) {
        const struct hk_value *root = arena_root(&own, k);
        if (root && last_use(f, root, a) < end) *growth += (int64_t)bytes_of(root);
    }
    return true;
}

/* May group b run where the earlier a does? *growth: what it makes, less what ends in it and what it read last. */
static bool can_hurry(const struct fuser *f, int a, int b, int64_t *growth) {
    const int begin = f->groups[a].at, end = f->groups[b].at;
    struct outline own;
    *growth = 0;
    if (!outline_of(f, b, b, &own) || is_overwritten(f, &own, begin, end)) return false;
    for (int k = 0; k < own.n_inputs; k++) {
        const struct hk_value *root = arena_root(&own, k);
        const int maker = maker_of(f, own.inputs[k]);
        if (maker >= 0 && time_of(f, maker) > begin) return false;
        if (root && (is_member(f, maker, a, a) ? !used_outside(f, root, a, b) : last_use(f, root, b) <= begin))
            *growth -= (int64_t)bytes_of(root);
    }
    for (int k = 0; k < own.n_outputs; k++) *growth += (int64_t)bytes_of(own.outputs[k]);
    return true;
}

/* The input is all of the tensor's memory that the other leaf names, element by element. */
static bool is_same_leaf(const struct hk_value *in, const struct hk_value *leaf) {
    return in == in->root && leaf == leaf->root && in->storage_offset == leaf->storage_offset &&
           in->extent == leaf->extent;
}

/* What is stored can be computed right there (layout.c) as well as before: neither the group nor what runs between the
   two places needs the tensor otherwise. */
static bool stays_stored(const struct fuser *f, const struct outline *o, const struct hk_call *store, int begin,
                         int end) {
    const struct hk_value *tensor = store->inputs[0];
    const bool in_place = !o->head && (!o->tail || store->inputs[1]->root != o->outputs[0]);
    for (int k = 0; k < o->n_inputs; k++)
        if (hk_share_tensor(o->inputs[k], tensor) && !(in_place && is_same_leaf(o->inputs[k], tensor))) return false;
    for (int t = begin + 1; t < end; t++)
        for (int k = 0; call_at(f, t) != store && k < call_at(f, t)->n_inputs; k++)
            if (hk_share_tensor(call_at(f, t)->inputs[k], tensor)) return false;
    return true;
}

static bool stay_stored(const struct fuser *f, const struct outline *o, int begin, int end) {
    for (int k = 0; k < o->n_outputs; k++)
        for (int i = f->first_user[o->outputs[k]->id]; i < f->first_user[o->outputs[k]->id + 1]; i++) {
            const struct hk_call *user = call_at(f, f->users[i]);
            if (user->op->flags & HK_OP_STORE && !stays_stored(f, o, user, begin, end)) return false;
        }
    return true;
}

/* The value's memory is not needed by others after the group has run. */
static bool ends_there(const struct fuser *f, const struct hk_value *value, int a, int b, int at) {
    const struct hk_value *root = value->root;
    if (root->storage) return false;
    for (int i = f->first_user[root->id]; i < f->first_user[root->id + 1]; i++)
        if (!is_member(f, f->users[i], a, b) && time_of(f, f->users[i]) >= at) return false;
    return true;
}

/* A group with a head holds its operands, its results and the sums at once. That is more than before where a result would take
   the place of what ends there, or where the sums lie in no result, and the head's operands ended before there were any. */
static bool holds_more(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    bool sums = false, sizes[8] = {false};
    for (int k = 0; k < o->n_outputs && o->head; k++) {
        if (!sums && o->outputs[k]->dtype == HK_F32) sums = true;
        else sizes[hk_dtype_size(o->outputs[k]->dtype)] = true;
    }
    for (int k = 0; k < o->n_inputs && o->head; k++)
        if ((k < o->head->n_inputs ? !sums : sizes[hk_dtype_size(o->inputs[k]->dtype)]) && ends_there(f, o->inputs[k], a, b, at))
            return true;
    return false;
}

/* A group with a tail holds its operands beside the tail's result: more than before where those that end there, less what the
   group's results take the place of, are larger than what the tail reads, unless that is kept. */
static bool tail_holds_more(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    int64_t ended = 0;
    int places[8] = {0};
    for (int k = 0; k < o->n_inputs && o->tail; k++) {
        const struct hk_value *root = arena_root(o, k);
        if (!root || !ends_there(f, root, a, b, at)) continue;
        ended += (int64_t)bytes_of(root);
        places[hk_dtype_size(root->dtype)] += is_whole(o->inputs[k]) && hk_elements(root) == hk_elements(o->shape);
    }
    for (int k = 1; k < o->n_outputs && o->tail; k++)
        if (places[hk_dtype_size(o->outputs[k]->dtype)]-- > 0) ended -= (int64_t)bytes_of(o->outputs[k]);
    return ended > 0 && (o->keeps || ended > (int64_t)bytes_of(o->tail->inputs[0]->root));
}

static bool may_hold(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    return f->ends == HK_ALL_ENDS || !(holds_more(f, o, a, b, at) || tail_holds_more(f, o, a, b, at));
}

/* ---- Joining ---- */

/* Group b, which runs after a, becomes a part of it. */
static void join(struct fuser *f, int a, int b, int at) {
    struct group *into = &f->groups[a];
    const struct group *from = &f->groups[b];
    for (int m = from->first; m >= 0; m = f->next[m]) f->group_of[m] = a;
    f->next[into->last] = from->first;
    into->last = from->last;
    into->n_members += from->n_members;
    into->head = HK_MAX(into->head, from->head), into->tail = HK_MAX(into->tail, from->tail);
    into->at = at;
}

static bool try_join(struct fuser *f, int a, int b) {
    const int begin = f->groups[a].at, end = f->groups[b].at;
    struct outline both;
    int64_t waits, hurries;
    if (begin >= end || f->groups[a].n_members + f->groups[b].n_members > HK_FUSED_STEPS) return false;
    if (hk_elements(made_by(f, a)) != hk_elements(made_by(f, b)) || !outline_of(f, a, b, &both)) return false;
    if (!both.head && !hk_same_shape(made_by(f, a), made_by(f, b))) return false;
    const bool can_a = can_wait(f, a, b, &waits) && stay_stored(f, &both, end, end) && may_hold(f, &both, a, b, end);
    const bool can_b = can_hurry(f, a, b, &hurries) && stay_stored(f, &both, begin, end) && may_hold(f, &both, a, b, begin);
    if (!can_a && !can_b) return false;
    const bool wait = can_a && (!can_b || waits <= hurries);
    if ((wait ? waits : hurries) > 0 && !is_empty(f, begin, end)) return false;
    join(f, a, b, wait ? end : begin);
    return true;
}

enum { MOST_TRIES = 8 }; /* nearest first: a value that thousands read would take their square of them */

/* A head or a tail joins what it makes the input of, or has its own from, not what only reads the same. */
static bool is_lone_end(const struct group *g) { return g->n_members == 1 && (g->head >= 0 || g->tail >= 0); }

/* The group that reads all of the value too, and that group g could join; -1: none did. */
static int join_reader(struct fuser *f, int g, const struct hk_value *value) {
    if (is_lone_end(&f->groups[g]) || !hk_same_shape(value, made_by(f, g))) return -1;
    int i = f->first_user[value->root->id + 1];
    for (int tries = 0; tries < MOST_TRIES && --i >= f->first_user[value->root->id];) {
        const int other = f->group_of[f->users[i]];
        if (other < 0 || other == g || f->groups[other].at >= f->groups[g].at || is_lone_end(&f->groups[other])) continue;
        if (try_join(f, other, g)) return other;
        tries++;
    }
    return -1;
}

/* One step of group g's growth: the group that it has joined, -1 where there is none. */
static int join_one(struct fuser *f, int g) {
    struct outline own;
    if (!outline_of(f, g, g, &own)) return -1;
    for (int k = 0; k < own.n_inputs; k++) {
        const int maker = maker_of(f, own.inputs[k]), a = maker < 0 ? -1 : f->group_of[maker];
        if (a >= 0 && try_join(f, a, g)) return a;
    }
    for (int k = 0; k < own.n_inputs; k++) {
        const int a = join_reader(f, g, own.inputs[k]);
        if (a >= 0) return a;
    }
    return -1;
}

static bool can_be_head(const struct hk_call *call) { return call->op->followed && hk_elements(call->outputs[0]) > 0; }

static bool can_be_tail(const struct hk_call *call) { return call->op->preceded && hk_elements(call->inputs[0]) > 0; }

/* A kernel for one element of all the call's inputs at once: operands of small elements lie as the result does. */
static bool is_elementwise(const struct fuser *f, const struct hk_call *call) {
    if (!(f->how == HK_FUSE_GLSL ? call->op->glsl != NULL : call->op->chunk[HK_ISA_BASE] != NULL)) return false;
    if (hk_elements(call->outputs[0]) == 0) return false;
    for (int k = 0; k < call->n_inputs; k++) {
        const struct hk_value *in = call->inputs[k];
        if (hk_dtype_size(in->dtype) != 4 && !(hk_is_dense(in) && hk_same_shape(in, call->outputs[0]))) return false;
    }
    return true;
}

enum kind { ELEMENTWISE, HEAD, TAIL };

static bool is_of_kind(const struct fuser *f, const struct hk_call *call, enum kind kind) {
    return kind == HEAD ? can_be_head(call) : kind == TAIL ? can_be_tail(call) : is_elementwise(f, call);
}

static void add_groups(struct fuser *f, enum kind kind) {
    for (int i = 0; i < f->layout->n_calls; i++) {
        if (!is_of_kind(f, call_at(f, i), kind)) continue;
        f->group_of[i] = i;
        f->groups[i] = (struct group){.at = i, .first = i, .last = i, .n_members = 1, .head = kind == HEAD ? i : -1,
                                      .tail = kind == TAIL ? i : -1};
    }
}

static void join_groups(struct fuser *f) {
    for (int i = 0; i < f->layout->n_calls; i++)
        for (int g = f->group_of[i]; g >= 0;) g = join_one(f, g);
}

/* Heads and then tails come last: two of them do not become one, and would keep what reads both apart from the rest. */
static void find_groups(struct fuser *f) {
    for (int i = 0; i < f->layout->n_calls; i++) f->next[i] = f->group_of[i] = -1;
    add_groups(f, ELEMENTWISE);
    join_groups(f);
    if (f->ends == HK_NO_ENDS) return;
    add_groups(f, HEAD);
    join_groups(f);
    if (f->ends < HK_CAREFUL_ENDS) return;
    add_groups(f, TAIL);
    join_groups(f);
}

/* ---- Groups become calls ---- */

/* The number of a value for the steps: inputs, of which the head's result is the first, then what steps before made. */
static int number_for_step(const struct outline *o, struct hk_value *const *results, int n_results, struct hk_value *value) {
    const int n_head = head_inputs(o), first = o->head != NULL, n_inputs = o->n_inputs - n_head;
    struct hk_value *const whole = without_views(value);
    const int made = number_of(results, n_results, whole);
    if (o->head && whole == o->head->outputs[0]) return 0;
    return made >= 0 ? first + n_inputs + made : first + number_of(o->inputs + n_head, n_inputs, value);
}

/* The steps of the group's elementwise calls, and behind them their attributes. Where these end, in bytes. */
static uint32_t write_steps(const struct fuser *f, int g, const struct outline *o, struct hk_fused *fused) {
    struct hk_value *results[HK_FUSED_STEPS];
    uint32_t end = sizeof *fused;
    *fused = (struct hk_fused){.n_inputs = o->n_inputs - head_inputs(o) + (o->head != NULL),
                               .n_outputs = step_outputs(o)};
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) {
        const struct hk_call *call = call_at(f, m);
        if (is_elsewhere(o, call)) continue;
        const int s = fused->n_steps++;
        struct hk_fused_step *step = &fused->steps[s];
        *step = (struct hk_fused_step){.op = call->op, .attrs = end, .n_inputs = call->n_inputs, .last = s};
        step->from = call->inputs[0]->dtype, step->to = call->outputs[0]->dtype;
        step->output = number_of(o->outputs + first_output(o), o->n_outputs - first_output(o), call->outputs[0]);
        if (o->tail && o->tail->inputs[0]->root == call->outputs[0] && !o->keeps) step->output = fused->n_outputs - 1;
        for (int k = 0; k < call->n_inputs; k++) {
            step->inputs[k] = number_for_step(o, results, s, call->inputs[k]);
            if (step->inputs[k] >= fused->n_inputs) fused->steps[step->inputs[k] - fused->n_inputs].last = s;
        }
        results[s] = call->outputs[0];
        memcpy((char *)fused + end, call->attrs, call->attrs_bytes);
        end += (uint32_t)(call->attrs_bytes + 15) / 16 * 16;
    }
    return end;
}

/* The attributes of the group's call, in memory that has room for them. */
static void write_attrs(const struct fuser *f, int g, const struct outline *o, void *attrs) {
    struct hk_followed *followed = attrs;
    struct hk_preceded *preceded = attrs;
    if (o->head) {
        *followed = (struct hk_followed){.n_inputs = o->head->n_inputs, .keeps = o->keeps};
        write_steps(f, g, o, &followed->steps);
    } else if (o->tail) {
        *preceded = preceded_of(o);
        preceded->attrs = (uint32_t)offsetof(struct hk_preceded, steps) + write_steps(f, g, o, &preceded->steps);
        memcpy((char *)attrs + preceded->attrs, o->tail->attrs, o->tail->attrs_bytes);
    } else {
        write_steps(f, g, o, attrs);
    }
}

/* Pointers to the values, in the arena as these are where they have got another shape. NULL when out of memory. */
static struct hk_value **keep_values(struct hk_arena *arena, struct hk_value *const *values, const struct hk_value *shaped,
                                     int count) {
    struct hk_value **pointers = hk_arena_copy(arena, values, (size_t)count * sizeof *pointers);
    for (int k = 0; pointers && k < count; k++)
        if (!hk_same_shape(&shaped[k], values[k]) && !(pointers[k] = hk_arena_copy(arena, &shaped[k], sizeof *shaped)))
            return NULL;
    return pointers;
}

/* NULL when out of memory. */
static struct hk_call *fused_call(struct fuser *f, int g) {
    struct hk_arena *arena = &f->layout->arena;
    struct hk_value inputs[HK_CHUNK_INPUTS + HK_FUSED_INPUTS], outputs[HK_FUSED_OUTPUTS];
    struct outline o;
    size_t bytes = 0;
    for (int m = f->groups[g].first; m >= 0; m = f->next[m]) bytes += (call_at(f, m)->attrs_bytes + 15) / 16 * 16;
    outline_of(f, g, g, &o);
    bytes += o.head ? sizeof(struct hk_followed) : o.tail ? sizeof(struct hk_preceded) : sizeof(struct hk_fused);
    struct hk_call *call = hk_arena_alloc(arena, sizeof *call);
    void *attrs = hk_arena_alloc(arena, bytes);
    if (!call || !attrs) return NULL;
    write_attrs(f, g, &o, attrs);
    shape_operands(&o, inputs, outputs);
    *call = (struct hk_call){.op = op_of(&o),
                             .graph = result_at(f, g)->graph,
                             .n_inputs = o.n_inputs,
                             .n_outputs = o.n_outputs,
                             .attrs = attrs,
                             .attrs_bytes = bytes,
                             .index = -1};
    call->inputs = keep_values(arena, o.inputs, inputs, o.n_inputs);
    call->outputs = keep_values(arena, o.outputs, outputs, o.n_outputs);
    return call->inputs && call->outputs ? call : NULL;
}

/* made: by position, room for the groups' calls. */
static bool replace_groups(struct fuser *f, struct hk_call **made) {
    struct hk_layout *layout = f->layout;
    int n = 0;
    for (int i = 0; i < layout->n_calls; i++) {
        const struct group *g = &f->groups[i];
        if (f->group_of[i] != i || g->n_members == 1) continue;
        if (!(made[g->at] = fused_call(f, i))) return false;
        layout->n_fused += g->n_members - 1;
    }
    for (int i = 0; i < layout->n_calls; i++) {
        const int g = f->group_of[i];
        if (made[i]) layout->calls[n++] = made[i];
        else if (g < 0 || f->groups[g].n_members == 1) layout->calls[n++] = layout->calls[i];
    }
    layout->n_calls = n;
    return true;
}

bool hk_fuse(const struct hk_graph *graph, enum hk_fusing how, enum hk_ends ends, struct hk_layout *layout) {
    struct fuser f = {.layout = layout, .how = how, .ends = ends};
    const size_t n = (size_t)layout->n_calls + 1;
    size_t n_users = 1;
    for (int i = 0; i < layout->n_calls; i++) n_users += (size_t)layout->calls[i]->n_inputs;
    f.group_of = malloc(n * sizeof *f.group_of);
    f.groups = malloc(n * sizeof *f.groups);
    f.next = malloc(n * sizeof *f.next);
    f.position = malloc(((size_t)graph->n_calls + 1) * sizeof *f.position);
    f.first_user = calloc((size_t)graph->n_values + 2, sizeof *f.first_user);
    f.users = malloc(n_users * sizeof *f.users);
    struct hk_call **made = calloc(n, sizeof *made);
    bool done = f.group_of && f.groups && f.next && f.position && f.first_user && f.users && made;
    if (done) {
        memset(f.position, 0xff, ((size_t)graph->n_calls + 1) * sizeof *f.position);
        for (int i = 0; i < layout->n_calls; i++) f.position[layout->calls[i]->index] = i;
        find_users(&f, graph->n_values);
        find_groups(&f);
        done = replace_groups(&f, made);
    }
    free(f.group_of), free(f.groups), free(f.next), free(f.position), free(f.first_user), free(f.users), free(made);
    return done;
}
