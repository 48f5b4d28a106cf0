/* Random graphs, and the oracles that programs are held against. They share no code with the planner or the barriers:

   - oracle_numbers.c computes a graph of whole numbers in the order in which it was described, every value in memory of
     its own;
   - oracle_memory.c follows each byte of a program's steps: what a step reads must be what the graph says it reads;
   - oracle_steps.c runs a program's steps one at a time: what each reads and writes is what it declares. */
#ifndef HK_TESTS_ORACLE_H
#define HK_TESTS_ORACLE_H

#include "graph/plan.h"
#include "op/op.h"
#include "support.h"

/* ---- Numbers ---- */

/* What a graph computes, followed as it grows. Whole numbers (and halves of them) are exact in any order of summation and
   on any device as long as they are small; where one is not, or an op is not known here, the graph is `lost`: nothing is
   said about it, and why says what it was. */
struct numbers;

struct numbers *numbers_create(struct hk_graph *graph);
void numbers_destroy(struct numbers *numbers);
/* What a storage holds before the program runs: numbers of elements, f32 or i32. Before the first value that sees it. */
void numbers_set(struct numbers *numbers, const struct hk_storage *storage, const double *data, int64_t count);
/* Computes what was added to the graph since. */
void numbers_follow(struct numbers *numbers);
bool numbers_lost(const struct numbers *numbers, const char **why);
/* The value as it is at this place in the program, row-major; the caller frees. */
double *numbers_of(const struct numbers *numbers, const struct hk_value *value);
/* What the storage holds now. */
const double *numbers_held(const struct numbers *numbers, const struct hk_storage *storage);

/* ---- Graphs ---- */

enum { WORLD_STORAGES = 5, WORLD_VALUES = 160, WORLD_VIEWS = 200 };

struct world {
    struct hk_device *device;
    struct hk_graph *graph;
    uint64_t seed, random;
    bool exact;        /* whole numbers, followed by `numbers`; else any op */
    int64_t d0, d1;    /* the two sizes that most dimensions have */
    struct hk_tensor *storages[WORLD_STORAGES]; /* flat; the last one is i32 */
    void *initial[WORLD_STORAGES];              /* their content before a run */
    struct hk_tensor *position, *rng, *hyper;
    struct hk_tensor *views[WORLD_VIEWS]; /* of the storages, at places that overlap: kept until the end */
    int n_views;
    struct hk_value *values[WORLD_VALUES];
    int n_values;
    int stores, gradients, checkpoints, updates, caches; /* how many of them the graph has */
    struct numbers *numbers;
};

/* Describes a graph of about `steps` ops on the device. False where it is of no use: its numbers are lost, or a gradient
   was asked for that is refused. Destroy it in any case. */
bool world_create(struct world *world, struct hk_device *device, uint64_t seed, bool exact, int steps);
void world_destroy(struct world *world);
/* Sets all tensors to what they hold before a run. */
void world_reset(struct world *world);
const char *world_name(const struct world *world); /* "seed 12, exact, on cpu"; valid until the next call */

/* ---- Steps ---- */

/* The steps that a backend is given for a program, copied. */
struct steps {
    struct hk_step *items;
    struct hk_operand *operands;
    int count;
    struct hk_buffer *buffers[HK_MAX_BLOCKS + 64]; /* all that they use */
    int n_buffers;
};
void steps_free(struct steps *steps);

/* Stands before a device's backend and keeps the steps of the program that is compiled next. */
struct spy;
struct spy *spy_create(struct hk_device *device);
void spy_destroy(struct spy *spy); /* before the device */
/* Compiles, keeping the steps. */
struct hk_program *spy_compile(struct spy *spy, struct hk_graph *graph, struct steps *steps);
/* The plans that other code had compiled since, oldest first: `keep` is called for each from within program_create. */
void spy_watch(struct spy *spy, void (*keep)(void *context, const struct hk_plan *plan), void *context);

/* Runs each op of the graph by itself, in the order in which they were described, each value in memory of its own, no
   memory used twice, and waits after each. The tensors then hold what the graph says. */
hk_status run_alone(struct hk_device *device, const struct hk_graph *graph);

/* Fills all of the arena (what is no tensor's) with the word. */
void poison_arena(struct hk_device *device, const struct hk_graph *graph, const struct steps *steps, uint32_t word);

/* Runs the steps one at a time, each twice: it writes nothing but its outputs, scratch and the tensors that it says it
   writes, and what it writes does not depend on what it does not say it reads. False with a message. */
bool check_footprints(struct hk_device *device, const struct steps *steps, char *message, size_t bytes);

/* ---- Memory ---- */

/* Follows each byte through the steps. False with a message. */
bool check_memory(const struct hk_graph *graph, const struct hk_layout *layout, const struct steps *steps, char *message,
                  size_t bytes);

/* Elements of an operand's memory one by one: byte offset of element i in row-major order. */
int64_t operand_elements(const struct hk_operand *operand);
uint64_t operand_byte(const struct hk_operand *operand, int64_t i);

#endif
