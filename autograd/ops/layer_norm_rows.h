/* Layer normalisation of one row, forward and backward, in f32 (Ba, Kiros, Hinton 2016):
 *     xhat = (x - mean) rstd,  rstd = 1 / sqrt(var + eps),  y = xhat gain + bias
 *     dx = rstd (dy gain - mean(dy gain) - xhat mean(dy gain xhat)),  dgain = sum dy xhat,  dbias = sum dy */
#ifndef TW_AUTOGRAD_OPS_LAYER_NORM_ROWS_H
#define TW_AUTOGRAD_OPS_LAYER_NORM_ROWS_H

#include "autograd/parallel.h"

#include <math.h>
#include <stdbool.h>

/* stats[0] = mean, stats[1] = rstd. y may be x. */
static inline void tw_layer_norm_row(const float *x, int64_t n, const float *gain, const float *bias,
                                     float eps, float *y, float stats[2]) {
    float sum = 0.0f, square = 0.0f;
    if (n == 0) { /* not 0 / 0 */
        stats[0] = stats[1] = 0.0f;
        return;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
    float mean = sum / (float)n;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float rstd = 1.0f / sqrtf(square / (float)n + eps);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * gain[i] + bias[i];
    stats[0] = mean;
    stats[1] = rstd;
}

/* dx may be dy. dgain and dbias (n each) are added to. */
static inline void tw_layer_norm_row_backward(const float *x, const float *dy, int64_t n, const float *gain,
                                              const float stats[2], float *dx, float *dgain, float *dbias) {
    float mean = stats[0], rstd = stats[1], sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < n; i++) {
        float xhat = (x[i] - mean) * rstd, g = dy[i] * gain[i];
        sum += g;
        dot += g * xhat;
        dgain[i] += dy[i] * xhat;
        dbias[i] += dy[i];
    }
    sum /= (float)n;
    dot /= (float)n;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = rstd * (dy[i] * gain[i] - sum - (x[i] - mean) * rstd * dot);
}

/* Delivers the sum over threads, in thread order, of partial[thread * stride + offset + i] to out[i]. Outside
 * a parallel region. */
static inline void tw_sum_threads(const float *partial, int64_t stride, int64_t offset, int threads,
                                  int64_t n, float *out, bool add) {
    for (int64_t i = 0; i < n; i++) {
        float sum = partial[offset + i];
        for (int t = 1; t < threads; t++) sum += partial[t * stride + offset + i];
        out[i] = add ? out[i] + sum : sum;
    }
}

#endif
