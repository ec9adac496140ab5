#include "train/buckets.h"

#include <stdlib.h>

enum { BUCKET_BYTES = 25 << 20 };

struct tw_buckets {
    tw_params *params;
    tw_comm *comm;
    const tw_partition *partition;
    tw_partition *own; /* if none was given */
    int *pending;      /* (buckets) parameters in each whose gradient is not final yet */
    int next;          /* the first bucket that is not on its way */
};

tw_status tw_buckets_create(tw_params *params, tw_comm *comm, const tw_partition *partition,
                            tw_buckets **out) {
    int64_t elements = tw_params_trainable(params);
    *out = NULL;
    if (partition &&
        (partition->elements != elements || partition->rank != comm->rank || partition->ranks != comm->ranks))
        return FAIL(TW_ERR_ARGUMENT,
                    "a partition of %lld elements for rank %d of %d; the slab has %lld, and this is rank %d "
                    "of %d",
                    (long long)partition->elements, partition->rank, partition->ranks, (long long)elements,
                    comm->rank, comm->ranks);
    tw_buckets *b = calloc(1, sizeof *b);
    if (!b) return FAIL(TW_ERR_MEMORY, "out of memory");
    *b = (tw_buckets){.params = params, .comm = comm, .partition = partition};
    tw_status status = TW_OK;
    if (!partition) status = tw_partition_create(elements, comm->rank, comm->ranks, BUCKET_BYTES, &b->own);
    if (status == TW_OK && !partition) b->partition = b->own;
    if (status == TW_OK) b->pending = calloc((size_t)b->partition->count + 1, sizeof *b->pending);
    if (status == TW_OK && !b->pending) status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status != TW_OK) {
        tw_buckets_free(b);
        return status;
    }
    *out = b;
    return TW_OK;
}

void tw_buckets_free(tw_buckets *b) {
    if (!b) return;
    tw_partition_free(b->own);
    free(b->pending);
    free(b);
}

/* Adds to `pending` of every bucket the parameter lies in. A fused view covers several parameters. Statistics
 * lie behind the slab. */
static void count(tw_buckets *b, const tw_param *p, int change) {
    if (p->count == 0 || p->offset >= b->partition->elements) return;
    int from = tw_partition_bucket_of(b->partition, p->offset + p->count - 1);
    int to = tw_partition_bucket_of(b->partition, p->offset);
    for (int i = from; i <= to; i++) b->pending[i] += change;
}

static tw_status expect(void *context, const tw_param *param) {
    count(context, param, 1);
    return TW_OK;
}

tw_status tw_buckets_expect(tw_buckets *b, const tw_tape *tape) {
    memset(b->pending, 0, (size_t)b->partition->count * sizeof *b->pending);
    b->next = 0;
    return tw_tape_each_gradient(tape, expect, b);
}

static tw_status send(tw_buckets *b) {
    return tw_partition_reduce(b->partition, b->comm, b->next++, tw_params_gradients(b->params));
}

tw_status tw_buckets_hook(void *context, const tw_param *param) {
    tw_buckets *b = context;
    count(b, param, -1);
    while (b->next < b->partition->count && b->pending[b->next] == 0) TRY(send(b));
    return TW_OK;
}

tw_status tw_buckets_finish(tw_buckets *b) {
    float *gradients = tw_params_gradients(b->params);
    int64_t statistics = tw_params_statistics(b->params);
    while (b->next < b->partition->count) TRY(send(b));
    b->next = 0;
    if (statistics) TRY(b->comm->all_reduce(b->comm, gradients + b->partition->elements, statistics));
    for (int i = 0; b->own && i < b->own->count; i++) TRY(tw_partition_gather(b->own, b->comm, i, gradients));
    return b->comm->sync(b->comm);
}
