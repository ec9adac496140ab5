/* Ends this process when the ranks do not come together, or do not get apart, in time: while MPI starts and
 * ends no beats can be exchanged, and neither returns when one rank is stopped, hangs or never began. */
#ifndef TW_TRAIN_COMM_GUARD_H
#define TW_TRAIN_COMM_GUARD_H

#include "autograd/status.h"
#include "train/siblings.h"

typedef struct tw_guard tw_guard;

/* What is waited for: TW_STAGE_JOINING or TW_STAGE_LEAVING. After `timeout` seconds, but not before
 * TW_GUARD_LEAST, one rank as a rule says on standard error who it is, what it waits for, and who is missing
 * if that can be seen on its host; then the process ends with 1. Time in which the whole process was
 * suspended does not count. */
enum { TW_GUARD_LEAST = 15 }; /* processes start slowly where they start slowly */
tw_status tw_guard_open(tw_stage stage, double timeout, tw_guard **out) TW_MUST_CHECK;
/* It is over, in time. Accepts NULL. */
void tw_guard_close(tw_guard *g);

#endif
