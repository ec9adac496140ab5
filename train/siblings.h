/* The other ranks of this job on this host, as /proc tells of them: who is stopped, and how far each has
 * come. For the stretches in which ranks cannot speak to each other. */
#ifndef TW_TRAIN_SIBLINGS_H
#define TW_TRAIN_SIBLINGS_H

#include <stdbool.h>
#include <sys/types.h>

/* How far a rank has come; it shows by the name of the thread that watches over it. Of one whose program has
 * not begun, or is about to end, nothing shows. */
typedef enum tw_stage { TW_STAGE_NONE, TW_STAGE_JOINING, TW_STAGE_RUNNING, TW_STAGE_LEAVING } tw_stage;

typedef struct tw_sibling {
    int rank;
    pid_t pid;
    bool stopped;
    tw_stage stage;
} tw_sibling;

/* Says for the calling thread, the watching one, how far this process has come. */
void tw_stage_show(tw_stage stage);

/* Finds up to `capacity` processes that this one's launcher started too and whose environment has
 * `rank_variable` (tw_launch.rank_variable): returns how many, this process not among them. */
int tw_siblings_find(const char *rank_variable, tw_sibling *out, int capacity);

/* Whether a process is stopped, by a signal or a debugger. */
bool tw_is_stopped(pid_t pid);

#endif
