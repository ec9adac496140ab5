/* The normalisation of a pixel as the reference does it in f32, once for both compilers. */
#ifndef TW_AUTOGRAD_OPS_PATCHIFY_MATH_H
#define TW_AUTOGRAD_OPS_PATCHIFY_MATH_H

#include "autograd/ops/activation_math.h"

TW_MATH float tw_pixel_value(int byte, float mean, float std) {
    return ((float)byte / 255.0f - mean) / std;
}

#endif
