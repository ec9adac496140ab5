#include "train/comm_nccl_private.h"

#ifdef TW_WITH_NCCL

#include "train/last_word.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tw_nccl_comm *self(tw_comm *c) {
    return (tw_nccl_comm *)c;
}

/* ---- the asynchronous group ---- */

static tw_status check_counts(const tw_nccl_comm *c, const char *name, const int64_t *counts) {
    for (int r = 0; r < c->base.ranks; r++)
        if (counts[r] < 0) return FAIL(TW_ERR_ARGUMENT, "%s: a count of rank %d is negative", name, r);
    return TW_OK;
}

static tw_status start(tw_nccl_comm *c, tw_nccl_call *call) {
    tw_device *d = c->base.device;
    TRY(d->record(d, TW_QUEUE_COMPUTE, &c->ready));
    TRY(d->wait(d, TW_QUEUE_COMM, c->ready));
    TRY(tw_nccl_put_mark(d, &call->from));
    return tw_nccl_group_begin(c->nccl);
}

/* What a call sends is given between `begin` and `end`. */
static tw_status begin(tw_nccl_comm *c, const char *name) {
    TRY(tw_comm_nccl_check(c));
    if (c->count == TW_NCCL_CALLS) TRY(tw_comm_nccl_wait(c, TW_NCCL_CALLS - 1, name));
    tw_nccl_call *call = &c->calls[(c->first + c->count) % TW_NCCL_CALLS];
    call->name = name;
    call->begun = false;
    call->number = ++c->queued;
    tw_status status = start(c, call);
    return status == TW_OK ? TW_OK : tw_comm_nccl_give_up(c, status);
}

static tw_status finish(tw_nccl_comm *c) {
    tw_nccl_call *call = &c->calls[(c->first + c->count) % TW_NCCL_CALLS];
    bool busy;
    TRY(tw_nccl_group_end(c->nccl));
    TRY(tw_nccl_poll(c->nccl, &busy, &c->remote));
    /* At its first call NCCL connects to the others; before that is done nothing is in the queue. */
    if (busy) TRY(tw_comm_nccl_wait(c, TW_NCCL_CALLS, call->name));
    TRY(tw_nccl_put_mark(c->base.device, &call->to));
    c->count++;
    return TW_OK;
}

/* status: of what was given in between. */
static tw_status end(tw_nccl_comm *c, tw_status status) {
    if (status == TW_OK)
        status = finish(c);
    else if (c->nccl)
        (void)!tw_nccl_group_end(c->nccl); /* else the next group would be inside this one */
    if (status == TW_OK || c->status != TW_OK) return status;
    tw_fail_context(status, "%s number %llu", c->calls[(c->first + c->count) % TW_NCCL_CALLS].name,
                    (unsigned long long)c->queued);
    return tw_comm_nccl_give_up(c, status);
}

static int64_t total(const tw_nccl_comm *c, const int64_t *counts) {
    int64_t sum = 0;
    for (int r = 0; r < c->base.ranks; r++) sum += counts[r];
    return sum;
}

static bool are_equal(const tw_nccl_comm *c, const int64_t *counts) {
    for (int r = 1; r < c->base.ranks; r++)
        if (counts[r] != counts[0]) return false;
    return true;
}

static void count_bytes(tw_nccl_comm *c, int64_t elements) {
    c->times.bytes += (uint64_t)elements * sizeof(float);
}

static tw_status nccl_all_reduce(tw_comm *base, float *data, int64_t count) {
    tw_nccl_comm *c = self(base);
    if (count < 0) return FAIL(TW_ERR_ARGUMENT, "all_reduce: %lld elements", (long long)count);
    TRY(begin(c, "all_reduce"));
    count_bytes(c, 2 * (count - count / base->ranks));
    return end(c, count ? tw_nccl_all_reduce(c->nccl, data, count) : TW_OK);
}

