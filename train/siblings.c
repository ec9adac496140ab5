#include "train/siblings.h"

#include "data/process_stat.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char *const stage_names[] = {[TW_STAGE_JOINING] = "tuwen-join",
                                          [TW_STAGE_RUNNING] = "tuwen-watch",
                                          [TW_STAGE_LEAVING] = "tuwen-leave"};
enum { STAGES = sizeof stage_names / sizeof stage_names[0] };

void tw_stage_show(tw_stage stage) {
    if (stage_names[stage]) (void)prctl(PR_SET_NAME, stage_names[stage], 0UL, 0UL, 0UL);
}

static bool read_line(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    size_t n = fread(text, 1, size - 1, file);
    fclose(file);
    text[n] = '\0';
    return n > 0;
}

/* The state's letter and the parent. */
static bool read_stat(pid_t pid, char *state, int *parent) {
    char path[64], fields[TW_PROCESS_STAT];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    return tw_process_stat(path, fields) && sscanf(fields, "%c %d", state, parent) == 2;
}

bool tw_is_stopped(pid_t pid) {
    char state;
    int parent;
    return read_stat(pid, &state, &parent) && (state == 'T' || state == 't');
}

/* -1: its environment has no such variable, or is not ours to read. */
static int rank_of(pid_t pid, const char *variable) {
    char path[64], *entry = NULL;
    size_t size = 0, length = strlen(variable);
    int rank = -1;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    while (rank < 0 && getdelim(&entry, &size, '\0', file) > 0)
        if (strncmp(entry, variable, length) == 0 && entry[length] == '=') rank = atoi(entry + length + 1);
    free(entry);
    fclose(file);
    return rank;
}

static tw_stage stage_of_thread(const char *path) {
    char name[32];
    if (!read_line(path, name, sizeof name)) return TW_STAGE_NONE;
    name[strcspn(name, "\n")] = '\0';
    for (int s = 1; s < STAGES; s++)
        if (strcmp(name, stage_names[s]) == 0) return (tw_stage)s;
    return TW_STAGE_NONE;
}

static tw_stage stage_of(pid_t pid) {
    char folder[64], path[400];
    tw_stage found = TW_STAGE_NONE;
    snprintf(folder, sizeof folder, "/proc/%d/task", (int)pid);
    DIR *threads = opendir(folder);
    if (!threads) return found;
    for (struct dirent *e; (e = readdir(threads));) {
        snprintf(path, sizeof path, "%s/%s/comm", folder, e->d_name);
        tw_stage stage = e->d_name[0] == '.' ? TW_STAGE_NONE : stage_of_thread(path);
        if (stage > found) found = stage; /* two threads watch at the change from one to the next */
    }
    closedir(threads);
    return found;
}

int tw_siblings_find(const char *rank_variable, tw_sibling *out, int capacity) {
    int n = 0;
    DIR *processes = opendir("/proc");
    if (!processes) return 0;
    for (struct dirent *e; n < capacity && (e = readdir(processes));) {
        char state;
        int parent, pid = atoi(e->d_name);
        if (pid <= 0 || pid == getpid() || !read_stat(pid, &state, &parent) || parent != getppid()) continue;
        int rank = rank_of(pid, rank_variable);
        if (rank < 0 || state == 'Z') continue;
        out[n++] = (tw_sibling){
            .rank = rank, .pid = pid, .stopped = state == 'T' || state == 't', .stage = stage_of(pid)};
    }
    closedir(processes);
    return n;
}
