/* A tensor is a view: type, shape, strides and an address on some device. It owns nothing; the tape, a
 * parameter slab or the caller owns the memory behind it. */
#ifndef TW_AUTOGRAD_TENSOR_H
#define TW_AUTOGRAD_TENSOR_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum tw_dtype { TW_F32, TW_BF16, TW_I32, TW_U8 } tw_dtype;

enum { TW_MAX_DIMS = 4 };

typedef struct tw_tensor {
    tw_dtype dtype;
    int ndim;                    /* 0 for a scalar */
    int64_t shape[TW_MAX_DIMS];  /* elements, each >= 0 */
    int64_t stride[TW_MAX_DIMS]; /* elements between neighbours of a dimension */
    void *data;                  /* NULL: absent, or not planned yet */
    int value;                   /* the tape's index of this value; -1 outside a tape */
} tw_tensor;

/* Bytes of one element. */
size_t tw_dtype_size(tw_dtype dtype);
/* "f32", "bf16", "i32", "u8". */
const char *tw_dtype_name(tw_dtype dtype);

/* A contiguous (row-major) tensor over `data`. shape has ndim <= TW_MAX_DIMS entries. */
tw_tensor tw_tensor_of(void *data, tw_dtype dtype, int ndim, const int64_t *shape);
int64_t tw_tensor_count(const tw_tensor *t); /* number of elements; 1 for a scalar */
size_t tw_tensor_bytes(const tw_tensor *t);  /* of the contiguous tensor of this shape */
bool tw_tensor_is_contiguous(const tw_tensor *t);
bool tw_tensor_same_shape(const tw_tensor *a, const tw_tensor *b);

/* The last dimension's size, and how many rows of it there are (the product of the other sizes). A scalar is
 * (1, 1). */
int64_t tw_tensor_cols(const tw_tensor *t);
int64_t tw_tensor_rows(const tw_tensor *t);
/* True if the tensor is `rows` rows a constant distance apart, each contiguous; *row_stride is then that
 * distance in elements. Operations on rows accept every tensor of this kind. */
bool tw_tensor_is_rows(const tw_tensor *t, int64_t *row_stride);

/* Writes "(2,3,4)" to text; returns text. 64 bytes always suffice. */
const char *tw_tensor_shape_text(const tw_tensor *t, char text[64]);

/* bfloat16: the upper half of a float, rounded to nearest even; NaN stays NaN. */
static inline float tw_from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t tw_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    uint32_t nan = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#endif
