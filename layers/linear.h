/* Linear maps and layer norms as layers: named parameters plus the call that uses them. Builders return NULL
 * once the tape is poisoned. */
#ifndef TW_LAYERS_LINEAR_H
#define TW_LAYERS_LINEAR_H

#include "autograd/tape.h"

typedef struct tw_linear {
    const tw_param *weight; /* (out, in); (in, out) if in_out */
    const tw_param *bias;   /* (out) or NULL */
    bool in_out;            /* "x @ W" projections */
    bool output_f32;
} tw_linear;

typedef struct tw_norm {
    const tw_param *gain, *bias; /* (width) */
    float eps;
} tw_norm;

/* Adds <prefix>.weight (out, in) and <prefix>.bias (out), drawn as given. */
tw_status tw_linear_init(tw_linear *l, tw_params *params, const char *prefix, int64_t in, int64_t out,
                         tw_init weight, tw_init bias) TW_MUST_CHECK;
/* Adds a bare (in, out) projection under this very name; features come out in f32. */
tw_status tw_projection_init(tw_linear *l, tw_params *params, const char *name, int64_t in, int64_t out,
                             tw_init weight) TW_MUST_CHECK;
/* Outputs [first, first + count) of a map whose weight is (out, in), as a map of its own. */
tw_status tw_linear_slice(tw_linear *l, tw_params *params, const tw_linear *of, int64_t first,
                          int64_t count) TW_MUST_CHECK;
/* Adds <prefix>.weight = 1 and <prefix>.bias = 0, (width) each. */
tw_status tw_norm_init(tw_norm *n, tw_params *params, const char *prefix, int64_t width,
                       float eps) TW_MUST_CHECK;

/* act(x W^T + b) + residual; residual may be NULL. x (.., in) -> (.., out). */
tw_tensor *tw_linear_forward(tw_tape *tape, const tw_linear *l, tw_tensor *x, tw_activation activation,
                             tw_tensor *residual);
tw_tensor *tw_norm_forward(tw_tape *tape, const tw_norm *n, tw_tensor *x);
/* norm(x + dropout(h)), dropout drawn for place `layer`. origin NULL, or of packed rows
 * (autograd/ops/packed.h), of samples with at most `tokens` tokens. */
tw_tensor *tw_add_norm_forward(tw_tape *tape, const tw_norm *n, tw_tensor *x, tw_tensor *h, float dropout,
                               uint32_t layer, tw_tensor *origin, int tokens);

#endif
