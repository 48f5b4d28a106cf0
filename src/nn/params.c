/* Parameter sets: declared by name, then laid out in slabs, so that an optimizer step is one op over each slab. */
#include "base/base.h" /* hk_fail, hk_grow, hk_hash, hk_philox: all that src/nn takes from inside the library */
#include <hekla/nn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_BYTES = 128,
    ALIGN = 16,      /* elements: tensors in a slab begin at multiples of 64 bytes */
    CHUNK = 1 << 20, /* elements made on the host at once */
    DRAWS = 4        /* numbers from one Philox block */
};

struct parameter {
    char name[NAME_BYTES];
    struct hk_shape shape;
    struct hk_init init;
    int64_t elements;
    int slab;
    int64_t first; /* element in the slab */
    struct hk_tensor *tensor, *gradient;
};

struct slab {
    int64_t elements, decayed;
    struct hk_tensor *values, *gradients;
};

struct hk_params {
    struct hk_device *device;
    struct parameter *items;
    int count, capacity;
    struct slab *slabs;
    int n_slabs, slabs_capacity;
    bool allocated;
    hk_status status;   /* of the first call that failed: the set stays wrong ... */
    char message[1024]; /* ... and says why */
};

struct hk_params *hk_params_create(struct hk_device *device) {
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_params_create: the device is NULL"), NULL;
    struct hk_params *params = calloc(1, sizeof *params);
    if (!params) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
    params->device = device;
    return params;
}

static void release_tensors(struct hk_params *params) {
    for (int i = 0; i < params->count; i++) {
        hk_tensor_destroy(&params->items[i].tensor);
        hk_tensor_destroy(&params->items[i].gradient);
    }
    for (int i = 0; i < params->n_slabs; i++) {
        hk_tensor_destroy(&params->slabs[i].values);
        hk_tensor_destroy(&params->slabs[i].gradients);
    }
    params->n_slabs = 0;
    params->allocated = false;
}

void hk_params_destroy(struct hk_params **params) {
    if (!params || !*params) return;
    release_tensors(*params);
    free((*params)->items);
    free((*params)->slabs);
    free(*params);
    *params = NULL;
}

/* Keeps the calling thread's message as the set's, if it is the first. */
static hk_status stay_wrong(struct hk_params *params, hk_status status) {
    if (status && !params->status) {
        params->status = status;
        memcpy(params->message, hk_error_message(), strnlen(hk_error_message(), sizeof params->message - 1));
    }
    return status;
}

hk_status hk_params_status(const struct hk_params *params) {
    if (!params) return hk_fail(HK_ERROR_INVALID, "the parameter set is NULL");
    return params->status ? hk_fail(params->status, "%s", params->message) : HK_OK;
}

/* ---- Declaring ---- */

/* -1 where it is no shape or has too many elements to count. */
static int64_t shape_elements(struct hk_shape shape) {
    int64_t n = 1;
    if (shape.rank < 0 || shape.rank > HK_MAX_RANK) return -1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.size[i] < 0) return -1;
        if (shape.size[i] && n > INT64_MAX / 64 / shape.size[i]) return -1;
        n *= shape.size[i];
    }
    return n;
}

static hk_status declare(struct hk_params *params, const char *name, struct hk_shape shape, struct hk_init init) {
    if (params->allocated) return hk_fail(HK_ERROR_INVALID, "parameter %s: the set is allocated already", name);
    if (!*name || strlen(name) >= NAME_BYTES)
        return hk_fail(HK_ERROR_INVALID, "parameter \"%.40s\": a name has 1 to %d bytes", name, NAME_BYTES - 1);
    if (hk_params_find(params, name) >= 0) return hk_fail(HK_ERROR_INVALID, "parameter %s is declared twice", name);
    const int64_t elements = shape_elements(shape);
    if (elements < 0) return hk_fail(HK_ERROR_INVALID, "parameter %s: the shape is none, or too large", name);
    if ((unsigned)init.kind > HK_INIT_UNIFORM) return hk_fail(HK_ERROR_INVALID, "parameter %s: no such init", name);
    if (!hk_grow(&params->items, &params->capacity, params->count + 1, sizeof *params->items))
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    struct parameter *p = &params->items[params->count++];
    *p = (struct parameter){.shape = shape, .init = init, .elements = elements};
    memcpy(p->name, name, strlen(name));
    return HK_OK;
}

