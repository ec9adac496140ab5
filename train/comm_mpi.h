/* The communicator of CPU ranks on MPI, and of every run's launch, rendezvous and host group.
 *
 * One thread a process makes all MPI calls: it takes collectives of the queue and of the host group in the
 * order they were made, each group on a communicator of its own, so that gradients are reduced while backward
 * runs and a small agreement need not wait for them. It sleeps between looks while nobody waits for it: a
 * rank with one core computes undisturbed. Sums are its own, in the order of the ranks, so that they are the
 * same bits with every MPI. Messages go directly between ranks; of a sum over R ranks a process keeps at most
 * max(64 MB, R * 64 KB) beside the data. */
#ifndef TW_TRAIN_COMM_MPI_H
#define TW_TRAIN_COMM_MPI_H

#include "autograd/comm.h"
#include "train/watchdog.h"

#include <stdbool.h>

/* Starts MPI and its thread; every rank calls it, once a process. `ranks` is what the launcher started: when
 * MPI knows another number of processes the launcher and MPI do not fit together (TW_ERR_CONFIG). On a device
 * other than the CPU the asynchronous group is refused when called; the host group works on every device.
 * A rank that
 * dies, hangs or calls `abort` ends the others within `timeout` seconds, see watchdog.h. Freeing it
 * (tw_comm_free) waits for the other ranks to do so too, unless something failed. Errors: TW_ERR_UNSUPPORTED
 * in a build without MPI; TW_ERR_LIBRARY. */
tw_status tw_comm_mpi(tw_device *device, int ranks, double timeout, tw_comm **out) TW_MUST_CHECK;

/* What the asynchronous group has done since it was opened. */
typedef struct tw_comm_times {
    double busy;    /* seconds in which a collective was under way: from when this rank began it, others that
                       had not begun it yet included, until it was done */
    double waited;  /* seconds the caller was held up in `sync` */
    uint64_t bytes; /* sent by this rank */
} tw_comm_times;

/* Zeros for other communicators. */
tw_comm_times tw_comm_mpi_times(const tw_comm *c);

/* For a communicator that stands on this one and has an asynchronous group of its own (NCCL's): `describe`
 * fills in a beat's done[0], and waiting and call while its caller is held up. It is called from MPI's
 * thread, until tw_comm_mpi_serve(c, NULL, NULL) returns. */
typedef void (*tw_comm_describe)(void *context, tw_beat *beat);
void tw_comm_mpi_serve(tw_comm *c, tw_comm_describe describe, void *context);
/* Whether the watchdog has found the run to be over: it ends the process in a moment. */
bool tw_comm_mpi_is_over(tw_comm *c);

#endif
