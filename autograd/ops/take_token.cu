#include "autograd/cuda/rows.h"

/* x (B,T,D), T > 0 -> (B,D): the first token of each sample; or x (rows,D) packed, offsets (B+1) */

namespace {

enum { X, OFFSETS };

struct take_args {
    tw_view from, to;
    const int32_t *offsets; /* or NULL */
    int64_t batch, tokens, d;
};

TW_DEVICE int64_t row_of(const take_args &a, int64_t b) {
    return a.offsets ? a.offsets[b] : b * a.tokens;
}

__global__ void take_token_forward(take_args a) {
    int64_t b, col;
    if (!tw_pack_here(a.batch, a.d, &b, &col)) return;
    float v[TW_PACK];
    tw_load_columns(a.from, row_of(a, b), col, a.d, v);
    tw_store_columns(a.to, b, col, a.d, v);
}

/* to: the first tokens' gradients; where it is not added to, the others are zeros already. */
__global__ void take_token_backward(take_args a) {
    int64_t b, col;
    if (!tw_pack_here(a.batch, a.d, &b, &col)) return;
    float v[TW_PACK];
    tw_load_columns(a.from, b, col, a.d, v);
    tw_store_columns(a.to, row_of(a, b), col, a.d, v);
}

take_args args_of(const tw_call *c, const tw_view &from, const tw_view &to) {
    const tw_tensor *x = &c->input[X];
    take_args a = {from, to, NULL, x->shape[0], x->shape[1], tw_tensor_cols(x)};
    if (!tw_present(&c->input[OFFSETS])) return a;
    a.offsets = (const int32_t *)c->input[OFFSETS].data;
    a.batch = c->input[OFFSETS].shape[0] - 1;
    return a;
}

} // namespace

tw_status tw_take_token_forward_cuda(const tw_call *c) {
    take_args a = args_of(c, tw_view_rows(&c->input[X]), tw_view_out(&c->output[0], TW_WRITE));
    return TW_LAUNCH(c->device, take_token_forward, tw_blocks(a.batch * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

tw_status tw_take_token_backward_cuda(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[X];
    if (!dx->data) return TW_OK;
    take_args a = args_of(c, tw_view_out(&c->output_grad[0], TW_WRITE), tw_view_out(dx, c->input_mode[X]));
    if (!a.to.add) TRY(c->device->zero(c->device, TW_QUEUE_COMPUTE, dx->data, tw_tensor_bytes(dx)));
    return TW_LAUNCH(c->device, take_token_backward, tw_blocks(a.batch * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}