hk_status hk_params_declare(struct hk_params *params, const char *name, struct hk_shape shape, struct hk_init init) {
    if (hk_params_status(params)) return hk_error_status();
    if (!name) return stay_wrong(params, hk_fail(HK_ERROR_INVALID, "hk_params_declare: the name is NULL"));
    return stay_wrong(params, declare(params, name, shape, init));
}

/* ---- Laying out ---- */

static bool decays(const struct parameter *p) { return p->shape.rank >= 2; }

/* Puts the parameters of one kind behind what the last slab holds, or into a new one where they do not fit. */
static hk_status lay_out(struct hk_params *params, bool decayed, int64_t most) {
    for (int i = 0; i < params->count; i++) {
        struct parameter *p = &params->items[i];
        const int64_t padded = (p->elements + ALIGN - 1) / ALIGN * ALIGN;
        if (decays(p) != decayed) continue;
        if (padded > most)
            return hk_fail(HK_ERROR_UNSUPPORTED,
                           "parameter %s needs %lld bytes, but the device's largest buffer has %lld", p->name,
                           (long long)padded * 4, (long long)most * 4);
        if (!params->n_slabs || padded > most - params->slabs[params->n_slabs - 1].elements) {
            if (!hk_grow(&params->slabs, &params->slabs_capacity, params->n_slabs + 1, sizeof *params->slabs))
                return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
            params->slabs[params->n_slabs++] = (struct slab){0};
        }
        struct slab *slab = &params->slabs[params->n_slabs - 1];
        p->slab = params->n_slabs - 1;
        p->first = slab->elements;
        slab->elements += padded;
        if (decayed) slab->decayed = slab->elements;
    }
    return HK_OK;
}

static hk_status create_tensors(struct hk_params *params) {
    for (int i = 0; i < params->n_slabs; i++) {
        struct slab *slab = &params->slabs[i];
        slab->values = hk_tensor_create(params->device, HK_F32, HK_SHAPE(slab->elements));
        slab->gradients = slab->values ? hk_tensor_create(params->device, HK_F32, HK_SHAPE(slab->elements)) : NULL;
        if (!slab->gradients) return hk_error_status();
    }
    for (int i = 0; i < params->count; i++) {
        struct parameter *p = &params->items[i];
        p->tensor = hk_tensor_view(params->slabs[p->slab].values, p->first, p->shape);
        p->gradient = hk_tensor_view(params->slabs[p->slab].gradients, p->first, p->shape);
        if (!p->tensor || !p->gradient) return hk_error_status();
    }
    return HK_OK;
}

/* ---- Initial values: from the seed, the name and the element's number alone, so that neither the order of declaration
   nor the device changes them ---- */

/* Two normal numbers from 64 random bits (Box and Muller, 1958). */
static void normal_pair(const uint32_t bits[2], double deviation, float out[2]) {
    const double pi = 3.14159265358979323846;
    const double radius = deviation * sqrt(-2 * log(((double)bits[0] + 0.5) * 0x1p-32));
    const double angle = 2 * pi * (double)bits[1] * 0x1p-32;
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

static void draw_block(const struct hk_init *init, const uint32_t counter[4], const uint32_t key[2], float out[DRAWS]) {
    uint32_t bits[4];
    hk_philox(counter, key, bits);
    for (int i = 0; i < DRAWS; i += 2) {
        if (init->kind == HK_INIT_NORMAL) {
            normal_pair(bits + i, (double)init->scale, out + i);
        } else {
            out[i] = init->scale * (2 * hk_unit_float(bits[i]) - 1);
            out[i + 1] = init->scale * (2 * hk_unit_float(bits[i + 1]) - 1);
        }
    }
}

/* Elements first .. first + count, where first is a multiple of DRAWS; out has room for a multiple of it. */
static void make_values(const struct parameter *p, uint64_t seed, int64_t first, int64_t count, float *out) {
    const uint64_t name = hk_hash(p->name, strlen(p->name), 0);
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    if (p->init.kind == HK_INIT_ONE) {
        for (int64_t i = 0; i < count; i++) out[i] = 1;
        return;
    }
    for (int64_t i = 0; i < count; i += DRAWS) {
        const uint64_t block = (uint64_t)(first + i) / DRAWS;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)name, (uint32_t)(name >> 32), (uint32_t)(block >> 32)};
        draw_block(&p->init, counter, key, out + i);
    }
}

