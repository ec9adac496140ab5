/* The one file that knows MPI: what the communicator needs of it, with MPI's codes turned into tw_status. In
 * a build without MPI tw_mpi_open says so, and nothing else is reached.
 *
 * All calls come from the one thread that called tw_mpi_open (MPI_THREAD_FUNNELED is enough) and none but
 * open and close waits for another rank. */
#ifndef TW_TRAIN_MPI_CALLS_H
#define TW_TRAIN_MPI_CALLS_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Communicators of their own, so that queued, host and watchdog messages never meet. */
typedef enum tw_mpi_lane { TW_MPI_QUEUE, TW_MPI_HOST, TW_MPI_BEAT, TW_MPI_LANES } tw_mpi_lane;

/* The library's name and version, "Open MPI v4.1.4"; NULL in a build without MPI. Needs no open. */
const char *tw_mpi_version(void);

/* Once a process. */
tw_status tw_mpi_open(int *rank, int *ranks) TW_MUST_CHECK;
/* Waits for the other ranks to close too. */
tw_status tw_mpi_close(void) TW_MUST_CHECK;

/* Operations under way. Zeroed: none. */
typedef struct tw_mpi_requests {
    struct tw_mpi_request *list;
    int n, capacity;
} tw_mpi_requests;

/* bytes <= TW_MPI_MESSAGE. The memory belongs to MPI until tw_mpi_test says done. */
enum { TW_MPI_MESSAGE = 64 << 20 };
tw_status tw_mpi_send(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, const void *data,
                      size_t bytes) TW_MUST_CHECK;
tw_status tw_mpi_receive(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, void *data,
                         size_t bytes) TW_MUST_CHECK;
tw_status tw_mpi_broadcast(tw_mpi_requests *r, tw_mpi_lane lane, int root, void *data,
                           size_t bytes) TW_MUST_CHECK;
/* Every rank's `bytes` at data[rank * bytes ..): its own must lie there. */
tw_status tw_mpi_gather_all(tw_mpi_requests *r, tw_mpi_lane lane, void *data, size_t bytes) TW_MUST_CHECK;
tw_status tw_mpi_barrier(tw_mpi_requests *r, tw_mpi_lane lane) TW_MUST_CHECK;
/* *done: all are finished, and the list is empty again. */
tw_status tw_mpi_test(tw_mpi_requests *r, bool *done) TW_MUST_CHECK;
/* Forgets the list's memory; operations under way stay so. */
void tw_mpi_requests_free(tw_mpi_requests *r);

/* Takes one message of exactly `bytes` bytes if one has come: *peer is its sender, -1 when there is none. */
tw_status tw_mpi_poll(tw_mpi_lane lane, int tag, void *data, size_t bytes, int *peer) TW_MUST_CHECK;

#endif
