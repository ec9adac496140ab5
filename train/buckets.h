/* The sum of the gradients over ranks, bucket by bucket while backward still runs: a bucket of the trainable
 * slab (optim/partition.h) is on its way as soon as the last gradient in it is final. Buckets leave in their
 * order on every rank, whatever each rank's backward does: one without samples has none. */
#ifndef TW_TRAIN_BUCKETS_H
#define TW_TRAIN_BUCKETS_H

#include "autograd/tape.h"
#include "optim/partition.h"

typedef struct tw_buckets tw_buckets;

/* The set must be allocated for training. partition: of its trainable slab over comm's ranks, or NULL for one
 * of its own. Everything given must outlive it. */
tw_status tw_buckets_create(tw_params *params, tw_comm *comm, const tw_partition *partition,
                            tw_buckets **out) TW_MUST_CHECK;
void tw_buckets_free(tw_buckets *b); /* accepts NULL */

/* Before the last backward of a step, which is this tape's; all other gradients are final. */
tw_status tw_buckets_expect(tw_buckets *b, const tw_tape *tape) TW_MUST_CHECK;
/* For tw_tape_backward, with the tw_buckets as context. */
tw_status tw_buckets_hook(void *context, const tw_param *param) TW_MUST_CHECK;
/* After it, or instead of both: sends what is left and waits. Then this rank's pieces hold the sums over all
 * ranks (without a partition: everything does), and so do the gradients of the statistics, which are small,
 * on every rank. */
tw_status tw_buckets_finish(tw_buckets *b) TW_MUST_CHECK;

#endif
