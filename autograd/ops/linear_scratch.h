/* The scratch of linear's CUDA kernels, for its shape rule and for them. */
#ifndef TW_AUTOGRAD_OPS_LINEAR_SCRATCH_H
#define TW_AUTOGRAD_OPS_LINEAR_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* Partial sums of the bias's gradient: a constant, so that sums have the same order on every GPU. */
enum { TW_LINEAR_SUMS = 64 };

static inline size_t tw_linear_sums_bytes(int64_t m) {
    return (size_t)(TW_LINEAR_SUMS * m) * sizeof(float); /* whole 256 bytes */
}

#endif
