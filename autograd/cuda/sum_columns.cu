#include "autograd/cuda/rows.h"

namespace {

enum { SIDE = 32 };

struct sum_args {
    const float *partial; /* (n, targets, d) */
    int64_t n, d;
    tw_view out[2];
};

/* A block sums 32 columns: each of its W warps (up to 32) every W-th row, then the warps' sums in order. */
__global__ void __launch_bounds__(SIDE *SIDE) sum_columns(sum_args a) {
    __shared__ float shared[SIDE][SIDE];
    int lane = (int)threadIdx.x % SIDE, warp = (int)threadIdx.x / SIDE, warps = (int)blockDim.x / SIDE;
    int64_t col = (int64_t)blockIdx.x * SIDE + lane, stride = (int64_t)gridDim.y * a.d;
    const tw_view out = a.out[blockIdx.y];
    if (!out.data) return;
    float sum = 0.0f;
    if (col < a.d)
        for (int64_t i = warp; i < a.n; i += warps) sum += a.partial[i * stride + blockIdx.y * a.d + col];
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || col >= a.d) return;
    sum = 0.0f;
    for (int w = 0; w < warps; w++) sum += shared[w][lane];
    if (out.bf16)
        tw_deliver_one((tw_bf16 *)out.data + col, sum, out.add);
    else
        tw_deliver_one((float *)out.data + col, sum, out.add);
}

} // namespace

tw_status tw_cuda_sum_columns(tw_device *device, const float *partial, int64_t n, int64_t d, int targets,
                              const tw_column_target *target) {
    sum_args a = {};
    a.partial = partial, a.n = n, a.d = d;
    bool wanted = false;
    for (int k = 0; k < targets; k++) {
        a.out[k] = tw_view_out(target[k].tensor, target[k].mode);
        wanted |= a.out[k].data != NULL;
    }
    if (!wanted || d == 0) return TW_OK;
    unsigned warps = n < 1 ? 1 : n < SIDE ? (unsigned)n : (unsigned)SIDE;
    dim3 grid(tw_blocks(d, SIDE), (unsigned)targets);
    return TW_LAUNCH(device, sum_columns, grid, warps * SIDE, 0, a);
}
