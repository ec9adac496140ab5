#include "autograd/ops/rows.h"

#include <math.h>

/* y = x / ||x||, rows of (n,E); y is f32 whatever x is. A zero row gives NaN, as in the reference: the
 * trainer skips the step and names what it found. outputs: y (n,E) f32, norm (n) f32. dx = (dy - y (y . dy))
 * / ||x||. */

tw_status tw_l2_normalise_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "x"));
    const tw_tensor *x = &c->input[0];
    int64_t rows = tw_tensor_rows(x);
    tw_call_output(c, 0, TW_F32, x->ndim, x->shape);
    tw_call_output(c, 1, TW_F32, 1, &rows);
    c->saved_outputs = 1u << 0 | 1u << 1;
    c->forward_scratch = c->backward_scratch = (size_t)tw_tensor_cols(x) * 4;
    return TW_OK;
}

tw_status tw_l2_normalise_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0];
    int64_t rows = tw_tensor_rows(x), d = tw_tensor_cols(x), stride;
    tw_tensor_is_rows(x, &stride);
    float *norm = c->output[1].data, *y = c->output[0].data;
    for (int64_t i = 0; i < rows; i++) {
        const float *in = tw_row_read(x, stride, i, c->scratch);
        double square = 0;
        for (int64_t k = 0; k < d; k++) square += (double)in[k] * (double)in[k];
        norm[i] = (float)sqrt(square);
        for (int64_t k = 0; k < d; k++) y[i * d + k] = in[k] / norm[i];
    }
    return TW_OK;
}

tw_status tw_l2_normalise_backward_cpu(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0];
    if (!dx->data) return TW_OK;
    int64_t rows = tw_tensor_rows(dx), d = tw_tensor_cols(dx);
    const float *norm = c->output[1].data, *y = c->output[0].data, *dy = c->output_grad[0].data;
    float *row = c->scratch;
    for (int64_t i = 0; i < rows; i++) {
        double dot = 0;
        for (int64_t k = 0; k < d; k++) dot += (double)y[i * d + k] * (double)dy[i * d + k];
        for (int64_t k = 0; k < d; k++) row[k] = (dy[i * d + k] - y[i * d + k] * (float)dot) / norm[i];
        tw_row_deliver(dx, i, row, c->input_mode[0]);
    }
    return TW_OK;
}
