#include "train/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void tw_host_name(char *name, size_t size) {
    char whole[TW_HOST_NAME] = "";
    if (gethostname(whole, sizeof whole - 1) != 0 && errno != ENAMETOOLONG) whole[0] = '\0';
    snprintf(name, size, "%s", whole[0] ? whole : "unknown host");
}

void tw_machine_here(tw_machine *out) {
    memset(out, 0, sizeof *out); /* all of it travels */
    tw_host_name(out->host, sizeof out->host);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file || fscanf(file, "%39s", out->id) != 1) snprintf(out->id, sizeof out->id, "%.39s", out->host);
    if (file) fclose(file);
}

bool tw_machine_same(const tw_machine *a, const tw_machine *b) {
    return strcmp(a->id, b->id) == 0;
}
