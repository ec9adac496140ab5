/* How a rank of the fault suites says that it has begun: its process number, in FOLDER/RANK. */
#ifndef TW_TESTS_ANNOUNCE_H
#define TW_TESTS_ANNOUNCE_H

#include "autograd/status.h"

#include <stdio.h>
#include <unistd.h>

static inline tw_status tw_announce(const char *folder, int rank) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", folder, rank);
    FILE *file = fopen(path, "w");
    if (!file) return FAIL(TW_ERR_IO, "%s cannot be written", path);
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    return TW_OK;
}

#endif
