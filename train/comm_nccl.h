/* The communicator of GPU ranks: the asynchronous group on NCCL, on the device's communication queue; the
 * host group, the watchdog and the way the ranks found each other are those of a communicator over MPI
 * beneath it.
 *
 * Sums are NCCL's: the same bits on every rank, and in every run on the same GPUs, library and settings, but
 * not in the order of the ranks. Uneven counts cost more than even ones (one operation a rank, fused).
 *
 * Nothing waits in a call that cannot be given up: `sync` looks at the queue, at NCCL's asynchronous errors
 * and at the watchdog's verdict in turn; with an error or a verdict NCCL's communicator is aborted, so that
 * kernels which wait for a lost rank end, and every later call fails. A rank that hangs is named by the
 * watchdog as with MPI. `follow` lets the device wait and leaves the looking to later calls. Of several ranks
 * that NCCL gives errors, one speaks, and one that only noticed another's end waits for that one to. */
#ifndef TW_TRAIN_COMM_NCCL_H
#define TW_TRAIN_COMM_NCCL_H

#include "train/comm_mpi.h"

/* Collective over `host`, which tw_comm_mpi made and which is the communicator's from success on; after an
 * error it is still the caller's, to fail the run with. The device is this rank's own GPU: NCCL serves one
 * rank a GPU, and ranks that share one are refused with their hosts' names. timeout, seconds: what the ranks
 * have to be joined by NCCL in. Errors: TW_ERR_UNSUPPORTED (no NCCL in this build, too old a library, other
 * versions on other ranks), TW_ERR_CONFIG (a shared GPU), TW_ERR_LIBRARY. */
tw_status tw_comm_nccl(tw_device *device, tw_comm *host, double timeout, tw_comm **out) TW_MUST_CHECK;

/* Of this communicator; zeros for others. `busy` is measured by the GPU. */
tw_comm_times tw_comm_nccl_times(const tw_comm *c);

#endif
