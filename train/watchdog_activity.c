#include "train/watchdog_activity.h"

#include "autograd/progress.h"
#include "data/process_stat.h"
#include "train/clock.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static double seconds_of(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + (double)t.tv_nsec * 1e-9 : 0;
}

static double work_seconds(const tw_activity *a) {
    clockid_t ignored;
    double cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    if (a->ignores && pthread_getcpuclockid(a->ignored, &ignored) == 0) cpu -= seconds_of(ignored);
    return cpu - seconds_of(CLOCK_THREAD_CPUTIME_ID); /* the watching thread's own */
}

static long long disk_bytes(void) {
    char line[128];
    long long sum = 0, value;
    FILE *file = fopen("/proc/self/io", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "read_bytes: %lld", &value) == 1 || sscanf(line, "write_bytes: %lld", &value) == 1)
            sum += value;
    fclose(file);
    return sum;
}

/* Whether the thread of this number is in a wait that nothing interrupts: for a disk. */
static bool thread_waits(const char *number) {
    char path[300], fields[TW_PROCESS_STAT];
    snprintf(path, sizeof path, "/proc/self/task/%s/stat", number);
    return tw_process_stat(path, fields) && fields[0] == 'D';
}

/* Any thread: checkpoints are synced to the disk by one of their own. */
static bool waits_for_disk(void) {
    bool found = false;
    DIR *threads = opendir("/proc/self/task");
    if (!threads) return false;
    for (struct dirent *e; !found && (e = readdir(threads));)
        found = e->d_name[0] != '.' && thread_waits(e->d_name);
    closedir(threads);
    return found;
}

void tw_activity_open(tw_activity *a) {
    double now = tw_seconds();
    *a = (tw_activity){.last = now, .moved = now, .looked = now, .units = tw_progress_look().units};
}

void tw_activity_ignore(tw_activity *a, pthread_t thread) {
    a->ignored = thread;
    a->ignores = true;
    a->cpu = a->looked_cpu = 0;
}

/* Time counts where the process had a processor: on a crowded machine, or asleep, work takes longer, and this
 * clock goes slower. A few bytes are no sign of work: MPI's shared memory may be a file, whose pages are
 * written back now and then. */
static void look_for_progress(tw_activity *a, double now, double cpu, long long bytes) {
    static const long long MOVED = 1 << 20;
    tw_progress p = tw_progress_look();
    double used = fmin(cpu - a->looked_cpu, now - a->looked);
    if (used > 0) a->spent += used, a->at_unit += used;
    a->looked = now;
    a->looked_cpu = cpu;
    if (p.units != a->units) {
        a->longest = fmax(a->longest, a->at_unit);
        a->at_unit = 0;
    }
    if (p.units != a->units || p.aside != a->aside || bytes - a->done_bytes >= MOVED) {
        a->spent = 0;
        a->done_bytes = bytes;
    }
    a->units = p.units;
    a->aside = p.aside;
}

void tw_activity_look(tw_activity *a, double now) {
    static const double NOISE = 0.05; /* what threads of libraries use to look around */
    double cpu = work_seconds(a);
    long long bytes = disk_bytes();
    look_for_progress(a, now, cpu, bytes);
    if (cpu - a->cpu >= NOISE || bytes != a->bytes) {
        a->last = a->moved = now;
        a->cpu = cpu;
        a->bytes = bytes;
    } else if (waits_for_disk()) {
        a->last = now;
    }
}

void tw_activity_held_up(tw_activity *a, double now) {
    a->last = a->moved = now;
    a->spent = a->at_unit = 0;
}

void tw_activity_slept(tw_activity *a, double seconds) {
    a->last += seconds;
    a->moved += seconds;
}

bool tw_is_same_program(pid_t pid) {
    char link[64], mine[4096], other[4096];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t a = readlink("/proc/self/exe", mine, sizeof mine), b = readlink(link, other, sizeof other);
    return a > 0 && a == b && memcmp(mine, other, (size_t)a) == 0;
}
