/* Random changes to a file's bytes that leave enough of its structure to reach what lies behind the first check. */
#ifndef HK_TESTS_MUTATE_H
#define HK_TESTS_MUTATE_H

#include <stddef.h>
#include <stdint.h>

enum { MUTATION_GROWTH = 4096 }; /* the most bytes that one mutation adds */

/* Changes data [bytes] in place, in memory of at least bytes + MUTATION_GROWTH: flips bits, cuts, repeats, changes
   numbers, sets in words of JSON or a part of other. The new size. state is of test_random. */
size_t mutate(uint8_t *data, size_t bytes, const uint8_t *other, size_t other_bytes, uint64_t *state);

/* The same for a safetensors file: now and then only its header, whose size stays true. */
size_t mutate_safetensors(uint8_t *data, size_t bytes, const uint8_t *other, size_t other_bytes, uint64_t *state);

#endif
