/* The lab: what drivers make of every shader, and whether the whole library works on them, without their GPUs. */
#ifndef HK_LAB_H
#define HK_LAB_H

#include "vulkan/device.h"
#include <cjson/cJSON.h>
#include <hekla/hekla.h>
#include <stdio.h>

/* What is told of a pipeline: enum vk_statistic, and the share of multiply-adds in its hot loop (loop.h). */
enum { LAB_LOOP = VK_STATISTICS, LAB_NUMBERS };
const char *lab_number_name(int number);

/* One pipeline as a device has it. */
struct lab_pipeline {
    const struct vk_shader *shader;
    uint32_t spec[HK_MAX_SPEC];
    int n_spec, n_bindings;
    uint32_t subgroup_size; /* 0: any */
    double number[LAB_NUMBERS]; /* negative: not known */
};

/* Training steps of a model on a device; per step, but for barriers: of the program. */
struct lab_drive {
    const char *model;
    double submits, dispatches;
    int barriers;
    double host_us; /* processor time of all threads */
};

/* What was found on one device. */
struct lab {
    const char *label; /* "navi31" */
    struct hk_device_info info;
    struct hk_limits limits;
    struct vk_physical physical;
    struct lab_pipeline *pipelines; /* sorted by shader */
    int n_pipelines, capacity;
    struct lab_drive drives[4];
    int n_drives;
    int failures;
};

/* Prints and counts. */
void lab_fail(struct lab *lab, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The spec as text: "256,64,1,0"; valid until the next call. */
const char *lab_spec(const struct lab_pipeline *p);

/* The Vulkan device, with statistics and without caches; NULL: hk_error_message(). */
struct hk_device *lab_open(bool validate);

/* compile.c: fills pipelines with all that programs of every kind need on the device; false where it cannot be opened. */
bool lab_compile(struct lab *lab);
/* The share of the hot loop (loop.h). */
double lab_read_loop(struct vk_device *device, VkPipeline pipeline);
/* The driver's own names, of the pipelines of one program. */
void lab_print_names(void);

/* choices.c: what the device's compiler says of all kernels that there are for large products and attention; an exit status. */
int lab_print_choices(const char *label);

/* check.c: no pipeline spills, uses scratch, takes too much shared memory or leaves the device idle; none is missing. */
void lab_check(struct lab *lab);
enum { LAB_COOPERATIVE_MATRIX = 6022 }; /* the capability CooperativeMatrixKHR */
bool lab_declares(const struct vk_shader *shader, uint32_t capability);

/* matrices.c */
void lab_check_matrices(struct lab *lab);

/* drive.c: trains and generates under validation; measures the host's time per step. */
void lab_drive(struct lab *lab);

/* result.c */
bool lab_write(const struct lab *lab, const char *path);

/* report.c: OLD.json NEW.json... REPORT.md REPORT.json; an exit status. */
int lab_report(int argc, char **argv);

#endif
