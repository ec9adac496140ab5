/* Layer normalisation of a group's row in registers, and dropout on it: the parts that layer_norm,
 * add_layer_norm and embed_tokens are made of. Formulas: ops/layer_norm_rows.h, ops/dropout_math.h. */
#ifndef TW_AUTOGRAD_CUDA_NORM_ROWS_H
#define TW_AUTOGRAD_CUDA_NORM_ROWS_H

#include "autograd/cuda/rows.h"
#include "autograd/ops/dropout_math.h"

/* gain and bias (d) f32. */
struct tw_affine {
    const float *gain, *bias;
    bool wide; /* whole packs on 16-byte boundaries */
    float eps;
};

static inline tw_affine tw_affine_of(const tw_tensor *gain, const tw_tensor *bias, float eps) {
    const float *g = (const float *)gain->data, *b = (const float *)bias->data;
    bool wide = (uintptr_t)g % 16 == 0 && (uintptr_t)b % 16 == 0 && tw_tensor_cols(gain) % TW_PACK == 0;
    return tw_affine{g, b, wide, eps};
}

/* v becomes its layer norm; stats[0] = mean, stats[1] = rstd. */
template <int PACKS>
TW_DEVICE void tw_norm_row(const tw_group &at, float (*v)[TW_PACK], const tw_affine &affine, float *stats,
                           float *shared) {
    float sum = 0.0f, square = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum += v[p][e];
    float mean = tw_group_sum(at, sum, shared) / (float)at.d;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) {
            float c = tw_column(at, p) + e < at.d ? v[p][e] - mean : 0.0f;
            square += c * c;
        }
    float rstd = 1.0f / sqrtf(tw_group_sum(at, square, shared) / (float)at.d + affine.eps);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int64_t col = tw_column(at, p);
        float gain[TW_PACK], bias[TW_PACK];
        tw_load_pack(affine.gain + col, affine.wide, at.d - col, gain);
        tw_load_pack(affine.bias + col, affine.wide, at.d - col, bias);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[p][e] = (v[p][e] - mean) * rstd * gain[e] + bias[e];
    }
    if (at.lane == 0) stats[0] = mean, stats[1] = rstd;
}

/* g, the gradient of the norm's result, becomes that of x. The columns' parts of dgain and dbias are added to
 * dgain and dbias. Every thread of the block calls it; where a group has no row, x and g are 0. */
template <int PACKS>
TW_DEVICE void tw_norm_row_backward(const tw_group &at, const float (*x)[TW_PACK], float (*g)[TW_PACK],
                                    const float (*gain)[TW_PACK], float mean, float rstd,
                                    float (*dgain)[TW_PACK], float (*dbias)[TW_PACK], float *shared) {
    float sum = 0.0f, dot = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) {
            float xhat = (x[p][e] - mean) * rstd, slope = g[p][e] * gain[p][e];
            sum += slope;
            dot += slope * xhat;
            dgain[p][e] += g[p][e] * xhat;
            dbias[p][e] += g[p][e];
        }
    tw_group_sum2(at, &sum, &dot, shared);
    sum /= (float)at.d, dot /= (float)at.d;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++)
            g[p][e] = rstd * (g[p][e] * gain[p][e] - sum - (x[p][e] - mean) * rstd * dot);
}

/* ---- dropout ---- */

/* An operation's dropout: (B, .., D) rows, `per_sample` of them a sample. */
struct tw_drop {
    const tw_step *step; /* device memory */
    uint32_t layer, threshold;
    float scale; /* 1 / (1 - p); 1: none */
    int64_t per_sample;
};

static inline tw_drop tw_drop_of(const tw_call *c, uint32_t layer, float p, int64_t per_sample) {
    return tw_drop{c->step, layer, p > 0.0f ? tw_dropout_threshold(p) : 0,
                   p > 0.0f ? 1.0f / (1.0f - p) : 1.0f, per_sample};
}

/* v[i] of elements [first, first + 8) of a sample: dropped or scaled. */
TW_DEVICE void tw_drop_pack(const tw_draw &draw, uint32_t threshold, float scale, int64_t first, float *v) {
    uint32_t word[4];
    if (first % 4 == 0) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            tw_random4(&draw, (uint32_t)(first / 4 + half), word);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *x = v + 4 * half + e;
                *x = word[e] >= threshold ? *x * scale : 0.0f;
            }
        }
        return;
    }
    /* Rolled, so that the generator is there once: unrolled, it kept ptxas busy for many minutes. */
    int shift = (int)(first % 4);
#pragma unroll 1
    for (int k = 0; k < 3; k++) {
        tw_random4(&draw, (uint32_t)(first / 4 + k), word);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) {
            int at = shift + e - 4 * k;
            if (at < 0 || at > 3) continue;
            uint32_t w = at == 0 ? word[0] : at == 1 ? word[1] : at == 2 ? word[2] : word[3];
            v[e] = w >= threshold ? v[e] * scale : 0.0f;
        }
    }
}

/* Dropout of row `row` in the group's registers. */
template <int PACKS>
TW_DEVICE void tw_drop_row(const tw_group &at, const tw_drop &drop, int64_t row, float (*v)[TW_PACK]) {
    if (drop.scale == 1.0f) return;
    tw_draw draw = tw_dropout_draw(drop.step, drop.layer, row / drop.per_sample);
    int64_t first = row % drop.per_sample * at.d;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (tw_column(at, p) < at.d)
            tw_drop_pack(draw, drop.threshold, drop.scale, first + tw_column(at, p), v[p]);
}

#endif
