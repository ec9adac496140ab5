#include "autograd/cuda/rows.h"

/* norm[k] = ||g[segment k]||_2; input: g (n) f32; output: (segments) f32. A block a segment, for the
 * optimizer's segments are many and small; squares are added in f64 and in a fixed order. */

namespace {

enum { THREADS = 256 };

__global__ void finite_norm_forward(const float *slab, const tw_segment *segments, float *norm) {
    const tw_segment s = segments[blockIdx.x];
    const float *g = slab + s.offset;
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < s.count; i += THREADS) sum += (double)g[i] * (double)g[i];
    sum = tw_block_sum(sum);
    if (threadIdx.x == 0) norm[blockIdx.x] = (float)sqrt(sum);
}

} // namespace

tw_status tw_finite_norm_forward_cuda(const tw_call *c) {
    const tw_finite_norm_attr *attr = (const tw_finite_norm_attr *)c->attr;
    return TW_LAUNCH(c->device, finite_norm_forward, (unsigned)attr->count, THREADS, 0,
                     (const float *)c->input[0].data, attr->segments, (float *)c->output[0].data);
}
