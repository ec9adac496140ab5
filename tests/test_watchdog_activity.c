/* Which processes count as working, and as getting something done: of this one, and of made-up ones. What
 * rank 0 makes of that is in test_watchdog.c. */
#include "train/watchdog_activity.h"

#include "autograd/progress.h"
#include "train/clock.h"
#include "tw_test.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

static const double LIMIT = 45;

START_TEST(sleeping_is_no_work) {
    tw_activity a;
    tw_activity_open(&a, LIMIT);
    double at = a.looked;
    tw_activity_look(&a, at + 100); /* what the process did before */
    double before = a.last;
    for (int i = 1; i < 100; i++) {
        usleep(2000);
        tw_activity_look(&a, at + 100 + i);
    }
    ck_assert_double_eq(a.last, before);
    tw_activity_slept(&a, 30); /* suspended: it could not have worked */
    ck_assert_double_eq(a.last, before + 30);
    ck_assert(tw_is_same_program(getpid()));
    ck_assert(!tw_is_same_program(1));
}
END_TEST

/* Seconds of a processor, which other processes may have in between. */
static void *compute(void *seconds) {
    struct timespec used = {0};
    volatile double sum = 0;
    while ((double)used.tv_sec + 1e-9 * (double)used.tv_nsec < *(const double *)seconds) {
        for (int i = 0; i < 10000; i++) sum = sum + 1;
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    }
    return seconds;
}

/* The thread that looks does not count. */
static void compute_aside(double seconds) {
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, compute, &seconds), 0);
    pthread_join(thread, NULL);
}

/* What is read of a made-up process, at looks four times a second. */
typedef struct made_up {
    tw_activity activity;
    tw_readings sums;
    double at;           /* the time */
    double runs, waits;  /* of how many looks one is still to see such a thread */
    double idlest, most; /* the longest that it was idle, and computed with nothing done */
} made_up;

/* By second: processor seconds and bytes; of all looks how many see a thread that could run, or one that
 * waits for a disk. */
typedef struct habits {
    double cpu, bytes, runs, waits;
} habits;

static bool falls_due(double *sum, double share) {
    *sum += share;
    if (*sum < 1) return false;
    *sum -= 1;
    return true;
}

static void live(made_up *p, double seconds, habits h) {
    static const double LOOK = 0.25;
    for (double end = p->at + seconds; p->at < end;) {
        p->at += LOOK;
        p->sums.cpu += h.cpu * LOOK;
        p->sums.bytes += (long long)(h.bytes * LOOK);
        bool runs = falls_due(&p->runs, h.runs), waits = falls_due(&p->waits, h.waits);
        if (!tw_activity_note(&p->activity, p->at, &p->sums))
            tw_activity_note_threads(&p->activity, p->at, runs, waits);
        p->idlest = fmax(p->idlest, p->at - p->activity.last);
        p->most = fmax(p->most, p->activity.spent);
    }
}

static made_up begin(void) {
    made_up p = {0};
    tw_activity_open(&p.activity, LIMIT);
    p.at = p.activity.last;
    p.sums.progress.units = p.activity.units;
    return p;
}

/* For an hour, whatever helpers do on the way: nothing of it is the rank's work. */
START_TEST(helpers_are_no_sign_of_work) {
    static const habits all[] = {
        {0, 0, 0, 0},
        {0.02, 0, 0.02, 0},
        {0.045, 0, 0.3, 0},      /* they look around */
        {0.001, 20000, 0.01, 0}, /* something writes to a file */
        {0.03, 20000, 0.7, 0.2}, /* and so on a machine where who wakes must wait */
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        made_up p = begin();
        live(&p, 10, (habits){1, 0, 1, 0}); /* work, and then: */
        double hang = p.at;
        live(&p, 3600, all[i]);
        ck_assert_double_le(p.activity.last, hang + 0.25 * LIMIT);
        ck_assert_double_le(p.activity.moved, hang + 0.25 * LIMIT);
        ck_assert_double_ge(p.at - p.activity.done, 3600);
    }
}
END_TEST

