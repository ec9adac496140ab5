#include "train/watchdog.h"

#include "autograd/progress.h"
#include "train/clock.h"
#include "train/machine.h"
#include "train/siblings.h"
#include "train/signals.h"
#include "train/watchdog_activity.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds: that a rank which printed its failure gets to leave before the others do; that a verdict gets to
 * reach the others; that each further rank of a host waits before it speaks in rank 0's place. */
static const double LEAVE = 5, DELIVER = 1, TURN = 1;

struct tw_watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int rank, ranks;
    double timeout, limit, interval;
    tw_peer *peers;
    tw_peer_view *views; /* (ranks), of rank 0; elsewhere views[0] alone */
    tw_verdict verdict;
    double verdict_at;
    bool delivered, closing;
    double looked; /* when this process last was seen to run, */
    double woke;   /* and when it last had been suspended */
    double term;   /* when SIGTERM was seen; 0: it was not */
    char report[sizeof((tw_beat *)0)->report];
    tw_activity activity;
    pid_t launcher;
};

/* ---- the end ---- */

/* By name, where shares of a machine go by tw_machine: whose process ids mean something here is asked, and
 * containers of one machine have their own. */
static bool on_my_host(const tw_watchdog *w, int rank) {
    return strcmp(w->peers[rank].host, w->peers[w->rank].host) == 0;
}

static int place_on_host(const tw_watchdog *w) {
    int place = 0;
    for (int r = 1; r < w->rank; r++) place += on_my_host(w, r);
    return place;
}

/* Whether another rank of this host, rank 0 apart, has ended: it was its turn to speak most likely, and the
 * launcher's SIGTERM, which follows from that, may not be here yet. */
static bool one_has_left(const tw_watchdog *w) {
    for (int r = 1; r < w->ranks; r++)
        if (r != w->rank && on_my_host(w, r) && !tw_is_same_program(w->peers[r].pid)) return true;
    return false;
}

/* A stopped process does not end by itself, and a launcher may not know that it should: srun without
 * --kill-on-bad-exit waits for it for ever. Whoever is on its host sees to it. */
static void kill_culprit(const tw_watchdog *w, int rank) {
    if (rank != w->rank && on_my_host(w, rank) && tw_is_same_program(w->peers[rank].pid))
        (void)kill(w->peers[rank].pid, SIGKILL);
}

static _Noreturn void speak_and_end(const tw_watchdog *w) {
    char line[1200];
    int n =
        snprintf(line, sizeof line, "tuwen: the run ends: %s; go on with --resume latest\n", w->verdict.text);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) (void)0; /* nobody else could be told */
    kill_culprit(w, w->verdict.rank);
    _exit(EXIT_FAILURE);
}

static void set_verdict(tw_watchdog *w, const tw_verdict *v, double now) {
    if (w->verdict.rank >= 0 || v->rank < 0) return;
    w->verdict = *v;
    w->verdict_at = now;
    pthread_cond_broadcast(&w->changed);
}

/* Seconds beyond the limit after which this rank speaks of rank 0. When somebody has spoken, the launcher is
 * about to kill who is left. */
static double turn(const tw_watchdog *w) {
    bool spoken = tw_stop_signal() == SIGTERM || one_has_left(w);
    return spoken ? LEAVE * (1 + place_on_host(w)) : TURN * place_on_host(w);
}

/* What rank 0 says of the others, or another rank of rank 0. */
static void judge(tw_watchdog *w, double now) {
    tw_verdict v = {.rank = -1};
    if (w->rank == 0) {
        w->views[0].heard = now;
        v = tw_verdict_find(w->views, w->peers, w->ranks, now, w->limit);
    } else if (now - w->views[0].heard > w->limit && now - w->views[0].heard > w->limit + turn(w)) {
        v = tw_verdict_silent(0, w->peers, w->ranks, now - w->views[0].heard);
    }
    if (v.rank >= 0 && w->rank != 0) { /* nobody to be told through: speak at once */
        w->verdict = v;
        speak_and_end(w);
    }
    set_verdict(w, &v, now);
}

