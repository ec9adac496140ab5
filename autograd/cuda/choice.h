/* Where a result can be had two ways, the one that takes less time: both are timed on the device when the
 * result is first wanted, and the answer is kept as long as the device. */
#ifndef TW_AUTOGRAD_CUDA_CHOICE_H
#define TW_AUTOGRAD_CUDA_CHOICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

typedef enum tw_way {
    TW_WAY_OWN,   /* without a graph: our own kernels, cuBLASLt's products */
    TW_WAY_GRAPH, /* one graph of cuDNN's, and what of our own it needs */
    TW_WAYS
} tw_way;

typedef struct tw_choice_ways {
    /* Queues the work behind the compute queue, one way or the other; the result must not depend on what was
     * there. */
    tw_status (*run)(const void *context, tw_way way);
    const void *context;
    const char *own;                                              /* TW_WAY_OWN in words, static */
    void (*tell)(const tw_dnn_key *key, char *text, size_t size); /* what the result is, in words */
} tw_choice_ways;

typedef struct tw_choice {
    tw_dnn_key key; /* everything that the time depends on */
    tw_way way;
    double seconds[TW_WAYS]; /* of a run */
    tw_choice_ways ways;     /* without the context */
} tw_choice;

/* The way for the key. The first time it runs both, a few times each, and waits for the device; the caller
 * then runs the one that it gets. While the queue is captured nothing can be timed: TW_WAY_OWN, and the next
 * call asks again. */
tw_status tw_cuda_choose(tw_device *d, const tw_dnn_key *key, const tw_choice_ways *ways,
                         tw_way *out) TW_MUST_CHECK;

/* Whether `way` may be chosen at all. Of a deterministic device it is always TW_WAY_OWN, so that results do
 * not depend on what was measured. */
bool tw_cuda_way_allowed(tw_device *d, tw_way way);
/* For tests and benchmarks: nothing is timed, it is this way; TW_WAYS, at first: as above. To be set before
 * memory is planned. */
void tw_cuda_force_way(tw_device *d, tw_way way);

/* Choice i of those timed so far, or NULL; valid until the next one is made. */
const tw_choice *tw_cuda_choice(tw_device *d, int i);

enum { TW_CHOICE_LINE = 256 };
/* What was measured elsewhere to choose, for tw_cuda_choice_text (cuda.h): one line, cut at TW_CHOICE_LINE -
 * 1 bytes. Choices made here are there by themselves. */
tw_status tw_cuda_note_choice(tw_device *d, const char *text) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
