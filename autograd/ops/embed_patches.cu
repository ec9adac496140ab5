#include "autograd/cuda/token_sums.h"

/* inputs: patches (B,n,D), class (D) f32, positions (n+1,D); output: (B,n+1,D) as patches */

namespace {

struct forward_args {
    tw_view patches, first, positions, y;
    int64_t rows, tokens, d;
};

__global__ void embed_patches_forward(forward_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    int64_t image = row / a.tokens, t = row % a.tokens;
    float v[TW_PACK], p[TW_PACK];
    if (t == 0)
        tw_load_columns(a.first, 0, col, a.d, v);
    else
        tw_load_columns(a.patches, image * (a.tokens - 1) + t - 1, col, a.d, v);
    tw_load_columns(a.positions, t, col, a.d, p);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] += p[e];
    tw_store_columns(a.y, row, col, a.d, v);
}

} // namespace

tw_status tw_embed_patches_forward_cuda(const tw_call *c) {
    const tw_tensor *y = &c->output[0];
    forward_args a = {tw_view_rows(&c->input[0]),
                      tw_view_rows(&c->input[1]),
                      tw_view_rows(&c->input[2]),
                      tw_view_out(y, TW_WRITE),
                      tw_tensor_rows(y),
                      y->shape[1],
                      y->shape[2]};
    return TW_LAUNCH(c->device, embed_patches_forward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

tw_status tw_embed_patches_backward_cuda(const tw_call *c) {
    const tw_tensor *dy = &c->output_grad[0];
    tw_token_args a = {tw_view_out(dy, TW_WRITE),
                       tw_view_out(&c->input_grad[0], c->input_mode[0]),
                       tw_view_out(&c->input_grad[1], c->input_mode[1]),
                       tw_view_out(&c->input_grad[2], c->input_mode[2]),
                       0.0f,
                       dy->shape[0],
                       dy->shape[1],
                       dy->shape[2]};
    return tw_launch_token_backward(c->device, a);
}
