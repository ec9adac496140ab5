/* Where the time of a training run goes. A stopwatch that is always on: some ten looks at the clock a step.
 */
#ifndef TW_TRAIN_PROFILE_H
#define TW_TRAIN_PROFILE_H

#include "train/step.h"

#include <stddef.h>

typedef enum tw_profile_part {
    TW_PROFILE_DATA,      /* the loader had no batch ready */
    TW_PROFILE_BATCH,     /* the other ranks had none, and the agreement on what the batch is */
    TW_PROFILE_IMAGE,     /* forward, repeated micro-batches included */
    TW_PROFILE_TEXT,      /* likewise */
    TW_PROFILE_EXCHANGE,  /* waited for: features, columns and feature gradients of other ranks */
    TW_PROFILE_LOSS,      /* the loss itself, forward and backward */
    TW_PROFILE_BACKWARD,  /* of the towers, recomputed blocks included */
    TW_PROFILE_REDUCTION, /* waited for: gradients under way when backward had ended */
    TW_PROFILE_OPTIMIZER, /* norm, finite check, update, exchange of weights */
    TW_PROFILE_SAVE,      /* training stood still for a checkpoint */
    TW_PROFILE_VALIDATION,
    TW_PROFILE_OTHER,
    TW_PROFILE_PARTS
} tw_profile_part;

/* Plain data, so that ranks can send theirs. */
typedef struct tw_profile {
    double seconds[TW_PROFILE_PARTS];
    double reduced; /* seconds in which a reduction of gradients was under way, behind backward or after it:
                       from when this rank posted it, ranks that came later included, until it was done */
    double at;      /* when the last lap ended */
    int64_t steps;
} tw_profile;

/* All time from here on belongs to a part. */
void tw_profile_begin(tw_profile *p);
/* What has passed since the last lap belongs to `part`. */
void tw_profile_lap(tw_profile *p, tw_profile_part part);
/* What has passed was a run of the stepper, which knows its own parts. */
void tw_profile_lap_step(tw_profile *p, const tw_stepper_times *t);

/* "image tower forward". */
const char *tw_profile_part_name(tw_profile_part part);
/* "image" in log.jsonl. */
const char *tw_profile_part_key(tw_profile_part part);
double tw_profile_total(const tw_profile *p);
/* 1 - waited / reduced, in [0, 1]: the share of the time under way that backward hid. That a rank was late is
 * hidden too where this one had still to compute. NaN where nothing was reduced. */
double tw_profile_hidden(const tw_profile *p);
/* The index of the rank that had most to do itself (data, towers, loss, backward) and so was waited for,
 * among n >= 1. */
int tw_profile_slowest(const tw_profile *all, int n);
/* A line of the table: seconds, milliseconds a step, share, of p and, unless it is NULL, of q beside it. */
void tw_profile_line(const tw_profile *p, const tw_profile *q, tw_profile_part part, char *text, size_t size);

#endif