/* With a verdict: whoever is to speak does, the others leave when it had its time. */
static void carry_out(const tw_watchdog *w, double now) {
    double since = now - w->verdict_at;
    if (!w->verdict.reported && w->rank == 0 && ((w->delivered && since > DELIVER / 4) || since > DELIVER))
        speak_and_end(w);
    if (since <= LEAVE || (w->verdict.reported && w->verdict.rank == w->rank)) return;
    kill_culprit(w, w->verdict.rank);
    _exit(EXIT_FAILURE);
}

/* Whether nothing comes from the host of a rank any more, which is not this one. */
static bool host_is_silent(const tw_watchdog *w, int rank, int known, double now) {
    if (on_my_host(w, rank)) return false;
    for (int r = 0; r < known; r++)
        if (strcmp(w->peers[r].host, w->peers[rank].host) == 0 &&
            now - w->views[r].heard <= 1 + 2 * w->interval)
            return false;
    return true;
}

/* The launcher ends the job (SIGTERM) while a rank is silent: it has noticed too, and its own message may
 * name no rank. There is about a second left to say which one it is, of all that may be the reason for the
 * signal only if the silence is no short one, or that of a whole host. */
static void mind_the_end(tw_watchdog *w, double now) {
    double quiet = fmax(2 + 4 * w->interval, w->limit / 4);
    int known = w->rank == 0 ? w->ranks : 1; /* the others hear rank 0 alone */
    if (tw_stop_signal() != SIGTERM) return;
    if (w->term == 0) w->term = now;
    if (w->rank != 0 && (place_on_host(w) != 0 || one_has_left(w))) return;
    for (int r = 0; r < known; r++) {
        /* Who lived when the signal came is not its reason: the run may be saving because of it. */
        if (r == w->rank || w->views[r].heard > w->term) continue;
        if (now - w->views[r].heard <= quiet && !host_is_silent(w, r, known, now)) continue;
        w->verdict = tw_verdict_silent(r, w->peers, w->ranks, now - w->views[r].heard);
        speak_and_end(w);
    }
}

/* Without its launcher a rank is an orphan: nobody would end it, nor pass on what it says. The system ends
 * most (tw_launch_follow); for the others this does, and for those of this host that are stopped. */
static void mind_the_launcher(const tw_watchdog *w) {
    if (w->launcher == 1 || getppid() == w->launcher) return;
    for (int r = 0; r < w->ranks; r++)
        if (on_my_host(w, r) && tw_is_stopped(w->peers[r].pid)) kill_culprit(w, r);
    _exit(EXIT_FAILURE);
}

/* The whole process or host was asleep: the others' silence is not theirs, and nobody waited or was idle. */
static void notice_sleep(tw_watchdog *w, double now) {
    double gap = now - w->looked;
    w->looked = now;
    if (gap <= 1 + 4 * w->interval) return;
    for (int r = 0; r < w->ranks; r++) w->views[r].heard = fmin(w->views[r].heard + gap, now);
    tw_activity_slept(&w->activity, gap);
    w->woke = now;
}

static void look(tw_watchdog *w, double now) {
    notice_sleep(w, now);
    mind_the_launcher(w);
    tw_activity_look(&w->activity, now);
    if (w->verdict.rank < 0) mind_the_end(w, now);
    if (w->verdict.rank < 0) judge(w, now);
    if (w->verdict.rank >= 0) carry_out(w, now);
}

static void *watch(void *argument) {
    tw_watchdog *w = argument;
    tw_stage_show(TW_STAGE_RUNNING);
    for (bool closing = false; !closing;) {
        struct timespec nap = {.tv_nsec = (long)(w->interval * 1e9 / 2)};
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&w->lock);
        double now = tw_seconds();
        closing = w->closing;
        if (!closing) look(w, now);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* ---- for the communicator ---- */

tw_peer tw_peer_self(void) {
    tw_peer p = {.pid = (int32_t)getpid()};
    tw_host_name(p.host, sizeof p.host);
    return p;
}

tw_status tw_watchdog_open(int rank, int ranks, const tw_peer *peers, double timeout, tw_watchdog **out) {
    tw_watchdog *w = *out = calloc(1, sizeof *w);
    if (!w) return FAIL(TW_ERR_MEMORY, "out of memory");
    double now = tw_seconds();
    *w = (tw_watchdog){.rank = rank,
                       .ranks = ranks,
                       .timeout = timeout,
                       .limit = 0.75 * timeout, /* the rest is for the end */
                       .interval = timeout < 20 ? timeout / 40 : 0.5,
                       .verdict = {.rank = -1},
                       .launcher = getppid(),
                       .looked = now,
                       .woke = now};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    tw_activity_open(&w->activity, w->limit);
    w->peers = malloc((size_t)ranks * sizeof *w->peers);
    w->views = calloc((size_t)ranks, sizeof *w->views);
    if (w->peers && w->views) {
        memcpy(w->peers, peers, (size_t)ranks * sizeof *peers);
        for (int r = 0; r < ranks; r++) w->views[r].heard = now;
        if (pthread_create(&w->thread, NULL, watch, w) == 0) return TW_OK;
    }
    free(w->peers), free(w->views), free(w);
    *out = NULL;
    return FAIL(TW_ERR_MEMORY, "out of memory or threads for the watchdog");
}

void tw_watchdog_close(tw_watchdog *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w->peers), free(w->views), free(w);
}

