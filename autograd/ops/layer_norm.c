#include "autograd/cuda/scratch.h"
#include "autograd/ops/layer_norm_backward.h"

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
    c->restorable = c->needs_grad;
    c->restore_inputs = 1u << 0 | 1u << 1 | 1u << 2;
    c->forward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    c->backward_scratch = tw_layer_norm_backward_scratch(d);
    tw_call_scratch_cuda(c, 0, tw_column_scratch(2, d));
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

static void deliver(const tw_call *c, int64_t row, int64_t d, float *gradient) {
    (void)d;
    const tw_tensor *dx = &c->input_grad[0];
    if (dx->data) tw_row_deliver(dx, row, gradient, c->input_mode[0]);
}

tw_status tw_layer_norm_backward_cpu(const tw_call *c) {
    int64_t stride;
    tw_tensor_is_rows(&c->input[0], &stride);
    tw_layer_norm_backward_rows(c, &c->input[0], stride, 1, 1, deliver);
    return TW_OK;
}
