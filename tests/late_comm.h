/* Puts off the asynchronous calls of a communicator until its sync, as late as their contract allows: what
 * reads a result too early, or touches a buffer that still belongs to a call, gets wrong numbers. */
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
} late_call;

typedef struct late_comm {
    tw_comm comm; /* first, so that a tw_comm * is one */
    tw_comm *now; /* does the work */
    int calls;
    late_call call[LATE_CALLS];
} late_comm;

static inline late_call *late_add(tw_comm *c, late_kind kind, const float *in, float *out) {
    late_comm *l = (late_comm *)c;
    ck_assert_int_lt(l->calls, LATE_CALLS);
    late_call *call = &l->call[l->calls++];
    *call = (late_call){.kind = kind, .in = in, .out = out};
    return call;
}

static inline tw_status late_all_reduce(tw_comm *c, float *data, int64_t count) {
    late_add(c, LATE_ALL_REDUCE, NULL, data)->count = count;
    return TW_OK;
}

static inline tw_status late_all_gather(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    memcpy(late_add(c, LATE_ALL_GATHER, in, out)->in_counts, counts, (size_t)c->ranks * sizeof *counts);
    return TW_OK;
}

static inline tw_status late_reduce_scatter(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    memcpy(late_add(c, LATE_REDUCE_SCATTER, in, out)->in_counts, counts, (size_t)c->ranks * sizeof *counts);
    return TW_OK;
}

static inline tw_status late_all_to_all(tw_comm *c, const float *in, const int64_t *in_counts, float *out,
                                        const int64_t *out_counts) {
    late_call *call = late_add(c, LATE_ALL_TO_ALL, in, out);
    memcpy(call->in_counts, in_counts, (size_t)c->ranks * sizeof *in_counts);
    memcpy(call->out_counts, out_counts, (size_t)c->ranks * sizeof *out_counts);
    return TW_OK;
}

static inline tw_status late_sync(tw_comm *c) {
    late_comm *l = (late_comm *)c;
    for (int i = 0; i < l->calls; i++) {
        late_call *k = &l->call[i];
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
