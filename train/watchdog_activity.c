#include "train/watchdog_activity.h"

#include "data/process_stat.h"
#include "train/clock.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

static long long disk_bytes(const char *path) {
    char line[128];
    long long sum = 0, value;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "read_bytes: %lld", &value) == 1 || sscanf(line, "write_bytes: %lld", &value) == 1)
            sum += value;
    fclose(file);
    return sum;
}

/* MPI's shared memory may be a file on a disk: the thread that serves MPI then writes to one for ever. */
static long long work_bytes(const tw_activity *a) {
    char path[64];
    if (!a->ignores) return disk_bytes("/proc/self/io");
    snprintf(path, sizeof path, "/proc/self/task/%d/io", (int)a->ignored_number);
    return disk_bytes("/proc/self/io") - disk_bytes(path);
}

/* Whether one of the threads that may work could run, or is in a wait that nothing interrupts: for a disk.
 * Any thread: checkpoints are synced to the disk by one of their own. */
static void look_at_threads(const tw_activity *a, bool *runs, bool *waits) {
    char path[300], fields[TW_PROCESS_STAT];
    pid_t self = (pid_t)syscall(SYS_gettid);
    DIR *threads = opendir("/proc/self/task");
    *runs = *waits = false;
    if (!threads) return;
    for (struct dirent *e; (e = readdir(threads));) {
        long number = strtol(e->d_name, NULL, 10);
        if (number <= 0 || number == self || (a->ignores && number == a->ignored_number)) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
        if (!tw_process_stat(path, fields)) continue;
        *runs |= fields[0] == 'R';
        *waits |= fields[0] == 'D';
    }
    closedir(threads);
}

static void begin_stretch(tw_activity *a, double now) {
    a->since = now;
    a->cpu = a->looked_cpu;
    a->looks = a->runs = a->waits = 0;
}

void tw_activity_open(tw_activity *a, double limit) {
    double now = tw_seconds();
    *a = (tw_activity){.limit = limit,
                       .last = now,
                       .moved = now,
                       .done = now,
                       .since = now,
                       .bytes_since = now,
                       .looked = now,
                       .units = tw_progress_look().units};
}

void tw_activity_ignore(tw_activity *a, pthread_t thread, pid_t number) {
    a->ignored = thread;
    a->ignored_number = number;
    a->ignores = true;
    a->cpu = a->looked_cpu = 0;
    a->bytes = 0;
}

/* A few bytes are no sign of work: a page that changes in shared memory is written back now and then, for
 * ever. */
static bool has_got_done(tw_activity *a, double now, const tw_readings *r) {
    static const long long MOVED = 1 << 20;
    bool done =
        r->progress.units != a->units || r->progress.aside != a->aside || r->bytes - a->bytes >= MOVED;
    if (done || now - a->bytes_since >= a->limit) {
        a->bytes = r->bytes;
        a->bytes_since = now;
    }
    return done;
}

/* Time counts where the process had a processor: on a crowded machine, or asleep, work takes longer, and this
 * clock goes slower. */
static void count_computing(tw_activity *a, double now, const tw_readings *r) {
    double used = fmin(r->cpu - a->looked_cpu, now - a->looked);
    if (used > 0) a->spent += used, a->at_unit += used;
    a->looked = now;
    a->looked_cpu = r->cpu;
    if (r->progress.units != a->units) {
        a->longest = fmax(a->longest, a->at_unit);
        a->at_unit = 0;
    }
}

/* Of the limit, the stretch of time in which a share is a share, and not chance. */
static const double STRETCH = 0.25;

bool tw_activity_note(tw_activity *a, double now, const tw_readings *r) {
    static const double SHARE = 0.05;
    count_computing(a, now, r);
    bool done = has_got_done(a, now, r);
    double used = r->cpu - a->cpu;
    a->units = r->progress.units;
    a->aside = r->progress.aside;
    if (done) {
        a->done = now;
        a->spent = 0;
    }
    if (!done && used < SHARE * STRETCH * a->limit) return used >= SHARE * (now - a->since); /* on its way */
    a->last = a->moved = now;
    begin_stretch(a, now);
    return true;
}

/* A thread that computes on a crowded machine can run at almost every look, one that only looks around hardly
 * ever. */
void tw_activity_note_threads(tw_activity *a, double now, bool runs, bool waits) {
    a->looks++;
    if (runs) a->runs++, a->ran = now;
    if (waits) a->waits++, a->waited = now;
    if (now - a->since < STRETCH * a->limit) return;
    if (4 * a->runs >= 3 * a->looks)
        a->last = a->moved = a->ran;
    else if (4 * a->waits >= a->looks)
        a->last = a->waited;
    begin_stretch(a, now);
}

void tw_activity_look(tw_activity *a, double now) {
    const tw_readings r = {.cpu = work_seconds(a), .bytes = work_bytes(a), .progress = tw_progress_look()};
    bool runs, waits;
    if (tw_activity_note(a, now, &r)) return;
    look_at_threads(a, &runs, &waits);
    tw_activity_note_threads(a, now, runs, waits);
}

void tw_activity_held_up(tw_activity *a, double now) {
    a->last = a->moved = a->done = now;
    a->spent = a->at_unit = 0;
    begin_stretch(a, now);
}

void tw_activity_slept(tw_activity *a, double seconds) {
    a->last += seconds;
    a->moved += seconds;
    a->done += seconds;
    a->since += seconds;
    a->ran += seconds;
    a->waited += seconds;
    a->bytes_since += seconds;
}

bool tw_is_same_program(pid_t pid) {
    char link[64], mine[4096], other[4096];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t a = readlink("/proc/self/exe", mine, sizeof mine), b = readlink(link, other, sizeof other);
    return a > 0 && a == b && memcmp(mine, other, (size_t)a) == 0;
}
