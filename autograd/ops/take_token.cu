#include "autograd/cuda/rows.h"

/* x (B,T,D), T > 0 -> (B,D): the first token of each sample */

namespace {

struct take_args {
    tw_view from, to;
    int64_t rows, tokens, d;
};

__global__ void take_token_forward(take_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    float v[TW_PACK];
    tw_load_columns(a.from, row * a.tokens, col, a.d, v);
    tw_store_columns(a.to, row, col, a.d, v);
}

/* to: every token's gradient; what is added to other tokens than the first is nothing. */
__global__ void take_token_backward(take_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    float v[TW_PACK] = {};
    if (row % a.tokens == 0)
        tw_load_columns(a.from, row / a.tokens, col, a.d, v);
    else if (a.to.add)
        return;
    tw_store_columns(a.to, row, col, a.d, v);
}

} // namespace

tw_status tw_take_token_forward_cuda(const tw_call *c) {
    const tw_tensor *x = &c->input[0];
    take_args a = {tw_view_rows(x), tw_view_out(&c->output[0], TW_WRITE), x->shape[0], x->shape[1],
                   x->shape[2]};
    return TW_LAUNCH(c->device, take_token_forward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

tw_status tw_take_token_backward_cuda(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0];
    if (!dx->data) return TW_OK;
    take_args a = {tw_view_out(&c->output_grad[0], TW_WRITE), tw_view_out(dx, c->input_mode[0]),
                   tw_tensor_rows(dx), dx->shape[1], dx->shape[2]};
    return TW_LAUNCH(c->device, take_token_backward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}
