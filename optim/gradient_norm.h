/* The norm of the gradient over all ranks, and what is wrong with it if it is not finite. Squares are summed
 * in f64 over units of the slab of fixed size (partition.h) and then over the units in their order: the same
 * bits for any number of threads and, for the same gradient, of ranks. */
#ifndef TW_OPTIM_GRADIENT_NORM_H
#define TW_OPTIM_GRADIENT_NORM_H

#include "autograd/param.h"
#include "optim/partition.h"

/* What the gradient looks like; the same on every rank. */
typedef struct tw_gradient_report {
    double norm;          /* of all trainable parameters; not finite if any element is not */
    const char *offender; /* the first parameter, in the set's order, whose gradient is not finite; NULL if
                             all are */
    int rank;             /* with an offender: the rank whose part of the sum is not finite; -1: several's */
} tw_gradient_report;

typedef struct tw_gradient_norm tw_gradient_norm;

/* Everything given must outlive it. */
tw_status tw_gradient_norm_create(tw_params *params, tw_device *device, tw_comm *comm,
                                  const tw_partition *partition, tw_gradient_norm **out) TW_MUST_CHECK;
void tw_gradient_norm_free(tw_gradient_norm *n); /* accepts NULL */

/* Collective. Expects the sums over all ranks in this rank's pieces of the gradient slab, and this rank's own
 * part in the rest: what is not finite there tells which rank brought it. */
tw_status tw_gradient_norm_measure(tw_gradient_norm *n, tw_gradient_report *report) TW_MUST_CHECK;

#endif
