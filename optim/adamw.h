/* AdamW over a parameter set, with the finite check, gradient clipping and clamping around it. The moments
 * live in two slabs beside the parameters' trainable slab.
 *
 * With several ranks every function that says so is collective: all ranks call it, in the same order. Sharded
 * (as ZeRO stage 1), a rank keeps the moments of its pieces only, updates those, and gets the others' values;
 * else each rank keeps and updates all. In bf16 its masters are in shares as well (tw_partition_share): then
 * it gets the others' bf16 copies, and f32 values of what computes in f32. Both give the same bits, and the
 * norm does not depend on the number of ranks. */
#ifndef TW_OPTIM_ADAMW_H
#define TW_OPTIM_ADAMW_H

#include "autograd/op.h"
#include "autograd/param.h"
#include "optim/gradient_norm.h"

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
/* The same over the ranks of comm; the partition is of the set's trainable slab and made for this rank. Both
 * must outlive the optimizer. Sharded over several ranks a bf16 set must be in shares of this partition, and
 * else must not be (TW_ERR_ARGUMENT). */
tw_status tw_adamw_create_ranks(tw_params *params, tw_device *device, tw_comm *comm,
                                const tw_partition *partition, bool sharded, const tw_adamw_config *config,
                                tw_adamw **out) TW_MUST_CHECK;
void tw_adamw_free(tw_adamw *adamw);

/* Collective. Expects the sums over all ranks in this rank's pieces of the gradient slab
 * (tw_partition_reduce) and this rank's own part in the rest. Not sharded, all pieces are gathered here,
 * unless there is an offender. */
tw_status tw_adamw_inspect(tw_adamw *adamw, tw_gradient_report *report) TW_MUST_CHECK;

/* Collective. One step at rate lr with the gradients in the set, whose norm `report` gives; after it every
 * rank has all values that it computes with. A gradient that is not finite changes nothing: weights, moments,
 * statistics and the counter stay. The set's statistics move towards those of the step's batch. step is the
 * device's step record; its optimizer fields are written. */
tw_status tw_adamw_step(tw_adamw *adamw, const tw_gradient_report *report, double lr,
                        tw_step *step) TW_MUST_CHECK;

/* ---- the same without waiting for the device ---- */

/* Collective. Queues inspection and step together: what the gradient's norm means for the step is worked out
 * on the device. The rate is what step's record, in device memory, has as lr. Sums and parts as for
 * tw_adamw_inspect. */
tw_status tw_adamw_queue(tw_adamw *adamw, tw_step *step) TW_MUST_CHECK;
/* Device memory that a queued step leaves, valid until the next one; download it behind the step. */
const tw_gradient_found *tw_adamw_found(const tw_adamw *adamw);
/* Collective where the gradient was not finite. What a host copy of it says, and the counter of steps up to
 * it. */
tw_status tw_adamw_collect(tw_adamw *adamw, const tw_gradient_found *host,
                           tw_gradient_report *report) TW_MUST_CHECK;

/* Steps that changed weights, queued ones once they are collected: the t of bias correction. */
int64_t tw_adamw_steps(const tw_adamw *adamw);
tw_status tw_adamw_set_steps(tw_adamw *adamw, int64_t steps) TW_MUST_CHECK;
/* Whether weight decay applies to this parameter. */
bool tw_adamw_decays(const tw_adamw *adamw, const tw_param *param);

/* Sets the moments of a trainable parameter from the host; second chooses v instead of m. A rank that is
 * given all of the parameter keeps what is its own. */
tw_status tw_adamw_set_moment(tw_adamw *adamw, const tw_param *param, bool second,
                              const float *values) TW_MUST_CHECK;
/* The same from elements [first, first + count) of the parameter alone (TW_ERR_SHAPE: beyond its end). */
tw_status tw_adamw_set_moment_range(tw_adamw *adamw, const tw_param *param, bool second, int64_t first,
                                    const float *values, int64_t count) TW_MUST_CHECK;
/* What of a parameter's moments this rank keeps, a run at a time, so that it need not be given more: the
 * first one at or behind element `from` (for the next: this one's end) begins at *first; its length is
 * returned. 0: none, as of what is not trained. */
int64_t tw_adamw_next_kept(const tw_adamw *adamw, const tw_param *param, int64_t from, int64_t *first);
/* Collective. The moments of the whole trainable slab to rank 0's `out`, host memory of tw_params_trainable
 * elements in which a parameter begins at its offset; other ranks' out is not used. */
tw_status tw_adamw_get_moments(const tw_adamw *adamw, bool second, float *out) TW_MUST_CHECK;
/* Collective. The same of the masters of a set that has them in shares. */
tw_status tw_adamw_get_masters(const tw_adamw *adamw, float *out) TW_MUST_CHECK;
/* The moments where they lie, valid until they change: on a CPU that keeps all of them. NULL elsewhere, on
 * every rank alike. */
const float *tw_adamw_moments(const tw_adamw *adamw, bool second);
/* Bytes of the moments that this rank keeps. */
size_t tw_adamw_bytes(const tw_adamw *adamw);

#endif
