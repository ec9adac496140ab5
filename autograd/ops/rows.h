/* Rows of f32 or bf16 elements seen as f32, for CPU kernels. */
#ifndef TW_AUTOGRAD_OPS_ROWS_H
#define TW_AUTOGRAD_OPS_ROWS_H

#include "autograd/op.h"

/* Row `row` of a rows tensor as f32: the tensor's own memory in f32, converted into buffer (cols floats) in
 * bf16. */
static inline const float *tw_row_read(const tw_tensor *t, int64_t stride, int64_t row, float *buffer) {
    if (t->dtype == TW_F32) return (const float *)t->data + row * stride;
    const uint16_t *h = (const uint16_t *)t->data + row * stride;
    int64_t n = tw_tensor_cols(t);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)h[i] << 16;
        union {
            uint32_t u;
            float f;
        } bits = {u};
        buffer[i] = bits.f;
    }
    return buffer;
}

/* Delivers n floats to contiguous row `row` of t (cols n), rounding to its type; TW_ADD adds in f32 first. */
static inline void tw_row_deliver(const tw_tensor *t, int64_t row, const float *values, tw_accumulate mode) {
    int64_t n = tw_tensor_cols(t);
    if (t->dtype == TW_F32) {
        float *out = (float *)t->data + row * n;
        if (mode == TW_WRITE) {
            if (out != values) memmove(out, values, (size_t)n * 4);
            return;
        }
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] += values[i];
        return;
    }
    uint16_t *out = (uint16_t *)t->data + row * n;
    if (mode == TW_WRITE) {
        for (int64_t i = 0; i < n; i++) out[i] = tw_to_bf16(values[i]);
    } else {
        for (int64_t i = 0; i < n; i++) out[i] = tw_to_bf16(tw_from_bf16(out[i]) + values[i]);
    }
}

/* Where to put a row that will be delivered with TW_WRITE: straight into f32 memory, into buffer otherwise.
 */
static inline float *tw_row_target(const tw_tensor *t, int64_t row, float *buffer) {
    return t->dtype == TW_F32 ? (float *)t->data + row * tw_tensor_cols(t) : buffer;
}

#endif
