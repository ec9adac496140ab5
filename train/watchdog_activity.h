/* Whether this process does anything, and gets anything done: what tells a rank that works for long from one
 * that hangs or runs in circles. */
#ifndef TW_TRAIN_WATCHDOG_ACTIVITY_H
#define TW_TRAIN_WATCHDOG_ACTIVITY_H

#include "autograd/progress.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct tw_activity {
    double limit; /* seconds of doing nothing that are one too many */
    double last;  /* tw_seconds() when it last worked, */
    double moved; /* when it last did more than wait for a disk, */
    double done;  /* and when it last got something done */
    /* What is looked at as one: since when, the processor seconds then, the looks at its threads, how many of
     * these saw one that could run or one that waited for a disk, and the last that did. */
    double since, cpu;
    int looks, runs, waits;
    double ran, waited;
    long long bytes; /* at bytes_since, when something last got done or a time of `limit` for it began */
    double bytes_since;
    uint64_t units, aside; /* tw_progress's */
    double spent;          /* seconds of computing, never more than passed, since it got something done, */
    double at_unit;        /* since `units` changed, */
    double longest;        /* and the most that this took so far */
    double looked, looked_cpu;
    pthread_t ignored;
    pid_t ignored_number;
    bool ignores;
} tw_activity;

/* What is seen at a look: sums since the process began. */
typedef struct tw_readings {
    double cpu;      /* processor seconds of its threads, */
    long long bytes; /* read from and written to disks; both but of those that do not count */
    tw_progress progress;
} tw_readings;

/* limit: seconds, see the watchdog. */
void tw_activity_open(tw_activity *a, double limit);
/* One thread that does no work: it looks for messages. `number` is its tid. */
void tw_activity_ignore(tw_activity *a, pthread_t thread, pid_t number);
/* Getting something done is a unit of tw_progress, or a megabyte read from or written to disks within
 * `limit`. Work is that, or the twentieth part of a processor, or a thread that could run all the time and
 * gets no processor, or one that waits for a disk. What helpers of libraries use to look around is less, and
 * goes on where the rank they belong to hangs: so shares count, not sums. */
void tw_activity_look(tw_activity *a, double now);
/* Its two parts, for tests: what was read; says whether that is work. Where it is not, */
bool tw_activity_note(tw_activity *a, double now, const tw_readings *readings);
/* whether a thread could run, and whether one waits for a disk. */
void tw_activity_note_threads(tw_activity *a, double now, bool runs, bool waits);
/* This rank waits for others: it is neither idle nor in circles, and what it does next starts now. */
void tw_activity_held_up(tw_activity *a, double now);
/* The process was suspended for `seconds`: it could not have worked. */
void tw_activity_slept(tw_activity *a, double seconds);

/* Whether that process runs the program of this one: its number may be another's by now. */
bool tw_is_same_program(pid_t pid);

#endif
