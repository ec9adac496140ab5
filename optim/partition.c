#include "optim/partition.h"

#include <stdlib.h>

enum { UNIT = TW_PARTITION_UNIT };

static int64_t units_of(int64_t elements) {
    return (elements + UNIT - 1) / UNIT;
}

/* Units of a whole bucket of at least so many. */
static int64_t bucket_units(int64_t least, int ranks) {
    int64_t even = (least - 1) / ranks * ranks + ranks;
    return even <= least + least / 4 ? even : least;
}

/* Cuts one bucket. The last ranks get the units that are left over: the slab's end may cut the last unit. */
static void cut(tw_partition *p, tw_bucket *b) {
    int64_t units = units_of(b->count), at = b->offset, end = b->offset + b->count;
    for (int r = 0; r < p->ranks; r++) {
        int64_t size = (units / p->ranks + (p->ranks - r <= units % p->ranks)) * UNIT;
        if (size > end - at) size = end - at;
        b->counts[r] = size;
        b->pairs[r] = size / 2;
        if (r == p->rank) {
            b->own = at;
            b->own_count = size;
            b->state = p->state;
            p->state += size;
        }
        at += size;
    }
}

tw_status tw_partition_create(int64_t elements, int rank, int ranks, int64_t bucket_bytes,
                              tw_partition **out) {
    *out = NULL;
    if (elements < 0 || ranks < 1 || rank < 0 || rank >= ranks || bucket_bytes < 1)
        return FAIL(TW_ERR_ARGUMENT,
                    "a partition of %lld elements for rank %d of %d in buckets of %lld bytes",
                    (long long)elements, rank, ranks, (long long)bucket_bytes);
    tw_partition *p = calloc(1, sizeof *p);
    if (!p) return FAIL(TW_ERR_MEMORY, "out of memory");
    p->elements = elements;
    p->rank = rank;
    p->ranks = ranks;
    p->bucket = bucket_units(units_of((bucket_bytes - 1) / (int64_t)sizeof(float) + 1), ranks) * UNIT;
    int64_t count = (elements + p->bucket - 1) / p->bucket;
    p->buckets = calloc((size_t)count + 1, sizeof *p->buckets);
    int64_t *counts = calloc((size_t)(2 * count * ranks) + 1, sizeof *counts);
    if (!p->buckets || !counts) {
        free(counts);
        free(p->buckets);
        free(p);
        return FAIL(TW_ERR_MEMORY, "out of memory: a partition into %lld buckets", (long long)count);
    }
    p->count = (int)count;
    p->buckets[0].counts = counts; /* whose block the first bucket holds, if there is one or not */
    for (int i = 0; i < p->count; i++) {
        tw_bucket *b = &p->buckets[i];
        b->offset = (count - 1 - i) * p->bucket;
        b->count = i == 0 ? elements - b->offset : p->bucket;
        b->counts = counts + (int64_t)(2 * i) * ranks;
        b->pairs = b->counts + ranks;
        cut(p, b);
    }
    *out = p;
    return TW_OK;
}

void tw_partition_free(tw_partition *p) {
    if (!p) return;
    free(p->buckets[0].counts);
    free(p->buckets);
    free(p);
}

int tw_partition_bucket_of(const tw_partition *p, int64_t i) {
    return p->count - 1 - (int)(i / p->bucket);
}

int tw_partition_owner_of(const tw_partition *p, int64_t i) {
    const tw_bucket *b = &p->buckets[tw_partition_bucket_of(p, i)];
    int64_t end = b->offset + b->counts[0];
    int r = 0;
    while (i >= end) end += b->counts[++r];
    return r;
}

tw_status tw_partition_reduce(const tw_partition *p, tw_comm *comm, int bucket, float *slab) {
    const tw_bucket *b = &p->buckets[bucket];
    return comm->reduce_scatter(comm, slab + b->offset, slab + b->own, b->counts);
}

tw_status tw_partition_gather(const tw_partition *p, tw_comm *comm, int bucket, float *slab) {
    const tw_bucket *b = &p->buckets[bucket];
    return comm->all_gather(comm, slab + b->own, slab + b->offset, b->counts);
}

/* Bits are moved, never added: two of bf16 travel as one f32. */
tw_status tw_partition_gather_bf16(const tw_partition *p, tw_comm *comm, int bucket, uint16_t *slab) {
    const tw_bucket *b = &p->buckets[bucket];
    if (p->elements % 2) return FAIL(TW_ERR_ARGUMENT, "a bf16 slab of %lld elements", (long long)p->elements);
    return comm->all_gather(comm, (const float *)(const void *)(slab + b->own),
                            (float *)(void *)(slab + b->offset), b->pairs);
}

tw_status tw_partition_share(const tw_partition *p, tw_params *set) {
    tw_piece *pieces = calloc((size_t)p->count + 1, sizeof *pieces);
    if (!pieces) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int i = 0; i < p->count; i++)
        pieces[i] = (tw_piece){.offset = p->buckets[i].own, .count = p->buckets[i].own_count};
    tw_status status = tw_params_share(set, pieces, p->count);
    free(pieces);
    return status;
}

/* One bucket's pieces to rank 0's `whole`, device memory. */
static tw_status collect_bucket(const tw_partition *p, tw_comm *comm, const tw_bucket *b, const float *state,
                                float *whole, int64_t *counts) {
    int64_t *in = counts, *out = counts + p->ranks;
    for (int r = 0; r < p->ranks; r++) {
        in[r] = r == 0 ? b->own_count : 0;
        out[r] = p->rank == 0 ? b->counts[r] : 0;
    }
    TRY(comm->all_to_all(comm, state + b->state, in, whole, out));
    return comm->sync(comm);
}

static tw_status collect_all(const tw_partition *p, tw_comm *comm, const float *state, float *whole,
                             int64_t *counts, float *out) {
    tw_device *d = comm->device;
    for (int i = 0; i < p->count; i++) {
        const tw_bucket *b = &p->buckets[i];
        TRY(collect_bucket(p, comm, b, state, whole, counts));
        if (p->rank != 0) continue;
        TRY(d->download(d, TW_QUEUE_COMPUTE, out + b->offset, whole, (size_t)b->count * sizeof *out));
        TRY(d->sync(d, TW_QUEUE_COMPUTE));
    }
    return TW_OK;
}

tw_status tw_partition_collect(const tw_partition *p, tw_comm *comm, const float *state, float *out) {
    tw_device *d = comm->device;
    float *whole = NULL;
    int64_t largest = p->bucket < p->elements ? p->bucket : p->elements;
    int64_t *counts = calloc((size_t)p->ranks, 2 * sizeof *counts);
    tw_status status = counts ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK)
        status = d->alloc(d, p->rank == 0 ? (size_t)largest * sizeof *out : 0, (void **)&whole);
    if (status == TW_OK) status = collect_all(p, comm, state, whole, counts, out);
    d->release(d, whole);
    free(counts);
    return status;
}
