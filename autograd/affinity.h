/* The cores that a process may run on. A cpu_set_t has room for the first 1,024 of a machine, and the system
 * refuses to say where there are more; here is room for as many as a Linux kernel can be built for. */
#ifndef TW_AUTOGRAD_AFFINITY_H
#define TW_AUTOGRAD_AFFINITY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { TW_AFFINITY_MOST = 8192 };

typedef struct tw_affinity {
    int32_t end; /* all numbers are below; 0: no core, the system did not say */
    cpu_set_t set[TW_AFFINITY_MOST / CPU_SETSIZE];
} tw_affinity;

/* Of the process, or the thread, with that id; 0: the calling thread. */
void tw_affinity_read(pid_t process, tw_affinity *out);

void tw_affinity_add(tw_affinity *a, int cpu); /* 0 <= cpu < TW_AFFINITY_MOST */
bool tw_affinity_has(const tw_affinity *a, int cpu);
int tw_affinity_count(const tw_affinity *a);

#endif
