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
    DRAWS = 4,       /* numbers from one Philox block */
    BLOCKS = 64      /* made at once */
};

struct parameter {
    char name[NAME_BYTES];
    struct hk_shape shape;
    struct hk_init init;
    int64_t elements;
    int slab;
    int64_t first; /* element in the slab */
    struct hk_tensor *tensor, *gradient, *narrow; /* narrow: in the set's precision; NULL where that is f32 */
};

struct slab {
    int64_t elements, decayed;
    struct hk_tensor *values, *gradients, *narrow;
};

struct hk_params {
    struct hk_device *device;
    struct parameter *items;
    int count, capacity;
    struct slab *slabs;
    int n_slabs, slabs_capacity;
    bool allocated;
    enum hk_dtype precision;
    struct hk_program *refresh; /* narrow = values, of all slabs */
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
        hk_tensor_destroy(&params->items[i].narrow);
    }
    for (int i = 0; i < params->n_slabs; i++) {
        hk_tensor_destroy(&params->slabs[i].values);
        hk_tensor_destroy(&params->slabs[i].gradients);
        hk_tensor_destroy(&params->slabs[i].narrow);
    }
    hk_program_destroy(&params->refresh);
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

/* bits[lane][i] is lane `lane` of the Philox block with the counter (first + i, low and high name, first + i >> 32):
   what hk_philox makes, BLOCKS at once in loops that compilers turn into vectors. */
