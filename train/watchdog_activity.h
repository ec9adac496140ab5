/* Whether this process does anything, and gets anything done: what tells a rank that works for long from one
 * that hangs or runs in circles. */
#ifndef TW_TRAIN_WATCHDOG_ACTIVITY_H
#define TW_TRAIN_WATCHDOG_ACTIVITY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct tw_activity {
    double last;                 /* tw_seconds() when it last worked, */
    double moved;                /* and when it last did more than wait for a disk */
    double cpu;                  /* processor seconds then */
    long long bytes, done_bytes; /* done_bytes: when something last got done */
    uint64_t units, aside;       /* tw_progress's */
    double spent;   /* seconds of computing, never more than passed, since these changed or a megabyte was
                       moved, */
    double at_unit; /* since `units` did, */
    double longest; /* and the most that this took so far */
    double looked, looked_cpu;
    pthread_t ignored;
    bool ignores;
} tw_activity;

void tw_activity_open(tw_activity *a);
/* One thread whose processor time is no work: it looks for messages. */
void tw_activity_ignore(tw_activity *a, pthread_t thread);
/* Work is processor time, bytes read from or written to disks, and a thread that waits for a disk. Getting
 * something done is a unit of tw_progress, or a megabyte of such bytes. */
void tw_activity_look(tw_activity *a, double now);
/* This rank waits for others: it is neither idle nor in circles, and what it does next starts now. */
void tw_activity_held_up(tw_activity *a, double now);
/* The process was suspended for `seconds`: it could not have worked. */
void tw_activity_slept(tw_activity *a, double seconds);

/* Whether that process runs the program of this one: its number may be another's by now. */
bool tw_is_same_program(pid_t pid);

#endif
