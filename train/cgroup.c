#include "train/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 4096 };

/* Where a controller's groups are. */
typedef struct hierarchy {
    bool v2;
    char own[PATH]; /* the folder of this process's group */
    size_t top;     /* bytes of it that are the outermost group's folder */
} hierarchy;

/* Whether `word` is one of a list's, which commas part. */
static bool lists(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ','), at += at != NULL)
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

static FILE *open_in(const char *root, const char *file) {
    char path[PATH + 64];
    int n = snprintf(path, sizeof path, "%s%s", root, file);
    return n < (int)sizeof path ? fopen(path, "r") : NULL;
}

/* ---- /proc/self/cgroup and mountinfo: cgroups(7), proc_pid_mountinfo(5) ---- */

/* The group of this process, as `hierarchy:controllers:group` tells it; version 2's controllers are empty. */
static bool find_group(const char *root, const char *controller, bool v2, char group[PATH]) {
    bool found = false;
    char *line = NULL;
    size_t size = 0;
    FILE *file = open_in(root, "/proc/self/cgroup");
    while (file && !found && getline(&line, &size, file) > 0) {
        char *rest = line, *number = strsep(&rest, ":"), *controllers = strsep(&rest, ":");
        if (!number || !controllers || !rest) continue;
        rest[strcspn(rest, "\n")] = '\0';
        found = (v2 ? strcmp(number, "0") == 0 && !*controllers : lists(controllers, controller)) &&
                snprintf(group, PATH, "%s", rest) < PATH;
    }
    free(line);
    if (file) fclose(file);
    return found;
}

/* What of `group` lies under a mount of the group `top`: a container may have its own mounted where others
 * have the machine's. All else is left out where the mount does not show it. */
static const char *below(const char *top, const char *group) {
    size_t n = strcmp(top, "/") == 0 ? 0 : strlen(top);
    if (strncmp(group, top, n) != 0 || (group[n] && group[n] != '/')) return "";
    return strcmp(group + n, "/") == 0 || strncmp(group + n, "/..", 3) == 0 ? "" : group + n;
}

/* Where the hierarchy is mounted; `id parent device top folder options [more] - type source options`. */
static bool find_mount(const char *root, const char *controller, const char *group, hierarchy *h) {
    bool found = false;
    char *line = NULL;
    size_t size = 0;
    FILE *file = open_in(root, "/proc/self/mountinfo");
    while (file && !found && getline(&line, &size, file) > 0) {
        char *field[5] = {0}, *rest = line, *kind = strstr(line, " - ");
        if (!kind) continue;
        *kind = '\0', kind += 3;
        kind[strcspn(kind, "\n")] = '\0';
        const char *type = strsep(&kind, " "), *source = strsep(&kind, " ");
        for (int i = 0; i < 5; i++) field[i] = strsep(&rest, " ");
        if (!field[4] || !source || !kind) continue;
        found = h->v2 ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && lists(kind, controller);
        if (!found) continue;
        int top = snprintf(h->own, PATH, "%s%s", root, field[4]),
            all = snprintf(h->own, PATH, "%s%s%s", root, field[4], below(field[3], group));
        h->top = (size_t)top;
        found = all < PATH;
    }
    free(line);
    if (file) fclose(file);
    return found;
}

/* A controller is version 1's where a hierarchy of that version has it. */
static bool find_hierarchy(const char *root, const char *controller, hierarchy *h) {
    char group[PATH];
    for (int v = 1; v <= 2; v++) {
        h->v2 = v == 2;
        if (find_group(root, controller, h->v2, group)) return find_mount(root, controller, group, h);
    }
    return false;
}

/* ---- a group's files ---- */

/* The file's number, the `which`-th, or the one after `key`, at the start of a line. */
static bool read_number(const char *folder, const char *name, const char *key, int which, double *out) {
    char path[PATH + 64], line[256];
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        size_t n = strlen(key);
        if (strncmp(line, key, n) != 0) continue;
        char *at = line + n, *end = at;
        found = true;
        for (int i = 0; i <= which; i++) {
            at = end, *out = strtod(at, &end);
            found = found && end != at;
        }
    }
    if (file) fclose(file);
    return found;
}

static bool cpus_of(const hierarchy *h, const char *folder, double *out) {
    double quota, period;
    bool limited = h->v2 ? read_number(folder, "cpu.max", "", 0, &quota) && /* "max": none */
                               read_number(folder, "cpu.max", "", 1, &period)
                         : read_number(folder, "cpu.cfs_quota_us", "", 0, &quota) && /* -1: none */
                               read_number(folder, "cpu.cfs_period_us", "", 0, &period);
    if (!limited || quota <= 0 || period <= 0) return false;
    *out = quota / period;
    return true;
}

static bool memory_of(const hierarchy *h, const char *folder, double *out) {
    double limit, used, idle = 0;
    const double none = 0x1p60; /* version 1's "no limit" is the largest number of pages */
    if (!read_number(folder, h->v2 ? "memory.max" : "memory.limit_in_bytes", "", 0, &limit) ||
        !read_number(folder, h->v2 ? "memory.current" : "memory.usage_in_bytes", "", 0, &used))
        return false;
    (void)read_number(folder, "memory.stat", h->v2 ? "inactive_file " : "total_inactive_file ", 0, &idle);
    if (limit >= none) return false;
    *out = limit - (used > idle ? used - idle : 0);
    if (*out < 0) *out = 0;
    return true;
}

/* A folder's inode is its group's number in the kernel, in whatever container it is seen. */
static uint64_t number_of(const char *folder) {
    struct stat info;
    return stat(folder, &info) == 0 && info.st_ino ? (uint64_t)info.st_ino : 1;
}

static tw_cgroup_limit tightest(const char *root, const char *controller,
                                bool (*read)(const hierarchy *h, const char *folder, double *out)) {
    hierarchy h;
    tw_cgroup_limit least = {0};
    if (!find_hierarchy(root, controller, &h)) return least;
    for (;;) {
        double amount;
        if (read(&h, h.own, &amount) && (!least.group || amount <= least.amount))
            least = (tw_cgroup_limit){.group = number_of(h.own), .amount = amount};
        char *last = strlen(h.own) > h.top ? strrchr(h.own, '/') : NULL;
        if (!last || last < h.own + h.top) return least;
        *last = '\0';
    }
}

tw_cgroup_limit tw_cgroup_cpus(const char *root) {
    return tightest(root, "cpu", cpus_of);
}

tw_cgroup_limit tw_cgroup_memory(const char *root) {
    return tightest(root, "memory", memory_of);
}
