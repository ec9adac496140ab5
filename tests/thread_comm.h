/* A communicator whose ranks are threads of one process, for tests of what is collective: synchronous, sums
 * in the order of the ranks. Memory must be the CPU's. */
#ifndef TW_TESTS_THREAD_COMM_H
#define TW_TESTS_THREAD_COMM_H

#include "autograd/comm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREAD_COMM_MOST = 16 };

typedef struct thread_group {
    pthread_barrier_t barrier;
    int ranks;
    const void *in[THREAD_COMM_MOST];
    const int64_t *counts[THREAD_COMM_MOST];
} thread_group;

typedef struct thread_comm {
    tw_comm comm; /* first, so that a tw_comm * is one */
    thread_group *group;
} thread_comm;

static inline int64_t thread_comm_before(const int64_t *counts, int rank) {
    int64_t sum = 0;
    for (int r = 0; r < rank; r++) sum += counts[r];
    return sum;
}

/* Everybody's `in` and counts are known from here to thread_comm_leave. */
static inline thread_group *thread_comm_meet(tw_comm *c, const void *in, const int64_t *counts) {
    thread_group *g = ((thread_comm *)c)->group;
    g->in[c->rank] = in;
    g->counts[c->rank] = counts;
    pthread_barrier_wait(&g->barrier);
    return g;
}

static inline void thread_comm_leave(thread_group *g) {
    pthread_barrier_wait(&g->barrier);
}

static inline tw_status thread_comm_all_gather(tw_comm *c, const float *in, float *out,
                                               const int64_t *counts) {
    thread_group *g = thread_comm_meet(c, in, counts);
    for (int r = 0; r < c->ranks; r++) {
        float *to = out + thread_comm_before(counts, r);
        if (to != g->in[r] && counts[r]) memmove(to, g->in[r], (size_t)counts[r] * sizeof *to);
    }
    thread_comm_leave(g);
    return TW_OK;
}

static inline tw_status thread_comm_reduce_scatter(tw_comm *c, const float *in, float *out,
                                                   const int64_t *counts) {
    thread_group *g = thread_comm_meet(c, in, counts);
    int64_t at = thread_comm_before(counts, c->rank);
    float *sum = calloc((size_t)counts[c->rank] + 1, sizeof *sum);
    for (int r = 0; r < c->ranks; r++)
        for (int64_t i = 0; i < counts[c->rank]; i++)
            sum[i] = r ? sum[i] + ((const float *)g->in[r])[at + i] : ((const float *)g->in[0])[at + i];
    thread_comm_leave(g);
    memcpy(out, sum, (size_t)counts[c->rank] * sizeof *out);
    free(sum);
    return TW_OK;
}

static inline tw_status thread_comm_all_reduce(tw_comm *c, float *data, int64_t count) {
    int64_t counts[THREAD_COMM_MOST];
    for (int r = 0; r < c->ranks; r++) counts[r] = count / c->ranks + (r < count % c->ranks);
    float *own = data + thread_comm_before(counts, c->rank);
    tw_status status = thread_comm_reduce_scatter(c, data, own, counts);
    return status == TW_OK ? thread_comm_all_gather(c, own, data, counts) : status;
}

static inline tw_status thread_comm_all_to_all(tw_comm *c, const float *in, const int64_t *in_counts,
                                               float *out, const int64_t *out_counts) {
    thread_group *g = thread_comm_meet(c, in, in_counts);
    for (int r = 0; r < c->ranks; r++)
        if (out_counts[r])
            memcpy(out + thread_comm_before(out_counts, r),
                   (const float *)g->in[r] + thread_comm_before(g->counts[r], c->rank),
                   (size_t)out_counts[r] * sizeof *out);
    thread_comm_leave(g);
    return TW_OK;
}

static inline tw_status thread_comm_sync(tw_comm *c) {
    (void)c;
    return TW_OK;
}

static inline tw_status thread_comm_broadcast(tw_comm *c, void *data, size_t bytes, int root) {
    thread_group *g = thread_comm_meet(c, data, NULL);
    if (c->rank != root) memcpy(data, g->in[root], bytes);
    thread_comm_leave(g);
    return TW_OK;
}

static inline tw_status thread_comm_gather_all(tw_comm *c, const void *in, size_t bytes, void *out) {
    thread_group *g = thread_comm_meet(c, in, NULL);
    for (int r = 0; r < c->ranks; r++) memcpy((char *)out + (size_t)r * bytes, g->in[r], bytes);
    thread_comm_leave(g);
    return TW_OK;
}

static inline tw_status thread_comm_gather(tw_comm *c, const void *in, size_t bytes, void *out, int root) {
    thread_group *g = thread_comm_meet(c, in, NULL);
    for (int r = 0; c->rank == root && r < c->ranks; r++)
        memcpy((char *)out + (size_t)r * bytes, g->in[r], bytes);
    thread_comm_leave(g);
    return TW_OK;
}

static inline void thread_comm_abort(tw_comm *c, const char *message) {
    (void)c, (void)message;
}

static inline thread_comm thread_comm_of(thread_group *group, int rank, tw_device *device) {
    return (thread_comm){.group = group,
                         .comm = {.rank = rank,
                                  .ranks = group->ranks,
                                  .device = device,
                                  .all_reduce = thread_comm_all_reduce,
                                  .all_gather = thread_comm_all_gather,
                                  .reduce_scatter = thread_comm_reduce_scatter,
                                  .all_to_all = thread_comm_all_to_all,
                                  .sync = thread_comm_sync,
                                  .follow = thread_comm_sync,
                                  .broadcast = thread_comm_broadcast,
                                  .gather_all = thread_comm_gather_all,
                                  .gather = thread_comm_gather,
                                  .abort = thread_comm_abort}};
}

/* Runs work(rank's communicator, argument) on `ranks` threads at once. */
typedef void (*thread_comm_work)(tw_comm *comm, void *argument);
typedef struct thread_comm_job {
    thread_comm comm;
    thread_comm_work work;
    void *argument;
} thread_comm_job;

static inline void *thread_comm_start(void *argument) {
    thread_comm_job *job = argument;
    job->work(&job->comm.comm, job->argument);
    return NULL;
}

static inline void thread_comm_run(int ranks, tw_device *device, thread_comm_work work, void *argument) {
    thread_group group = {.ranks = ranks};
    thread_comm_job jobs[THREAD_COMM_MOST];
    pthread_t threads[THREAD_COMM_MOST];
    pthread_barrier_init(&group.barrier, NULL, (unsigned)ranks);
    for (int r = 0; r < ranks; r++) {
        jobs[r] = (thread_comm_job){thread_comm_of(&group, r, device), work, argument};
        if (pthread_create(&threads[r], NULL, thread_comm_start, &jobs[r])) abort();
    }
    for (int r = 0; r < ranks; r++) pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&group.barrier);
}

#endif