static tw_status gather(tw_nccl_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_status status = TW_OK;
    if (are_equal(c, counts)) return counts[0] ? tw_nccl_all_gather(c->nccl, in, out, counts[0]) : TW_OK;
    for (int r = 0; r < c->base.ranks && status == TW_OK; out += counts[r++])
        if (counts[r]) status = tw_nccl_broadcast(c->nccl, r == c->base.rank ? in : out, out, counts[r], r);
    return status;
}

static tw_status nccl_all_gather(tw_comm *base, const float *in, float *out, const int64_t *counts) {
    tw_nccl_comm *c = self(base);
    TRY(check_counts(c, "all_gather", counts));
    TRY(begin(c, "all_gather"));
    count_bytes(c, counts[base->rank] * (base->ranks - 1));
    return end(c, gather(c, in, out, counts));
}

static tw_status scatter(tw_nccl_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_status status = TW_OK;
    if (are_equal(c, counts)) return counts[0] ? tw_nccl_reduce_scatter(c->nccl, in, out, counts[0]) : TW_OK;
    for (int r = 0; r < c->base.ranks && status == TW_OK; in += counts[r++])
        if (counts[r]) status = tw_nccl_reduce(c->nccl, in, r == c->base.rank ? out : NULL, counts[r], r);
    return status;
}

static tw_status nccl_reduce_scatter(tw_comm *base, const float *in, float *out, const int64_t *counts) {
    tw_nccl_comm *c = self(base);
    TRY(check_counts(c, "reduce_scatter", counts));
    TRY(begin(c, "reduce_scatter"));
    count_bytes(c, total(c, counts) - counts[base->rank]);
    return end(c, scatter(c, in, out, counts));
}

static tw_status exchange(tw_nccl_comm *c, const float *in, const int64_t *in_counts, float *out,
                          const int64_t *out_counts) {
    tw_device *d = c->base.device;
    for (int r = 0; r < c->base.ranks; in += in_counts[r], out += out_counts[r], r++) {
        if (r == c->base.rank) {
            TRY(d->copy(d, TW_QUEUE_COMM, out, in, (size_t)in_counts[r] * sizeof *in));
            continue;
        }
        if (in_counts[r]) TRY(tw_nccl_send(c->nccl, in, in_counts[r], r));
        if (out_counts[r]) TRY(tw_nccl_receive(c->nccl, out, out_counts[r], r));
    }
    return TW_OK;
}

static tw_status nccl_all_to_all(tw_comm *base, const float *in, const int64_t *in_counts, float *out,
                                 const int64_t *out_counts) {
    tw_nccl_comm *c = self(base);
    TRY(check_counts(c, "all_to_all", in_counts));
    TRY(check_counts(c, "all_to_all", out_counts));
    if (in_counts[base->rank] != out_counts[base->rank])
        return FAIL(TW_ERR_ARGUMENT, "all_to_all: rank %d sends itself another count than it receives",
                    base->rank);
    TRY(begin(c, "all_to_all"));
    count_bytes(c, total(c, in_counts) - in_counts[base->rank]);
    return end(c, exchange(c, in, in_counts, out, out_counts));
}

/* The compute queue's later work comes later than the host's return: it needs no event. */
static tw_status nccl_sync(tw_comm *base) {
    tw_nccl_comm *c = self(base);
    TRY(tw_comm_nccl_check(c));
    return tw_comm_nccl_wait(c, 0, "sync");
}

static tw_status order(tw_nccl_comm *c) {
    tw_device *d = c->base.device;
    TRY(d->record(d, TW_QUEUE_COMM, &c->last));
    return d->wait(d, TW_QUEUE_COMPUTE, c->last);
}

static tw_status nccl_follow(tw_comm *base) {
    tw_nccl_comm *c = self(base);
    TRY(tw_comm_nccl_check(c));
    tw_status status = order(c);
    return status == TW_OK ? TW_OK : tw_comm_nccl_give_up(c, status);
}

/* ---- the rest ---- */

