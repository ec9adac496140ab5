#include "autograd/cuda/rows.h"

/* s -= rate g; inputs: s, g (n) f32 */

namespace {

__global__ void move_statistics_forward(float *s, const float *g, int64_t n, float rate,
                                        const tw_step *step) {
    int64_t i = tw_global_thread();
    if (i < n && !step->skip) s[i] -= rate * g[i];
}

} // namespace

tw_status tw_move_statistics_forward_cuda(const tw_call *c) {
    int64_t n = tw_tensor_count(&c->input[0]);
    return TW_LAUNCH(c->device, move_statistics_forward, tw_blocks(n, 256), 256, 0, (float *)c->input[0].data,
                     (const float *)c->input[1].data, n, ((const tw_move_statistics_attr *)c->attr)->rate,
                     c->step);
}
