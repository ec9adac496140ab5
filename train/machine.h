/* Which ranks of a job run on one machine, and so share its cores and its memory. */
#ifndef TW_TRAIN_MACHINE_H
#define TW_TRAIN_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a host's name: Linux allows 64 characters. */
enum { TW_HOST_NAME = 65 };

/* A running kernel, as each rank tells the others of its own. */
typedef struct tw_machine {
    char id[40];             /* for tw_machine_same alone */
    char host[TW_HOST_NAME]; /* its name, for messages */
} tw_machine;

/* This process's. */
void tw_machine_here(tw_machine *out);

/* Whether both are one. By the id of the kernel's boot, as cores and memory are a kernel's to give: host
 * names tell containers of one machine apart, which compete for both (what each container alone may take is
 * its control group's to say, see cgroup.h), and machines that were set up alike may have one name. Clones of
 * a virtual machine that was frozen while it ran have one boot: they get shares where each could have all,
 * too little, never too much. Where the system tells no boot id, the host name decides. */
bool tw_machine_same(const tw_machine *a, const tw_machine *b);

/* The host's name, "unknown host" if it has none; cut to `size`, always terminated. */
void tw_host_name(char *name, size_t size);

#endif