static void philox_blocks(uint64_t first, uint64_t name, uint64_t seed, uint32_t bits[DRAWS][BLOCKS]) {
    uint32_t *c0 = bits[0], *c1 = bits[1], *c2 = bits[2], *c3 = bits[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        c0[i] = (uint32_t)(first + i), c3[i] = (uint32_t)((first + i) >> 32);
        c1[i] = (uint32_t)name, c2[i] = (uint32_t)(name >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            const uint64_t a = (uint64_t)0xD2511F53u * c0[i], b = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(b >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(a >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)b;
            c3[i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Natural logarithm of a normal x > 0 to 1e-7 or so: x = 2^k (1 + f) with 1 + f near 1, and a polynomial (Cephes). */
static inline float log_of(float x) {
    const uint32_t root_half = 0x3f3504f3u, shifted = bits_of(x) + (0x3f800000u - root_half);
    const float k = (float)((int32_t)(shifted >> 23) - 127), f = float_of((shifted & 0x7fffffu) + root_half) - 1;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return p * f * f * f - 0.5f * f * f + f + k * 0.693147181f;
}

/* Pairs of normal numbers of deviation 1 from pairs of random words (Box and Muller, 1958): a radius by the first, an
   angle by the second, whose upper bits are the quarter of the turn that it is nearest to. Polynomials: Cephes. */
static void normal_pairs(const uint32_t *words1, const uint32_t *words2, float *out1, float *out2) {
    for (int i = 0; i < BLOCKS; i++) {
        const float radius = sqrtf(-2 * log_of(((float)(int32_t)(words1[i] >> 1) + 0.5f) * 0x1p-31f));
        const uint32_t quarter = (words2[i] + (1u << 29)) >> 30, swap = 0 - (quarter & 1);
        const float t = (float)(int32_t)(words2[i] - (quarter << 30)) * 1.46291808e-9f; /* 2 pi / 2^32 */
        const float z = t * t;
        const uint32_t s = bits_of(((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * t + t);
        const uint32_t c = bits_of(((2.4433157118e-5f * z - 1.3887316255e-3f) * z + 4.1666645683e-2f) * z * z -
                                   0.5f * z + 1);
        out1[i] = radius * float_of(((c & ~swap) | (s & swap)) ^ ((quarter + 1) & 2) << 30);
        out2[i] = radius * float_of(((s & ~swap) | (c & swap)) ^ (quarter & 2) << 30);
    }
}

/* Numbers of deviation 1, or uniform in [-1, 1). */
static void make_numbers(enum hk_init_kind kind, uint32_t bits[DRAWS][BLOCKS], float numbers[DRAWS][BLOCKS]) {
    if (kind == HK_INIT_NORMAL) {
        for (int lane = 0; lane < DRAWS; lane += 2)
            normal_pairs(bits[lane], bits[lane + 1], numbers[lane], numbers[lane + 1]);
        return;
    }
    for (int lane = 0; lane < DRAWS; lane++)
        for (int i = 0; i < BLOCKS; i++) numbers[lane][i] = 2 * hk_unit_float(bits[lane][i]) - 1;
}

/* Elements first .. first + count, where first is a multiple of DRAWS. */
static void make_values(const struct parameter *p, uint64_t seed, int64_t first, int64_t count, float *out) {
    const uint64_t name = hk_hash(p->name, strlen(p->name), 0);
    if (p->init.kind == HK_INIT_ONE) {
        for (int64_t i = 0; i < count; i++) out[i] = 1;
        return;
    }
    for (int64_t done = 0; done < count; done += BLOCKS * DRAWS) {
        uint32_t bits[DRAWS][BLOCKS];
        float numbers[DRAWS][BLOCKS], values[BLOCKS * DRAWS];
        philox_blocks((uint64_t)(first + done) / DRAWS, name, seed, bits);
        make_numbers(p->init.kind, bits, numbers);
        for (int i = 0; i < BLOCKS; i++)
            for (int lane = 0; lane < DRAWS; lane++) values[i * DRAWS + lane] = p->init.scale * numbers[lane][i];
        memcpy(out + done, values, (size_t)HK_MIN(BLOCKS * DRAWS, count - done) * sizeof *out);
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

/* ---- 16-bit copies ---- */

hk_status hk_params_refresh_in(struct hk_params *params, struct hk_graph *graph) {
    if (hk_params_status(params)) hk_graph_refuse(graph, hk_error_status(), hk_error_message());
    else if (params->precision != HK_F32)
        for (int i = 0; i < params->n_slabs; i++)
            hk_store(params->slabs[i].narrow, hk_cast(hk_leaf(graph, params->slabs[i].values), params->precision));
    return hk_graph_status(graph);
}

hk_status hk_params_refresh(struct hk_params *params) {
    if (hk_params_status(params)) return hk_error_status();
    return params->refresh ? hk_program_run(params->refresh) : HK_OK;
}

static hk_status make_narrow(struct hk_params *params, enum hk_dtype dtype) {
    for (int i = 0; i < params->n_slabs; i++) {
        struct slab *slab = &params->slabs[i];
        slab->narrow = hk_tensor_create(params->device, dtype, HK_SHAPE(slab->elements));
        if (!slab->narrow) return hk_error_status();
    }
    for (int i = 0; i < params->count; i++) {
        struct parameter *p = &params->items[i];
        p->narrow = hk_tensor_view(params->slabs[p->slab].narrow, p->first, p->shape);
        if (!p->narrow) return hk_error_status();
    }
    return HK_OK;
}

static hk_status compile_refresh(struct hk_params *params) {
    struct hk_graph *graph = hk_graph_create();
    if (!graph) return hk_error_status();
    hk_params_refresh_in(params, graph);
    params->refresh = hk_compile(params->device, graph, &(struct hk_compile_params){.name = "rounding parameters"});
    hk_graph_destroy(&graph);
    return params->refresh ? HK_OK : hk_error_status();
}

static hk_status set_precision(struct hk_params *params, enum hk_dtype dtype) {
    if (dtype != HK_F32 && dtype != HK_F16 && dtype != HK_BF16)
        return hk_fail(HK_ERROR_INVALID, "precision must be f32, bf16 or f16, not %s", hk_dtype_name(dtype));
    if (params->precision == dtype) return HK_OK;
    if (params->precision != HK_F32)
        return hk_fail(HK_ERROR_INVALID, "the parameters' precision is %s already, and cannot become %s",
                       hk_dtype_name(params->precision), hk_dtype_name(dtype));
    if (!params->allocated) return hk_fail(HK_ERROR_INVALID, "call hk_params_allocate before hk_params_set_precision");
    hk_status status = make_narrow(params, dtype);
    if (status) return status;
    params->precision = dtype;
    if (params->n_slabs) status = compile_refresh(params);
    return status ? status : hk_params_refresh(params);
}

hk_status hk_params_set_precision(struct hk_params *params, enum hk_dtype dtype) {
    if (hk_params_status(params)) return hk_error_status();
    return stay_wrong(params, set_precision(params, dtype));
}

struct hk_tensor *hk_params_copy_slab(struct hk_params *params, int slab) {
    return params->slabs[slab].narrow;
}

enum hk_dtype hk_params_precision(const struct hk_params *params) { return params ? params->precision : HK_F32; }

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

struct hk_value *hk_params_use_factor(struct hk_params *params, struct hk_graph *graph, const char *name) {
    struct hk_value *value = hk_params_use(params, graph, name);
    struct hk_tensor *narrow = value ? params->items[hk_params_find(params, name)].narrow : NULL;
    return narrow ? hk_straight_through(value, hk_leaf(graph, narrow)) : value;
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
