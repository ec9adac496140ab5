/* Collectives between the ranks of a run. The vtable is complete for every implementation; comm_self.c is the
 * one of a single rank, with which everything is its own copy.
 *
 * Every rank makes the same calls in the same order. Sums are the same bits on every rank and in every run:
 * over MPI they are taken in the order of the ranks, over NCCL in one that depends on machine and library.
 *
 * The first group moves device memory of type f32 and is asynchronous: a call is queued behind the compute
 * queue's work so far and behind earlier calls, and returns at once; its buffers belong to it until `sync` or
 * `follow`. Errors of queued calls come out of `sync`. Counts are elements; an implementation that counts in
 * int splits larger ones itself. The second group moves host memory and is done on return. */
#ifndef TW_AUTOGRAD_COMM_H
#define TW_AUTOGRAD_COMM_H

#include "autograd/device.h"

typedef struct tw_comm tw_comm;

struct tw_comm {
    int rank, ranks;
    tw_device *device;

    /* data[i] = the sum over ranks of data[i]: the reduce_scatter of equal shares, then the all_gather. */
    tw_status (*all_reduce)(tw_comm *c, float *data, int64_t count) TW_MUST_CHECK;
    /* out[offset[r] .. + counts[r]) = rank r's in[0 .. counts[r]), where offset[r] is the sum of the counts
     * before r. `in` may be this rank's place in `out`. */
    tw_status (*all_gather)(tw_comm *c, const float *in, float *out, const int64_t *counts) TW_MUST_CHECK;
    /* out[0 .. counts[rank]) = the sum over ranks of in[offset[rank] ..). `out` may be this rank's place in
     * `in`. */
    tw_status (*reduce_scatter)(tw_comm *c, const float *in, float *out, const int64_t *counts) TW_MUST_CHECK;
    /* Rank r gets in[in_offset[r] .. + in_counts[r]) and what it sent lies at out[out_offset[r] ..
     * + out_counts[r]), where offsets are sums of the counts before r; in and out do not overlap. */
    tw_status (*all_to_all)(tw_comm *c, const float *in, const int64_t *in_counts, float *out,
                            const int64_t *out_counts) TW_MUST_CHECK;
    /* Later work of the compute queue sees the results of the calls made so far, and may use their buffers.
     * The host need not have waited: what it downloads it downloads behind the compute queue. */
    tw_status (*sync)(tw_comm *c) TW_MUST_CHECK;
    /* The same for a host that must not wait: only the compute queue does, where it can. Until the next
     * `sync`, out of which the calls' errors come, the host should not wait for the compute queue: it would
     * do so in vain behind a call that a lost rank holds up. */
    tw_status (*follow)(tw_comm *c) TW_MUST_CHECK;

    /* data of rank `root` to all. */
    tw_status (*broadcast)(tw_comm *c, void *data, size_t bytes, int root) TW_MUST_CHECK;
    /* out[r * bytes ..) = rank r's `bytes` bytes at `in`, for small agreements: sizes, hashes, stop flags. */
    tw_status (*gather_all)(tw_comm *c, const void *in, size_t bytes, void *out) TW_MUST_CHECK;
    /* The same for rank `root` alone; `out` may be NULL on the others. Call it as tw_comm_gather. */
    tw_status (*gather)(tw_comm *c, const void *in, size_t bytes, void *out, int root) TW_MUST_CHECK;

    /* Ends the other ranks too: `message` says why. Returns when this rank may exit. */
    void (*abort)(tw_comm *c, const char *message);
    void (*destroy)(tw_comm *c);
};

/* c->gather, or with a communicator that lacks it gather_all. */
tw_status tw_comm_gather(tw_comm *c, const void *in, size_t bytes, void *out, int root) TW_MUST_CHECK;

/* The communicator of a single rank. Freed with tw_comm_free. */
tw_status tw_comm_self(tw_device *device, tw_comm **out) TW_MUST_CHECK;
void tw_comm_free(tw_comm *c);

/* The all_gather of `count` elements of each rank, which rank r has put at all + r count. */
tw_status tw_comm_gather_even(tw_comm *c, float *all, int64_t count) TW_MUST_CHECK;

#endif
