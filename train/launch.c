#include "train/launch.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static bool number(const char *name, int *out) {
    const char *text = getenv(name);
    if (!text || !*text) return false;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*end || errno || value < 0 || value > INT_MAX) return false;
    *out = (int)value;
    return true;
}

tw_launch tw_launch_find(void) {
    static const struct {
        const char *rank, *ranks, *launcher;
    } known[] = {
        {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpirun"},
        {"PMI_RANK", "PMI_SIZE", "a PMI launcher"},
        {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "srun"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        tw_launch found = {.launcher = known[i].launcher, .rank_variable = known[i].rank};
        if (number(known[i].rank, &found.rank) && number(known[i].ranks, &found.ranks) && found.ranks > 1 &&
            found.rank < found.ranks)
            return found;
    }
    return (tw_launch){.rank = 0, .ranks = 1, .launcher = "", .rank_variable = ""};
}

bool tw_launch_is_mpirun(void) {
    int ranks;
    return number("OMPI_COMM_WORLD_SIZE", &ranks);
}

/* The system's "death of the parent" is that of the thread which started this process: only the launcher's
 * main thread lives as long as the launcher. */
static bool is_child_of_main_thread(pid_t parent) {
    char path[64];
    int child;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    while (!found && fscanf(file, "%d", &child) == 1) found = child == getpid();
    fclose(file);
    return found;
}

tw_status tw_launch_follow(void) {
    pid_t parent = getppid();
    if (!is_child_of_main_thread(parent)) return TW_OK;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0UL, 0UL, 0UL) == 0 && getppid() != parent)
        return FAIL(TW_ERR_IO, "the launcher ended while this rank started");
    return TW_OK;
}
