/* What a training step leaves on a device that works behind the host's back, read one step late: loss, norm
 * and what was wrong with the gradient travel on the compute queue into pinned memory, and the host looks at
 * them when the next step has been queued. */
#ifndef TW_TRAIN_STEP_RESULTS_H
#define TW_TRAIN_STEP_RESULTS_H

#include "layers/contrastive.h"
#include "optim/gradient_norm.h"

typedef struct tw_step_result {
    int64_t step, pairs; /* as given; of all ranks */
    tw_contrastive_result loss;
    tw_gradient_found found;
    double waited; /* seconds for which the compute queue stood still before the step's first input was there:
                      since the end of the step before, or, after a pause, since the step began */
} tw_step_result;

typedef struct tw_step_results tw_step_results;

/* Of `ranks` ranks' tallies. The device must outlive it. */
tw_status tw_step_results_create(tw_device *device, int ranks, tw_step_results **out) TW_MUST_CHECK;
void tw_step_results_free(tw_step_results *r); /* accepts NULL */

/* Around each step: before its first work; when its first input is there; behind its last work. `tallies`
 * (tw_contrastive_tallies) and `found` (tw_adamw_found; NULL: the step had none) are device memory. */
tw_status tw_step_results_begin(tw_step_results *r) TW_MUST_CHECK;
tw_status tw_step_results_ready(tw_step_results *r) TW_MUST_CHECK;
tw_status tw_step_results_end(tw_step_results *r, int64_t step, int64_t pairs, const float *tallies,
                              const tw_gradient_found *found) TW_MUST_CHECK;
/* Other work than steps comes next: the time until the next one is no waiting for data. */
void tw_step_results_pause(tw_step_results *r);

/* The oldest result not taken yet: *taken is false where there is none, or, without `all`, where only that of
 * the last step is left. Waits for it. */
tw_status tw_step_results_take(tw_step_results *r, bool all, tw_step_result *out, bool *taken) TW_MUST_CHECK;

#endif
