#include "autograd/cuda/unit_norm.h"

/* norm[k] = ||g[segment k]||_2; input: g (n) f32; output: (segments) f32. A warp a segment, for the
 * optimizer's segments are many and small. */

namespace {

enum { WARPS = 8 }; /* of a block */

__global__ void finite_norm_forward(const float *slab, const tw_segment *segments, int64_t n, float *norm) {
    int64_t k = (int64_t)blockIdx.x * WARPS + threadIdx.x / TW_WARP;
    if (k >= n) return; /* the whole warp */
    const tw_segment s = segments[k];
    float found = tw_unit_norm(slab + s.offset, s.count);
    if (threadIdx.x % TW_WARP == 0) norm[k] = found;
}

} // namespace

tw_status tw_finite_norm_forward_cuda(const tw_call *c) {
    const tw_finite_norm_attr *attr = (const tw_finite_norm_attr *)c->attr;
    return TW_LAUNCH(c->device, finite_norm_forward, tw_blocks(attr->count, WARPS), WARPS * TW_WARP, 0,
                     (const float *)c->input[0].data, attr->segments, attr->count,
                     (float *)c->output[0].data);
}
