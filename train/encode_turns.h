/* Batches encoded by ranks in turn, brought to rank 0 in their order: in round k rank r of R has batch
 * k R + r, counted from the first that is to be encoded. */
#ifndef TW_TRAIN_ENCODE_TURNS_H
#define TW_TRAIN_ENCODE_TURNS_H

#include "train/encode.h"

typedef struct tw_turns {
    const tw_encode_options *options;
    tw_encode_sink sink; /* the caller's */
    void *context;
    int64_t first, total, embed; /* items [first, total) are encoded */
    int rank, ranks;
    int64_t round, rounds;
    size_t bytes;     /* of one rank's message */
    char *mine, *all; /* (bytes), on rank 0 (ranks, bytes); NULL with one rank, on the others */
} tw_turns;

tw_status tw_turns_open(tw_turns *t, const tw_encode_options *options, int64_t embed, int64_t first,
                        int64_t total, tw_encode_sink sink, void *context) TW_MUST_CHECK;
/* A sink, with the tw_turns as context: takes this rank's batches, in order; their `first` is not read.
 * TW_ERR_INTERRUPTED: a rank's should_stop said so; on all in the same round. */
tw_status tw_turns_take(void *turns, const tw_encoded *batch) TW_MUST_CHECK;
/* Takes part in the rounds in which this rank has no batch. */
tw_status tw_turns_finish(tw_turns *t) TW_MUST_CHECK;
void tw_turns_close(tw_turns *t);

#endif
