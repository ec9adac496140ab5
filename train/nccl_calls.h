/* The one file that knows NCCL: what the communicator of GPU ranks needs of it, with NCCL's codes turned into
 * tw_status. In a build without NCCL (no TW_WITH_NCCL) there are only the first three functions.
 *
 * NCCL runs in its non-blocking mode: no call waits for another rank; what is under way is polled. All calls
 * come from one thread, those of a tw_nccl on one device; operations go to the device's TW_QUEUE_COMM. */
#ifndef TW_TRAIN_NCCL_CALLS_H
#define TW_TRAIN_NCCL_CALLS_H

#include "autograd/device.h"

typedef struct tw_nccl tw_nccl;
typedef struct tw_nccl_mark tw_nccl_mark; /* a point in the queue's work, with its time */

/* "NCCL 2.28.9", the loaded library's; NULL in a build without NCCL. */
const char *tw_nccl_version(void);
/* 22809 for 2.28.9; 0 in a build without NCCL. Ranks must agree on it. */
int tw_nccl_version_code(void);
/* TW_ERR_UNSUPPORTED, saying what to do: no NCCL in this build, or a library too old for it. */
tw_status tw_nccl_usable(void) TW_MUST_CHECK;

/* What tells this device's GPU from all others. */
enum { TW_NCCL_GPU = 16 };
tw_status tw_nccl_gpu(tw_device *device, unsigned char gpu[TW_NCCL_GPU]) TW_MUST_CHECK;
/* What rank 0 makes and every rank opens with. */
enum { TW_NCCL_ID = 128 };
tw_status tw_nccl_make_id(unsigned char id[TW_NCCL_ID]) TW_MUST_CHECK;
/* Begins to join the ranks; it is done when tw_nccl_poll finds nothing under way. */
tw_status tw_nccl_open(tw_device *device, const unsigned char id[TW_NCCL_ID], int rank, int ranks,
                       tw_nccl **out) TW_MUST_CHECK;
/* *busy: the last open, group_end or leave has not been carried out yet, and no other call may be made.
 * Gives errors that NCCL found meanwhile, in its own threads too. *remote, if not NULL: such an error is
 * likely another rank's. */
tw_status tw_nccl_poll(tw_nccl *n, bool *busy, bool *remote) TW_MUST_CHECK;
/* Begins to leave, which every rank does. */
tw_status tw_nccl_leave(tw_nccl *n) TW_MUST_CHECK;
/* Frees it after leaving. Accepts NULL. */
void tw_nccl_close(tw_nccl *n);
/* Frees it whatever is under way: kernels that wait for other ranks end. May hang where the driver does. */
void tw_nccl_abort(tw_nccl *n);

/* Between these, operations are gathered and become one; buffers are device memory, counts elements of f32.
 * What goes to nobody (count 0) must not be called. */
tw_status tw_nccl_group_begin(tw_nccl *n) TW_MUST_CHECK;
tw_status tw_nccl_group_end(tw_nccl *n) TW_MUST_CHECK;
tw_status tw_nccl_all_reduce(tw_nccl *n, float *data, int64_t count) TW_MUST_CHECK;
/* `count` elements of each rank. */
tw_status tw_nccl_all_gather(tw_nccl *n, const float *in, float *out, int64_t count) TW_MUST_CHECK;
tw_status tw_nccl_reduce_scatter(tw_nccl *n, const float *in, float *out, int64_t count) TW_MUST_CHECK;
/* in is the root's alone, out everybody's. */
tw_status tw_nccl_broadcast(tw_nccl *n, const float *in, float *out, int64_t count, int root) TW_MUST_CHECK;
/* out is the root's alone. */
tw_status tw_nccl_reduce(tw_nccl *n, const float *in, float *out, int64_t count, int root) TW_MUST_CHECK;
tw_status tw_nccl_send(tw_nccl *n, const float *in, int64_t count, int peer) TW_MUST_CHECK;
tw_status tw_nccl_receive(tw_nccl *n, float *out, int64_t count, int peer) TW_MUST_CHECK;

/* *mark (made when NULL): the end of the queue's present work. */
tw_status tw_nccl_put_mark(tw_device *device, tw_nccl_mark **mark) TW_MUST_CHECK;
/* Whether the queue has come to it; never waits. Errors of the device come out here. */
tw_status tw_nccl_reached(tw_device *device, tw_nccl_mark *mark, bool *reached) TW_MUST_CHECK;
/* Seconds of the device between two marks that were reached; 0 where it does not know. */
double tw_nccl_between(tw_nccl_mark *from, tw_nccl_mark *to);
void tw_nccl_mark_free(tw_nccl_mark *mark); /* accepts NULL */

#endif
