#include "data/process_stat.h"

#include <stdio.h>
#include <string.h>

bool tw_process_stat(const char *path, char fields[TW_PROCESS_STAT]) {
    FILE *file = fopen(path, "re");
    if (!file) return false;
    size_t n = fread(fields, 1, TW_PROCESS_STAT - 1, file);
    fclose(file);
    fields[n] = '\0';
    const char *after = strrchr(fields, ')');
    if (!after || after[1] != ' ') return false;
    memmove(fields, after + 2, strlen(after + 2) + 1);
    return true;
}
