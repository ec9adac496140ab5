/* The layer norm of one row in f64, shared by the cases of the operations that end in one. */
#ifndef TW_TESTS_LAYER_NORM_H
#define TW_TESTS_LAYER_NORM_H

#include "autograd/random.h"
#include "op_case.h"

#include <math.h>

static inline void layer_norm_row(const double *x, int64_t d, const double *gain, const double *bias,
                                  double eps, double *y) {
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < d; k++) mean += x[k] / (double)d;
    for (int64_t k = 0; k < d; k++) variance += (x[k] - mean) * (x[k] - mean) / (double)d;
    for (int64_t k = 0; k < d; k++) y[k] = (x[k] - mean) / sqrt(variance + eps) * gain[k] + bias[k];
}

/* What inverted dropout multiplies an element by, from its definition: kept iff the word is at least p 2^32.
 */
static inline double dropout_factor(const op_config *config, float p, uint32_t layer, int64_t sample,
                                    int64_t element) {
    if (p <= 0) return 1;
    tw_draw draw = {config->step.seed, TW_DRAW_DROPOUT, layer, config->step.step,
                    config->step.sample + (uint32_t)sample};
    double word = (double)tw_random_u32(&draw, (uint32_t)element);
    return word >= (double)p * 4294967296.0 ? 1 / (1 - (double)p) : 0;
}

/* A gain away from 0, and a bias, of d elements: f32 parameters. */
#define GAIN_OF(d)                                                                                           \
    { OP_SHAPE(d), .dtype = OP_F32, .parameter = true, .low = 0.5, .high = 2 }
#define BIAS_OF(d)                                                                                           \
    { OP_SHAPE(d), .dtype = OP_F32, .parameter = true }

#endif
