#include "autograd/op.h"
#include "autograd/ops/unit_norm.h"
#include "autograd/parallel.h"

/* norm[k] = ||g[segment k]||_2, not finite if any of its elements is not. input: g (n) f32; output:
 * (segments) f32. Squares are added in f64 and in an order that no number of threads changes (unit_norm.h).
 */

tw_status tw_finite_norm_shape(tw_call *c) {
    const tw_finite_norm_attr *attr = c->attr;
    int64_t n = tw_present(&c->input[0]) ? tw_tensor_count(&c->input[0]) : 0;
    TRY(tw_call_check_f32(c, 0, "gradients", 1, &n));
    tw_call_output(c, 0, TW_F32, 1, &attr->count);
    return TW_OK;
}

tw_status tw_finite_norm_forward_cpu(const tw_call *c) {
    const tw_finite_norm_attr *attr = c->attr;
    const float *g = c->input[0].data;
    float *norm = c->output[0].data;
#pragma omp parallel for schedule(dynamic, 16) /* the optimizer's segments are many and small */
    for (int64_t k = 0; k < attr->count; k++)
        norm[k] = tw_unit_norm(g + attr->segments[k].offset, attr->segments[k].count);
    return TW_OK;
}
