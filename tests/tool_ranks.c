/* tool_ranks FOLDER TIMEOUT [HOW RANK]: ranks that reduce without end, for the fault suite. Each writes its
 * process number to FOLDER/RANK when it has begun. HOW, of that rank, after a second:
 *   hang       it stops calling, and sleeps
 *   poll       the same, while a helper thread of it looks around without end, with 2 % of a processor
 *   trickle    the same, while one writes 60 kB a second to the file FOLDER/../trickle
 *   spin       it stops calling, and computes without end
 *   slow       nothing is wrong: between its calls it computes for long, in long units of work and short ones
 *   fail       it fails
 *   linger     it fails, and closing what it has open never ends
 *   differ     it makes another call than the others
 *   idle       it and all others stop calling, and sleep
 *   finalize   all have done; it is stopped in MPI_Finalize
 *   before     it is stopped before it joins the others (all write their numbers before that)
 *   init       it is stopped in MPI_Init (the same)
 * Signals that ask to stop are noted, as in a training run, and change nothing. */
#include "train/comm_open.h"

#include "autograd/progress.h"
#include "tests/announce.h"
#include "train/clock.h"
#include "train/last_word.h"
#include "train/launch.h"
#include "train/signals.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N = 100000 };

static const char *how = "";
static int culprit = -1;

/* MPI's profiling interface lets a program put itself between: its functions have two names. */
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided) __attribute__((weak));
int MPI_Finalize(void);
int PMPI_Finalize(void) __attribute__((weak));

static void stop_if(const char *what) {
    if (strcmp(how, what) == 0 && tw_launch_find().rank == culprit) (void)raise(SIGSTOP);
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided) {
    stop_if("init");
    return PMPI_Init_thread(argc, argv, required, provided);
}

int MPI_Finalize(void) {
    stop_if("finalize");
    return PMPI_Finalize();
}

static void sleep_for_ever(void) {
    for (;;) pause();
}

static double thread_seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of processor time, as the others may take the processor away. */
static void compute(double seconds) {
    volatile double sum = 0;
    for (double start = thread_seconds(); thread_seconds() < start + seconds;)
        for (int i = 0; i < 100000; i++) sum = sum + 1;
}

/* What threads of libraries do while the rank sleeps: they look around, or write to a file. */
static void *look_around(void *unused) {
    for (double used = 0.0002;; used += 0.0002) {
        while (thread_seconds() < used) continue;
        usleep(9800);
    }
    return unused;
}

static void *trickle(void *path) {
    static const char page[6000];
    FILE *file = fopen(path, "w");
    while (file && fwrite(page, sizeof page, 1, file) == 1 && fflush(file) == 0) usleep(100000);
    return NULL;
}

static tw_status start_helper(const char *folder) {
    static char path[4096];
    pthread_t thread;
    snprintf(path, sizeof path, "%s/../trickle", folder);
    if (strcmp(how, "poll") != 0 && strcmp(how, "trickle") != 0) return TW_OK;
    if (pthread_create(&thread, NULL, strcmp(how, "poll") == 0 ? look_around : trickle, path) == 0)
        return TW_OK;
    return FAIL(TW_ERR_IO, "no thread");
}

/* A unit that takes longer than a rank may be stuck, then many that together take longer than others wait. */
static void work_slowly(double timeout) {
    tw_progress_begin("a long product");
    compute(1.25 * timeout);
    for (int i = 0; i < 20; i++) {
        tw_progress_begin("a short product");
        compute(timeout / 12);
    }
}

static tw_status misbehave(tw_comm *c, const char *folder, float *x) {
    TRY(start_helper(folder));
    if (strcmp(how, "finalize") == 0) return TW_OK;
    if (strcmp(how, "spin") == 0) {
        tw_progress_begin("a loop");
        compute(INFINITY);
    }
    static const char *const sleepers[] = {"hang", "poll", "trickle", "idle"};
    for (size_t i = 0; i < sizeof sleepers / sizeof sleepers[0]; i++)
        if (strcmp(how, sleepers[i]) == 0) sleep_for_ever();
    if (strcmp(how, "fail") == 0 || strcmp(how, "linger") == 0)
        return FAIL(TW_ERR_IO, "checkpoint.h5: no space left on device");
    TRY(c->broadcast(c, x, N, c->rank));
    return FAIL(TW_ERR_ARGUMENT, "%s is not known", how);
}

static tw_status run(tw_comm *c, const char *folder, bool early, double timeout) {
    static float x[N];
    if (!early) TRY(tw_announce(folder, c->rank));
    bool together = strcmp(how, "idle") == 0 || strcmp(how, "finalize") == 0;
    double start = tw_seconds();
    for (int after = 0; after == 0;) {
        TRY(c->all_reduce(c, x, N));
        TRY(c->sync(c));
        after = (together || culprit == c->rank) && tw_seconds() - start > 1;
        int of_zero = after;
        TRY(c->broadcast(c, &of_zero, sizeof of_zero, 0));
        if (together) after = of_zero;
        if (strcmp(how, "slow") == 0 && culprit == c->rank) after = 0, work_slowly(timeout);
        tw_progress_settle();
        usleep(2000);
    }
    return misbehave(c, folder, x);
}

static void say(const char *message) {
    fprintf(stderr, "tool_ranks: %s\n", message);
}

int main(int argc, char **argv) {
    tw_device *device;
    tw_comm *c;
    if (argc < 3) return 2;
    if (argc > 4) how = argv[3], culprit = atoi(argv[4]);
    bool early = strcmp(how, "before") == 0 || strcmp(how, "init") == 0;
    tw_last_word_set(say);
    tw_status status = tw_signals_install();
    if (status == TW_OK && early) status = tw_announce(argv[1], tw_launch_find().rank);
    stop_if("before");
    if (status == TW_OK) status = tw_device_cpu(1, &device);
    if (status == TW_OK) status = tw_comm_open(device, atof(argv[2]), &c);
    if (status == TW_OK) {
        status = tw_comm_fail(c, run(c, argv[1], early, atof(argv[2])));
        if (status != TW_OK && strcmp(how, "linger") == 0) sleep_for_ever();
        if (status == TW_OK) tw_comm_free(c);
    }
    if (status != TW_OK && !tw_last_word_said()) say(tw_last_error());
    return status != TW_OK;
}
