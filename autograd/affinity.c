#include "autograd/affinity.h"

#include <string.h>

void tw_affinity_read(pid_t process, tw_affinity *out) {
    memset(out, 0, sizeof *out);
    if (sched_getaffinity(process, sizeof out->set, out->set) != 0) return;
    for (int cpu = 0; cpu < TW_AFFINITY_MOST; cpu++)
        if (CPU_ISSET_S((size_t)cpu, sizeof out->set, out->set)) out->end = cpu + 1;
}

void tw_affinity_add(tw_affinity *a, int cpu) {
    CPU_SET_S((size_t)cpu, sizeof a->set, a->set);
    if (cpu >= a->end) a->end = cpu + 1;
}

bool tw_affinity_has(const tw_affinity *a, int cpu) {
    return CPU_ISSET_S((size_t)cpu, sizeof a->set, a->set);
}

int tw_affinity_count(const tw_affinity *a) {
    return CPU_COUNT_S(sizeof a->set, a->set);
}
