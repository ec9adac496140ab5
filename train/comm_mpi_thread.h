/* The thread that makes all MPI calls of a process, and the two lines of collectives that it works on. */
#ifndef TW_TRAIN_COMM_MPI_THREAD_H
#define TW_TRAIN_COMM_MPI_THREAD_H

#include "autograd/comm.h"
#include "train/comm_mpi_beat.h"
#include "train/comm_mpi_op.h"

#include <pthread.h>
#include <sys/types.h>

/* Collectives of one group, in order. All but `engine` and `active` belong to the thread's lock. */
typedef struct tw_comm_lane {
    tw_op_engine engine;
    tw_comm_op *active; /* the thread's own */
    bool posted;        /* active's round is under way */
    tw_comm_op *first, *last;
    uint64_t queued, done;
    int waiters; /* callers held up until something is done, */
    double waiting_since;
    double moved; /* when a round was done last */
    tw_status status;
    char message[1024]; /* of the first failure: later calls fail with it */
    double began, busy, waited;
    uint64_t sent;
} tw_comm_lane;

typedef struct tw_mpi_thread {
    pthread_t thread;
    pid_t number; /* its tid */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    tw_comm_lane lanes[2]; /* TW_MPI_QUEUE and TW_MPI_HOST */
    int rank, ranks;
    double timeout; /* seconds that leaving MPI may take; set by the caller before it stops the thread */
    bool given_up;
    enum { TW_MPI_STARTING, TW_MPI_RUNNING, TW_MPI_ENDING, TW_MPI_GONE } state;
    tw_beat_line *beats;                            /* NULL until there is a watchdog */
    void (*describe)(void *context, tw_beat *beat); /* of another asynchronous group; NULL: there is none */
    void *describe_context;
    bool clean; /* ENDING: finalize MPI; otherwise the process is about to go */
    tw_status start_status;
    char start_message[1024];
} tw_mpi_thread;

/* Starts the thread and MPI in it. */
tw_status tw_mpi_thread_start(tw_mpi_thread *t) TW_MUST_CHECK;
/* Adds an operation to a lane; it is the lane's from here on, also when this fails. */
tw_status tw_mpi_thread_add(tw_mpi_thread *t, tw_mpi_lane lane, tw_comm_op *op) TW_MUST_CHECK;
/* Waits until all that was added to the lane is done; gives the lane's first error. */
tw_status tw_mpi_thread_wait(tw_mpi_thread *t, tw_mpi_lane lane) TW_MUST_CHECK;
/* From now on beats are exchanged; `beats` is the thread's. */
void tw_mpi_thread_watch(tw_mpi_thread *t, tw_beat_line *beats);
/* After a failure nobody waits for anybody. */
void tw_mpi_thread_give_up(tw_mpi_thread *t);
/* Ends the thread; MPI too where nothing failed, which waits for the other ranks. */
void tw_mpi_thread_stop(tw_mpi_thread *t);

#endif
