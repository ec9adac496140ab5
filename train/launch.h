/* What the launcher (mpirun, srun, …) says about this process, read from the environment: it costs nothing
 * and needs no MPI, so a process alone never starts it. */
#ifndef TW_TRAIN_LAUNCH_H
#define TW_TRAIN_LAUNCH_H

typedef struct tw_launch {
    int rank, ranks;      /* 0 of 1 without a launcher */
    const char *launcher; /* "mpirun", "srun", "a PMI launcher"; "" without one */
} tw_launch;

/* Open MPI's mpirun, PMI (Hydra, srun --mpi=pmi2) and Slurm steps are known. A batch script's own shell is no
 * step: a process started there without srun is alone. */
tw_launch tw_launch_find(void);

#endif
