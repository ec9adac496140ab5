/* Chooses the communicator of this process, and ends a run of several ranks together. */
#ifndef TW_TRAIN_COMM_OPEN_H
#define TW_TRAIN_COMM_OPEN_H

#include "autograd/comm.h"

/* Without a launcher, or with one process: the communicator of a single rank, and no MPI is started.
 * Otherwise MPI's. `rank_timeout`, seconds: a rank that dies or hangs ends the job within it. Once a process.
 * Errors: TW_ERR_UNSUPPORTED where this build has no MPI. */
tw_status tw_comm_open(tw_device *device, double rank_timeout, tw_comm **out) TW_MUST_CHECK;

/* To be called with the status of a run's end before its communicator is freed: TW_OK and TW_ERR_INTERRUPTED
 * (on which all ranks agree) pass. With another error this rank's message gets its rank and host, and the
 * other ranks end: exactly one rank's error returns from here and is printed. */
tw_status tw_comm_fail(tw_comm *c, tw_status status) TW_MUST_CHECK;

#endif
