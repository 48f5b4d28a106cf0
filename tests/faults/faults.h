/* Failing one call: the n-th that the library makes of a kind, so that a test can try every n. Programs named test_faults*
   are linked so that the library's calls come here first (--wrap in CMakeLists.txt); what drivers and the C library call
   among themselves is not touched. */
#ifndef HK_TESTS_FAULTS_H
#define HK_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_MEMORY, /* malloc and its like, mmap, and cJSON's */
    FAULT_ARENA,  /* hk_arena_alloc, hk_arena_copy, hk_grow: most of them need no new memory, and never fail by malloc */
    FAULT_THREAD, /* pthread_create */
    FAULT_VULKAN  /* every call that returns a VkResult, the loader's included */
};

struct fault_report {
    long calls;        /* of the kind, since it was armed */
    bool fired;        /* one of them failed: */
    const char *what;  /* "calloc", "vkCreateBuffer" */
    int result;        /* the VkResult that it gave */
    int variants;      /* how many there are to choose from */
    void *stack[48];   /* return addresses, the innermost first */
    int depth;
};

/* Lets cJSON allocate by way of here. Before anything else. */
void faults_install(void);
/* From now on the n-th call of the kind fails (0: none, they are only counted), a Vulkan call with the variant-th of the
   results that the specification allows it. One kind at a time. */
void fault_arm(enum fault_kind kind, long n, int variant);
/* Valid until the next fault_arm. */
const struct fault_report *fault_disarm(void);

/* What was made through here and is there still. */
long fault_live_allocations(void);
long fault_live_vulkan(void); /* devices, buffers, pipelines, ... */
long fault_live_files(void);  /* open file descriptors of the process */

/* From now on all Vulkan devices, of which one is open at a time, are one device of the driver underneath, which compiles
   each pipeline once: a job is then 30 times faster. False: ends that. */
void fault_vulkan_keep(bool keep);

/* The function of this program that an address is in, from the program's own symbols; "?" where it is another's. */
const char *fault_function(const void *address);
/* Whether the call that failed was made, at whatever distance, by that function. */
bool fault_called_by(const struct fault_report *report, const char *function);
/* "calloc in make_sets < vk_descriptors_make < ..." */
void fault_describe(const struct fault_report *report, char *text, size_t bytes);

/* For what stands between the library and the system: counts a call, and says whether it must fail. variant may be NULL. */
bool fault_hits(enum fault_kind kind, const char *what, int *variant);
void fault_result(int result, int variants); /* with which, for the report */

#endif
