#include "train/host_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double available_bytes(const char *root) {
    char path[4096], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file) && sscanf(line, "MemAvailable: %lf", &kib) != 1) {
    }
    if (file) fclose(file);
    return kib * 1024;
}

void tw_host_memory_look(const char *root, tw_host_memory *out) {
    memset(out, 0, sizeof *out); /* all of it travels */
    tw_machine_here(&out->machine);
    out->available = available_bytes(root);
    out->group = tw_cgroup_memory(root);
}

bool tw_host_memory_share(const tw_host_memory *all, int ranks, int r, double *share) {
    int machine = 0, group = 0;
    for (int other = 0; other < ranks; other++) {
        if (!tw_machine_same(&all[other].machine, &all[r].machine)) continue;
        machine++;
        group += tw_cgroup_shared(&all[other].group, &all[r].group);
    }
    *share = all[r].available / machine;
    if (group && all[r].group.amount / group < *share) *share = all[r].group.amount / group;
    return all[r].available > 0;
}

tw_status tw_host_memory_agree(tw_comm *c, bool *known, double *share) {
    tw_host_memory mine, *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_host_memory_look("", &mine);
    tw_status status = c->gather_all(c, &mine, sizeof mine, all);
    *known = status == TW_OK && tw_host_memory_share(all, c->ranks, c->rank, share);
    free(all);
    return status;
}

bool tw_memory_free(double *bytes) {
    tw_host_memory here;
    tw_host_memory_look("", &here);
    return tw_host_memory_share(&here, 1, 0, bytes);
}
