/* AdamW over a parameter set, with the finite check, gradient clipping and clamping around it. The moments
 * live in two slabs beside the parameters' trainable slab. */
#ifndef TW_OPTIM_ADAMW_H
#define TW_OPTIM_ADAMW_H

#include "autograd/op.h"
#include "autograd/param.h"

typedef struct tw_adamw_config {
    float beta1, beta2, eps, weight_decay;
    const char *const *no_decay; /* a parameter whose name contains one of these is not decayed */
    int n_no_decay;
    float clip;            /* largest norm of the whole gradient; 0: no clipping */
    float logit_scale_max; /* logit_scale is kept in [0, this] */
} tw_adamw_config;

typedef struct tw_adamw tw_adamw;

/* The set must be allocated for training. Moments start at zero. Both must outlive the optimizer. */
tw_status tw_adamw_create(tw_params *params, tw_device *device, const tw_adamw_config *config,
                          tw_adamw **out) TW_MUST_CHECK;
void tw_adamw_free(tw_adamw *adamw);

/* What the gradient looks like. */
typedef struct tw_gradient_report {
    double norm; /* of all trainable parameters; not finite if any element is not */
    const char *
        offender; /* the first parameter, in the set's order, whose gradient is not finite; NULL if all are */
} tw_gradient_report;

tw_status tw_adamw_inspect(tw_adamw *adamw, tw_gradient_report *report) TW_MUST_CHECK;

/* One step at rate lr with the gradients in the set, whose norm `report` gives. A gradient that is not finite
 * changes nothing: weights, moments, statistics and the counter stay. The set's statistics move towards those
 * of the step's batch. step is the device's step record; its optimizer fields are written. */
tw_status tw_adamw_step(tw_adamw *adamw, const tw_gradient_report *report, double lr,
                        tw_step *step) TW_MUST_CHECK;

/* Steps that changed weights: the t of bias correction. */
int64_t tw_adamw_steps(const tw_adamw *adamw);
void tw_adamw_set_steps(tw_adamw *adamw, int64_t steps);
/* Whether weight decay applies to this parameter. */
bool tw_adamw_decays(const tw_adamw *adamw, const tw_param *param);

/* The moments of a trainable parameter, to and from the host; second chooses v instead of m. */
tw_status tw_adamw_get_moment(const tw_adamw *adamw, const tw_param *param, bool second,
                              float *out) TW_MUST_CHECK;
tw_status tw_adamw_set_moment(tw_adamw *adamw, const tw_param *param, bool second,
                              const float *values) TW_MUST_CHECK;
/* Bytes of the moments. */
size_t tw_adamw_bytes(const tw_adamw *adamw);

#endif
