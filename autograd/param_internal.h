/* What param.c (names), param_slabs.c (memory) and param_values.c (values in and out) share. */
#ifndef TW_AUTOGRAD_PARAM_INTERNAL_H
#define TW_AUTOGRAD_PARAM_INTERNAL_H

#include "autograd/param.h"

enum { TW_PARAM_ALIGN = 16 }; /* elements: 64 bytes in f32 */

/* A stack of parameters, or a slice of a parameter or a stack. */
struct tw_params_view {
    tw_param view;
    int first, n;       /* of a stack */
    const tw_param *of; /* of a slice, else NULL */
    int64_t skip;       /* elements of it before the slice */
};

struct tw_params {
    tw_param **params;
    struct tw_params_view **fused;
    int count, capacity, fused_count;
    tw_device *device;
    tw_dtype compute_type;
    bool laid_out, training, in_shares;
    int64_t vectors, trainable, statistics, values_count, copies_count, masters_count;
    tw_piece *pieces; /* in shares: of the trainable slab, in the order of masters */
    int64_t n_pieces;
    float *values, *gradients, *masters;
    uint16_t *copies;
};

/* Whether the set has only pieces of this parameter's master. */
static inline bool tw_param_in_shares(const tw_params *set, const tw_param *p) {
    return set->in_shares && tw_param_is_trained(p);
}

#endif
