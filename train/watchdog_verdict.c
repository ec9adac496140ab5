#include "train/watchdog.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static tw_verdict on(int rank, const tw_peer *peers, int ranks, const char *what) {
    tw_verdict v = {.rank = rank};
    snprintf(v.text, sizeof v.text, "rank %d of %d (process %d on %s) %s", rank, ranks, (int)peers[rank].pid,
             peers[rank].host, what);
    return v;
}

tw_verdict tw_verdict_silent(int rank, const tw_peer *peers, int ranks, double seconds) {
    char what[256];
    snprintf(what, sizeof what,
             "has not been heard of for %.0f s: it is stopped or hangs, or its host or the network is down",
             seconds);
    return on(rank, peers, ranks, what);
}

static uint64_t total_done(const tw_beat *b) {
    return b->done[0] + b->done[1];
}

/* Whether rank a is the likelier culprit of all waiting: it did less, or is alone with its call. */
static bool lags(const tw_peer_view *views, int ranks, int a, int b) {
    uint64_t done_a = total_done(&views[a].beat), done_b = total_done(&views[b].beat);
    int same_a = 0, same_b = 0;
    for (int r = 0; r < ranks; r++) {
        same_a += strcmp(views[r].beat.call, views[a].beat.call) == 0;
        same_b += strcmp(views[r].beat.call, views[b].beat.call) == 0;
    }
    return done_a != done_b ? done_a < done_b : same_a < same_b;
}

/* Seconds that rank r may compute without a unit done, and be idle while a device works for it: what honest
 * work took any rank so far, and more. */
static double allowed(const tw_peer_view *views, int ranks, int r, double limit, bool idle) {
    double most = views[r].beat.first && !idle ? TW_WATCHDOG_START * limit : limit;
    for (int q = 0; q < ranks; q++) {
        const tw_beat *b = &views[q].beat;
        most = fmax(most, TW_WATCHDOG_LONGER * fmax(b->queued, idle ? 0 : b->longest));
    }
    return most;
}

/* Whether rank r, which waits for no other, is stuck; how, for a message. */
static bool is_stuck(const tw_peer_view *views, int ranks, int r, double limit, char *how, size_t size) {
    const tw_beat *b = &views[r].beat;
    double most = allowed(views, ranks, r, limit, false);
    if (b->waiting > 0) return false;
    if (b->idle >= allowed(views, ranks, r, limit, true)) {
        snprintf(how, size, "it does nothing");
        return true;
    }
    if (b->spent >= most) {
        snprintf(how, size, "it has computed for %.0f s and got nothing done since it began with: %s",
                 b->spent, b->doing);
        return true;
    }
    if (b->still >= TW_WATCHDOG_PATIENCE * limit) {
        snprintf(how, size, "a disk does not answer it");
        return true;
    }
    snprintf(how, size, "it has got nothing done for %.0f s, since it began with: %s", b->stalled, b->doing);
    return b->stalled >= TW_WATCHDOG_PATIENCE * most;
}

/* Whom to name beside `behind`: who waits in another call; of two ranks neither is alone with its own. */
static int beside(const tw_peer_view *views, int ranks, int behind, int waiting) {
    for (int r = 0; r < ranks; r++)
        if (strcmp(views[r].beat.call, views[behind].beat.call) != 0) return r;
    return waiting != behind ? waiting : (behind + 1) % ranks;
}

static tw_verdict on_stuck(const tw_peer_view *views, const tw_peer *peers, int ranks, int waiting,
                           double limit) {
    const tw_beat *w = &views[waiting].beat;
    int behind = 0;
    for (int r = 0; r < ranks; r++) {
        char what[384], how[160];
        if (is_stuck(views, ranks, r, limit, how, sizeof how)) {
            snprintf(what, sizeof what, "hangs: rank %d has waited %.0f s for it in %s, and %s", waiting,
                     w->waiting, w->call, how);
            return on(r, peers, ranks, what);
        }
        if (lags(views, ranks, r, behind)) behind = r;
    }
    for (int r = 0; r < ranks; r++)
        if (views[r].beat.waiting < limit) return (tw_verdict){.rank = -1}; /* on its way */
    char what[256];
    int other = beside(views, ranks, behind, waiting);
    snprintf(what, sizeof what,
             "waits in %s, rank %d in %s, and all others wait too, since %.0f s: messages are lost, or the "
             "ranks do not agree on what comes next",
             views[behind].beat.call, other, views[other].beat.call, views[behind].beat.waiting);
    return on(behind, peers, ranks, what);
}

/* All are stuck outside collectives: nobody waits for anybody. The one that stopped first is named. */
static tw_verdict on_all_stuck(const tw_peer_view *views, const tw_peer *peers, int ranks, double limit) {
    int first = 0, runs = -1;
    char what[384], how[160];
    for (int r = 0; r < ranks; r++) {
        if (!is_stuck(views, ranks, r, limit, how, sizeof how)) return (tw_verdict){.rank = -1};
        if (views[r].beat.still > views[first].beat.still) first = r;
        if (views[r].beat.still < limit && runs < 0) runs = r; /* in circles */
    }
    if (runs >= 0) {
        (void)is_stuck(views, ranks, runs, limit, how, sizeof how);
        snprintf(what, sizeof what, "hangs, as do all others, and none waits for another: %s", how);
        return on(runs, peers, ranks, what);
    }
    snprintf(
        what, sizeof what,
        "has neither computed nor read or written for %.0f s, nor has any other rank, and none waits for "
        "another: what they read from or write to does not answer",
        views[first].beat.still);
    return on(first, peers, ranks, what);
}

tw_verdict tw_verdict_find(const tw_peer_view *views, const tw_peer *peers, int ranks, double now,
                           double limit) {
    int waiting = -1;
    for (int r = 0; r < ranks; r++) {
        if (*views[r].beat.report) {
            tw_verdict v = {.rank = r, .reported = 1};
            snprintf(v.text, sizeof v.text, "%s", views[r].beat.report);
            return v;
        }
        if (r > 0 && now - views[r].heard > limit)
            return tw_verdict_silent(r, peers, ranks, now - views[r].heard);
        if (views[r].beat.waiting >= limit &&
            (waiting < 0 || total_done(&views[r].beat) > total_done(&views[waiting].beat)))
            waiting = r;
    }
    return waiting < 0 ? on_all_stuck(views, peers, ranks, limit)
                       : on_stuck(views, peers, ranks, waiting, limit);
}
