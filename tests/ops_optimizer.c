/* Optimizer steps and the global norm write or read tensors, not values: test_optimizer.c runs them, several steps against a
   double-precision reference, and what they refuse. */
#include "cases.h"

const struct hk_case_set hk_cases_global_norm = {NULL, 0, NULL, 0};
const struct hk_case_set hk_cases_sgd = {NULL, 0, NULL, 0};
const struct hk_case_set hk_cases_momentum = {NULL, 0, NULL, 0};
const struct hk_case_set hk_cases_adam = {NULL, 0, NULL, 0};
const struct hk_case_set hk_cases_loss_scale = {NULL, 0, NULL, 0};
