#include "train/comm_nccl_private.h"

#ifdef TW_WITH_NCCL

#include "train/clock.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Seconds: that an abort may take before it counts as hanging; that a rank whose error is, or may be, the
 * echo of another's waits for that one to speak. */
static const double ABORT = 5, ECHO = 2, OWN = 0.25;

/* ---- what the watchdog is told ---- */

void tw_comm_nccl_describe(void *context, tw_beat *beat) {
    tw_nccl_comm *c = context;
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
static void tell(tw_nccl_comm *c, const char *call) {
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

void tw_comm_nccl_end(tw_nccl_comm *c) {
    if (!c->nccl) return;
    c->stuck = !abort_in_time(c->nccl);
    c->nccl = NULL;
}

void tw_comm_nccl_nap(double seconds) {
    struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

tw_status tw_comm_nccl_give_up(tw_nccl_comm *c, tw_status status) {
    c->status = status;
    snprintf(c->message, sizeof c->message, "%s", tw_last_error());
    tw_comm_nccl_end(c);
    double end = tw_seconds() + (c->remote ? ECHO : OWN);
    while (tw_seconds() < end && !tw_comm_mpi_is_over(c->host)) tw_comm_nccl_nap(0.01);
    return FAIL(status, "%s", c->message);
}

tw_status tw_comm_nccl_check(const tw_nccl_comm *c) {
    if (c->status != TW_OK) return FAIL(c->status, "%s", c->message);
    return c->nccl ? TW_OK : FAIL(TW_ERR_LIBRARY, "NCCL was ended");
}

/* ---- waiting ---- */

static tw_nccl_call *oldest(tw_nccl_comm *c) {
    return c->count ? &c->calls[c->first] : NULL;
}

static void retire(tw_nccl_comm *c, tw_nccl_call *call) {
    c->times.busy += tw_nccl_between(call->from, call->to);
    c->first = (c->first + 1) % TW_NCCL_CALLS;
    c->count--;
    c->done++;
}

/* One look at NCCL, the verdict and the oldest call. *busy: NCCL still works at the last call made. */
static tw_status look(tw_nccl_comm *c, bool *busy, bool *moved) {
    tw_nccl_call *call = oldest(c);
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

/* Other ranks hold this one up from when its own work before a call is done. */
tw_status tw_comm_nccl_wait(tw_nccl_comm *c, int left, const char *name) {
    enum { EAGER = 200 };
    double start = tw_seconds();
    tw_status status;
    bool busy = false, moved = true;
    for (int looks = 0;; looks = moved ? 0 : looks + 1) {
        const tw_nccl_call *call = oldest(c);
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
            tw_comm_nccl_nap(2e-5);
    }
    tell(c, NULL);
    c->times.waited += tw_seconds() - start;
    return status == TW_OK ? TW_OK : tw_comm_nccl_give_up(c, status);
}

#endif
