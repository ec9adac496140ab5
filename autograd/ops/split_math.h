/* An f64 kept as f32 numbers, where only f32 travels: sums are made in f64 and read by the host as such. */
#ifndef TW_AUTOGRAD_OPS_SPLIT_MATH_H
#define TW_AUTOGRAD_OPS_SPLIT_MATH_H

#include "autograd/ops/activation_math.h"

enum { TW_SPLIT = 3 }; /* 72 bits hold the 53 of an f64 in f32's range */

TW_MATH void tw_split(double x, float *parts) {
    for (int i = 0; i < TW_SPLIT; i++) {
        parts[i] = (float)x;
        /* Infinity minus itself would be NaN; one that is not finite stands in the first part alone. */
        x = fabsf(parts[i]) < INFINITY ? x - (double)parts[i] : 0.0;
    }
}

TW_MATH double tw_joined(const float *parts) {
    double x = 0.0;
    for (int i = TW_SPLIT - 1; i >= 0; i--) x += (double)parts[i];
    return x;
}

#endif
