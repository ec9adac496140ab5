/* One element's AdamW update (Loshchilov and Hutter 2019, as PyTorch rounds it), once for both compilers:
 *     p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *     p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps) */
#ifndef TW_AUTOGRAD_OPS_ADAMW_MATH_H
#define TW_AUTOGRAD_OPS_ADAMW_MATH_H

#include "autograd/op.h"
#include "autograd/ops/activation_math.h"

typedef struct tw_adamw_rule {
    float keep; /* 1 - lr wd */
    float rate; /* lr / (1 - b1^t) */
    float root; /* sqrt(1 - b2^t) */
    float beta1, beta2, eps;
    float scale; /* of the gradient */
} tw_adamw_rule;

TW_MATH tw_adamw_rule tw_adamw_rule_of(const tw_step *s, float beta1, float beta2, float eps,
                                       float weight_decay) {
    tw_adamw_rule r;
    r.keep = 1.0f - s->lr * weight_decay;
    r.rate = s->lr / s->bias_correction1;
    r.root = sqrtf(s->bias_correction2);
    r.beta1 = beta1, r.beta2 = beta2, r.eps = eps;
    r.scale = s->gradient_scale;
    return r;
}

TW_MATH void tw_adamw_update(const tw_adamw_rule *r, float gradient, float *p, float *m, float *v) {
    float g = gradient * r->scale;
    float mi = r->beta1 * *m + (1.0f - r->beta1) * g;
    float vi = r->beta2 * *v + (1.0f - r->beta2) * g * g;
    *m = mi;
    *v = vi;
    *p = *p * r->keep - r->rate * mi / (sqrtf(vi) / r->root + r->eps);
}

/* The value kept in a segment's range. */
TW_MATH float tw_adamw_clamp(float p, float low, float high) {
    return low > -INFINITY || high < INFINITY ? fminf(fmaxf(p, low), high) : p;
}

#endif
