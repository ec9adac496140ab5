/* The cores of a host that ranks share: how many threads each computes with, and whether the launcher left
 * some idle. */
#ifndef TW_TRAIN_CORES_H
#define TW_TRAIN_CORES_H

#include "autograd/affinity.h"
#include "autograd/comm.h"
#include "train/cgroup.h"
#include "train/log.h"
#include "train/machine.h"

#include <stdbool.h>
#include <stdint.h>

/* What a rank tells the others. */
typedef struct tw_cores {
    tw_machine machine;
    tw_affinity mine;      /* what this rank may run on */
    tw_cgroup_limit quota; /* how many cores' time its control groups have */
    int32_t threads;       /* that it computes with; 0: an equal share */
    int32_t
        launchers; /* where mpirun has bound this rank to a single core: how many it may use itself; else 0 */
} tw_cores;

/* Threads of each rank whose number is left open. The ranks of a machine that may run on a core have equal
 * parts of it, and all ranks of the job compute with as many threads as the rank that gets least, at least
 * one: they wait for each other in every step, and one number is what checkpoints record.
 * A control group's quota, such as a container's (--cpus), is shared in the same way by the ranks that it is
 * set for, on the same machine: each container's ranks have its own. It is rounded up to whole cores before:
 * 2.5 cores' time is more than two threads can use. */
int32_t tw_cores_share(const tw_cores *all, int ranks);
/* The first rank that is bound to one core of a machine some of whose cores no rank uses, *idle of them; -1:
 * none is. */
int tw_cores_find_bound(const tw_cores *all, int ranks, int32_t *idle);

/* For this process alone: one thread a core that it may use, no more than its quota. */
int32_t tw_cores_here(void);
/* Collective. 0 in *threads becomes this rank's number. */
tw_status tw_cores_agree(tw_comm *host, int *threads) TW_MUST_CHECK;
/* Collective, once threads are set: says in `log` (NULL on all ranks but one) how many threads there are,
 * `automatic`ally or not, and warns of ranks that are bound to one core beside idle ones. */
tw_status tw_cores_report(tw_comm *c, bool automatic, tw_log *log) TW_MUST_CHECK;

#endif