START_TEST(slow_work_is_no_idleness) {
    static const habits all[] = {
        {1, 0, 1, 0},         {0.06, 0, 0.06, 0}, /* of a processor that it must share */
        {0.01, 0, 0.9, 0},                        /* with very many, or with one that goes before it */
        {0, 50000, 0, 0},                         /* reads, and slowly: a megabyte in 21 s */
        {0.01, 5e6, 0.01, 0},                     /* from a slow disk */
        {0, 0, 0, 0.3},                           /* from one that has not answered yet */
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        made_up p = begin();
        live(&p, 3600, all[i]);
        ck_assert_msg(p.idlest <= 0.6 * LIMIT, "habit %zu: idle for %.1f s", i, p.idlest);
        ck_assert(all[i].waits > 0 ? p.at - p.activity.moved >= 3600 : p.at - p.activity.moved < LIMIT);
    }
    made_up p = begin(); /* nothing of it is seen but that work gets done */
    for (int i = 0; i < 100; i++) {
        live(&p, 30, (habits){0});
        i % 2 ? p.sums.progress.units++ : p.sums.progress.aside++;
    }
    ck_assert_double_le(p.idlest, 31);
    ck_assert_double_le(p.at - p.activity.done, 31);
}
END_TEST

/* A loop without end beside bytes that trickle, and work that reads: slowly, too. */
START_TEST(a_trickle_is_no_progress) {
    made_up p = begin();
    live(&p, 600, (habits){1, 20000, 1, 0});
    ck_assert_double_ge(p.activity.spent, 599);
    ck_assert_double_ge(p.at - p.activity.done, 599);
    live(&p, 600, (habits){1, 5e6, 1, 0});
    ck_assert_double_le(p.activity.spent, 1);
    p.most = 0;
    live(&p, 600, (habits){1, 50000, 1, 0});
    ck_assert_double_le(p.most, 0.6 * LIMIT);
    live(&p, 900, (habits){0.1, 0, 0.1, 0}); /* crowded: the clock goes on, seconds that count are few */
    ck_assert_double_ge(p.at - p.activity.done, 870);
    ck_assert_double_le(p.activity.spent, 120);
}
END_TEST

START_TEST(threads_that_compute_are_seen) {
    tw_activity a;
    tw_activity_open(&a, LIMIT);
    double at = a.looked;
    tw_activity_look(&a, at + 100);
    compute_aside(0.05 * 0.25 * LIMIT + 0.02); /* a twentieth, and more */
    tw_activity_look(&a, at + 103);
    ck_assert_double_eq(a.last, at + 103);
}
END_TEST

/* A little more than counts, as the clocks of process and threads are read one after the other. */
static void work_for(tw_activity *a, double *at, double seconds) {
    compute_aside(seconds + 0.02);
    *at += seconds;
    tw_activity_look(a, *at);
}

START_TEST(computing_that_gets_nothing_done_is_timed) {
    tw_activity a;
    tw_activity_open(&a, LIMIT);
    double at = a.looked;
    work_for(&a, &at, 0.1);
    tw_progress_tick();
    work_for(&a, &at, 0.1); /* the tick is seen at its end */
    ck_assert_double_eq(a.spent, 0);
    work_for(&a, &at, 0.3);
    ck_assert_double_eq_tol(a.spent, 0.3, 1e-6); /* no more than passed, and all of it */
    double spent = a.spent;
    tw_activity_look(&a, at + 5); /* asleep, or without a processor */
    ck_assert_double_le(a.spent, spent + 0.05);
    tw_progress_aside(); /* gets on, but says nothing of how long work takes */
    tw_activity_look(&a, at + 6);
    ck_assert_double_eq(a.spent, 0);
    ck_assert_double_ge(a.at_unit, spent);
    tw_progress_begin("something");
    tw_activity_look(&a, at + 7);
    ck_assert_double_ge(a.longest, spent);
    ck_assert_double_eq(a.at_unit, 0);
}
END_TEST

START_TEST(progress_is_first_until_it_is_settled) {
    tw_progress_begin("a step");
    ck_assert_str_eq(tw_progress_look().what, "a step");
    ck_assert(tw_progress_look().first);
    tw_progress_settle();
    ck_assert(!tw_progress_look().first);
    tw_progress_first(true);
    tw_progress_first(true);
    tw_progress_first(false);
    ck_assert(tw_progress_look().first);
    tw_progress_first(false);
    ck_assert(!tw_progress_look().first);
    tw_progress_queued(2.5);
    tw_progress_queued(1.5);
    ck_assert_double_eq_tol(tw_progress_look().queued, 2.5, 1e-3);
}
END_TEST

TW_TEST_MAIN("watchdog_activity", sleeping_is_no_work, helpers_are_no_sign_of_work, slow_work_is_no_idleness,
             a_trickle_is_no_progress, threads_that_compute_are_seen,
             computing_that_gets_nothing_done_is_timed, progress_is_first_until_it_is_settled)
