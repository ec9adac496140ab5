#include "train/comm_nccl.h"

#include "train/last_word.h"
#include "train/nccl_calls.h"

#include <stdlib.h>
#include <string.h>

#ifdef TW_WITH_NCCL

#include "train/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Calls under way at once; seconds: that an abort may take before it counts as hanging; that a rank whose
 * error is, or may be, the echo of another's waits for that one to speak. */
enum { CALLS = 128 };
static const double ABORT = 5, ECHO = 2, OWN = 0.25;

typedef struct nccl_call {
    const char *name;
    tw_nccl_mark *from, *to; /* kept from call to call */
    bool begun;              /* what it had to wait for on this rank is done */
    uint64_t number;
} nccl_call;

typedef struct nccl_comm {
    tw_comm base;
    tw_comm *host;
    double timeout;
    tw_nccl *nccl;   /* NULL once it was aborted */
    tw_event *ready; /* the compute queue's work that the last call follows */
    nccl_call calls[CALLS];
    int first, count; /* of those under way, the oldest first */
    uint64_t queued, done;
    bool joining;       /* a wait with a limit and a message of its own */
    bool remote, stuck; /* the error is another rank's; the abort did not return */
    tw_status status;
    char message[1024]; /* of the first failure: later calls fail with it */
    pthread_mutex_t lock;
    struct { /* what MPI's thread reads */
        uint64_t done;
        double since; /* when the caller began to be held up by other ranks; 0: it is not */
        const char *call;
    } state;
    tw_comm_times times;
} nccl_comm;

static nccl_comm *self(tw_comm *c) {
    return (nccl_comm *)c;
}

/* ---- what the watchdog is told ---- */

static void describe(void *context, tw_beat *beat) {
    nccl_comm *c = context;
    pthread_mutex_lock(&c->lock);
    beat->done[0] = c->state.done;
    if (c->joining || c->state.since > 0) {
        double waiting = c->joining ? 0 : tw_seconds() - c->state.since;
        beat->waiting = waiting > 1e-3 ? waiting : 1e-3;
        snprintf(beat->call, sizeof beat->call, "%s", c->joining ? "join" : c->state.call);
    }
    pthread_mutex_unlock(&c->lock);
}

/* call NULL: not held up. */
static void tell(nccl_comm *c, const char *call) {
    pthread_mutex_lock(&c->lock);
    c->state.since = call ? tw_seconds() : 0;
    c->state.call = call;
    c->state.done = c->done;
    pthread_mutex_unlock(&c->lock);
}

/* ---- giving up ---- */

typedef struct ending {
    tw_nccl *nccl;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done, left; /* left: nobody waits for it any more */
} ending;

static void *abort_main(void *argument) {
    ending *e = argument;
    tw_nccl_abort(e->nccl);
    pthread_mutex_lock(&e->lock);
    e->is_done = true;
    bool left = e->left;
    pthread_cond_signal(&e->done);
    pthread_mutex_unlock(&e->lock);
    if (left) free(e);
    return NULL;
}

/* Aborts in a thread of its own, as a driver in trouble may never return. Whether it did within ABORT. */
static bool abort_in_time(tw_nccl *nccl) {
    pthread_t thread;
    struct timespec until;
    ending *e = calloc(1, sizeof *e);
    if (!e) return false;
    e->nccl = nccl;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->done, NULL);
    if (pthread_create(&thread, NULL, abort_main, e) != 0) {
        free(e);
        return false;
    }
    pthread_detach(thread);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)ABORT;
    pthread_mutex_lock(&e->lock);
    for (int late = 0; !e->is_done && !late;) late = pthread_cond_timedwait(&e->done, &e->lock, &until);
    bool in_time = e->is_done;
    e->left = !in_time;
    pthread_mutex_unlock(&e->lock);
    if (in_time) free(e);
    return in_time;
}

static void end_nccl(nccl_comm *c) {
    if (!c->nccl) return;
    c->stuck = !abort_in_time(c->nccl);
    c->nccl = NULL;
}

