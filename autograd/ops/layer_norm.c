#include "autograd/ops/layer_norm_rows.h"
#include "autograd/ops/rows.h"

/* inputs: x (.., D), gain (D) f32, bias (D) f32; outputs: y as x, stats (rows, 2) f32 = mean, rstd */

tw_status tw_layer_norm_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "x"));
    const tw_tensor *x = &c->input[0];
    int64_t d = tw_tensor_cols(x), stats[2] = {tw_tensor_rows(x), 2};
    TRY(tw_call_check_f32(c, 1, "gain", 1, &d));
    TRY(tw_call_check_f32(c, 2, "bias", 1, &d));
    tw_call_output(c, 0, x->dtype, x->ndim, x->shape);
    tw_call_output(c, 1, TW_F32, 2, stats);
    c->saved_inputs = 1u << 0 | 1u << 1;
    c->saved_outputs = 1u << 1;
    c->forward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    c->backward_scratch = (size_t)(tw_threads() * 5 * d) * 4;
    return TW_OK;
}

tw_status tw_layer_norm_forward_cpu(const tw_call *c) {
    const tw_layer_norm_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    int64_t rows = tw_tensor_rows(x), d = tw_tensor_cols(x), stride;
    tw_tensor_is_rows(x, &stride);
    float *stats = c->output[1].data;
#pragma omp parallel
    {
        float *buffer = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            float *out = tw_row_target(y, i, buffer + d);
            tw_layer_norm_row(tw_row_read(x, stride, i, buffer), d, c->input[1].data, c->input[2].data,
                              attr->eps, out, stats + 2 * i);
            tw_row_deliver(y, i, out, TW_WRITE);
        }
    }
    return TW_OK;
}

/* scratch per thread: x row, dy row, dx row, dgain, dbias */
tw_status tw_layer_norm_backward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0], *dx = &c->input_grad[0], *dy = &c->output_grad[0];
    int64_t rows = tw_tensor_rows(x), d = tw_tensor_cols(x), stride;
    tw_tensor_is_rows(x, &stride);
    const float *stats = c->output[1].data;
    float *scratch = c->scratch;
    memset(scratch, 0, c->backward_scratch);
#pragma omp parallel
    {
        float *mine = scratch + omp_get_thread_num() * 5 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            const float *g = tw_row_read(dy, d, i, mine + d);
            tw_layer_norm_row_backward(tw_row_read(x, stride, i, mine), g, d, c->input[1].data, stats + 2 * i,
                                       mine + 2 * d, mine + 3 * d, mine + 4 * d);
            if (dx->data) tw_row_deliver(dx, i, mine + 2 * d, c->input_mode[0]);
        }
    }
    for (int i = 1; i < 3; i++)
        if (c->input_grad[i].data)
            tw_sum_threads(scratch, 5 * d, (2 + i) * d, tw_threads(), d, c->input_grad[i].data,
                           c->input_mode[i] == TW_ADD);
    return TW_OK;
}
