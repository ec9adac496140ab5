/* Collectives between the ranks of a run. The vtable is complete for every implementation; comm_self.c is the
 * one of a single rank, with which everything is its own copy. Buffers are device memory of `type` f32 unless
 * said otherwise; calls are ordered on the communication queue and every rank makes the same ones in the same
 * order. */
#ifndef TW_AUTOGRAD_COMM_H
#define TW_AUTOGRAD_COMM_H

#include "autograd/device.h"

typedef struct tw_comm tw_comm;

struct tw_comm {
    int rank, ranks;
    tw_device *device;
    /* data[i] = the sum over ranks of data[i]. */
    tw_status (*all_reduce)(tw_comm *c, float *data, int64_t count) TW_MUST_CHECK;
    /* out[offset[r] .. + counts[r]) = rank r's in[0 .. counts[r]), where offset[r] is the sum of the counts
     * before r. */
    tw_status (*all_gather)(tw_comm *c, const float *in, float *out, const int64_t *counts) TW_MUST_CHECK;
    /* out[0 .. counts[rank]) = the sum over ranks of in[offset[rank] ..). */
    tw_status (*reduce_scatter)(tw_comm *c, const float *in, float *out, const int64_t *counts) TW_MUST_CHECK;
    /* data of rank `root` to all; bytes of host memory. */
    tw_status (*broadcast)(tw_comm *c, void *data, size_t bytes, int root) TW_MUST_CHECK;
    /* Waits until the calls made so far are done. */
    tw_status (*sync)(tw_comm *c) TW_MUST_CHECK;
    /* Ends the other ranks too: `message` says why. Returns when this rank may exit. */
    void (*abort)(tw_comm *c, const char *message);
    void (*destroy)(tw_comm *c);
};

/* The communicator of a single rank. Freed with tw_comm_free. */
tw_status tw_comm_self(tw_device *device, tw_comm **out) TW_MUST_CHECK;
void tw_comm_free(tw_comm *c);

#endif
