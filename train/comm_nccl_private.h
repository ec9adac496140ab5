/* What the files of the communicator over NCCL share: comm_nccl.c (the calls), comm_nccl_join.c (how ranks
 * come together and part) and comm_nccl_wait.c (waiting that can be given up, and what the watchdog is told).
 */
#ifndef TW_TRAIN_COMM_NCCL_PRIVATE_H
#define TW_TRAIN_COMM_NCCL_PRIVATE_H

#include "train/comm_nccl.h"
#include "train/nccl_calls.h"

#include <pthread.h>

/* Calls under way at once. */
enum { TW_NCCL_CALLS = 128 };

typedef struct tw_nccl_call {
    const char *name;
    tw_nccl_mark *from, *to; /* kept from call to call */
    bool begun;              /* what it had to wait for on this rank is done */
    uint64_t number;
} tw_nccl_call;

typedef struct tw_nccl_comm {
    tw_comm base;
    tw_comm *host;
    double timeout;
    tw_nccl *nccl;   /* NULL once it was aborted */
    tw_event *ready; /* the compute queue's work that the last call follows */
    tw_event *last;  /* the last call that the compute queue's work follows */
    tw_nccl_call calls[TW_NCCL_CALLS];
    int first, count; /* of those under way, the oldest first */
    uint64_t queued, done;
    bool joining;       /* a wait with a limit and a message of its own */
    bool remote, stuck; /* the error is another rank's; the abort did not return */
    tw_status status;
    char message[1024]; /* of the first failure: later calls fail with it */
    pthread_mutex_t lock;
    struct { /* what MPI's thread reads */
        uint64_t done;
        double since; /* when the caller began to be held up by other ranks; 0: it is not */
        const char *call;
    } state;
    tw_comm_times times;
} tw_nccl_comm;

/* ---- comm_nccl_wait.c ---- */

/* For tw_comm_mpi_serve, with the tw_nccl_comm as context. */
void tw_comm_nccl_describe(void *context, tw_beat *beat);
/* TW_OK as long as calls can be made. */
tw_status tw_comm_nccl_check(const tw_nccl_comm *c) TW_MUST_CHECK;
/* Waits until at most `left` calls are under way and NCCL has taken up the last one, `name`; gives up on an
 * error. */
tw_status tw_comm_nccl_wait(tw_nccl_comm *c, int left, const char *name) TW_MUST_CHECK;
/* The first failure: kept for later calls. The rank that caused it has the first word. Returns it. */
tw_status tw_comm_nccl_give_up(tw_nccl_comm *c, tw_status status) TW_MUST_CHECK;
/* Aborts NCCL, if it was not yet; c->stuck where that did not return in time. */
void tw_comm_nccl_end(tw_nccl_comm *c);
void tw_comm_nccl_nap(double seconds);

/* ---- comm_nccl_join.c ---- */

tw_status tw_comm_nccl_join(tw_nccl_comm *c) TW_MUST_CHECK;
/* With the others, or, where they do not, by an abort. */
void tw_comm_nccl_leave(tw_nccl_comm *c);

#endif