static hk_status initialize(const struct parameter *p, uint64_t seed, float *chunk) {
    if (p->init.kind == HK_INIT_ZERO) return HK_OK; /* as tensors are made */
    for (int64_t first = 0; first < p->elements; first += CHUNK) {
        const int64_t count = HK_MIN(CHUNK, p->elements - first);
        struct hk_tensor *part = hk_tensor_view(p->tensor, first, HK_SHAPE(count));
        if (!part) return hk_error_status();
        make_values(p, seed, first, count, chunk);
        const hk_status status = hk_tensor_write(part, chunk, (size_t)count * sizeof *chunk);
        hk_tensor_destroy(&part);
        if (status) return status;
    }
    return HK_OK;
}

static hk_status allocate(struct hk_params *params, uint64_t seed) {
    if (params->allocated) return hk_fail(HK_ERROR_INVALID, "hk_params_allocate: the set is allocated already");
    const uint64_t largest = HK_MIN(hk_device_get_info(params->device)->max_buffer, (uint64_t)INT64_MAX);
    const int64_t most = largest ? (int64_t)(largest / sizeof(float)) / ALIGN * ALIGN : INT64_MAX / 64;
    float *chunk = malloc(CHUNK * sizeof *chunk);
    hk_status status = chunk ? HK_OK : hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
    if (!status) status = lay_out(params, true, most);
    if (!status) status = lay_out(params, false, most);
    if (!status) status = create_tensors(params);
    for (int i = 0; !status && i < params->count; i++) status = initialize(&params->items[i], seed, chunk);
    free(chunk);
    params->allocated = !status;
    return status;
}

hk_status hk_params_allocate(struct hk_params *params, uint64_t seed) {
    if (hk_params_status(params)) return hk_error_status();
    const hk_status status = stay_wrong(params, allocate(params, seed));
    if (status && !params->allocated) release_tensors(params);
    return status;
}

/* ---- Asking ---- */

int hk_params_count(const struct hk_params *params) { return params->count; }

int64_t hk_params_elements(const struct hk_params *params) {
    int64_t n = 0;
    for (int i = 0; i < params->count; i++) n += params->items[i].elements;
    return n;
}

const char *hk_params_name(const struct hk_params *params, int i) { return params->items[i].name; }

int hk_params_find(const struct hk_params *params, const char *name) {
    for (int i = 0; i < params->count; i++)
        if (!strcmp(params->items[i].name, name)) return i;
    return -1;
}

struct hk_tensor *hk_params_tensor(struct hk_params *params, int i) {
    return params->items[i].tensor;
}
struct hk_tensor *hk_params_gradient(struct hk_params *params, int i) {
    return params->items[i].gradient;
}

struct hk_value *hk_params_use(struct hk_params *params, struct hk_graph *graph, const char *name) {
    if (hk_params_status(params)) return hk_graph_refuse(graph, hk_error_status(), hk_error_message());
    const int i = hk_params_find(params, name);
    if (i < 0) hk_fail(HK_ERROR_INVALID, "there is no parameter %s", name);
    else if (!params->allocated)
        hk_fail(HK_ERROR_INVALID, "parameter %s: call hk_params_allocate before using it", name);
    else return hk_leaf(graph, params->items[i].tensor);
    return hk_graph_refuse(graph, HK_ERROR_INVALID, hk_error_message());
}

struct hk_device *hk_params_device(const struct hk_params *params) {
    return params->device;
}
int hk_params_slab_count(const struct hk_params *params) { return params->n_slabs; }
struct hk_tensor *hk_params_slab(struct hk_params *params, int slab) {
    return params->slabs[slab].values;
}
struct hk_tensor *hk_params_gradient_slab(struct hk_params *params, int slab) {
    return params->slabs[slab].gradients;
}
int64_t hk_params_slab_decayed(const struct hk_params *params, int slab) { return params->slabs[slab].decayed; }

int hk_params_place(const struct hk_params *params, int i, int64_t *first_element) {
    *first_element = params->items[i].first;
    return params->items[i].slab;
}
