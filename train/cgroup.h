/* What control groups limit this process to: version 1 and 2, as containers, batch systems and systemd make
 * them. A group's limit is its subgroups' too, so all from the process's own up to the outermost that can be
 * seen count. */
#ifndef TW_TRAIN_CGROUP_H
#define TW_TRAIN_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

/* The tightest limit; of equal ones, the outermost. A looser one further up is not known to those who share
 * the tightest: where groups of several ranks lie in one that has less than they have together, they take too
 * much. (Containers have one level each.) */
typedef struct tw_cgroup_limit {
    uint64_t group; /* that sets it: one number for all processes of a machine that share it; 0: no limit */
    double amount;
} tw_cgroup_limit;

/* Whether processes of one machine share a limit. */
static inline bool tw_cgroup_shared(const tw_cgroup_limit *a, const tw_cgroup_limit *b) {
    return a->group && a->group == b->group;
}

/* `root` is put before the paths of the system's files: "", or a test's folder. */
/* Cores' worth of time, such as 1.5. */
tw_cgroup_limit tw_cgroup_cpus(const char *root);
/* Bytes that can still be taken, which may be 0: the limit without what is in use; pages of files that have
 * not been touched lately, which the system drops for others, are not in use. */
tw_cgroup_limit tw_cgroup_memory(const char *root);

#endif
