/* The backward walk over (B,T,D) gradients of token sequences that embed_patches and pool_tokens share: one
 * pass that delivers the gradient of tokens 1 .. T-1 and sums every token over the batch. */
#ifndef TW_AUTOGRAD_CUDA_TOKEN_SUMS_H
#define TW_AUTOGRAD_CUDA_TOKEN_SUMS_H

#include "autograd/cuda/rows.h"
#include "autograd/ops/kept_tokens.h"

enum { TW_TOKEN_WARPS = 8 };

struct tw_token_args {
    tw_view dy;
    tw_view dx;          /* (B,T-1,D) or absent: dy[b][t] + share dy[b][0] */
    tw_view first, sums; /* row 0, and (T,D): sums over the batch, or absent */
    float share;
    int64_t batch, tokens, d;
    const int32_t
        *kept; /* (B,T-1) ascending: the positions, less 1, that tokens 1 .. have; NULL: token t has t */
    int64_t positions; /* rows of sums */
};

TW_DEVICE int64_t tw_token_at(const tw_token_args &a, int64_t b, int64_t t) {
    int64_t n = a.tokens - 1;
    return tw_kept_token(a.kept ? a.kept + b * n : NULL, n, t);
}

/* A block has a position and TW_GROUP_COLUMNS columns; each warp every TW_TOKEN_WARPS-th image. */
static __global__ void __launch_bounds__(TW_TOKEN_WARPS *TW_WARP) tw_token_backward(tw_token_args a) {
    __shared__ float shared[TW_TOKEN_WARPS * TW_GROUP_COLUMNS];
    int64_t t = blockIdx.x, col = (int64_t)blockIdx.y * TW_GROUP_COLUMNS + threadIdx.x % TW_WARP * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK], mean[TW_PACK];
    for (int64_t b = threadIdx.x / TW_WARP; b < a.batch; b += TW_TOKEN_WARPS) {
        int64_t token = tw_token_at(a, b, t);
        if (token < 0) continue;
        tw_load_columns(a.dy, b * a.tokens + token, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
        if (token == 0 || !a.dx.data) continue;
        if (a.share != 0.0f) {
            tw_load_columns(a.dy, b * a.tokens, col, a.d, mean);
#pragma unroll
            for (int e = 0; e < TW_PACK; e++) v[e] += mean[e] * a.share;
        }
        tw_store_columns(a.dx, b * (a.tokens - 1) + token - 1, col, a.d, v);
    }
    tw_add_warps(sum, TW_TOKEN_WARPS, shared);
    if (threadIdx.x >= TW_WARP) return;
    if (t == 0 && a.first.data) tw_store_columns(a.first, 0, col, a.d, sum);
    if (a.sums.data) tw_store_columns(a.sums, t, col, a.d, sum);
}

static inline tw_status tw_launch_token_backward(tw_device *device, const tw_token_args &a) {
    if (!a.dx.data && !a.first.data && !a.sums.data) return TW_OK;
    dim3 grid((unsigned)a.positions, tw_blocks(a.d, TW_GROUP_COLUMNS));
    return TW_LAUNCH(device, tw_token_backward, grid, TW_TOKEN_WARPS * TW_WARP, 0, a);
}

#endif
