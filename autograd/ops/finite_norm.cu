#include "autograd/cuda/rows.h"

/* norm[k] = ||g[segment k]||_2; input: g (n) f32; output: (segments) f32. A warp a segment, for the
 * optimizer's segments are many and small (partition.h: 1,024 elements, 4 KB, so that a warp has all its
 * loads on their way at once); squares are added in f64 and in a fixed order. */

namespace {

enum { WARPS = 8, STEP = 4 * TW_WARP }; /* of a block; elements that a warp reads at a time */

__global__ void finite_norm_forward(const float *slab, const tw_segment *segments, int64_t n, float *norm) {
    int64_t k = (int64_t)blockIdx.x * WARPS + threadIdx.x / TW_WARP;
    int lane = (int)threadIdx.x % TW_WARP;
    if (k >= n) return;
    const tw_segment s = segments[k];
    const float *g = slab + s.offset;
    bool wide = reinterpret_cast<uintptr_t>(g) % 16 == 0;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = lane * 4; i < s.count; i += STEP) {
        float v[4];
        tw_load_part(g, i, s.count, wide && i + 4 <= s.count, v);
#pragma unroll
        for (int e = 0; e < 4; e++) sum += (double)v[e] * (double)v[e];
    }
    sum = tw_warp_sum(sum);
    if (lane == 0) norm[k] = (float)sqrt(sum);
}

} // namespace

tw_status tw_finite_norm_forward_cuda(const tw_call *c) {
    const tw_finite_norm_attr *attr = (const tw_finite_norm_attr *)c->attr;
    return TW_LAUNCH(c->device, finite_norm_forward, tw_blocks(attr->count, WARPS), WARPS * TW_WARP, 0,
                     (const float *)c->input[0].data, attr->segments, attr->count,
                     (float *)c->output[0].data);
}
