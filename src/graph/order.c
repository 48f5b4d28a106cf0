/* The order of calls: stores as soon as what they store is there. What is computed for a tensor alone, as gradients that are
   added to others are, does not wait for the graph's end, or all that it is computed from would live until then. */
#include "graph/plan.h"
#include "op/op.h"
#include <string.h>

/* The call writes what the other reads or writes of a tensor. */
static bool overwrites(const struct hk_call *writer, const struct hk_call *other) {
    for (int i = 0; i < writer->n_inputs; i++)
        for (int k = 0; writer->op->writes >> i & 1 && k < other->n_inputs; k++)
            if (hk_share_tensor(writer->inputs[i], other->inputs[k])) return true;
    return false;
}

static bool uses(const struct hk_call *call, const struct hk_call *maker) {
    for (int k = 0; k < call->n_inputs; k++)
        if (call->inputs[k]->root->call == maker) return true;
    return false;
}

/* The first place that calls[from] may move up to, if `ignored` comes along. */
static int earliest_place(const struct hk_layout *layout, int from, const struct hk_call *ignored) {
    const struct hk_call *call = layout->calls[from];
    int to = from;
    for (; to > 0; to--) {
        const struct hk_call *before = layout->calls[to - 1];
        if (before == ignored) continue;
        if (uses(call, before) || overwrites(before, call) || overwrites(call, before)) break;
    }
    return to;
}

static void move_call(struct hk_layout *layout, int from, int to) {
    struct hk_call *call = layout->calls[from];
    memmove(layout->calls + to + 1, layout->calls + to, (size_t)(from - to) * sizeof *layout->calls);
    layout->calls[to] = call;
}

/* The place of the elementwise call whose result the store alone uses; -1 where it is another. */
static int find_feeder(const struct hk_layout *layout, int store) {
    const struct hk_call *maker = layout->calls[store]->inputs[1]->root->call;
    int at = -1;
    if (!maker || !(maker->op->flags & HK_OP_IN_PLACE)) return -1;
    for (int i = 0; i < layout->n_calls; i++) {
        if (layout->calls[i] == maker) at = i;
        if (i != store && uses(layout->calls[i], maker)) return -1;
    }
    return at;
}

void hk_store_early(struct hk_layout *layout) {
    for (int i = 0; i < layout->n_calls; i++) {
        if (!(layout->calls[i]->op->flags & HK_OP_STORE)) continue;
        const int feeder = find_feeder(layout, i);
        int to = earliest_place(layout, i, feeder < 0 ? NULL : layout->calls[feeder]);
        if (feeder >= 0 && to <= feeder) {
            to = HK_MAX(to, earliest_place(layout, feeder, NULL));
            move_call(layout, feeder, to++);
        }
        move_call(layout, i, to);
    }
}
