/* Tensors, their shared memory, and dtypes. */
#include "graph/graph.h"
#include <stdatomic.h>
#include <stdlib.h>

static const struct hk_backend *backend_of(const struct hk_device *device) {
    return ((const struct hk_device_base *)device)->backend;
}

size_t hk_dtype_size(enum hk_dtype dtype) {
    static const unsigned char sizes[HK_DTYPE_COUNT] = {[HK_F32] = 4, [HK_F16] = 2, [HK_BF16] = 2,
                                                       [HK_I32] = 4, [HK_U8] = 1,  [HK_I8] = 1};
    return (unsigned)dtype < HK_DTYPE_COUNT ? sizes[dtype] : 0;
}

const char *hk_dtype_name(enum hk_dtype dtype) {
    static const char *const names[HK_DTYPE_COUNT] = {
        [HK_F32] = "f32", [HK_F16] = "f16", [HK_BF16] = "bf16", [HK_I32] = "i32", [HK_U8] = "u8", [HK_I8] = "i8"};
    return (unsigned)dtype < HK_DTYPE_COUNT ? names[dtype] : "unknown dtype";
}

struct hk_storage *hk_storage_retain(struct hk_storage *storage) {
    atomic_fetch_add(&storage->references, 1);
    return storage;
}

void hk_storage_release(struct hk_storage *storage) {
    if (!storage || atomic_fetch_sub(&storage->references, 1) != 1) return;
    backend_of(storage->device)->buffer_destroy(storage->device, storage->buffer);
    free(storage);
}

/* Elements of a shape, or -1 where it is no shape or the bytes would not fit in 62 bits. */
static int64_t count_elements(struct hk_shape shape, size_t size) {
    int64_t n = 1;
    bool empty = false;
    if (shape.rank < 0 || shape.rank > HK_MAX_RANK) return -1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.size[i] < 0) return -1;
        if (shape.size[i] == 0) empty = true;
        else if (n > INT64_MAX / 2 / (int64_t)size / shape.size[i]) return -1;
        else n *= shape.size[i];
    }
    return empty ? 0 : n;
}

struct hk_tensor *hk_tensor_create(struct hk_device *device, enum hk_dtype dtype, struct hk_shape shape) {
    if (!device) return hk_fail(HK_ERROR_INVALID, "hk_tensor_create: the device is NULL"), NULL;
    const size_t size = hk_dtype_size(dtype);
    const int64_t n = size ? count_elements(shape, size) : -1;
    if (n < 0)
        return hk_fail(HK_ERROR_INVALID, "hk_tensor_create: the dtype (%d) or the shape (rank %d) is none, or too large", dtype,
                       shape.rank),
               NULL;
    struct hk_tensor *tensor = calloc(1, sizeof *tensor);
    struct hk_storage *storage = calloc(1, sizeof *storage);
    if (!tensor || !storage) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory");
        goto fail;
    }
    storage->device = device;
    storage->bytes = HK_MAX((uint64_t)n * size, 4u);
    storage->references = 1;
    const struct hk_device_base *base = (const struct hk_device_base *)device;
    struct hk_stats stats;
    base->backend->stats(device, &stats);
    if (base->memory_limit && stats.bytes + storage->bytes > base->memory_limit) {
        hk_fail(HK_ERROR_OUT_OF_MEMORY, "a tensor needs %llu bytes, but of the limit of %llu only %llu are left",
                (unsigned long long)storage->bytes, (unsigned long long)base->memory_limit,
                (unsigned long long)(base->memory_limit - HK_MIN(stats.bytes, base->memory_limit)));
        goto fail;
    }
    if (base->backend->buffer_create(device, storage->bytes, &storage->buffer)) goto fail;
    tensor->storage = storage;
    tensor->dtype = dtype;
    tensor->shape = shape;
    return tensor;
fail:
    free(storage);
    free(tensor);
    return NULL;
}

