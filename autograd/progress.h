/* What this process gets done, for a thread that watches over it: it tells work that takes long from a loop
 * without end. Work is cut where it naturally is: an operation, a tile of the loss, a sample, a parameter.
 * All of it is a count and some notes of the process, written without a lock; a thread that computes pays a
 * few stores a unit. */
#ifndef TW_AUTOGRAD_PROGRESS_H
#define TW_AUTOGRAD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* A unit is done by the thread that the other ranks may have to wait for, or by those that help it. */
void tw_progress_tick(void);
/* The same, and what comes next: a string that stays. */
void tw_progress_begin(const char *what);
/* A unit is done in the background: a sample loaded, a part of a file written. */
void tw_progress_aside(void);

/* Between these, what is done is done for the first time: nobody knows yet how long a unit of it takes. Calls
 * come in pairs. So is everything before tw_progress_settle, which is for whoever has been through all there
 * is to do once. */
void tw_progress_first(bool begins);
void tw_progress_settle(void);

/* Work that is queued to a device gets done unseen: this much of it took `seconds` once. */
void tw_progress_queued(double seconds);

typedef struct tw_progress {
    uint64_t units;   /* done since the process began, */
    uint64_t aside;   /* and in the background */
    const char *what; /* begun last */
    bool first;       /* what is under way is done for the first time */
    double queued;    /* the longest that queued work took, seconds */
} tw_progress;

tw_progress tw_progress_look(void);

#endif
