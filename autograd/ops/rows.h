/* Rows of f32 or bf16 for CPU kernels: computing is in f32; a bf16 row goes through a block of floats that
 * stays in the first-level cache. */
#ifndef TW_AUTOGRAD_OPS_ROWS_H
#define TW_AUTOGRAD_OPS_ROWS_H

#include "autograd/op.h"

/* Columns a kernel handles at a time where it buffers. */
enum { TW_ROW_BLOCK = 512 };

static inline const void *tw_element(const void *base, tw_dtype dtype, int64_t i) {
    return (const char *)base + (size_t)i * (dtype == TW_BF16 ? 2 : 4);
}

static inline void *tw_element_to(void *base, tw_dtype dtype, int64_t i) {
    return (char *)base + (size_t)i * (dtype == TW_BF16 ? 2 : 4);
}

/* Elements [start, start + n) of an f32 or bf16 array as floats: in place, or converted into buffer. */
static inline const float *tw_floats(const void *base, tw_dtype dtype, int64_t start, int64_t n,
                                     float *buffer) {
    if (dtype == TW_F32) return (const float *)base + start;
    const uint16_t *from = (const uint16_t *)base + start;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) buffer[i] = tw_from_bf16(from[i]);
    return buffer;
}

/* Writes n floats to elements [start, start + n), or adds them. values may be the place itself. */
static inline void tw_deliver(void *base, tw_dtype dtype, int64_t start, int64_t n, const float *values,
                              bool add) {
    if (dtype == TW_F32) {
        float *to = (float *)base + start;
        if (add) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) to[i] += values[i];
        } else if (to != values) {
            memcpy(to, values, (size_t)n * sizeof(float));
        }
        return;
    }
    uint16_t *to = (uint16_t *)base + start;
    if (add) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = tw_to_bf16(tw_from_bf16(to[i]) + values[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = tw_to_bf16(values[i]);
    }
}

/* Row `row` of a rows tensor as f32: its own memory in f32, converted into buffer (cols floats) in bf16. */
static inline const float *tw_row_read(const tw_tensor *t, int64_t stride, int64_t row, float *buffer) {
    return tw_floats(t->data, t->dtype, row * stride, tw_tensor_cols(t), buffer);
}

/* Delivers cols floats to contiguous row `row` of t, rounding to its type; TW_ADD adds in f32 first. */
static inline void tw_row_deliver(const tw_tensor *t, int64_t row, const float *values, tw_accumulate mode) {
    int64_t n = tw_tensor_cols(t);
    tw_deliver(t->data, t->dtype, row * n, n, values, mode == TW_ADD);
}

/* Where to put a row that will be delivered with TW_WRITE: straight into f32 memory, into buffer otherwise.
 */
static inline float *tw_row_target(const tw_tensor *t, int64_t row, float *buffer) {
    return t->dtype == TW_F32 ? (float *)t->data + row * tw_tensor_cols(t) : buffer;
}

#endif
