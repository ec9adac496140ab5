/* What batch norm's backward delivers for its running statistics, as its own kernels and the graph's do: see
 * the top of ops/batch_norm.c. */
#ifndef TW_AUTOGRAD_CUDA_RUNNING_STATISTICS_H
#define TW_AUTOGRAD_CUDA_RUNNING_STATISTICS_H

#include "autograd/cuda/rows.h"

struct tw_running_grads {
    tw_view mean, variance; /* (C), data NULL: nowhere */
    const float *running_mean, *running_variance;
    const tw_step *step;
};

/* mean, variance: which inputs they are. */
static inline tw_running_grads tw_running_grads_of(const tw_call *c, int mean, int variance) {
    return tw_running_grads{tw_view_out(&c->input_grad[mean], c->input_mode[mean]),
                            tw_view_out(&c->input_grad[variance], c->input_mode[variance]),
                            (const float *)c->input[mean].data, (const float *)c->input[variance].data,
                            c->step};
}

/* Of channel i, whose batch has this mean and (biased) variance. counts: whether it has a share in the step.
 */
TW_DEVICE void tw_put_running(const tw_running_grads &to, int64_t i, bool counts, float mean, float variance,
                              float unbiased) {
    float share = counts ? to.step->share : 0.0f;
    if (to.mean.data) tw_put_one(to.mean, i, share != 0.0f ? share * (to.running_mean[i] - mean) : 0.0f);
    if (to.variance.data)
        tw_put_one(to.variance, i,
                   share != 0.0f ? share * (to.running_variance[i] - unbiased * variance) : 0.0f);
}

#endif
