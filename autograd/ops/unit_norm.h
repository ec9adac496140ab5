/* The norm of a unit of a gradient slab on the CPU, for finite_norm and gradient_rule: both give the same
 * bits. */
#ifndef TW_AUTOGRAD_OPS_UNIT_NORM_H
#define TW_AUTOGRAD_OPS_UNIT_NORM_H

#include <math.h>
#include <stdint.h>

/* ||g||_2 of n elements, not finite if one of them is not. Squares are added in f64, in blocks of fixed size
 * and in index order. */
static inline float tw_unit_norm(const float *g, int64_t n) {
    enum { BLOCK = 4096 };
    double total = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t end = at + BLOCK < n ? at + BLOCK : n;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = at; i < end; i++) sum += (double)g[i] * (double)g[i];
        total += sum;
    }
    return (float)sqrt(total);
}

#endif
