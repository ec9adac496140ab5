/* What rank 0 makes of the beats it gets; which processes count as working is in test_watchdog_activity.c,
 * and whole jobs that end are in test_faults.sh. */
#include "train/watchdog.h"
#include "train/watchdog_activity.h"

#include "tw_test.h"

enum { RANKS = 4 };
static const double NOW = 1000, LIMIT = 45;
static const tw_peer peers[RANKS] = {{"alpha", 10}, {"alpha", 11}, {"beta", 12}, {"beta", 13}};

/* All work: nobody waits. */
static void all_well(tw_peer_view *views) {
    for (int r = 0; r < RANKS; r++)
        views[r] = (tw_peer_view){.heard = NOW - 0.5, .beat = {.done = {7, 3}, .idle = 0.1}};
}

static void waits(tw_peer_view *view, double seconds, const char *call) {
    view->beat.waiting = seconds;
    snprintf(view->beat.call, sizeof view->beat.call, "%s", call);
}

static void expect(const tw_peer_view *views, int rank, const char *part) {
    tw_verdict v = tw_verdict_find(views, peers, RANKS, NOW, LIMIT);
    ck_assert_msg(v.rank == rank, "rank %d is blamed: %s", v.rank, v.text);
    ck_assert_msg(strstr(v.text, part) != NULL, "'%s' lacks '%s'", v.text, part);
}

START_TEST(well_and_slow_ranks_are_left_alone) {
    tw_peer_view views[RANKS];
    all_well(views);
    expect(views, -1, "");
    views[2].heard = NOW - 44;
    expect(views, -1, "");
    all_well(views); /* the others wait for hours for one that gets work done */
    for (int r = 0; r < 3; r++) waits(&views[r], 13000, "all_reduce");
    expect(views, -1, "");
    all_well(views); /* idle, but nobody waits for it: so may be a rank on a device */
    views[3].beat.idle = 500;
    expect(views, -1, "");
    for (int r = 0; r < 3; r++) waits(&views[r], 44, "all_reduce");
    expect(views, -1, "");
}
END_TEST

/* Three waited long for the fourth. One was released and tells so, the others' last words are old. */
START_TEST(a_released_rank_is_not_to_blame) {
    tw_peer_view views[RANKS];
    tw_activity a;
    tw_activity_open(&a, LIMIT);
    tw_activity_held_up(&a, a.last + 300);
    all_well(views);
    for (int r = 2; r < RANKS; r++) waits(&views[r], 300, "all_reduce");
    views[1].beat.idle = a.looked + 300.2 - a.last;
    views[1].beat.spent = a.spent;
    expect(views, -1, "");
    views[1].beat.idle = 300;
    expect(views, 1, "it does nothing");
}
END_TEST

START_TEST(a_silent_rank_is_named_with_its_host) {
    tw_peer_view views[RANKS];
    all_well(views);
    views[2].heard = NOW - 46;
    expect(views, 2, "rank 2 of 4 (process 12 on beta) has not been heard of for 46 s");
    views[0].heard = NOW - 100; /* rank 0 does not hear itself */
    expect(views, 2, "rank 2");
}
END_TEST

START_TEST(a_stuck_rank_is_told_from_a_busy_one) {
    tw_peer_view views[RANKS];
    all_well(views);
    waits(&views[0], 50, "reduce_scatter");
    waits(&views[3], 50, "reduce_scatter");
    views[1].beat.idle = 50; /* does nothing, waits for nobody; rank 2 computes */
    expect(views, 1, "rank 0 has waited 50 s for it in reduce_scatter, and it does nothing");
    views[1].beat.idle = 0;
    expect(views, -1, "");
    views[2].beat.still = TW_WATCHDOG_PATIENCE * LIMIT + 1;
    expect(views, 2, "and a disk does not answer it");
}
END_TEST

/* Not idle, and with a processor for a small part of the time: on a crowded machine, or by a helper thread of
 * one that sleeps. */
START_TEST(a_rank_that_gets_nothing_done_has_an_end) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < 3; r++) waits(&views[r], 20000, "all_gather");
    views[3].beat.spent = LIMIT - 1;
    views[3].beat.stalled = TW_WATCHDOG_PATIENCE * LIMIT - 1;
    expect(views, -1, "");
    views[3].beat.stalled = TW_WATCHDOG_PATIENCE * LIMIT + 1;
    expect(views, 3, "it has got nothing done for 1351 s");
    views[3].beat.first = 1;
    expect(views, -1, "");
    views[3].beat.stalled = TW_WATCHDOG_PATIENCE * TW_WATCHDOG_START * LIMIT + 1;
    expect(views, 3, "it has got nothing done for");
    views[3].beat.first = 0; /* as crowded as that, a long unit takes any rank longer */
    views[1].beat.longest = 120;
    views[3].beat.stalled = TW_WATCHDOG_PATIENCE * TW_WATCHDOG_LONGER * 120 - 1;
    expect(views, -1, "");
    views[3].beat.stalled += 2;
    expect(views, 3, "it has got nothing done for");
    waits(&views[3], 1, "all_gather");
    expect(views, -1, "");
}
END_TEST

