/* GLSL that is written at compile time of a program: what an op adds to a kernel of several. */
#ifndef HK_OP_WRITTEN_H
#define HK_OP_WRITTEN_H

#include "op/op.h"

/* The statements of a kernel, and the numbers that it is specialized with: kernels that differ in those alone are one
 * text. */
struct hk_written {
    char text[12000];
    size_t length; /* as it would be: text is cut where it is longer than there is room */
    uint32_t constants[HK_MAX_SPEC];
    int n_constants, first_constant; /* the first one's constant_id */
};

void hk_write(struct hk_written *written, const char *format, ...) HK_PRINTF(2, 3);

/* An expression of the number: a specialization constant, or itself where it is 0 or there are too many. */
void hk_write_number(struct hk_written *written, float number);

#endif
