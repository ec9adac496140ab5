#include "autograd/cuda/token_sums.h"

/* inputs: x (B,H,W,C), positions (HW+1,C) as x; output: (B,HW+1,C): [mean; pixels] + positions */

namespace {

enum { WARPS = TW_TOKEN_WARPS };

struct forward_args {
    tw_view x, positions, y;
    int64_t tokens, d;
};

/* A block has an image and TW_GROUP_COLUMNS columns; each warp every WARPS-th pixel. */
__global__ void pool_tokens_forward(forward_args a) {
    __shared__ float shared[WARPS * TW_GROUP_COLUMNS];
    int64_t image = blockIdx.x, pixels = a.tokens - 1;
    int64_t col = (int64_t)blockIdx.y * TW_GROUP_COLUMNS + threadIdx.x % TW_WARP * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK], p[TW_PACK];
    for (int64_t i = threadIdx.x / TW_WARP; i < pixels; i += WARPS) {
        tw_load_columns(a.x, image * pixels + i, col, a.d, v);
        tw_load_columns(a.positions, i + 1, col, a.d, p);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e], v[e] += p[e];
        tw_store_columns(a.y, image * a.tokens + i + 1, col, a.d, v);
    }
    tw_add_warps(sum, WARPS, shared);
    if (threadIdx.x >= TW_WARP) return;
    tw_load_columns(a.positions, 0, col, a.d, p);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] = sum[e] / (float)pixels + p[e];
    tw_store_columns(a.y, image * a.tokens, col, a.d, v);
}

} // namespace

tw_status tw_pool_tokens_forward_cuda(const tw_call *c) {
    const tw_tensor *y = &c->output[0];
    forward_args a = {tw_view_rows(&c->input[0]), tw_view_rows(&c->input[1]), tw_view_out(y, TW_WRITE),
                      y->shape[1], y->shape[2]};
    dim3 grid((unsigned)y->shape[0], tw_blocks(a.d, TW_GROUP_COLUMNS));
    return TW_LAUNCH(c->device, pool_tokens_forward, grid, WARPS * TW_WARP, 0, a);
}

tw_status tw_pool_tokens_backward_cuda(const tw_call *c) {
    const tw_tensor *dy = &c->output_grad[0];
    tw_token_args a = {tw_view_out(dy, TW_WRITE),
                       tw_view_out(&c->input_grad[0], c->input_mode[0]),
                       {},
                       tw_view_out(&c->input_grad[1], c->input_mode[1]),
                       1.0f / (float)(dy->shape[1] - 1),
                       dy->shape[0],
                       dy->shape[1],
                       dy->shape[2],
                       NULL,
                       dy->shape[1]};
    return tw_launch_token_backward(c->device, a);
}
