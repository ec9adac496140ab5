/* What the launcher (mpirun, srun, …) says about this process, read from the environment: it costs nothing
 * and needs no MPI, so a process alone never starts it. */
#ifndef TW_TRAIN_LAUNCH_H
#define TW_TRAIN_LAUNCH_H

#include "autograd/status.h"

#include <stdbool.h>

typedef struct tw_launch {
    int rank, ranks;           /* 0 of 1 without a launcher */
    const char *launcher;      /* "mpirun", "srun", "a PMI launcher"; "" without one */
    const char *rank_variable; /* of the environment; "" without one */
} tw_launch;

/* Open MPI's mpirun, PMI (Hydra, srun --mpi=pmi2) and Slurm steps are known. A batch script's own shell is no
 * step: a process started there without srun is alone. */
tw_launch tw_launch_find(void);

/* Whether Open MPI's mpirun started this process, also where it is the only one. */
bool tw_launch_is_mpirun(void);

/* From here on this process is killed when its launcher dies, also while it is stopped. Without effect where
 * the launcher started it from a thread of its own, which may end before the launcher does. To be called from
 * the main thread. Errors: TW_ERR_IO, the launcher has just died. */
tw_status tw_launch_follow(void) TW_MUST_CHECK;

#endif
