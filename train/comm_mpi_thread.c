#include "train/comm_mpi_thread.h"

#include "train/clock.h"
#include "train/comm_guard.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void keep_error(tw_comm_lane *l, tw_status status) {
    if (l->status != TW_OK) return;
    l->status = status;
    snprintf(l->message, sizeof l->message, "%s", tw_last_error());
}

/* ---- the thread's side ---- */

static tw_comm_op *take(tw_mpi_thread *t, tw_comm_lane *l) {
    pthread_mutex_lock(&t->lock);
    tw_comm_op *op = l->first;
    if (op) {
        l->first = op->next;
        if (!l->first) l->last = NULL;
        l->began = tw_seconds();
    }
    pthread_mutex_unlock(&t->lock);
    return op;
}

/* The active operation is over; after an error the lane's others are too. */
static void finish(tw_mpi_thread *t, tw_comm_lane *l, tw_status status) {
    tw_comm_op *op = l->active;
    l->active = NULL;
    l->posted = false;
    pthread_mutex_lock(&t->lock);
    l->done++;
    l->busy += tw_seconds() - l->began;
    l->sent = l->engine.sent;
    if (status != TW_OK) {
        tw_fail_context(status, "%s number %llu", tw_op_name(op->kind), (unsigned long long)op->number);
        keep_error(l, status);
        for (tw_comm_op *next; l->first; l->first = next) {
            next = l->first->next;
            tw_op_free(l->first);
            l->done++;
        }
        l->last = NULL;
    }
    pthread_cond_broadcast(&t->done);
    pthread_mutex_unlock(&t->lock);
    tw_op_free(op);
}

/* One look at a lane. *moved: something happened. */
static tw_status turn(tw_comm_lane *l, bool *moved, bool *finished) {
    *finished = false;
    if (l->posted) {
        bool landed;
        TRY(tw_mpi_test(&l->engine.requests, &landed));
        if (!landed) return TW_OK;
        tw_op_land(&l->engine, l->active);
        l->moved = tw_seconds();
        l->posted = false;
    }
    *moved = true;
    TRY(tw_op_post(&l->engine, l->active, finished));
    l->posted = !*finished;
    return TW_OK;
}

static bool turn_lane(tw_mpi_thread *t, tw_comm_lane *l) {
    bool moved = false, finished;
    if (!l->active) {
        l->active = take(t, l);
        if (!l->active) return false;
    }
    tw_status status = turn(l, &moved, &finished);
    if (status != TW_OK || finished) finish(t, l, status);
    return moved;
}

/* What this rank is held up in, for the beat. */
static void describe_waiting(const tw_mpi_thread *t, tw_beat *beat) {
    double now = tw_seconds();
    for (int i = 0; i < 2; i++) {
        const tw_comm_lane *l = &t->lanes[i];
        const tw_comm_op *op = l->active ? l->active : l->first;
        beat->done[i] = l->done;
        if (!l->waiters || !op) continue;
        double since = l->waiting_since > l->moved ? l->waiting_since : l->moved;
        beat->waiting = now - since > 1e-3 ? now - since : 1e-3;
        snprintf(beat->call, sizeof beat->call, "%s", tw_op_name(op->kind));
    }
    if (t->describe) t->describe(t->describe_context, beat);
}

static void turn_beats(tw_mpi_thread *t) {
    tw_beat beat = {0};
    pthread_mutex_lock(&t->lock);
    tw_beat_line *beats = t->beats;
    if (beats) describe_waiting(t, &beat);
    pthread_mutex_unlock(&t->lock);
    if (beats) tw_beat_line_turn(beats, &beat);
}