START_TEST(a_rank_that_gets_nothing_done_is_told_from_a_slow_one) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < 3; r++) waits(&views[r], 400, "all_gather");
    snprintf(views[3].beat.doing, sizeof views[3].beat.doing, "linear backward");
    views[3].beat.spent = LIMIT - 1;
    expect(views, -1, "");
    views[3].beat.spent = LIMIT + 1;
    expect(views, 3, "computed for 46 s and got nothing done since it began with: linear backward");
    views[3].beat.first = 1; /* nobody knows how long it takes */
    expect(views, -1, "");
    views[3].beat.spent = TW_WATCHDOG_START * LIMIT + 1;
    expect(views, 3, "got nothing done");
    views[3].beat.first = 0; /* another rank once took long, too: processors differ, models do not */
    views[1].beat.longest = 120;
    expect(views, -1, "");
    views[3].beat.spent = TW_WATCHDOG_LONGER * 120 + 1;
    expect(views, 3, "got nothing done");
    waits(&views[3], 1, "all_gather"); /* it has come */
    expect(views, -1, "");
}
END_TEST

START_TEST(a_device_that_takes_long_is_waited_for) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < RANKS; r++) views[r].beat.idle = views[r].beat.still = 70;
    for (int r = 0; r < RANKS; r++) views[r].beat.queued = 20; /* so long takes what is queued there */
    expect(views, -1, "");
    for (int r = 0; r < RANKS; r++) views[r].beat.idle = views[r].beat.still = 81;
    expect(views, 0, "none waits for another");
}
END_TEST

START_TEST(ranks_that_all_run_in_circles_are_noticed) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < RANKS; r++) views[r].beat.spent = 50;
    expect(views, 0, "hangs, as do all others");
    views[2].beat.spent = 0;
    expect(views, -1, "");
    views[2].beat.idle = views[2].beat.still = 50; /* one of them sleeps */
    expect(views, 0, "got nothing done");
}
END_TEST

START_TEST(ranks_that_all_wait_do_not_wait_for_ever) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < RANKS; r++) waits(&views[r], 46, r == 2 ? "broadcast" : "all_gather");
    expect(views, 2, "waits in broadcast");
    for (int r = 0; r < RANKS; r++) waits(&views[r], 46, "all_gather");
    views[3].beat.done[0] = 6;
    expect(views, 3, "process 13 on beta");
    waits(&views[1], 40, "all_gather"); /* something moved */
    expect(views, -1, "");
}
END_TEST

/* Of two ranks that do not agree, each is alone with its call: both are named, whoever is taken for the
 * culprit. */
START_TEST(two_ranks_that_do_not_agree_are_both_named) {
    tw_peer_view views[RANKS];
    for (int differs = 0; differs < 2; differs++) {
        all_well(views);
        for (int r = 0; r < 2; r++) waits(&views[r], 46 + r, r == differs ? "broadcast" : "all_reduce");
        tw_verdict v = tw_verdict_find(views, peers, 2, NOW, LIMIT);
        char other[64];
        ck_assert_int_ge(v.rank, 0);
        snprintf(other, sizeof other, "waits in %s, rank %d in %s,", views[v.rank].beat.call, 1 - v.rank,
                 views[1 - v.rank].beat.call);
        ck_assert_msg(strstr(v.text, other) != NULL, "'%s' lacks '%s'", v.text, other);
    }
}
END_TEST

START_TEST(ranks_that_are_all_stuck_outside_collectives_are_noticed) {
    tw_peer_view views[RANKS];
    all_well(views);
    for (int r = 0; r < RANKS; r++) views[r].beat.idle = views[r].beat.still = r == 2 ? 50 : 46;
    expect(views, 2, "rank 2 of 4 (process 12 on beta) has neither computed nor read or written for 50 s");
    views[1].beat.idle = 44; /* one is not: it may be what the others will wait for */
    expect(views, -1, "");
    views[1].beat.idle = 46;
    waits(&views[1], 3, "all_gather"); /* it got on */
    expect(views, -1, "");
}
END_TEST

START_TEST(a_slow_disk_is_given_more_time) {
    tw_peer_view views[RANKS];
    all_well(views); /* the system says that they wait for a disk, and no byte comes */
    for (int r = 0; r < RANKS; r++) views[r].beat.still = 1300;
    expect(views, -1, "");
    for (int r = 0; r < RANKS; r++) views[r].beat.still = TW_WATCHDOG_PATIENCE * LIMIT + 1;
    expect(views, 0, "does not answer");
    views[3].beat.still = 1300;
    expect(views, -1, "");
}
END_TEST

START_TEST(a_report_comes_before_guesses) {
    tw_peer_view views[RANKS];
    all_well(views);
    views[1].heard = NOW - 100;
    snprintf(views[3].beat.report, sizeof views[3].beat.report, "disk full");
    tw_verdict v = tw_verdict_find(views, peers, RANKS, NOW, LIMIT);
    ck_assert_int_eq(v.rank, 1); /* in the order of ranks */
    views[1].heard = NOW;
    v = tw_verdict_find(views, peers, RANKS, NOW, LIMIT);
    ck_assert_int_eq(v.rank, 3);
    ck_assert_int_eq(v.reported, 1);
    ck_assert_str_eq(v.text, "disk full");
}
END_TEST

TW_TEST_MAIN("watchdog", well_and_slow_ranks_are_left_alone, a_released_rank_is_not_to_blame,
             a_silent_rank_is_named_with_its_host, a_stuck_rank_is_told_from_a_busy_one,
             a_rank_that_gets_nothing_done_has_an_end, a_rank_that_gets_nothing_done_is_told_from_a_slow_one,
             a_device_that_takes_long_is_waited_for, ranks_that_all_run_in_circles_are_noticed,
             ranks_that_all_wait_do_not_wait_for_ever, two_ranks_that_do_not_agree_are_both_named,
             ranks_that_are_all_stuck_outside_collectives_are_noticed, a_slow_disk_is_given_more_time,
             a_report_comes_before_guesses)
