/* The features computed so far of a long extraction, in a file of its own, so that an interrupted run goes on
 * where it stopped. Batches are appended as they are done; each carries a checksum, and what a killed run or
 * a full disk left behind the last whole batch is cut off when the file is opened again. */
#ifndef TW_TRAIN_FEATURE_PART_H
#define TW_TRAIN_FEATURE_PART_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tw_feature_part tw_feature_part;

/* What the rows are of. A file of anything else is begun again. */
typedef struct tw_feature_job {
    uint64_t identity; /* a hash of the model, the options that change bits, and the items */
    int64_t items, dim, batch;
} tw_feature_job;

/* Opens `path`, or makes it. *done items are there already: a multiple of the batch, or all. *dropped: there
 * was a file of another job, now empty. TW_ERR_IO also if another process has it open. */
tw_status tw_feature_part_open(const char *path, const tw_feature_job *job, int64_t *done, bool *dropped,
                               tw_feature_part **out) TW_MUST_CHECK;
/* The next n items, a batch or the last ones: rows (n, dim), ok (n) or NULL. TW_ERR_IO: disk full, ... */
tw_status tw_feature_part_append(tw_feature_part *part, const float *rows, const bool *ok, int64_t n,
                                 int64_t truncated) TW_MUST_CHECK;

typedef struct tw_feature_batch {
    int64_t first, n;  /* n 0: the end */
    const float *rows; /* (n, dim) */
    const bool *ok;    /* (n) */
    int64_t truncated;
} tw_feature_batch;

/* Batch number `index` of those that are there, valid until the next call. */
tw_status tw_feature_part_read(tw_feature_part *part, int64_t index, tw_feature_batch *out) TW_MUST_CHECK;

/* Accepts NULL. The file stays unless `remove`. */
void tw_feature_part_close(tw_feature_part *part, bool remove);

#endif
