/* GLSL that is written at compile time of a program. */
#ifndef HK_ISA_NAME
#include "op/written.h"
#include <stdio.h>
#include <string.h>

void hk_write(struct hk_written *written, const char *format, ...) {
    const size_t room = sizeof written->text - HK_MIN(written->length, sizeof written->text);
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(written->text + sizeof written->text - room, room, format, args);
    va_end(args);
    written->length += n > 0 ? (size_t)n : 0;
}

void hk_write_number(struct hk_written *written, float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (bits == 0 || written->first_constant + written->n_constants == HK_MAX_SPEC) {
        hk_write(written, "uintBitsToFloat(0x%08xu)", bits);
        return;
    }
    hk_write(written, "number%d", written->n_constants);
    written->constants[written->n_constants++] = bits;
}
#endif
