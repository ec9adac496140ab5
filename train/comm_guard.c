#include "train/comm_guard.h"

#include "train/clock.h"
#include "train/launch.h"
#include "train/signals.h"
#include "train/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Seconds: between looks; between one rank's turn to speak and the next's; that ranks which see nobody
 * missing leave to those that do; that the launcher's SIGTERM, after somebody spoke, gets to end this one. */
static const double LOOK = 0.1, TURN = 1, LEAVE_TO_OTHERS = 2, LEAVE = 5;
enum { SIBLINGS = 256 };

struct tw_guard {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
    tw_stage stage;
    tw_launch launch;
    pid_t launcher;
    double limit;
    tw_sibling siblings[SIBLINGS];
    int n, most; /* most: that were seen at once */
};

/* ---- who is missing ---- */

/* One that leaves may be gone by now: then nothing shows of it. */
static bool is_missing(const tw_guard *g, const tw_sibling *s) {
    if (s->stopped) return true;
    return g->stage == TW_STAGE_JOINING ? s->stage == TW_STAGE_NONE : s->stage == TW_STAGE_RUNNING;
}

/* Stopped ones first, then in the order of ranks: one that is stopped holds up others. */
static const tw_sibling *first_missing(const tw_guard *g) {
    const tw_sibling *found = NULL;
    for (int i = 0; i < g->n; i++) {
        const tw_sibling *s = &g->siblings[i];
        if (!is_missing(g, s) || (found && found->stopped && !s->stopped)) continue;
        if (!found || (s->stopped && !found->stopped) || s->rank < found->rank) found = s;
    }
    return found;
}

/* Seconds after the limit at which this rank speaks: those that see who is missing come first. */
static double turn(const tw_guard *g) {
    int before = 0;
    if (!first_missing(g)) return LEAVE_TO_OTHERS + TURN * g->launch.rank;
    for (int i = 0; i < g->n; i++)
        before += !is_missing(g, &g->siblings[i]) && g->siblings[i].rank < g->launch.rank;
    return TURN * before;
}

static void describe_missing(const tw_guard *g, char *text, size_t size) {
    const tw_sibling *s = first_missing(g);
    int elsewhere = g->launch.ranks - 1 - g->n;
    if (s)
        snprintf(text, size, "rank %d (process %d) on this host %s", s->rank, (int)s->pid,
                 s->stopped                     ? "is stopped"
                 : g->stage == TW_STAGE_JOINING ? "has not begun to"
                                                : "does not");
    else if (elsewhere > 0)
        snprintf(
            text, size,
            "it sees %d other ranks on this host, all there: one of the %d others, or the network to it, "
            "is not",
            g->n, elsewhere);
    else
        snprintf(text, size, "all ranks are on this host and there: MPI does not get on");
}

/* ---- the end ---- */

static _Noreturn void speak_and_end(const tw_guard *g, double waited) {
    char line[1024], missing[256];
    tw_peer self = tw_peer_self();
    describe_missing(g, missing, sizeof missing);
    int n = snprintf(line, sizeof line,
                     "tuwen: the run ends: rank %d of %d (process %d on %s) has waited %.0f s for the other "
                     "ranks to %s: %s\n",
                     g->launch.rank, g->launch.ranks, (int)self.pid, self.host, waited,
                     g->stage == TW_STAGE_JOINING ? "join (MPI_Init)"
                                                  : "leave (MPI_Finalize), when the work was done",
                     missing);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) (void)0; /* nobody else could be told */
    for (int i = 0; i < g->n; i++) /* such a one does not end by itself, if the launcher does not end it */
        if (g->siblings[i].stopped) (void)kill(g->siblings[i].pid, SIGKILL);
    _exit(EXIT_FAILURE);
}

/* When another rank of the host has left, or the launcher ends the job, somebody has spoken. */
static bool one_has_spoken(const tw_guard *g) {
    return tw_stop_signal() == SIGTERM || g->n < g->most;
}

/* A look at half the time, at its end and at this rank's turn: gives the time of the next one, or speaks. */
static double look(tw_guard *g, double waited, int looks) {
    g->n = tw_siblings_find(g->launch.rank_variable, g->siblings, SIBLINGS);
    if (g->n > g->most) g->most = g->n;
    if (looks == 0) return g->limit;
    if (looks == 1) return waited + turn(g);
    if (looks == 2 && one_has_spoken(g)) return waited + LEAVE;
    speak_and_end(g, waited);
}

static void mind_the_launcher(const tw_guard *g) {
    if (g->launcher != 1 && getppid() != g->launcher) _exit(EXIT_FAILURE);
}

static void wait_a_moment(tw_guard *g) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(LOOK * 1e9);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(&g->changed, &g->lock, &until);
}

static void *watch(void *argument) {
    tw_guard *g = argument;
    double waited = 0, last = tw_seconds(), due = g->limit / 2;
    tw_stage_show(g->stage);
    pthread_mutex_lock(&g->lock);
    for (int looks = 0; !g->closed;) {
        wait_a_moment(g);
        double now = tw_seconds(), gap = now - last;
        waited += gap < 1 + LOOK ? gap : LOOK; /* longer: the process was suspended */
        last = now;
        if (g->closed) break;
        mind_the_launcher(g);
        if (waited >= due) due = look(g, waited, looks++);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* ---- from outside ---- */

static void destroy(tw_guard *g) {
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

tw_status tw_guard_open(tw_stage stage, double timeout, tw_guard **out) {
    pthread_condattr_t attr;
    tw_guard *g = *out = calloc(1, sizeof *g);
    if (!g) return FAIL(TW_ERR_MEMORY, "out of memory");
    g->stage = stage;
    g->launch = tw_launch_find();
    g->launcher = getppid();
    g->limit = timeout > TW_GUARD_LEAST ? timeout : TW_GUARD_LEAST;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&g->thread, NULL, watch, g) == 0) return TW_OK;
    destroy(g);
    *out = NULL;
    return FAIL(TW_ERR_MEMORY, "out of threads to watch over the start and the end of MPI");
}

void tw_guard_close(tw_guard *g) {
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->closed = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    destroy(g);
}
