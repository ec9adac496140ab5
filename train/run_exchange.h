/* What the ranks of a run tell each other before each step: who was asked to stop, which samples the global
 * batch has, and how many were bad. One small collective a step. */
#ifndef TW_TRAIN_RUN_EXCHANGE_H
#define TW_TRAIN_RUN_EXCHANGE_H

#include "autograd/comm.h"
#include "data/loader.h"

typedef struct tw_exchange tw_exchange;

/* The global batch of one step, the same on every rank. Arrays belong to the exchange until its next call and
 * are in the order of the global batch. */
typedef struct tw_global_batch {
    bool stop;    /* a rank was asked to; the request is noted here too (signals.h) */
    int64_t size; /* samples delivered to all ranks */
    int64_t bad;  /* left out */
    int64_t truncated;
    double waited;                          /* seconds, of the rank that waited longest for its data */
    const int64_t *items;                   /* (size) */
    const int64_t *first;                   /* (ranks) samples of the ranks before each */
    const uint64_t *image_hash, *text_hash; /* (size) */
} tw_global_batch;

/* capacity: the largest part of a batch that any rank gets. comm must outlive it. */
tw_status tw_exchange_create(tw_comm *comm, int64_t capacity, tw_exchange **out) TW_MUST_CHECK;
void tw_exchange_free(tw_exchange *x); /* accepts NULL */

/* Collective. stop: this rank was asked to stop. */
tw_status tw_exchange_batch(tw_exchange *x, const tw_batch *batch, bool stop,
                            tw_global_batch *out) TW_MUST_CHECK;

#endif
