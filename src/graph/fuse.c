/* Groups of elementwise calls that run as one, op/fused.h: a value that only its group reads takes no memory, and what
   several of the calls read is read once. A group may have one call more at its head, whose result the others read, or at its
   tail, which reads what the others make: one whose row names an op that does it and elementwise calls in one.

   Each such call begins as a group of its own, which runs where the call is. Two groups become one where the later reads what
   the earlier makes, or both read the same: all of it then runs where one of the two did, if what it reads is there then and
   still the same, if nobody wants its results before, and if no more memory is held between the two places than without. */
#include "graph/fuse.h"
#include <stdlib.h>
#include <string.h>

/* ---- When values are read ---- */

/* The position where the call that was at a position runs. */
static int time_of(const struct fuser *f, int position) {
    const int g = f->group_of[position];
    return g < 0 ? position : f->groups[g].at;
}

static uint64_t bytes_of(const struct hk_value *root) { return (uint64_t)root->extent * hk_dtype_size(root->dtype); }

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
    hk_fuse_outline(f, a, a, &own);
    if (is_overwritten(f, &own, begin, end)) return false;
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
    hk_fuse_outline(f, b, b, &own);
    if (is_overwritten(f, &own, begin, end)) return false;
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
static bool head_holds_more(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    bool sums = false, sizes[8] = {false};
    for (int k = 0; k < o->n_outputs; k++) {
        if (!sums && o->outputs[k]->dtype == HK_F32) sums = true;
        else sizes[hk_dtype_size(o->outputs[k]->dtype)] = true;
    }
    for (int k = 0; k < o->n_inputs; k++)
        if ((k < o->n_head ? !sums : sizes[hk_dtype_size(o->inputs[k]->dtype)]) && ends_there(f, o->inputs[k], a, b, at))
            return true;
    return false;
}

/* A group with a tail holds its operands beside the tail's result: more than before where those that end there, less what the
   group's results take the place of, are larger than what the tail reads, unless that is kept. */
static bool tail_holds_more(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    int64_t ended = 0;
    int places[8] = {0};
    for (int k = 0; k < o->n_inputs; k++) {
        const struct hk_value *root = arena_root(o, k);
        if (!root || !ends_there(f, root, a, b, at)) continue;
        ended += (int64_t)bytes_of(root);
        places[hk_dtype_size(root->dtype)] += is_whole(o->inputs[k]) && hk_elements(root) == hk_elements(o->shape);
    }
    for (int k = 1; k < o->n_outputs; k++)
        if (places[hk_dtype_size(o->outputs[k]->dtype)]-- > 0) ended -= (int64_t)bytes_of(o->outputs[k]);
    return ended > 0 && (o->keeps || ended > (int64_t)bytes_of(o->tail->inputs[0]->root));
}

static bool may_hold(const struct fuser *f, const struct outline *o, int a, int b, int at) {
    if (f->ends == HK_ALL_ENDS) return true;
    return o->head ? !head_holds_more(f, o, a, b, at) : !o->tail || !tail_holds_more(f, o, a, b, at);
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

static bool has_end(const struct group *g) { return g->head >= 0 || g->tail >= 0; }

static bool try_join(struct fuser *f, int a, int b) {
    const int begin = f->groups[a].at, end = f->groups[b].at;
    struct outline both;
    int64_t waits, hurries;
    if (begin >= end || (has_end(&f->groups[a]) && has_end(&f->groups[b]))) return false;
    if (f->groups[a].n_members + f->groups[b].n_members > HK_FUSED_STEPS) return false;
    if (hk_elements(made_by(f, a)) != hk_elements(made_by(f, b)) || !hk_fuse_outline(f, a, b, &both)) return false;
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
static bool is_lone_end(const struct group *g) { return g->n_members == 1 && has_end(g); }

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
    hk_fuse_outline(f, g, g, &own);
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

/* made: by position, room for the groups' calls. */
static bool replace_groups(struct fuser *f, struct hk_call **made) {
    struct hk_layout *layout = f->layout;
    int n = 0;
    for (int i = 0; i < layout->n_calls; i++) {
        const struct group *g = &f->groups[i];
        if (f->group_of[i] != i || g->n_members == 1) continue;
        if (!(made[g->at] = hk_fuse_call(f, i))) return false;
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
