/* Tensors: typed, dense arrays in a device's memory. */
#ifndef HEKLA_TENSOR_H
#define HEKLA_TENSOR_H

#include <hekla/device.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HK_MAX_RANK 6

enum hk_dtype { HK_F32, HK_F16, HK_BF16, HK_I32, HK_U8, HK_I8, HK_DTYPE_COUNT };

HK_API size_t hk_dtype_size(enum hk_dtype dtype);      /* bytes of one element */
HK_API const char *hk_dtype_name(enum hk_dtype dtype); /* "f32", ... */

/* Sizes of each dimension, outermost first. Rank 0 is one number. A size may be 0. */
struct hk_shape {
    int rank;
    int64_t size[HK_MAX_RANK];
};

/* HK_SHAPE(32, 784) in C and in C++. */
#define HK_COUNT_ARGS_(a, b, c, d, e, f, n, ...) n
#define HK_COUNT_ARGS(...) HK_COUNT_ARGS_(__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#ifdef __cplusplus
#define HK_LITERAL(type) type
#else
#define HK_LITERAL(type) (struct type)
#endif
#define HK_SHAPE(...) (HK_LITERAL(hk_shape){HK_COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#define HK_SCALAR (HK_LITERAL(hk_shape){0, {0}})

/* A dense tensor, row-major, in the memory of one device. Functions on one tensor, and programs that use it, are called
   from one thread at a time; different tensors are free. Programs keep the memory they use alive, so a tensor may be
   destroyed before them. */
struct hk_tensor;

/* The content is zero. NULL: HK_ERROR_INVALID for a bad shape, HK_ERROR_OUT_OF_MEMORY naming need and have. */
HK_API struct hk_tensor *hk_tensor_create(struct hk_device *device, enum hk_dtype dtype, struct hk_shape shape);

/* The same with data in it: as many elements as the shape has, copied. */
HK_API struct hk_tensor *hk_tensor_from(struct hk_device *device, enum hk_dtype dtype, struct hk_shape shape,
                                        const void *data);

/* A tensor that shares the base's memory from its given element on, dense, of the base's dtype. The first byte must be a
   multiple of 4, and the view must end within the base. */
HK_API struct hk_tensor *hk_tensor_view(struct hk_tensor *base, int64_t first_element, struct hk_shape shape);
HK_API void hk_tensor_destroy(struct hk_tensor **tensor);

/* Of NULL: f32, rank 0, no elements, no device. */
HK_API enum hk_dtype hk_tensor_dtype(const struct hk_tensor *tensor);
HK_API struct hk_shape hk_tensor_shape(const struct hk_tensor *tensor);
HK_API int64_t hk_tensor_elements(const struct hk_tensor *tensor);
HK_API size_t hk_tensor_bytes(const struct hk_tensor *tensor);
HK_API struct hk_device *hk_tensor_device(const struct hk_tensor *tensor);

/* Copies between the tensor and the caller's memory; bytes must be hk_tensor_bytes(tensor). Both take their place after
   all work submitted before; read waits for that work. The caller's memory is free again when the call returns. */
HK_API hk_status hk_tensor_write(struct hk_tensor *tensor, const void *data, size_t bytes);
HK_API hk_status hk_tensor_read(struct hk_tensor *tensor, void *data, size_t bytes);

/* Numbers of 16 bits, as stored: IEEE 754 binary16, and the upper half of binary32. Rounded to nearest even. */
HK_API uint16_t hk_f16_from_f32(float x);
HK_API float hk_f32_from_f16(uint16_t x);
HK_API uint16_t hk_bf16_from_f32(float x);
HK_API float hk_f32_from_bf16(uint16_t x);

#ifdef __cplusplus
}
#endif
#endif
