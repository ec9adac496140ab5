/* The memory of a host that ranks share: how much each may still take. */
#ifndef TW_TRAIN_HOST_MEMORY_H
#define TW_TRAIN_HOST_MEMORY_H

#include "autograd/comm.h"
#include "train/cgroup.h"
#include "train/machine.h"

#include <stdbool.h>

/* What a rank tells the others. */
typedef struct tw_host_memory {
    tw_machine machine;
    double available;      /* bytes that its system can give without swapping; 0: not known */
    tw_cgroup_limit group; /* what its control groups leave of them */
} tw_host_memory;

/* `root`: as in cgroup.h. */
void tw_host_memory_look(const char *root, tw_host_memory *out);

/* Bytes that rank `r` may take, so that all can: an equal share of what its machine has left for the ranks
 * there, and of what its control group has for those in it, whichever is less. False: it is not known. */
bool tw_host_memory_share(const tw_host_memory *all, int ranks, int r, double *share);

/* Collective. This rank's share, if it is known. */
tw_status tw_host_memory_agree(tw_comm *c, bool *known, double *share) TW_MUST_CHECK;

/* Bytes that this process could take now if no other did. False: it is not known. */
bool tw_memory_free(double *bytes);

#endif
