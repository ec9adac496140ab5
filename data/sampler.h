/* Which samples make a step: a function of (seed, epoch, position) and of nothing else. */
#ifndef TW_DATA_SAMPLER_H
#define TW_DATA_SAMPLER_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum tw_last_batch {
    TW_LAST_SHORT, /* the epoch's last batch has what is left */
    TW_LAST_DROP,  /* what is left over is not seen in this epoch */
    TW_LAST_PAD,   /* as the original: the set is lengthened to whole batches by its first samples, then
                      shuffled */
} tw_last_batch;

typedef struct tw_sampler tw_sampler;

/* n samples, n >= 1; batch >= 1. TW_ERR_CONFIG if TW_LAST_DROP leaves no batch at all. */
tw_status tw_sampler_create(int64_t n, int64_t batch, tw_last_batch last, uint64_t seed,
                            tw_sampler **out) TW_MUST_CHECK;
void tw_sampler_free(tw_sampler *s);

/* Samples an epoch has (after dropping or padding), and its number of batches. */
int64_t tw_sampler_epoch_samples(const tw_sampler *s);
int64_t tw_sampler_epoch_batches(const tw_sampler *s);

/* The batch that begins at `position` (samples of the epoch before it) of `epoch`: *items points to *count
 * indexes in [0, n), valid until the next call. At the end of the epoch *count is 0. The order of an epoch is
 * a Fisher-Yates shuffle with the draws of (seed, TW_DRAW_SHUFFLE, epoch). */
tw_status tw_sampler_batch(tw_sampler *s, int64_t epoch, int64_t position, const int64_t **items,
                           int64_t *count) TW_MUST_CHECK;

#endif