static tw_status nccl_broadcast(tw_comm *base, void *data, size_t bytes, int root) {
    tw_comm *host = self(base)->host;
    return host->broadcast(host, data, bytes, root);
}

static tw_status nccl_gather(tw_comm *base, const void *in, size_t bytes, void *out, int root) {
    tw_comm *host = self(base)->host;
    return tw_comm_gather(host, in, bytes, out, root);
}

static tw_status nccl_gather_all(tw_comm *base, const void *in, size_t bytes, void *out) {
    tw_comm *host = self(base)->host;
    return host->gather_all(host, in, bytes, out);
}

/* The others are told first: aborting looks to them like a failure of this rank. Where even that hangs, so
 * would everything that is to be freed: the process ends here, with its message. */
static void nccl_abort(tw_comm *base, const char *message) {
    tw_nccl_comm *c = self(base);
    c->host->abort(c->host, message);
    if (c->status == TW_OK) {
        c->status = TW_ERR_LIBRARY;
        snprintf(c->message, sizeof c->message, "NCCL was ended: %s", message);
    }
    tw_comm_nccl_end(c);
    if (!c->stuck) return;
    if (!tw_last_word_said())
        fprintf(stderr, "tuwen: the run ends: %s (and NCCL does not let go of the GPU)\n", message);
    _exit(EXIT_FAILURE);
}

static void nccl_destroy(tw_comm *base) {
    tw_nccl_comm *c = self(base);
    tw_device *d = base->device;
    tw_comm_nccl_leave(c);
    if (c->host) tw_comm_mpi_serve(c->host, NULL, NULL);
    for (int i = 0; i < TW_NCCL_CALLS; i++) {
        tw_nccl_mark_free(c->calls[i].from);
        tw_nccl_mark_free(c->calls[i].to);
    }
    d->event_release(d, c->ready);
    d->event_release(d, c->last);
    pthread_mutex_destroy(&c->lock);
    tw_comm_free(c->host);
    free(c);
}

tw_status tw_comm_nccl(tw_device *device, tw_comm *host, double timeout, tw_comm **out) {
    *out = NULL;
    TRY(tw_nccl_usable());
    tw_nccl_comm *c = calloc(1, sizeof *c);
    if (!c) return FAIL(TW_ERR_MEMORY, "out of memory");
    c->host = host;
    c->timeout = timeout;
    pthread_mutex_init(&c->lock, NULL);
    c->base = (tw_comm){.rank = host->rank,
                        .ranks = host->ranks,
                        .device = device,
                        .all_reduce = nccl_all_reduce,
                        .all_gather = nccl_all_gather,
                        .reduce_scatter = nccl_reduce_scatter,
                        .all_to_all = nccl_all_to_all,
                        .sync = nccl_sync,
                        .follow = nccl_follow,
                        .broadcast = nccl_broadcast,
                        .gather_all = nccl_gather_all,
                        .gather = nccl_gather,
                        .abort = nccl_abort,
                        .destroy = nccl_destroy};
    tw_status status = tw_comm_nccl_join(c);
    if (status == TW_OK) {
        *out = &c->base;
        return TW_OK;
    }
    tw_comm_nccl_end(c);
    tw_comm_mpi_serve(host, NULL, NULL);
    c->host = NULL; /* the caller's */
    nccl_destroy(&c->base);
    return status;
}

tw_comm_times tw_comm_nccl_times(const tw_comm *c) {
    return c->sync == nccl_sync ? ((const tw_nccl_comm *)(const void *)c)->times : (tw_comm_times){0};
}

#else

tw_status tw_comm_nccl(tw_device *device, tw_comm *host, double timeout, tw_comm **out) {
    (void)device, (void)host, (void)timeout;
    *out = NULL;
    return tw_nccl_usable();
}

tw_comm_times tw_comm_nccl_times(const tw_comm *c) {
    (void)c;
    return (tw_comm_times){0};
}

#endif
