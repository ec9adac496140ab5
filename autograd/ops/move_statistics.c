#include "autograd/op.h"

/* Running averages follow the statistics of a step's batch: s -= rate (s - batch's), where the difference is
 * what batch_norm's backward has left as the gradient of s. Nothing moves in a step that is skipped. inputs:
 * s, gradients (n) f32. */

tw_status tw_move_statistics_shape(tw_call *c) {
    int64_t n = tw_present(&c->input[0]) ? tw_tensor_count(&c->input[0]) : 0;
    TRY(tw_call_check_f32(c, 0, "statistics", 1, &n));
    return tw_call_check_f32(c, 1, "gradients", 1, &n);
}

tw_status tw_move_statistics_forward_cpu(const tw_call *c) {
    float *restrict s = c->input[0].data, rate = ((const tw_move_statistics_attr *)c->attr)->rate;
    const float *restrict g = c->input[1].data;
    int64_t n = tw_tensor_count(&c->input[0]);
    if (c->step->skip) return TW_OK;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) s[i] -= rate * g[i];
    return TW_OK;
}
