#include "train/cores.h"

#include "autograd/parallel.h"
#include "train/launch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- this rank ---- */

/* A number that the system tells about a core, such as core_id; -1: it does not. */
static int topology(int cpu, const char *what) {
    char path[128];
    int value = -1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, what);
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    if (fscanf(file, "%d", &value) != 1) value = -1;
    fclose(file);
    return value;
}

/* Binding to a core leaves its hardware threads: one, two, or up to eight. */
static bool is_one_core(const tw_affinity *set) {
    int first = -1, core = -1, package = -1;
    if (tw_affinity_count(set) > 8) return false;
    for (int cpu = 0; cpu < set->end; cpu++) {
        if (!tw_affinity_has(set, cpu)) continue;
        if (first < 0) {
            first = cpu, core = topology(cpu, "core_id"), package = topology(cpu, "physical_package_id");
            continue;
        }
        if (core < 0 || topology(cpu, "core_id") != core || topology(cpu, "physical_package_id") != package)
            return false;
    }
    return first >= 0;
}

static void look_around(int threads, tw_cores *mine) {
    memset(mine, 0, sizeof *mine); /* all of it travels */
    mine->threads = threads;
    tw_machine_here(&mine->machine);
    tw_affinity_read(0, &mine->mine);
    mine->quota = tw_cgroup_cpus("");
    if (tw_launch_is_mpirun() && is_one_core(&mine->mine)) {
        tw_affinity launcher;
        tw_affinity_read(getppid(), &launcher);
        mine->launchers = tw_affinity_count(&launcher);
    }
}

static tw_status gather(tw_comm *c, int threads, tw_cores **out) {
    tw_cores mine;
    look_around(threads, &mine);
    *out = calloc((size_t)c->ranks, sizeof **out);
    if (!*out) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->gather_all(c, &mine, sizeof mine, *out);
    if (status == TW_OK) return TW_OK;
    free(*out);
    *out = NULL;
    return status;
}

/* ---- all ranks ---- */

/* users[cpu]: how many ranks of rank r's machine may run there. */
static void count_users(const tw_cores *all, int ranks, int r, int32_t users[TW_AFFINITY_MOST]) {
    memset(users, 0, TW_AFFINITY_MOST * sizeof *users);
    for (int other = 0; other < ranks; other++) {
        if (!tw_machine_same(&all[other].machine, &all[r].machine)) continue;
        for (int cpu = 0; cpu < all[other].mine.end; cpu++)
            users[cpu] += tw_affinity_has(&all[other].mine, cpu);
    }
}

/* Whole cores of rank r's quota, INT32_MAX where none is set; *sharers: the ranks that have them together. */
static int32_t quota_of(const tw_cores *all, int ranks, int r, int32_t *sharers) {
    const tw_cores *own = &all[r];
    *sharers = 0;
    for (int other = 0; other < ranks; other++)
        *sharers += tw_machine_same(&all[other].machine, &own->machine) &&
                    tw_cgroup_shared(&all[other].quota, &own->quota);
    bool limited = *sharers > 0 && own->quota.amount < INT32_MAX;
    return limited ? (int32_t)ceil(own->quota.amount - 1e-6) : INT32_MAX;
}

/* Threads for rank r, and whether it is the quota that allows no more. */
static int32_t share_of(const tw_cores *all, int ranks, int r, bool *by_quota) {
    int32_t users[TW_AFFINITY_MOST], sharers;
    double share = 0;
    count_users(all, ranks, r, users);
    for (int cpu = 0; cpu < all[r].mine.end; cpu++)
        if (tw_affinity_has(&all[r].mine, cpu)) share += 1.0 / users[cpu];
    int32_t cores = (int32_t)(share + 1e-6); /* six sixths are a little less than 1 */
    int32_t quota = quota_of(all, ranks, r, &sharers);
    int32_t each = sharers > 0 ? quota / sharers : INT32_MAX;
    *by_quota = each < cores;
    if (*by_quota) cores = each;
    return cores < 1 ? 1 : cores;
}

/* The least of all ranks, or of those alone whose number is left open. */
static int32_t least_share(const tw_cores *all, int ranks, bool open, bool *by_quota) {
    int32_t least = 0;
    *by_quota = false;
    for (int r = 0; r < ranks; r++) {
        bool quota;
        if (open && all[r].threads != 0) continue;
        int32_t share = share_of(all, ranks, r, &quota);
        if (least == 0 || share < least) least = share, *by_quota = quota;
    }
    return least ? least : 1;
}

int32_t tw_cores_share(const tw_cores *all, int ranks) {
    bool by_quota;
    return least_share(all, ranks, true, &by_quota);
}

int tw_cores_find_bound(const tw_cores *all, int ranks, int32_t *idle) {
    for (int r = 0; r < ranks; r++) {
        int32_t users[TW_AFFINITY_MOST], used = 0, sharers;
        if (all[r].launchers == 0) continue;
        count_users(all, ranks, r, users);
        for (int cpu = 0; cpu < TW_AFFINITY_MOST; cpu++) used += users[cpu] > 0;
        *idle = all[r].launchers - used;
        int32_t left = quota_of(all, ranks, r, &sharers) - sharers; /* each has a core's time, where bound */
        if (left < *idle) *idle = left;
        if (*idle > 0) return r;
    }
    return -1;
}

int32_t tw_cores_here(void) {
    tw_cores mine;
    look_around(0, &mine);
    return tw_cores_share(&mine, 1);
}

tw_status tw_cores_agree(tw_comm *host, int *threads) {
    tw_cores *all;
    TRY(gather(host, *threads, &all));
    if (*threads == 0) *threads = tw_cores_share(all, host->ranks);
    free(all);
    return TW_OK;
}

static void say_threads(const tw_cores *all, int ranks, bool automatic, tw_log *log) {
    int32_t least = all[0].threads, most = least;
    for (int r = 1; r < ranks; r++) {
        if (all[r].threads < least) least = all[r].threads;
        if (all[r].threads > most) most = all[r].threads;
    }
    bool by_quota;
    (void)least_share(all, ranks, false, &by_quota);
    if (least != most)
        tw_log_line(log, "compute threads: %d to %d, by rank", (int)least, (int)most);
    else if (ranks > 1)
        tw_log_line(log, "compute threads: %d on each of %d ranks%s", (int)most, ranks,
                    !automatic ? ""
                    : by_quota ? " (threads 0: an equal share of their control group's CPU quota)"
                               : " (threads 0: an equal share of their host's cores)");
    else
        tw_log_line(log, "compute threads: %d%s", (int)most,
                    !automatic ? ""
                    : by_quota ? " (threads 0: what the control group's CPU quota allows)"
                               : " (threads 0: one a core)");
}

tw_status tw_cores_report(tw_comm *c, bool automatic, tw_log *log) {
    tw_cores *all;
    int32_t idle;
    TRY(gather(c, tw_threads(), &all));
    say_threads(all, c->ranks, automatic, log);
    int bound = tw_cores_find_bound(all, c->ranks, &idle);
    if (bound >= 0)
        tw_log_warning(log,
                       "mpirun has bound rank %d on %s to one core, its threads wait for each other there "
                       "while %d cores of that host are idle: start with mpirun --bind-to none, or through "
                       "scripts/launch/one_host.sh",
                       bound, all[bound].machine.host, (int)idle);
    free(all);
    return TW_OK;
}
