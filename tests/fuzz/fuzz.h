/* What a fuzzer of tests/fuzz is: one function over bytes, which is run by libFuzzer (entry.c, Clang) and, on the files
   of corpus/NAME and on seeded mutations of them, by a plain program (corpus.c). */
#ifndef HK_TESTS_FUZZ_H
#define HK_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses the bytes and traps where what must hold does not. Whether they were accepted. */
bool fuzz_one(const uint8_t *data, size_t bytes);

/* Ends the process so that libFuzzer and the sanitizers show where. */
#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) __builtin_trap();                                                                            \
    } while (0)

#endif
