#include "train/cores.h"

#include "autograd/parallel.h"
#include "train/launch.h"

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
static bool is_one_core(const cpu_set_t *set) {
    int first = -1, core = -1, package = -1;
    if (CPU_COUNT(set) > 8) return false;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, set)) continue;
        if (first < 0) {
            first = cpu, core = topology(cpu, "core_id"), package = topology(cpu, "physical_package_id");
            continue;
        }
        if (core < 0 || topology(cpu, "core_id") != core || topology(cpu, "physical_package_id") != package)
            return false;
    }
    return first >= 0;
}

static void name_machine(tw_cores *mine) {
    if (gethostname(mine->host, sizeof mine->host - 1) != 0) strcpy(mine->host, "unknown host");
    snprintf(mine->machine, sizeof mine->machine, "%.39s", mine->host);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file) return;
    if (fscanf(file, "%39s", mine->machine) != 1)
        snprintf(mine->machine, sizeof mine->machine, "%.39s", mine->host);
    fclose(file);
}

static void look_around(int threads, tw_cores *mine) {
    cpu_set_t launcher;
    memset(mine, 0, sizeof *mine);
    mine->threads = threads;
    name_machine(mine);
    if (sched_getaffinity(0, sizeof mine->mine, &mine->mine) != 0) CPU_ZERO(&mine->mine);
    if (tw_launch_is_mpirun() && is_one_core(&mine->mine) &&
        sched_getaffinity(getppid(), sizeof launcher, &launcher) == 0)
        mine->launchers = CPU_COUNT(&launcher);
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
static void count_users(const tw_cores *all, int ranks, int r, int32_t users[CPU_SETSIZE]) {
    memset(users, 0, CPU_SETSIZE * sizeof *users);
    for (int other = 0; other < ranks; other++) {
        if (strcmp(all[other].machine, all[r].machine) != 0) continue;
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            users[cpu] += CPU_ISSET((size_t)cpu, &all[other].mine) != 0;
    }
}

static int32_t share_of(const tw_cores *all, int ranks, int r) {
    int32_t users[CPU_SETSIZE];
    double share = 0;
    count_users(all, ranks, r, users);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &all[r].mine)) share += 1.0 / users[cpu];
    return share < 1 ? 1 : (int32_t)(share + 1e-6); /* six sixths are a little less than 1 */
}

int32_t tw_cores_share(const tw_cores *all, int ranks) {
    int32_t least = 0;
    for (int r = 0; r < ranks; r++) {
        if (all[r].threads != 0) continue;
        int32_t share = share_of(all, ranks, r);
        if (least == 0 || share < least) least = share;
    }
    return least ? least : 1;
}

int tw_cores_find_bound(const tw_cores *all, int ranks, int32_t *idle) {
    for (int r = 0; r < ranks; r++) {
        int32_t users[CPU_SETSIZE], used = 0;
        if (all[r].launchers == 0) continue;
        count_users(all, ranks, r, users);
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) used += users[cpu] > 0;
        *idle = all[r].launchers - used;
        if (*idle > 0) return r;
    }
    return -1;
}

tw_status tw_cores_agree(tw_comm *host, int *threads) {
    tw_cores *all;
    if (host->ranks == 1) return TW_OK;
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
    if (least != most)
        tw_log_line(log, "compute threads: %d to %d, by rank", (int)least, (int)most);
    else if (ranks > 1)
        tw_log_line(log, "compute threads: %d on each of %d ranks%s", (int)most, ranks,
                    automatic ? " (threads 0: an equal share of their host's cores)" : "");
    else
        tw_log_line(log, "compute threads: %d%s", (int)most, automatic ? " (threads 0: one a core)" : "");
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
                       bound, all[bound].host, (int)idle);
    free(all);
    return TW_OK;
}
