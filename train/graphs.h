/* Work that repeats is captured once and then launched as a whole (CUDA graphs): the device no longer waits
 * for the host between kernels. Results do not change. */
#ifndef TW_TRAIN_GRAPHS_H
#define TW_TRAIN_GRAPHS_H

#include "autograd/device.h"

typedef struct tw_graphs tw_graphs;

/* Off, or on a device that captures nothing, every body just runs. The device must outlive the graphs. */
tw_status tw_graphs_create(tw_device *device, bool on, tw_graphs **out) TW_MUST_CHECK;
void tw_graphs_free(tw_graphs *graphs); /* accepts NULL */

/* The parts of a step, by which a profiler's time line names what they queue or launch. */
typedef enum tw_graph_part {
    TW_GRAPH_FORWARD,
    TW_GRAPH_FIRST_BACKWARD, /* of a step: it writes gradients that later ones add to */
    TW_GRAPH_BACKWARD,
    TW_GRAPH_LOSS,
    TW_GRAPH_OPTIMIZER,
    TW_GRAPH_PARTS
} tw_graph_part;

/* Runs body(context), which queues the same work on the compute queue whenever `plan` and `part` are the
 * same: as it is the first time (libraries choose their algorithms then), captured the second, launched from
 * then on. `plan` must not come back with another meaning (tw_tape_version). A body that cannot be captured
 * runs as it is, then and later: what it did in vain must not have been queued. */
tw_status tw_graphs_run(tw_graphs *graphs, uint64_t plan, tw_graph_part part,
                        tw_status (*body)(void *context), void *context) TW_MUST_CHECK;

/* Why something could not be captured: the first reason, once; NULL if there is none or it was told. */
const char *tw_graphs_trouble(tw_graphs *graphs);
/* How many times a graph was launched. */
int64_t tw_graphs_launched(const tw_graphs *graphs);

#endif
