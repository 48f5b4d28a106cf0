/* Losses that are made of other ops. */
#ifndef HK_ISA_NAME
#include "op/op.h"

static struct hk_graph *check_pair(const char *op, struct hk_value *x, struct hk_value *target) {
    struct hk_graph *graph = hk_graph_of((struct hk_value *[]){x, target}, 2);
    if (!graph) return NULL;
    if (x->dtype != HK_F32 || target->dtype != HK_F32) {
        hk_graph_fail(graph, HK_ERROR_INVALID, "%s: x and target must be f32, they are %s and %s", op, hk_dtype_name(x->dtype),
                      hk_dtype_name(target->dtype));
        return NULL;
    }
    if (hk_same_shape(x, target)) return graph;
    hk_graph_fail(graph, HK_ERROR_INVALID, "%s: shapes differ: x is %s, target is %s", op, hk_shape_text(x),
                  hk_shape_text(target));
    return NULL;
}

struct hk_value *hk_mse_loss(struct hk_value *x, struct hk_value *target) {
    if (!check_pair("mse_loss", x, target)) return NULL;
    return hk_mean(hk_square(hk_sub(x, target)), HK_ALL_AXES, false);
}

/* -target log(sigmoid(x)) - (1 - target) log(1 - sigmoid(x)) = max(x, 0) - x target + log(1 + exp(-|x|)): no large exp, and
   nothing cancels. (maximum shares its gradient at 0, where abs has none: together they give sigmoid(0) there.) */
struct hk_value *hk_bce_with_logits(struct hk_value *x, struct hk_value *target) {
    struct hk_graph *graph = check_pair("bce_with_logits", x, target);
    if (!graph) return NULL;
    struct hk_value *linear = hk_sub(hk_maximum(x, hk_fill(graph, HK_F32, HK_SCALAR, 0)), hk_mul(x, target));
    return hk_mean(hk_add(linear, hk_softplus(hk_neg(hk_abs(x)))), HK_ALL_AXES, false);
}

#endif
