/* The backward walk over rows that LayerNorm and residual + LayerNorm share. CPU. */
#ifndef TW_AUTOGRAD_OPS_LAYER_NORM_BACKWARD_H
#define TW_AUTOGRAD_OPS_LAYER_NORM_BACKWARD_H

#include "autograd/ops/layer_norm_rows.h"
#include "autograd/ops/rows.h"

/* Scratch per thread: x row, dy row, dx row, dgain, dbias. */
static inline size_t tw_layer_norm_backward_scratch(int64_t d) {
    return (size_t)(tw_threads() * 5 * d) * sizeof(float);
}

/* What becomes of one row's gradient dx (d); it may be overwritten. */
typedef void tw_layer_norm_deliver(const tw_call *c, int64_t row, int64_t d, float *dx);

/* x: what forward normalised, rows `stride` elements apart; its mean and rstd are output `stats`. Inputs
 * `gain` and `gain` + 1 are gain and bias. The gradient of x goes to `deliver`, on any thread. */
static inline void tw_layer_norm_backward_rows(const tw_call *c, const tw_tensor *x, int64_t stride,
                                               int stats, int gain, tw_layer_norm_deliver *deliver) {
    const tw_tensor *dy = &c->output_grad[0];
    int64_t rows = tw_tensor_rows(x), d = tw_tensor_cols(x);
    const float *kept = c->output[stats].data; /* (rows, 2) */
    float *scratch = c->scratch;
    memset(scratch, 0, c->backward_scratch);
#pragma omp parallel
    {
        float *mine = scratch + omp_get_thread_num() * 5 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            const float *g = tw_row_read(dy, d, i, mine + d);
            tw_layer_norm_row_backward(tw_row_read(x, stride, i, mine), g, d, c->input[gain].data,
                                       kept + 2 * i, mine + 2 * d, mine + 3 * d, mine + 4 * d);
            deliver(c, i, d, mine + 2 * d);
        }
    }
    for (int i = 0; i < 2; i++)
        if (c->input_grad[gain + i].data)
            tw_sum_threads(scratch, 5 * d, (3 + i) * d, tw_threads(), d, c->input_grad[gain + i].data,
                           c->input_mode[gain + i] == TW_ADD);
}

#endif
