#include "train/comm_mpi.h"

#include "train/comm_mpi_thread.h"
#include "train/last_word.h"

#include <stdlib.h>
#include <string.h>

typedef struct mpi_comm {
    tw_comm base;
    tw_mpi_thread thread;
    tw_watchdog *watchdog; /* freed by the thread, which ends it when all have arrived */
} mpi_comm;

static mpi_comm *self(tw_comm *c) {
    return (mpi_comm *)c;
}

static tw_status add(tw_comm *c, tw_comm_op *op) {
    return tw_mpi_thread_add(&self(c)->thread, TW_MPI_QUEUE, op);
}

static tw_status check_device(const tw_comm *c, const char *call) {
    if (c->device->kind == TW_CPU) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "%s over MPI moves memory of the CPU, not of %s: ranks of GPUs need NCCL",
                call, c->device->name);
}

static const tw_op_engine *engine(tw_comm *c, tw_mpi_lane lane) {
    return &self(c)->thread.lanes[lane].engine;
}

static tw_status mpi_all_reduce(tw_comm *c, float *data, int64_t count) {
    tw_comm_op *op;
    TRY(check_device(c, "all_reduce"));
    TRY(tw_op_create_reduce(engine(c, TW_MPI_QUEUE), data, count, &op));
    return add(c, op);
}

static tw_status mpi_all_gather(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_comm_op *op;
    TRY(check_device(c, "all_gather"));
    TRY(tw_op_create(engine(c, TW_MPI_QUEUE), TW_OP_ALL_GATHER, in, NULL, out, counts, &op));
    return add(c, op);
}

static tw_status mpi_reduce_scatter(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_comm_op *op;
    TRY(check_device(c, "reduce_scatter"));
    TRY(tw_op_create(engine(c, TW_MPI_QUEUE), TW_OP_REDUCE_SCATTER, in, counts, out, NULL, &op));
    return add(c, op);
}

static tw_status mpi_all_to_all(tw_comm *c, const float *in, const int64_t *in_counts, float *out,
                                const int64_t *out_counts) {
    tw_comm_op *op;
    TRY(check_device(c, "all_to_all"));
    TRY(tw_op_create(engine(c, TW_MPI_QUEUE), TW_OP_ALL_TO_ALL, in, in_counts, out, out_counts, &op));
    return add(c, op);
}

static tw_status mpi_sync(tw_comm *c) {
    return tw_mpi_thread_wait(&self(c)->thread, TW_MPI_QUEUE);
}

static tw_status run_host(tw_comm *c, tw_op_kind kind, const void *in, size_t bytes, void *out, int root) {
    tw_comm_op *op;
    TRY(tw_op_create_host(engine(c, TW_MPI_HOST), kind, in, bytes, out, root, &op));
    TRY(tw_mpi_thread_add(&self(c)->thread, TW_MPI_HOST, op));
    return tw_mpi_thread_wait(&self(c)->thread, TW_MPI_HOST);
}

static tw_status mpi_broadcast(tw_comm *c, void *data, size_t bytes, int root) {
    return run_host(c, TW_OP_BROADCAST, data, bytes, data, root);
}

static tw_status mpi_gather_all(tw_comm *c, const void *in, size_t bytes, void *out) {
    return run_host(c, TW_OP_GATHER_ALL, in, bytes, out, 0);
}

static tw_status mpi_gather(tw_comm *c, const void *in, size_t bytes, void *out, int root) {
    return run_host(c, TW_OP_GATHER, in, bytes, out, root);
}

static void mpi_abort(tw_comm *c, const char *message) {
    tw_watchdog_fail(self(c)->watchdog, message);
    tw_last_word_say(message);
    tw_mpi_thread_give_up(&self(c)->thread);
}

static void mpi_destroy(tw_comm *c) {
    tw_mpi_thread_stop(&self(c)->thread);
    free(c);
}

static tw_status check_ranks(const tw_mpi_thread *t, int ranks) {
    if (t->ranks == ranks) return TW_OK;
    return FAIL(TW_ERR_CONFIG,
                "the launcher started %d processes but %s sees %d: start them with its own mpirun, or with "
                "srun --mpi=pmix",
                ranks, tw_mpi_version(), t->ranks);
}

/* From here on this rank watches and is watched. */
static tw_status start_watching(mpi_comm *c, double timeout) {
    tw_beat_line *beats;
    tw_peer mine = tw_peer_self(), *peers = calloc((size_t)c->base.ranks, sizeof *peers);
    if (!peers) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = mpi_gather_all(&c->base, &mine, sizeof mine, peers);
    if (status == TW_OK) status = tw_watchdog_open(c->base.rank, c->base.ranks, peers, timeout, &c->watchdog);
    free(peers);
    TRY(status);
    status = tw_beat_line_open(c->base.rank, c->base.ranks, c->watchdog, &beats);
    if (status != TW_OK) {
        tw_watchdog_close(c->watchdog);
        return status;
    }
    tw_watchdog_ignore_thread(c->watchdog, c->thread.thread, c->thread.number);
    tw_mpi_thread_watch(&c->thread, beats);
    return TW_OK;
}

tw_status tw_comm_mpi(tw_device *device, int ranks, double timeout, tw_comm **out) {
    *out = NULL;
    mpi_comm *c = calloc(1, sizeof *c);
    if (!c) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = tw_mpi_thread_start(&c->thread);
    if (status != TW_OK) {
        free(c);
        return status;
    }
    c->thread.timeout = timeout;
    c->base = (tw_comm){.rank = c->thread.rank,
                        .ranks = c->thread.ranks,
                        .device = device,
                        .all_reduce = mpi_all_reduce,
                        .all_gather = mpi_all_gather,
                        .reduce_scatter = mpi_reduce_scatter,
                        .all_to_all = mpi_all_to_all,
                        .sync = mpi_sync,
                        .follow = mpi_sync, /* the host is the compute queue */
                        .broadcast = mpi_broadcast,
                        .gather_all = mpi_gather_all,
                        .gather = mpi_gather,
                        .abort = mpi_abort,
                        .destroy = mpi_destroy};
    status = check_ranks(&c->thread, ranks);
    if (status == TW_OK) status = start_watching(c, timeout);
    if (status == TW_OK)
        *out = &c->base;
    else
        mpi_destroy(&c->base);
    return status;
}

tw_comm_times tw_comm_mpi_times(const tw_comm *c) {
    if (c->sync != mpi_sync) return (tw_comm_times){0};
    mpi_comm *m = (mpi_comm *)(uintptr_t)c;
    pthread_mutex_lock(&m->thread.lock);
    const tw_comm_lane *l = &m->thread.lanes[TW_MPI_QUEUE];
    tw_comm_times times = {.busy = l->busy, .waited = l->waited, .bytes = l->sent};
    pthread_mutex_unlock(&m->thread.lock);
    return times;
}

void tw_comm_mpi_serve(tw_comm *c, tw_comm_describe describe, void *context) {
    tw_mpi_thread *t = &self(c)->thread;
    pthread_mutex_lock(&t->lock);
    t->describe = describe;
    t->describe_context = context;
    pthread_mutex_unlock(&t->lock);
}

bool tw_comm_mpi_is_over(tw_comm *c) {
    return tw_watchdog_verdict(self(c)->watchdog).rank >= 0;
}