static void nap(double seconds) {
    struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

/* The first failure: kept for later calls. The rank that caused it has the first word. */
static tw_status give_up(nccl_comm *c, tw_status status) {
    c->status = status;
    snprintf(c->message, sizeof c->message, "%s", tw_last_error());
    end_nccl(c);
    double end = tw_seconds() + (c->remote ? ECHO : OWN);
    while (tw_seconds() < end && !tw_comm_mpi_is_over(c->host)) nap(0.01);
    return FAIL(status, "%s", c->message);
}

static tw_status usable(const nccl_comm *c) {
    if (c->status != TW_OK) return FAIL(c->status, "%s", c->message);
    return c->nccl ? TW_OK : FAIL(TW_ERR_LIBRARY, "NCCL was ended");
}

/* ---- waiting ---- */

static nccl_call *oldest(nccl_comm *c) {
    return c->count ? &c->calls[c->first] : NULL;
}

static void retire(nccl_comm *c, nccl_call *call) {
    c->times.busy += tw_nccl_between(call->from, call->to);
    c->first = (c->first + 1) % CALLS;
    c->count--;
    c->done++;
}

/* One look at NCCL, the verdict and the oldest call. *busy: NCCL still works at the last call made. */
static tw_status look(nccl_comm *c, bool *busy, bool *moved) {
    nccl_call *call = oldest(c);
    bool reached = false;
    *busy = *moved = false;
    if (tw_comm_mpi_is_over(c->host)) return FAIL(TW_ERR_LIBRARY, "given up, as the run is over");
    TRY(tw_nccl_poll(c->nccl, busy, &c->remote));
    if (!call) return TW_OK;
    if (!call->begun) {
        TRY(tw_nccl_reached(c->base.device, call->from, &reached));
        if (!reached) return TW_OK;
        *moved = call->begun = true;
    }
    TRY(tw_nccl_reached(c->base.device, call->to, &reached));
    if (!reached) return TW_OK;
    *moved = true;
    retire(c, call);
    return TW_OK;
}

/* Waits until at most `left` calls are under way and NCCL has taken up the last one, `name`. Other ranks hold
 * this one up from when its own work before a call is done. */
static tw_status wait_for(nccl_comm *c, int left, const char *name) {
    enum { EAGER = 200 };
    double start = tw_seconds();
    tw_status status;
    bool busy = false, moved = true;
    for (int looks = 0;; looks = moved ? 0 : looks + 1) {
        const nccl_call *call = oldest(c);
        const char *what = call && !busy ? call->name : name;
        if (moved) tell(c, (call && call->begun) || busy ? what : NULL);
        uint64_t number = call ? call->number : c->queued;
        bool was_busy = busy;
        status = look(c, &busy, &moved);
        moved |= busy != was_busy;
        if (status != TW_OK) tw_fail_context(status, "%s number %llu", what, (unsigned long long)number);
        if (status != TW_OK || (c->count <= left && !busy)) break;
        if (looks < EAGER)
            sched_yield();
        else
            nap(2e-5);
    }
    tell(c, NULL);
    c->times.waited += tw_seconds() - start;
    return status == TW_OK ? TW_OK : give_up(c, status);
}

/* ---- the asynchronous group ---- */

static tw_status check_counts(const nccl_comm *c, const char *name, const int64_t *counts) {
    for (int r = 0; r < c->base.ranks; r++)
        if (counts[r] < 0) return FAIL(TW_ERR_ARGUMENT, "%s: a count of rank %d is negative", name, r);
    return TW_OK;
}

static tw_status start(nccl_comm *c, nccl_call *call) {
    tw_device *d = c->base.device;
    TRY(d->record(d, TW_QUEUE_COMPUTE, &c->ready));
    TRY(d->wait(d, TW_QUEUE_COMM, c->ready));
    TRY(tw_nccl_put_mark(d, &call->from));
    return tw_nccl_group_begin(c->nccl);
}

/* What a call sends is given between `begin` and `end`. */
static tw_status begin(nccl_comm *c, const char *name) {
    TRY(usable(c));
    if (c->count == CALLS) TRY(wait_for(c, CALLS - 1, name));
    nccl_call *call = &c->calls[(c->first + c->count) % CALLS];
    call->name = name;
    call->begun = false;
    call->number = ++c->queued;
    tw_status status = start(c, call);
    return status == TW_OK ? TW_OK : give_up(c, status);
}

static tw_status finish(nccl_comm *c) {
    nccl_call *call = &c->calls[(c->first + c->count) % CALLS];
    bool busy;
    TRY(tw_nccl_group_end(c->nccl));
    TRY(tw_nccl_poll(c->nccl, &busy, &c->remote));
    /* At its first call NCCL connects to the others; before that is done nothing is in the queue. */
    if (busy) TRY(wait_for(c, CALLS, call->name));
    TRY(tw_nccl_put_mark(c->base.device, &call->to));
    c->count++;
    return TW_OK;
}

/* status: of what was given in between. */
static tw_status end(nccl_comm *c, tw_status status) {
    if (status == TW_OK)
        status = finish(c);
    else if (c->nccl)
        (void)!tw_nccl_group_end(c->nccl); /* else the next group would be inside this one */
    if (status == TW_OK || c->status != TW_OK) return status;
    tw_fail_context(status, "%s number %llu", c->calls[(c->first + c->count) % CALLS].name,
                    (unsigned long long)c->queued);
    return give_up(c, status);
}

static int64_t total(const nccl_comm *c, const int64_t *counts) {
    int64_t sum = 0;
    for (int r = 0; r < c->base.ranks; r++) sum += counts[r];
    return sum;
}

static bool are_equal(const nccl_comm *c, const int64_t *counts) {
    for (int r = 1; r < c->base.ranks; r++)
        if (counts[r] != counts[0]) return false;
    return true;
}

static void count_bytes(nccl_comm *c, int64_t elements) {
    c->times.bytes += (uint64_t)elements * sizeof(float);
}

static tw_status nccl_all_reduce(tw_comm *base, float *data, int64_t count) {
    nccl_comm *c = self(base);
    if (count < 0) return FAIL(TW_ERR_ARGUMENT, "all_reduce: %lld elements", (long long)count);
    TRY(begin(c, "all_reduce"));
    count_bytes(c, 2 * (count - count / base->ranks));
    return end(c, count ? tw_nccl_all_reduce(c->nccl, data, count) : TW_OK);
}

static tw_status gather(nccl_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_status status = TW_OK;
    if (are_equal(c, counts)) return counts[0] ? tw_nccl_all_gather(c->nccl, in, out, counts[0]) : TW_OK;
    for (int r = 0; r < c->base.ranks && status == TW_OK; out += counts[r++])
        if (counts[r]) status = tw_nccl_broadcast(c->nccl, r == c->base.rank ? in : out, out, counts[r], r);
    return status;
}

static tw_status nccl_all_gather(tw_comm *base, const float *in, float *out, const int64_t *counts) {
    nccl_comm *c = self(base);
    TRY(check_counts(c, "all_gather", counts));
    TRY(begin(c, "all_gather"));
    count_bytes(c, counts[base->rank] * (base->ranks - 1));
    return end(c, gather(c, in, out, counts));
}

static tw_status scatter(nccl_comm *c, const float *in, float *out, const int64_t *counts) {
    tw_status status = TW_OK;
    if (are_equal(c, counts)) return counts[0] ? tw_nccl_reduce_scatter(c->nccl, in, out, counts[0]) : TW_OK;
    for (int r = 0; r < c->base.ranks && status == TW_OK; in += counts[r++])
        if (counts[r]) status = tw_nccl_reduce(c->nccl, in, r == c->base.rank ? out : NULL, counts[r], r);
    return status;
}

static tw_status nccl_reduce_scatter(tw_comm *base, const float *in, float *out, const int64_t *counts) {
    nccl_comm *c = self(base);
    TRY(check_counts(c, "reduce_scatter", counts));
    TRY(begin(c, "reduce_scatter"));
    count_bytes(c, total(c, counts) - counts[base->rank]);
    return end(c, scatter(c, in, out, counts));
}

static tw_status exchange(nccl_comm *c, const float *in, const int64_t *in_counts, float *out,
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
    nccl_comm *c = self(base);
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
    nccl_comm *c = self(base);
    TRY(usable(c));
    return wait_for(c, 0, "sync");
}

/* ---- the rest ---- */

static tw_status nccl_broadcast(tw_comm *base, void *data, size_t bytes, int root) {
    tw_comm *host = self(base)->host;
    return host->broadcast(host, data, bytes, root);
}

static tw_status nccl_gather_all(tw_comm *base, const void *in, size_t bytes, void *out) {
    tw_comm *host = self(base)->host;
    return host->gather_all(host, in, bytes, out);
}

/* The others are told first: aborting looks to them like a failure of this rank. Where even that hangs, so
 * would everything that is to be freed: the process ends here, with its message. */
static void nccl_abort(tw_comm *base, const char *message) {
    nccl_comm *c = self(base);
    c->host->abort(c->host, message);
    if (c->status == TW_OK) {
        c->status = TW_ERR_LIBRARY;
        snprintf(c->message, sizeof c->message, "NCCL was ended: %s", message);
    }
    end_nccl(c);
    if (!c->stuck) return;
    if (!tw_last_word_said())
        fprintf(stderr, "tuwen: the run ends: %s (and NCCL does not let go of the GPU)\n", message);
    _exit(EXIT_FAILURE);
}

static void leave(nccl_comm *c) {
    if (c->nccl && c->count) (void)!wait_for(c, 0, "sync");
    if (c->nccl && tw_nccl_leave(c->nccl) == TW_OK && wait_for(c, 0, "leave") == TW_OK) {
        tw_nccl_close(c->nccl);
        c->nccl = NULL;
    }
    end_nccl(c);
}

static void nccl_destroy(tw_comm *base) {
    nccl_comm *c = self(base);
    tw_device *d = base->device;
    leave(c);
    if (c->host) tw_comm_mpi_serve(c->host, NULL, NULL);
    for (int i = 0; i < CALLS; i++) {
        tw_nccl_mark_free(c->calls[i].from);
        tw_nccl_mark_free(c->calls[i].to);
    }
    d->event_release(d, c->ready);
    pthread_mutex_destroy(&c->lock);
    tw_comm_free(c->host);
    free(c);
}

/* ---- joining ---- */

typedef struct introduction {
    int32_t version;
    unsigned char gpu[TW_NCCL_GPU];
    char host[64];
} introduction;

static tw_status check_all(const introduction *all, int ranks) {
    for (int r = 0; r < ranks; r++) {
        if (all[r].version != all[0].version)
            return FAIL(TW_ERR_UNSUPPORTED,
                        "rank %d on %s has version %d of NCCL, rank 0 on %s has %d: all hosts need the same",
                        r, all[r].host, (int)all[r].version, all[0].host, (int)all[0].version);
        for (int q = 0; q < r; q++)
            if (memcmp(all[q].gpu, all[r].gpu, sizeof all[r].gpu) == 0)
                return FAIL(TW_ERR_CONFIG,
                            "ranks %d on %s and %d on %s have the same GPU: NCCL serves one rank a GPU; "
                            "start as many processes a host as it has GPUs",
                            q, all[q].host, r, all[r].host);
    }
    return TW_OK;
}

/* Every rank says what it has. Also: all are here, so that a rank which is not has been named by then. */
static tw_status introduce(nccl_comm *c) {
    introduction mine = {.version = tw_nccl_version_code()};
    if (gethostname(mine.host, sizeof mine.host - 1) != 0) strcpy(mine.host, "unknown host");
    TRY(tw_nccl_gpu(c->base.device, mine.gpu));
    introduction *all = calloc((size_t)c->base.ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->host->gather_all(c->host, &mine, sizeof mine, all);
    if (status == TW_OK) status = check_all(all, c->base.ranks);
    free(all);
    return status;
}

static tw_status wait_until_joined(nccl_comm *c) {
    double end = tw_seconds() + c->timeout;
    for (bool busy = true;;) {
        TRY(tw_nccl_poll(c->nccl, &busy, &c->remote));
        if (!busy) return TW_OK;
        if (tw_comm_mpi_is_over(c->host)) return FAIL(TW_ERR_LIBRARY, "given up, as the run is over");
        if (tw_seconds() > end)
            return FAIL(TW_ERR_LIBRARY,
                        "%s has not joined the %d ranks within %.0f s: their hosts do not reach each other, "
                        "or not over the interface it chose (NCCL_DEBUG=INFO tells which; "
                        "NCCL_SOCKET_IFNAME sets it)",
                        tw_nccl_version(), c->base.ranks, c->timeout);
        nap(1e-3);
    }
}

static void set_joining(nccl_comm *c, bool joining) {
    pthread_mutex_lock(&c->lock);
    c->joining = joining;
    pthread_mutex_unlock(&c->lock);
}

static tw_status join(nccl_comm *c) {
    unsigned char id[TW_NCCL_ID] = {0};
    char all_know = 1;
    TRY(introduce(c));
    if (c->base.rank == 0) TRY(tw_nccl_make_id(id));
    TRY(c->host->broadcast(c->host, id, sizeof id, 0));
    char *known = calloc((size_t)c->base.ranks, 1);
    if (!known) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->host->gather_all(c->host, &all_know, 1, known);
    free(known);
    TRY(status);
    TRY(tw_nccl_open(c->base.device, id, c->base.rank, c->base.ranks, &c->nccl));
    set_joining(c, true);
    tw_comm_mpi_serve(c->host, describe, c);
    status = wait_until_joined(c);
    if (status != TW_OK) return give_up(c, status); /* still joining to the watchdog, which has less to say */
    set_joining(c, false);
    return TW_OK;
}

tw_status tw_comm_nccl(tw_device *device, tw_comm *host, double timeout, tw_comm **out) {
    *out = NULL;
    TRY(tw_nccl_usable());
    nccl_comm *c = calloc(1, sizeof *c);
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
                        .broadcast = nccl_broadcast,
                        .gather_all = nccl_gather_all,
                        .abort = nccl_abort,
                        .destroy = nccl_destroy};
    tw_status status = join(c);
    if (status == TW_OK) {
        *out = &c->base;
        return TW_OK;
    }
    end_nccl(c);
    tw_comm_mpi_serve(host, NULL, NULL);
    c->host = NULL; /* the caller's */
    nccl_destroy(&c->base);
    return status;
}

tw_comm_times tw_comm_nccl_times(const tw_comm *c) {
    return c->sync == nccl_sync ? ((const nccl_comm *)(const void *)c)->times : (tw_comm_times){0};
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
