/* Ends a run of several ranks when one of them dies, hangs or fails: within the time-out, with one message
 * that names the rank and the cause, and no process left behind.
 *
 * Each rank sends rank 0 a beat several times a second; rank 0 answers all with its verdict, "none" as a
 * rule. So rank 0 knows of a rank that is silent (killed with its host, stopped, cut off) or alive but stuck,
 * and every rank knows when rank 0 is silent. A thread of its own, which calls no MPI, looks at the clock and
 * ends the process: the one that the verdict makes the speaker after printing it, the others quietly.
 *
 * What is no hang: to read, write or get work done for however long. A rank counts as stuck when others wait
 * for it in a collective, it waits in none, and for 3/4 of the time-out its process
 * - used neither processor nor disk to speak of (watchdog_activity.h); or
 * - computed, and no unit of work was done (autograd/progress.h), nor a megabyte read or written. One
 * operation of a large model on a slow processor may take longer than that: so it is LONGER times as much as
 * the longest unit took any rank so far, if that is more, and START times as much while what it does is done
 * for the first time. Only seconds count in which the process had a processor, so that by the clock it may
 * take longer, on a crowded machine or where a helper thread goes on for one that sleeps: PATIENCE times as
 * much at most. If the system says that it waits for a disk, which a slow one may honestly take long for, it
 * counts as stuck after PATIENCE times as much too. Ranks that are all stuck outside collectives, as when the
 * storage they read from is gone, count as such by the same measures. */
#ifndef TW_TRAIN_WATCHDOG_H
#define TW_TRAIN_WATCHDOG_H

#include "autograd/status.h"
#include "train/machine.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { TW_WATCHDOG_PATIENCE = 30, TW_WATCHDOG_START = 10, TW_WATCHDOG_LONGER = 4 };

/* Rank to rank 0. Times are durations: clocks of hosts differ. */
typedef struct tw_beat {
    uint64_t done[2]; /* collectives completed: queue, host group */
    double waiting;   /* seconds its caller has been held up in a collective; 0: it is not */
    double idle;      /* seconds since its process last computed, read, wrote or waited for a disk */
    double still;     /* the same, but waiting for a disk does not count */
    double stalled;   /* seconds since it last got something done, */
    double spent;     /* and of them those that it computed; */
    double longest;   /* the most that a unit of work took it so far, */
    double queued;    /* and what is queued to its device */
    int32_t first;    /* what it does is done for the first time */
    char doing[40];   /* the unit begun last */
    char call[16];    /* the collective under way; "" for none */
    char report[640]; /* why it fails; "" as long as it does not */
} tw_beat;

/* Rank 0 to rank. */
typedef struct tw_verdict {
    int32_t rank;     /* the culprit; -1: none */
    int32_t reported; /* by the culprit itself, which prints it; otherwise rank 0 does */
    char text[900];
} tw_verdict;

typedef struct tw_peer {
    char host[TW_HOST_NAME];
    int32_t pid;
} tw_peer;

/* What rank 0 knows of a rank. */
typedef struct tw_peer_view {
    double heard; /* when its last beat came; of rank 0 itself: always now */
    tw_beat beat;
} tw_peer_view;

/* The verdict on (ranks) views at time `now`, rank -1 if all is well. `limit`: seconds of silence, or of
 * being stuck, that are one too many. */
tw_verdict tw_verdict_find(const tw_peer_view *views, const tw_peer *peers, int ranks, double now,
                           double limit);
/* That one has not been heard of for so long. */
tw_verdict tw_verdict_silent(int rank, const tw_peer *peers, int ranks, double seconds);

typedef struct tw_watchdog tw_watchdog;

/* Starts the watching thread. peers: (ranks), copied. timeout: seconds. */
tw_status tw_watchdog_open(int rank, int ranks, const tw_peer *peers, double timeout,
                           tw_watchdog **out) TW_MUST_CHECK;
void tw_watchdog_close(tw_watchdog *w);
/* This process, for `peers`. */
tw_peer tw_peer_self(void);

/* Seconds between beats. */
double tw_watchdog_interval(const tw_watchdog *w);
/* A thread that serves communication counts neither as working nor as idle; `number` is its tid. */
void tw_watchdog_ignore_thread(tw_watchdog *w, pthread_t thread, pid_t number);

/* For the thread that carries beats. make_beat adds all but what the caller filled in: done, waiting and
 * call. */
void tw_watchdog_make_beat(tw_watchdog *w, tw_beat *beat);
void tw_watchdog_heard(tw_watchdog *w, int rank, const tw_beat *beat); /* on rank 0 */
tw_verdict tw_watchdog_verdict(tw_watchdog *w);                        /* what rank 0 sends */
void tw_watchdog_told(tw_watchdog *w, const tw_verdict *verdict);      /* on the others */
/* On rank 0: the verdict was sent to all. */
void tw_watchdog_delivered(tw_watchdog *w);

/* This rank fails. Returns when it is the one to print `message` and to go, after the others were told (or a
 * few seconds later, if they cannot be). When another rank failed first it does not return: the process ends
 * quietly. */
void tw_watchdog_fail(tw_watchdog *w, const char *message);

#endif