struct hk_tensor *hk_tensor_view(struct hk_tensor *base, int64_t first_element, struct hk_shape shape) {
    if (!base) return hk_fail(HK_ERROR_INVALID, "hk_tensor_view: the tensor is NULL"), NULL;
    const int64_t size = (int64_t)hk_dtype_size(base->dtype), n = count_elements(shape, (size_t)size);
    const int64_t have = hk_tensor_elements(base);
    if (n < 0 || first_element < 0 || first_element > have || n > have - first_element)
        return hk_fail(HK_ERROR_INVALID, "hk_tensor_view: %lld elements from element %lld do not lie in a tensor of %lld",
                       (long long)n, (long long)first_element, (long long)have),
               NULL;
    if (first_element * size % 4)
        return hk_fail(HK_ERROR_INVALID, "hk_tensor_view: byte %lld is no multiple of 4", (long long)(first_element * size)), NULL;
    struct hk_tensor *view = calloc(1, sizeof *view);
    if (!view) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory"), NULL;
    *view = (struct hk_tensor){hk_storage_retain(base->storage), base->offset + (uint64_t)(first_element * size), base->dtype, shape};
    return view;
}

void hk_tensor_destroy(struct hk_tensor **tensor) {
    if (!tensor || !*tensor) return;
    hk_storage_release((*tensor)->storage);
    free(*tensor);
    *tensor = NULL;
}

struct hk_tensor *hk_tensor_from(struct hk_device *device, enum hk_dtype dtype, struct hk_shape shape, const void *data) {
    struct hk_tensor *tensor = hk_tensor_create(device, dtype, shape);
    if (tensor && hk_tensor_write(tensor, data, hk_tensor_bytes(tensor))) hk_tensor_destroy(&tensor);
    return tensor;
}

enum hk_dtype hk_tensor_dtype(const struct hk_tensor *tensor) { return tensor ? tensor->dtype : HK_F32; }
struct hk_shape hk_tensor_shape(const struct hk_tensor *tensor) { return tensor ? tensor->shape : HK_SCALAR; }
struct hk_device *hk_tensor_device(const struct hk_tensor *tensor) { return tensor ? tensor->storage->device : NULL; }

int64_t hk_tensor_elements(const struct hk_tensor *tensor) {
    int64_t n = 1;
    if (!tensor) return 0;
    for (int i = 0; i < tensor->shape.rank; i++) n *= tensor->shape.size[i];
    return n;
}

size_t hk_tensor_bytes(const struct hk_tensor *tensor) {
    return (size_t)hk_tensor_elements(tensor) * hk_dtype_size(hk_tensor_dtype(tensor));
}

static hk_status check_transfer(const char *name, const struct hk_tensor *tensor, const void *data, size_t bytes) {
    if (!tensor || (!data && bytes)) return hk_fail(HK_ERROR_INVALID, "%s: the tensor or the data is NULL", name);
    if (bytes == hk_tensor_bytes(tensor)) return HK_OK;
    return hk_fail(HK_ERROR_INVALID, "%s: %zu bytes given, but the tensor has %zu", name, bytes, hk_tensor_bytes(tensor));
}

hk_status hk_tensor_write(struct hk_tensor *tensor, const void *data, size_t bytes) {
    const hk_status status = check_transfer("hk_tensor_write", tensor, data, bytes);
    if (status || !bytes) return status;
    struct hk_storage *s = tensor->storage;
    return backend_of(s->device)->write(s->device, s->buffer, tensor->offset, data, bytes);
}

hk_status hk_tensor_read(struct hk_tensor *tensor, void *data, size_t bytes) {
    const hk_status status = check_transfer("hk_tensor_read", tensor, data, bytes);
    if (status || !bytes) return status;
    struct hk_storage *s = tensor->storage;
    return backend_of(s->device)->read(s->device, s->buffer, tensor->offset, data, bytes);
}
