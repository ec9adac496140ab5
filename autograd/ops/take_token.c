#include "autograd/ops/rows.h"

/* x (B,T,D), T > 0 -> (B,D): the first token of each sample. */

tw_status tw_take_token_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "x"));
    const tw_tensor *x = &c->input[0];
    if (x->ndim != 3 || x->shape[1] < 1)
        return FAIL(TW_ERR_SHAPE, "take_token: x must be (B,T,D) with T > 0");
    int64_t y[2] = {x->shape[0], x->shape[2]};
    tw_call_output(c, 0, x->dtype, 2, y);
    return TW_OK;
}

tw_status tw_take_token_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    size_t element = tw_dtype_size(x->dtype), bytes = (size_t)y->shape[1] * element;
    int64_t stride;
    tw_tensor_is_rows(x, &stride);
    for (int64_t b = 0; b < y->shape[0]; b++)
        memcpy((char *)y->data + (size_t)b * bytes,
               (const char *)x->data + (size_t)(b * x->shape[1] * stride) * element, bytes);
    return TW_OK;
}

tw_status tw_take_token_backward_cpu(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0], *dy = &c->output_grad[0];
    if (!dx->data) return TW_OK;
    int64_t tokens = dx->shape[1], d = dx->shape[2];
    if (c->input_mode[0] == TW_WRITE) memset(dx->data, 0, tw_tensor_bytes(dx));
    size_t element = tw_dtype_size(dx->dtype);
    for (int64_t b = 0; b < dx->shape[0]; b++) {
        if (c->input_mode[0] == TW_WRITE) {
            memcpy((char *)dx->data + (size_t)(b * tokens * d) * element,
                   (const char *)dy->data + (size_t)(b * d) * element, (size_t)d * element);
        } else if (dx->dtype == TW_F32) {
            tw_row_deliver(dx, b * tokens, (const float *)dy->data + b * d, TW_ADD);
        } else {
            uint16_t *out = (uint16_t *)dx->data + b * tokens * d;
            const uint16_t *in = (const uint16_t *)dy->data + b * d;
            for (int64_t k = 0; k < d; k++) out[k] = tw_to_bf16(tw_from_bf16(out[k]) + tw_from_bf16(in[k]));
        }
    }
    return TW_OK;
}
