/* Layer normalisation of a group's row in registers, dropout on it, and the kernels that layer_norm,
 * add_layer_norm and embed_tokens share: they differ in where a row comes from and where it goes. Formulas:
 * ops/layer_norm_rows.h, ops/dropout_math.h. */
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

/* An operation's dropout: (B, .., D) rows, `per_sample` of them a sample; or packed rows (ops/packed.h),
 * whose origin says which of such rows they are. */
struct tw_drop {
    const tw_step *step; /* device memory */
    uint32_t layer, threshold;
    float scale; /* 1 / (1 - p); 1: none */
    int64_t per_sample;
    const int32_t *origin; /* of packed rows, else NULL */
};

static inline tw_drop tw_drop_of(const tw_call *c, uint32_t layer, float p, int64_t per_sample,
                                 const int32_t *origin) {
    return tw_drop{
        c->step,    layer, p > 0.0f ? tw_dropout_threshold(p) : 0, p > 0.0f ? 1.0f / (1.0f - p) : 1.0f,
        per_sample, origin};
}

/* Input i, if the call has it. */
static inline const int32_t *tw_origin_of(const tw_call *c, int i) {
    return tw_present(&c->input[i]) ? (const int32_t *)c->input[i].data : NULL;
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
    if (drop.origin) row = drop.origin[row];
    if (row < 0) return;
    tw_draw draw = tw_dropout_draw(drop.step, drop.layer, row / drop.per_sample);
    int64_t first = row % drop.per_sample * at.d;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (tw_column(at, p) < at.d)
            tw_drop_pack(draw, drop.threshold, drop.scale, first + tw_column(at, p), v[p]);
}

/* ---- the kernels and their launches ---- */

/* What each of these operations has; its arguments extend it by the rows themselves and by
 *
 *     template <int PACKS> TW_MEMBER void load(at, row, v) const;       forward: what is normalised
 *     template <int PACKS> TW_MEMBER void store(at, row, v) const;               and its norm
 *     template <int PACKS> TW_MEMBER void load(at, row, x, g) const;    backward: x, and the norm's gradient
 *     template <int PACKS> TW_MEMBER void store(at, row, g) const;                and x's
 */
struct tw_norm_rows {
    tw_affine affine;
    float *stats;   /* (rows, 2): mean, rstd */
    float *partial; /* backward: (TW_COLUMN_BLOCKS, 2, d): dgain, dbias */
    int64_t rows, d;
};

#define TW_MEMBER __device__ __forceinline__

/* Forward of rows that lie in memory as they are. */
struct tw_norm_plain_rows : tw_norm_rows {
    tw_view x, y;

    template <int PACKS> TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        tw_load_row<PACKS>(at, x, row, v);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        tw_store_row<PACKS>(at, y, row, v);
    }
};

/* Input `gain` is the gain, the one behind it the bias; the first output is the norm, the last one the
 * statistics; backward's scratch begins with the partial sums. */
static inline tw_norm_rows tw_norm_rows_of(const tw_call *c, int gain, float eps) {
    const tw_tensor *y = &c->output[0], *stats = &c->output[c->n_outputs - 1];
    return tw_norm_rows{tw_affine_of(&c->input[gain], &c->input[gain + 1], eps), (float *)stats->data,
                        (float *)c->scratch, tw_tensor_rows(y), tw_tensor_cols(y)};
}

template <class Args, int PACKS>
__global__ void __launch_bounds__(TW_FORWARD_THREADS, 1) tw_norm_forward_kernel(Args a, tw_layout l) {
    __shared__ float shared[TW_GROUP_SHARED];
    tw_group at = tw_group_here(l, a.d);
    int64_t row = (int64_t)blockIdx.x * l.groups + at.group;
    if (row >= a.rows) return; /* a whole warp, where a group is one; never where it is a block */
    float v[PACKS][TW_PACK];
    a.template load<PACKS>(at, row, v);
    tw_norm_row<PACKS>(at, v, a.affine, a.stats + 2 * row, shared);
    a.template store<PACKS>(at, row, v);
}

template <class Args, int PACKS>
__global__ void __launch_bounds__(tw_backward_threads(PACKS), 1)
    tw_norm_backward_kernel(Args a, tw_layout l) {
    __shared__ float shared[TW_GROUP_SHARED], columns[TW_COLUMN_SHARED];
    tw_group at = tw_group_here(l, a.d);
    float gain[PACKS][TW_PACK], dgain[PACKS][TW_PACK] = {}, dbias[PACKS][TW_PACK] = {};
    tw_load_group<PACKS>(at, a.affine.gain, a.affine.wide, gain);
    int64_t step = (int64_t)gridDim.x * l.groups;
    for (int64_t first = (int64_t)blockIdx.x * l.groups; first < a.rows; first += step) {
        int64_t row = first + at.group;
        bool mine = row < a.rows;
        float x[PACKS][TW_PACK] = {}, g[PACKS][TW_PACK] = {}, mean = 0.0f, rstd = 0.0f;
        if (mine) {
            a.template load<PACKS>(at, row, x, g);
            mean = a.stats[2 * row], rstd = a.stats[2 * row + 1];
        }
        tw_norm_row_backward<PACKS>(at, x, g, gain, mean, rstd, dgain, dbias, shared);
        if (mine) a.template store<PACKS>(at, row, g);
    }
    tw_columns_partial<PACKS>(at, l.groups, dgain, a.partial, 0, 2, columns);
    tw_columns_partial<PACKS>(at, l.groups, dbias, a.partial, 1, 2, columns);
}

/* name: of the operation, for messages. */
template <class Args> tw_status tw_norm_forward(const tw_call *c, const char *name, const Args &a) {
    TRY(tw_check_width(a.d));
    if (a.rows == 0) return TW_OK;
    if (a.d == 0) return c->device->zero(c->device, TW_QUEUE_COMPUTE, a.stats, (size_t)a.rows * 8);
    tw_layout l = tw_layout_forward(a.d);
    return tw_with_packs(l.packs, [&](auto packs) -> tw_status {
        return tw_launch(c->device, name, tw_norm_forward_kernel<Args, decltype(packs)::value>,
                         tw_blocks(a.rows, l.groups), tw_layout_threads(l), 0, a, l);
    });
}

/* The gradients of gain and bias too. */
template <class Args>
tw_status tw_norm_backward(const tw_call *c, const char *name, const Args &a, int gain) {
    if (a.d == 0) return TW_OK;
    tw_layout l = tw_layout_backward(a.rows, a.d);
    unsigned blocks = tw_column_grid(a.rows, l.groups);
    tw_column_target target[2] = {{&c->input_grad[gain], c->input_mode[gain]},
                                  {&c->input_grad[gain + 1], c->input_mode[gain + 1]}};
    if (blocks > 0)
        TRY(tw_with_few_packs(l.packs, [&](auto packs) -> tw_status {
            return tw_launch(c->device, name, tw_norm_backward_kernel<Args, decltype(packs)::value>, blocks,
                             tw_layout_threads(l), 0, a, l);
        }));
    return tw_cuda_sum_columns(c->device, a.partial, blocks, a.d, 2, target);
}

#endif