double tw_watchdog_interval(const tw_watchdog *w) {
    return w->interval;
}

void tw_watchdog_ignore_thread(tw_watchdog *w, pthread_t thread, pid_t number) {
    pthread_mutex_lock(&w->lock);
    tw_activity_ignore(&w->activity, thread, number);
    pthread_mutex_unlock(&w->lock);
}

static void describe_progress(const tw_activity *a, tw_beat *beat) {
    tw_progress p = tw_progress_look();
    beat->spent = a->spent;
    beat->longest = a->longest;
    beat->queued = p.queued;
    beat->first = p.first;
    snprintf(beat->doing, sizeof beat->doing, "%s", p.what);
}

void tw_watchdog_make_beat(tw_watchdog *w, tw_beat *beat) {
    pthread_mutex_lock(&w->lock);
    double now = tw_seconds();
    notice_sleep(w, now);
    if (beat->waiting > 0) {
        beat->waiting = fmin(beat->waiting, fmax(now - w->woke, 1e-3));
        tw_activity_held_up(&w->activity, now);
    }
    beat->idle = now - w->activity.last;
    beat->still = now - w->activity.moved;
    beat->stalled = now - w->activity.done;
    describe_progress(&w->activity, beat);
    memcpy(beat->report, w->report, sizeof beat->report);
    if (w->rank == 0) w->views[0].beat = *beat;
    pthread_mutex_unlock(&w->lock);
}

void tw_watchdog_heard(tw_watchdog *w, int rank, const tw_beat *beat) {
    pthread_mutex_lock(&w->lock);
    w->views[rank] = (tw_peer_view){.heard = tw_seconds(), .beat = *beat};
    w->views[rank].beat.report[sizeof beat->report - 1] = '\0';
    w->views[rank].beat.doing[sizeof beat->doing - 1] = '\0';
    pthread_mutex_unlock(&w->lock);
}

tw_verdict tw_watchdog_verdict(tw_watchdog *w) {
    pthread_mutex_lock(&w->lock);
    tw_verdict v = w->verdict;
    pthread_mutex_unlock(&w->lock);
    return v;
}

void tw_watchdog_told(tw_watchdog *w, const tw_verdict *verdict) {
    pthread_mutex_lock(&w->lock);
    double now = tw_seconds();
    w->views[0].heard = now;
    set_verdict(w, verdict, now);
    pthread_mutex_unlock(&w->lock);
}

void tw_watchdog_delivered(tw_watchdog *w) {
    pthread_mutex_lock(&w->lock);
    if (!w->delivered) pthread_cond_broadcast(&w->changed);
    w->delivered = true;
    pthread_mutex_unlock(&w->lock);
}

void tw_watchdog_fail(tw_watchdog *w, const char *message) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)LEAVE;
    pthread_mutex_lock(&w->lock);
    snprintf(w->report, sizeof w->report, "%s", message);
    for (int waited = 0; waited != ETIMEDOUT;) {
        bool mine = w->verdict.rank == w->rank && w->verdict.reported;
        if (mine && (w->rank != 0 || w->delivered)) break;
        if (w->verdict.rank >= 0 && !mine)
            pthread_cond_wait(&w->changed, &w->lock); /* until the watching thread ends the process */
        else
            waited = pthread_cond_timedwait(&w->changed, &w->lock, &until);
    }
    pthread_mutex_unlock(&w->lock);
}
