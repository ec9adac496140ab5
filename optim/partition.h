/* How the trainable slab is cut: into buckets, whose gradients are reduced while backward still runs, and
 * each bucket into one piece a rank, which is that rank's share of the optimizer's work and state (ZeRO stage
 * 1: Rajbhandari et al. 2020).
 *
 * A step in terms of it: tw_partition_reduce of each bucket once its gradients are final, so that this rank's
 * pieces of the gradient slab hold the sums over all ranks (the rest of the slab keeps this rank's own part);
 * the optimizer (adamw.h) updates this rank's pieces of the values; tw_partition_gather gives every rank all
 * of them. A rank's state has its pieces one behind the other, in the order of the buckets. */
#ifndef TW_OPTIM_PARTITION_H
#define TW_OPTIM_PARTITION_H

#include "autograd/comm.h"
#include "autograd/param.h"

/* Buckets and pieces begin at multiples of this many elements from the slab's start; norms are summed in
 * these units, so that they do not depend on the number of ranks. */
enum { TW_PARTITION_UNIT = 1024 };

typedef struct tw_bucket {
    int64_t offset, count;  /* elements of the slab */
    int64_t *counts;        /* (ranks) each rank's piece, in the order of the ranks: pieces lie one behind the
                               other, their sum is `count`; some may be 0 */
    int64_t *pairs;         /* (ranks) the same in pairs of elements, for bf16 */
    int64_t own, own_count; /* this rank's piece: elements [own, own + own_count) of the slab */
    int64_t state;          /* where this piece begins in the rank's compact state */
} tw_bucket;

typedef struct tw_partition {
    int64_t elements; /* of the slab */
    int rank, ranks;
    int count; /* buckets; they cover the slab and are in the order in which backward finishes them: the
                  slab's end (the last parameters) first, buckets[count - 1].offset is 0 */
    tw_bucket *buckets; /* (count) */
    int64_t bucket;     /* elements of a whole bucket; buckets[0] may have fewer */
    int64_t state;      /* elements of this rank's share: the sum of its pieces */
} tw_partition;

/* A function of its arguments alone. elements >= 0, 0 <= rank < ranks; bucket_bytes >= 1 is rounded up to
 * units of f32, and to units for every rank alike where that makes it at most a quarter larger: equal pieces
 * are what NCCL reduces fastest. Pieces of a bucket differ by at most one unit. The caller frees *out.
 * Errors: TW_ERR_ARGUMENT, TW_ERR_MEMORY. */
tw_status tw_partition_create(int64_t elements, int rank, int ranks, int64_t bucket_bytes,
                              tw_partition **out) TW_MUST_CHECK;
void tw_partition_free(tw_partition *p); /* accepts NULL */

/* The number of the bucket that element 0 <= i < elements lies in. */
int tw_partition_bucket_of(const tw_partition *p, int64_t i);
/* The rank whose piece element i belongs to. */
int tw_partition_owner_of(const tw_partition *p, int64_t i);

/* Queues the sum of one bucket over all ranks into this rank's piece, in place; the bucket belongs to the
 * communicator until its sync. */
tw_status tw_partition_reduce(const tw_partition *p, tw_comm *comm, int bucket, float *slab) TW_MUST_CHECK;
/* Queues the copy of every rank's piece of one bucket to all ranks, in place, until the communicator's sync.
 */
tw_status tw_partition_gather(const tw_partition *p, tw_comm *comm, int bucket, float *slab) TW_MUST_CHECK;
/* The same for a slab of bf16, whose number of elements must be even. */
tw_status tw_partition_gather_bf16(const tw_partition *p, tw_comm *comm, int bucket,
                                   uint16_t *slab) TW_MUST_CHECK;

/* Puts the masters of a bf16 set, laid out but not allocated, in shares: this rank's state has its own. */
tw_status tw_partition_share(const tw_partition *p, tw_params *set) TW_MUST_CHECK;
/* Collective. The ranks' states, f32 in device memory, as a whole slab to rank 0's `out`, host memory of
 * p->elements, bucket by bucket; the other ranks' out is not used. Done on return. */
tw_status tw_partition_collect(const tw_partition *p, tw_comm *comm, const float *state,
                               float *out) TW_MUST_CHECK;

#endif
