/* Puts off the asynchronous calls of a communicator until its sync, as late as their contract allows: what
 * reads a result too early, or touches a buffer that still belongs to a call, gets wrong numbers. What is
 * sent must be ready at the call, as a communicator may read it at once: it may not change before the sync,
 * but by calls that are queued before it. */
#ifndef TW_TESTS_LATE_COMM_H
#define TW_TESTS_LATE_COMM_H

#include "autograd/comm.h"
#include "tw_test.h"

enum { LATE_CALLS = 4096, LATE_RANKS = 16 };

typedef enum late_kind { LATE_ALL_REDUCE, LATE_ALL_GATHER, LATE_REDUCE_SCATTER, LATE_ALL_TO_ALL } late_kind;

typedef struct late_call {
    late_kind kind;
    const float *in;
    float *out;
    int64_t count, in_counts[LATE_RANKS], out_counts[LATE_RANKS];
    float *at_call; /* what `in` was; NULL: a call before it brings it */
} late_call;

typedef struct late_comm {
    tw_comm comm; /* first, so that a tw_comm * is one */
    tw_comm *now; /* does the work */
    int calls;
    late_call call[LATE_CALLS];
} late_comm;

static inline int64_t late_sum(const tw_comm *c, const int64_t *counts) {
    int64_t sum = 0;
    for (int r = 0; r < c->ranks; r++) sum += counts[r];
    return sum;
}

/* Elements that a call reads and writes. */
static inline int64_t late_reads(const tw_comm *c, const late_call *k) {
    if (k->kind == LATE_ALL_REDUCE) return k->count;
    return k->kind == LATE_ALL_GATHER ? k->in_counts[c->rank] : late_sum(c, k->in_counts);
}

static inline int64_t late_writes(const tw_comm *c, const late_call *k) {
    if (k->kind == LATE_ALL_REDUCE) return k->count;
    if (k->kind == LATE_REDUCE_SCATTER) return k->in_counts[c->rank];
    return late_sum(c, k->kind == LATE_ALL_GATHER ? k->in_counts : k->out_counts);
}

static inline tw_status late_add(tw_comm *c, late_call call) {
    late_comm *l = (late_comm *)c;
    int64_t n = late_reads(c, &call);
    bool brought = false;
    ck_assert_int_lt(l->calls, LATE_CALLS);
    for (int i = 0; i < l->calls; i++) {
        const late_call *k = &l->call[i];
        brought |= k->out < call.in + n && call.in < k->out + late_writes(c, k);
    }
    if (!brought && n > 0) {
        call.at_call = malloc((size_t)n * sizeof *call.at_call);
        ck_assert_ptr_nonnull(call.at_call);
        memcpy(call.at_call, call.in, (size_t)n * sizeof *call.at_call);
    }
    l->call[l->calls++] = call;
    return TW_OK;
}

static inline tw_status late_all_reduce(tw_comm *c, float *data, int64_t count) {
    return late_add(c, (late_call){.kind = LATE_ALL_REDUCE, .in = data, .out = data, .count = count});
}

static inline tw_status late_all_gather(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    late_call call = {.kind = LATE_ALL_GATHER, .in = in, .out = out};
    memcpy(call.in_counts, counts, (size_t)c->ranks * sizeof *counts);
    return late_add(c, call);
}

static inline tw_status late_reduce_scatter(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    late_call call = {.kind = LATE_REDUCE_SCATTER, .in = in, .out = out};
    memcpy(call.in_counts, counts, (size_t)c->ranks * sizeof *counts);
    return late_add(c, call);
}

static inline tw_status late_all_to_all(tw_comm *c, const float *in, const int64_t *in_counts, float *out,
                                        const int64_t *out_counts) {
    late_call call = {.kind = LATE_ALL_TO_ALL, .in = in, .out = out};
    memcpy(call.in_counts, in_counts, (size_t)c->ranks * sizeof *in_counts);
    memcpy(call.out_counts, out_counts, (size_t)c->ranks * sizeof *out_counts);
    return late_add(c, call);
}

static inline void late_check(const tw_comm *c, late_call *k) {
    if (k->at_call && memcmp(k->at_call, k->in, (size_t)late_reads(c, k) * sizeof *k->in) != 0)
        ck_abort_msg("what a call sends was changed behind it: it was not ready");
    free(k->at_call);
    k->at_call = NULL;
}

static inline tw_status late_sync(tw_comm *c) {
    late_comm *l = (late_comm *)c;
    for (int i = 0; i < l->calls; i++) {
        late_call *k = &l->call[i];
        late_check(c, k);
        if (k->kind == LATE_ALL_REDUCE) TRY(l->now->all_reduce(l->now, k->out, k->count));
        if (k->kind == LATE_ALL_GATHER) TRY(l->now->all_gather(l->now, k->in, k->out, k->in_counts));
        if (k->kind == LATE_REDUCE_SCATTER) TRY(l->now->reduce_scatter(l->now, k->in, k->out, k->in_counts));
        if (k->kind == LATE_ALL_TO_ALL)
            TRY(l->now->all_to_all(l->now, k->in, k->in_counts, k->out, k->out_counts));
    }
    l->calls = 0;
    return l->now->sync(l->now);
}

static inline tw_status late_broadcast(tw_comm *c, void *data, size_t bytes, int root) {
    tw_comm *now = ((late_comm *)c)->now;
    return now->broadcast(now, data, bytes, root);
}

static inline tw_status late_gather_all(tw_comm *c, const void *in, size_t bytes, void *out) {
    tw_comm *now = ((late_comm *)c)->now;
    return now->gather_all(now, in, bytes, out);
}

static inline tw_status late_gather(tw_comm *c, const void *in, size_t bytes, void *out, int root) {
    tw_comm *now = ((late_comm *)c)->now;
    return now->gather(now, in, bytes, out, root);
}

static inline void late_destroy(tw_comm *c) {
    late_comm *l = (late_comm *)c;
    for (int i = 0; i < l->calls; i++) free(l->call[i].at_call);
    free(c);
}

/* `now` must outlive it; freed with tw_comm_free. */
static inline tw_comm *late_comm_of(tw_comm *now) {
    late_comm *l = malloc(sizeof *l);
    ck_assert_ptr_nonnull(l);
    l->comm = *now;
    l->now = now;
    l->calls = 0;
    l->comm.all_reduce = late_all_reduce;
    l->comm.all_gather = late_all_gather;
    l->comm.reduce_scatter = late_reduce_scatter;
    l->comm.all_to_all = late_all_to_all;
    l->comm.sync = late_sync;
    l->comm.follow = late_sync;
    l->comm.broadcast = late_broadcast;
    l->comm.gather_all = late_gather_all;
    l->comm.gather = late_gather;
    l->comm.destroy = late_destroy;
    return &l->comm;
}

#endif
