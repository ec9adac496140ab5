/* What the norm of a gradient means for the step, once for both compilers. */
#ifndef TW_AUTOGRAD_OPS_GRADIENT_RULE_MATH_H
#define TW_AUTOGRAD_OPS_GRADIENT_RULE_MATH_H

#include "autograd/op.h"
#include "autograd/ops/split_math.h"

/* Puts the optimizer's factors into the step's record and counts Adam's steps; bad: the gradient is not
 * finite, and nothing but the record changes. */
TW_MATH void tw_gradient_rule(const tw_gradient_rule_attr *attr, double norm, bool bad, int32_t *steps) {
    tw_step *record = attr->record;
    if (!record) return;
    double t = (double)(*steps + 1);
    bool clip = attr->clip > 0.0f && norm > (double)attr->clip;
    record->bias_correction1 = (float)(1.0 - pow((double)attr->beta1, t));
    record->bias_correction2 = (float)(1.0 - pow((double)attr->beta2, t));
    record->gradient_scale = clip ? (float)((double)attr->clip / (norm + 1e-6)) : 1.0f;
    record->skip = bad;
    if (!bad) *steps += 1;
}

#endif
