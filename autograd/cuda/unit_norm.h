/* The norm of a unit of a gradient slab by a warp, for finite_norm and gradient_rule: both give the same
 * bits. */
#ifndef TW_AUTOGRAD_CUDA_UNIT_NORM_H
#define TW_AUTOGRAD_CUDA_UNIT_NORM_H

#include "autograd/cuda/rows.h"

/* ||g||_2 of n elements, to every lane; squares are added in f64 and in a fixed order. Units are small
 * (partition.h: 1,024 elements, 4 KB), so that a warp has all its loads on their way at once. */
TW_DEVICE float tw_unit_norm(const float *g, int64_t n) {
    constexpr int step = 4 * TW_WARP; /* elements that a warp reads at a time */
    bool wide = reinterpret_cast<uintptr_t>(g) % 16 == 0;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = threadIdx.x % TW_WARP * 4; i < n; i += step) {
        float v[4];
        tw_load_part(g, i, n, wide && i + 4 <= n, v);
#pragma unroll
        for (int e = 0; e < 4; e++) sum += (double)v[e] * (double)v[e];
    }
    return (float)sqrt(tw_warp_sum(sum));
}

#endif
