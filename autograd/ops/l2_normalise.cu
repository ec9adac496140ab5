#include "autograd/cuda/rows.h"

/* y = x / ||x||; outputs: y (n,E) f32, norm (n) f32. dx = (dy - y (y . dy)) / ||x||. Sums in f64. */

namespace {

enum { WARPS = 4 }; /* rows a block */

struct normalise_args {
    tw_view x, y, dy; /* backward: x's gradient, y, its gradient */
    float *norm;
    int64_t rows, d;
};

__global__ void l2_normalise_forward(normalise_args a) {
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / TW_WARP;
    if (row >= a.rows) return; /* the whole warp */
    int64_t first = threadIdx.x % TW_WARP * TW_PACK;
    float v[TW_PACK];
    double square = 0.0;
    for (int64_t col = first; col < a.d; col += TW_GROUP_COLUMNS) {
        tw_load_columns(a.x, row, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) square += (double)v[e] * (double)v[e];
    }
    float norm = (float)sqrt(tw_warp_sum(square));
    if (threadIdx.x % TW_WARP == 0) a.norm[row] = norm;
    for (int64_t col = first; col < a.d; col += TW_GROUP_COLUMNS) {
        tw_load_columns(a.x, row, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[e] /= norm;
        tw_store_columns(a.y, row, col, a.d, v);
    }
}

__global__ void l2_normalise_backward(normalise_args a) {
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / TW_WARP;
    if (row >= a.rows) return; /* the whole warp */
    int64_t first = threadIdx.x % TW_WARP * TW_PACK;
    float norm = a.norm[row], y[TW_PACK], g[TW_PACK];
    double sum = 0.0;
    for (int64_t col = first; col < a.d; col += TW_GROUP_COLUMNS) {
        tw_load_columns(a.y, row, col, a.d, y);
        tw_load_columns(a.dy, row, col, a.d, g);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum += (double)y[e] * (double)g[e];
    }
    float dot = (float)tw_warp_sum(sum);
    for (int64_t col = first; col < a.d; col += TW_GROUP_COLUMNS) {
        tw_load_columns(a.y, row, col, a.d, y);
        tw_load_columns(a.dy, row, col, a.d, g);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) g[e] = (g[e] - y[e] * dot) / norm;
        tw_store_columns(a.x, row, col, a.d, g);
    }
}

} // namespace

tw_status tw_l2_normalise_forward_cuda(const tw_call *c) {
    const tw_tensor *x = &c->input[0];
    normalise_args a = {tw_view_rows(x),
                        tw_view_out(&c->output[0], TW_WRITE),
                        {},
                        (float *)c->output[1].data,
                        tw_tensor_rows(x),
                        tw_tensor_cols(x)};
    return TW_LAUNCH(c->device, l2_normalise_forward, tw_blocks(a.rows, WARPS), WARPS * TW_WARP, 0, a);
}

tw_status tw_l2_normalise_backward_cuda(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0];
    if (!dx->data) return TW_OK;
    normalise_args a = {tw_view_out(dx, c->input_mode[0]),
                        tw_view_rows(&c->output[0]),
                        tw_view_out(&c->output_grad[0], TW_WRITE),
                        (float *)c->output[1].data,
                        tw_tensor_rows(dx),
                        tw_tensor_cols(dx)};
    return TW_LAUNCH(c->device, l2_normalise_backward, tw_blocks(a.rows, WARPS), WARPS * TW_WARP, 0, a);
}
