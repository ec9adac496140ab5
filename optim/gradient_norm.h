/* The norm of the gradient over all ranks, and what is wrong with it if it is not finite. Squares are summed
 * in f64 over units of the slab of fixed size (partition.h) and then over the units in their order: the same
 * bits for any number of threads and, for the same gradient, of ranks. */
#ifndef TW_OPTIM_GRADIENT_NORM_H
#define TW_OPTIM_GRADIENT_NORM_H

#include "autograd/op.h"
#include "autograd/param.h"
#include "optim/partition.h"

/* What the gradient looks like; the same on every rank. */
typedef struct tw_gradient_report {
    double norm;          /* of all trainable parameters; not finite if any element is not */
    const char *offender; /* the first parameter, in the set's order, whose gradient is not finite; NULL if
                             all are */
    int rank, ranks; /* with an offender: the first rank whose part of the sum is not finite, and how many
                        have such */
} tw_gradient_report;

/* What the device knows of it. */
typedef struct tw_gradient_found {
    float norm[3];         /* split, see autograd/ops/split_math.h */
    int32_t unit, element; /* the first unit whose norm is not finite, -1: none; what spoils it. Only right on
                              the rank that owns the unit */
    int32_t own_finite;    /* what this rank added to the others' pieces is all finite */
    int32_t steps;         /* of Adam, that changed weights */
    int32_t blocks;        /* the device's own: 0 whenever its work is done */
} tw_gradient_found;

/* The optimizer's factors that follow from the norm. */
typedef struct tw_gradient_rule_config {
    float clip, beta1, beta2;
} tw_gradient_rule_config;

typedef struct tw_gradient_norm tw_gradient_norm;

/* Everything given must outlive it. */
tw_status tw_gradient_norm_create(tw_params *params, tw_device *device, tw_comm *comm,
                                  const tw_partition *partition, tw_gradient_norm **out) TW_MUST_CHECK;
void tw_gradient_norm_free(tw_gradient_norm *n); /* accepts NULL */

/* Collective. Expects the sums over all ranks in this rank's pieces of the gradient slab, and this rank's own
 * part in the rest: what is not finite there tells which rank brought it. */
tw_status tw_gradient_norm_measure(tw_gradient_norm *n, tw_gradient_report *report) TW_MUST_CHECK;

/* ---- without waiting for it ---- */

/* Collective. Queues the same, and puts what follows for this step into record (device memory): bias
 * corrections, clip factor, skip; counts Adam's steps on the device. */
tw_status tw_gradient_norm_queue(tw_gradient_norm *n, const tw_gradient_rule_config *rule,
                                 tw_step *record) TW_MUST_CHECK;
/* Device memory that the last call leaves, valid until the next. */
const tw_gradient_found *tw_gradient_norm_found(const tw_gradient_norm *n);
/* Collective where the gradient is not finite. What a host copy of it says. */
tw_status tw_gradient_norm_report(tw_gradient_norm *n, const tw_gradient_found *host,
                                  tw_gradient_report *report) TW_MUST_CHECK;
/* Sets the device's count of Adam's steps. */
tw_status tw_gradient_norm_set_steps(tw_gradient_norm *n, int64_t steps) TW_MUST_CHECK;

#endif
