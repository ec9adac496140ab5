/* Chooses device and communicator of this process, and ends a run of several ranks together. */
#ifndef TW_TRAIN_COMM_OPEN_H
#define TW_TRAIN_COMM_OPEN_H

#include "train/comm_mpi.h"
#include "train/config.h"

#include <stdbool.h>

/* Without a launcher, or with one process: the communicator of a single rank, and no MPI is started.
 * Otherwise MPI's, or with a GPU NCCL's on top of it. `rank_timeout`, seconds: a rank that dies or hangs ends
 * the job within it. Once a process. Errors: TW_ERR_UNSUPPORTED where this build has no MPI, or no NCCL and
 * the device is a GPU. */
tw_status tw_comm_open(tw_device *device, double rank_timeout, tw_comm **out) TW_MUST_CHECK;

/* The same with the device that this rank is to compute on: alone, what tw_device_open gives as number 0;
 * with other ranks, a GPU of its own: each takes, in the order of the ranks, the first that it sees
 * (CUDA_VISIBLE_DEVICES) and no other rank has. So ranks of a host that see all its GPUs take one after the
 * other, and ranks whose launcher shows each its own take that. More ranks than GPUs is TW_ERR_CONFIG. With
 * `auto` all ranks compute on GPUs, or, where none of them sees one, all on CPUs. The caller frees *comm,
 * then *device. */
tw_status tw_comm_open_device(enum tw_config_device choice, int threads, double rank_timeout,
                              tw_device **device, tw_comm **comm) TW_MUST_CHECK;

/* Whether a communicator of several ranks was opened in this process: from then on what goes wrong is said by
 * one rank alone. */
bool tw_comm_was_opened(void);

/* Collective: whether all ranks have come to here without an error. TW_OK if so. Otherwise one rank alone
 * returns with its error, for tw_comm_fail: the first that has one, which is rank 0 when all have the same.
 * The others wait in here for that one to end the run. */
tw_status tw_comm_agree(tw_comm *c, tw_status status) TW_MUST_CHECK;

/* To be called with the status of a run's end before its communicator is freed: TW_OK and TW_ERR_INTERRUPTED
 * (on which all ranks agree) pass. With another error this rank's message gets its rank and host, and the
 * other ranks end: exactly one rank's error returns from here and is printed: by the caller, or before
 * anything else is waited for, where the program said how (last_word.h). */
tw_status tw_comm_fail(tw_comm *c, tw_status status) TW_MUST_CHECK;

/* What the asynchronous group has done since it was opened, over MPI or NCCL; zeros for a single rank. */
tw_comm_times tw_comm_times_of(const tw_comm *c);

#endif
