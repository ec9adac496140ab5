#include "train/launch.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>

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
        tw_launch found = {.launcher = known[i].launcher};
        if (number(known[i].rank, &found.rank) && number(known[i].ranks, &found.ranks) && found.ranks > 1 &&
            found.rank < found.ranks)
            return found;
    }
    return (tw_launch){.rank = 0, .ranks = 1, .launcher = ""};
}
