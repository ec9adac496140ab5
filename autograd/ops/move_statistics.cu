#include "autograd/cuda/rows.h"

/* s -= rate g; inputs: s, g (n) f32 */

namespace {

struct move_args {
    tw_view s, g; /* one row: all elements */
    const tw_step *step;
    int64_t n;
    float rate;
};

__global__ void move_statistics_forward(move_args a) {
    int64_t first = tw_global_thread() * TW_PACK;
    float s[TW_PACK], g[TW_PACK];
    if (first >= a.n || a.step->skip) return;
    tw_load_columns(a.s, 0, first, a.n, s);
    tw_load_columns(a.g, 0, first, a.n, g);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) s[e] -= a.rate * g[e];
    tw_store_columns(a.s, 0, first, a.n, s);
}

} // namespace

tw_status tw_move_statistics_forward_cuda(const tw_call *c) {
    int64_t n = tw_tensor_count(&c->input[0]);
    move_args a = {tw_view_of(c->input[0].data, TW_F32, n, n), tw_view_of(c->input[1].data, TW_F32, n, n),
                   c->step, n, ((const tw_move_statistics_attr *)c->attr)->rate};
    return TW_LAUNCH(c->device, move_statistics_forward, tw_blocks(tw_packs_of(n), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}
