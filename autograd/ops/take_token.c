#include "autograd/ops/packed.h"
#include "autograd/ops/rows.h"

/* x (B,T,D), T > 0 -> (B,D): the first token of each sample; or x (rows,D) packed, offsets (B+1), where each
 * sample has a token. */

enum { X, OFFSETS };

static bool is_packed(const tw_call *c) {
    return tw_present(&c->input[OFFSETS]);
}

tw_status tw_take_token_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, X, "x"));
    const tw_tensor *x = &c->input[X];
    if (is_packed(c)) {
        if (x->ndim != 2) return FAIL(TW_ERR_SHAPE, "take_token: packed x must be (rows,D)");
        TRY(tw_offsets_check(c, OFFSETS, 1));
        c->saved_inputs = 1u << OFFSETS;
    } else if (x->ndim != 3 || x->shape[1] < 1) {
        return FAIL(TW_ERR_SHAPE, "take_token: x must be (B,T,D) with T > 0");
    }
    int64_t y[2] = {is_packed(c) ? c->input[OFFSETS].shape[0] - 1 : x->shape[0], tw_tensor_cols(x)};
    tw_call_output(c, 0, x->dtype, 2, y);
    return TW_OK;
}

/* The row of x (whose shape is that of its gradient) with sample b's first token. */
static int64_t row_of(const tw_call *c, const tw_tensor *x, int64_t b) {
    return is_packed(c) ? ((const int32_t *)c->input[OFFSETS].data)[b] : b * x->shape[1];
}

static tw_status check_values(const tw_call *c) {
    if (!is_packed(c)) return TW_OK;
    const int32_t *offsets = c->input[OFFSETS].data;
    int64_t rows = c->input[X].shape[0];
    TRY(tw_offsets_check_values(c, OFFSETS, rows, rows));
    for (int64_t b = 0; b < c->output[0].shape[0]; b++)
        if (offsets[b] == offsets[b + 1])
            return FAIL(TW_ERR_ARGUMENT, "take_token: sample %lld has no token", (long long)b);
    return TW_OK;
}

tw_status tw_take_token_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[X], *y = &c->output[0];
    size_t element = tw_dtype_size(x->dtype), bytes = (size_t)y->shape[1] * element;
    int64_t stride;
    TRY(check_values(c));
    tw_tensor_is_rows(x, &stride);
    for (int64_t b = 0; b < y->shape[0]; b++)
        memcpy((char *)y->data + (size_t)b * bytes,
               (const char *)x->data + (size_t)(row_of(c, x, b) * stride) * element, bytes);
    return TW_OK;
}

tw_status tw_take_token_backward_cpu(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[X], *dy = &c->output_grad[0];
    float buffer[TW_ROW_BLOCK];
    if (!dx->data) return TW_OK;
    int64_t d = tw_tensor_cols(dx);
    if (c->input_mode[X] == TW_WRITE) memset(dx->data, 0, tw_tensor_bytes(dx));
    for (int64_t b = 0; b < dy->shape[0]; b++) {
        int64_t row = row_of(c, dx, b);
        for (int64_t k = 0; k < d; k += TW_ROW_BLOCK) {
            int64_t n = d - k < TW_ROW_BLOCK ? d - k : TW_ROW_BLOCK;
            tw_deliver(dx->data, dx->dtype, row * d + k, n,
                       tw_floats(dy->data, dy->dtype, b * d + k, n, buffer), c->input_mode[X] == TW_ADD);
        }
    }
    return TW_OK;
}