static struct timespec from_now(double seconds) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    int64_t ns = at.tv_nsec + (int64_t)(seconds * 1e9);
    return (struct timespec){.tv_sec = at.tv_sec + ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* What to do when nothing moved. A caller who waits is served at once, after some looks without giving up
 * more than the rest of a time slice; while the caller computes, the core is its own; and with nothing under
 * way the thread sleeps until there is, or for `idle` seconds. */
static void rest(tw_mpi_thread *t, int looks, double idle) {
    enum { EAGER = 200 };
    bool active = t->lanes[0].active || t->lanes[1].active;
    pthread_mutex_lock(&t->lock);
    bool waited_for = t->lanes[0].waiters || t->lanes[1].waiters;
    if (!active && !t->lanes[0].first && !t->lanes[1].first && t->state == TW_MPI_RUNNING) {
        struct timespec until = from_now(idle);
        pthread_cond_timedwait(&t->work, &t->lock, &until);
    }
    pthread_mutex_unlock(&t->lock);
    if (!active) return;
    if (waited_for && looks < EAGER) {
        sched_yield();
    } else {
        struct timespec nap = {.tv_nsec = waited_for ? 20000 : 200000};
        nanosleep(&nap, NULL);
    }
}

static bool running(tw_mpi_thread *t) {
    pthread_mutex_lock(&t->lock);
    bool yes = t->state == TW_MPI_RUNNING;
    pthread_mutex_unlock(&t->lock);
    return yes;
}

/* MPI_Finalize exchanges no beats: a rank that is stopped in it is noticed by the guard. */
static void finalize(tw_mpi_thread *t, tw_comm_lane *host) {
    tw_guard *guard;
    if (tw_guard_open(TW_STAGE_LEAVING, t->timeout, &guard) != TW_OK) guard = NULL; /* unwatched, then */
    tw_beat_line_end(t->beats);
    t->beats = NULL;
    if (tw_mpi_close() != TW_OK) keep_error(host, TW_ERR_LIBRARY);
    tw_guard_close(guard);
}

/* Leaving is a collective too: MPI_Finalize is called when everybody is there. */
static void leave(tw_mpi_thread *t) {
    tw_comm_lane *host = &t->lanes[TW_MPI_HOST];
    tw_comm_op *op;
    if (tw_op_create_host(&host->engine, TW_OP_BARRIER, NULL, 0, NULL, 0, &op) != TW_OK) return;
    host->active = op;
    host->began = tw_seconds();
    host->waiters = 1;
    host->waiting_since = host->began;
    while (host->active)
        if (!turn_lane(t, host)) {
            struct timespec nap = {.tv_nsec = 200000};
            turn_beats(t);
            nanosleep(&nap, NULL);
        }
    if (host->status == TW_OK) finalize(t, host);
}

static void serve(tw_mpi_thread *t) {
    static const double IDLE = 0.05;
    for (int looks = 0; running(t);) {
        bool moved = turn_lane(t, &t->lanes[TW_MPI_QUEUE]);
        moved |= turn_lane(t, &t->lanes[TW_MPI_HOST]);
        turn_beats(t);
        looks = moved ? 0 : looks + 1;
        if (!moved) rest(t, looks, IDLE);
    }
}

static void *thread_main(void *argument) {
    tw_mpi_thread *t = argument;
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); /* naps of 20 us, not of 70 */
    tw_status status = tw_mpi_open(&t->rank, &t->ranks);
    pthread_mutex_lock(&t->lock);
    t->start_status = status;
    t->number = (pid_t)syscall(SYS_gettid);
    if (status != TW_OK) snprintf(t->start_message, sizeof t->start_message, "%s", tw_last_error());
    for (int i = 0; i < 2 && status == TW_OK; i++)
        tw_op_engine_open(&t->lanes[i].engine, (tw_mpi_lane)i, t->rank, t->ranks);
    t->state = status == TW_OK ? TW_MPI_RUNNING : TW_MPI_GONE;
    pthread_cond_broadcast(&t->done);
    pthread_mutex_unlock(&t->lock);
    if (status != TW_OK) return NULL;
    serve(t);
    if (t->clean) leave(t);
    tw_beat_line_end(t->beats);
    return NULL;
}

/* ---- the callers' side ---- */

tw_status tw_mpi_thread_start(tw_mpi_thread *t) {
    *t = (tw_mpi_thread){.state = TW_MPI_STARTING};
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, &attr);
    pthread_cond_init(&t->done, NULL);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&t->thread, NULL, thread_main, t) != 0)
        return FAIL(TW_ERR_IO, "the communication thread cannot be started");
    pthread_mutex_lock(&t->lock);
    while (t->state == TW_MPI_STARTING) pthread_cond_wait(&t->done, &t->lock);
    tw_status status = t->start_status;
    pthread_mutex_unlock(&t->lock);
    if (status == TW_OK) return TW_OK;
    pthread_join(t->thread, NULL);
    return FAIL(status, "%s", t->start_message);
}

static tw_status lane_error(const tw_comm_lane *l) {
    return FAIL(l->status, "%s", l->message);
}

tw_status tw_mpi_thread_add(tw_mpi_thread *t, tw_mpi_lane lane, tw_comm_op *op) {
    tw_comm_lane *l = &t->lanes[lane];
    pthread_mutex_lock(&t->lock);
    if (l->status != TW_OK) {
        pthread_mutex_unlock(&t->lock);
        tw_op_free(op);
        return lane_error(l); /* never changes once set */
    }
    op->number = ++l->queued;
    if (l->last)
        l->last->next = op;
    else
        l->first = op;
    l->last = op;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    return TW_OK;
}

tw_status tw_mpi_thread_wait(tw_mpi_thread *t, tw_mpi_lane lane) {
    tw_comm_lane *l = &t->lanes[lane];
    double start = tw_seconds();
    pthread_mutex_lock(&t->lock);
    uint64_t target = l->queued;
    if (!l->waiters++) l->waiting_since = start;
    while (l->done < target) pthread_cond_wait(&t->done, &t->lock);
    l->waiters--;
    l->waited += tw_seconds() - start;
    tw_status status = l->status;
    pthread_mutex_unlock(&t->lock);
    return status == TW_OK ? TW_OK : lane_error(l);
}

void tw_mpi_thread_watch(tw_mpi_thread *t, tw_beat_line *beats) {
    pthread_mutex_lock(&t->lock);
    t->beats = beats;
    pthread_mutex_unlock(&t->lock);
}

void tw_mpi_thread_give_up(tw_mpi_thread *t) {
    pthread_mutex_lock(&t->lock);
    t->given_up = true;
    pthread_mutex_unlock(&t->lock);
}

void tw_mpi_thread_stop(tw_mpi_thread *t) {
    pthread_mutex_lock(&t->lock);
    t->clean = !t->given_up;
    for (int i = 0; i < 2; i++)
        t->clean &= t->lanes[i].status == TW_OK && t->lanes[i].done == t->lanes[i].queued;
    t->state = TW_MPI_ENDING;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    for (int i = 0; i < 2; i++) tw_op_engine_close(&t->lanes[i].engine);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
}
