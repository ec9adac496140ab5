/* The stopwatch of --profile: each moment belongs to one part, and what is hidden follows from what was busy.
 */
#include "train/profile.h"

#include "train/clock.h"
#include "tw_test.h"

#include <math.h>
#include <unistd.h>

START_TEST(every_moment_belongs_to_one_part) {
    tw_profile p;
    double before = tw_seconds();
    tw_profile_begin(&p);
    double begun = tw_seconds();
    usleep(20000);
    tw_profile_lap(&p, TW_PROFILE_DATA);
    usleep(10000);
    tw_profile_lap(&p, TW_PROFILE_SAVE);
    double ending = tw_seconds();
    tw_profile_lap(&p, TW_PROFILE_DATA);
    double after = tw_seconds();
    ck_assert_double_ge(p.seconds[TW_PROFILE_DATA], 0.02);
    ck_assert_double_ge(p.seconds[TW_PROFILE_SAVE], 0.01);
    ck_assert_double_le(tw_profile_total(&p), after - before + 1e-9);
    ck_assert_double_ge(tw_profile_total(&p), ending - begun - 1e-9);
}
END_TEST

START_TEST(a_step_knows_its_parts) {
    tw_profile p;
    tw_profile_begin(&p);
    double start = p.at;
    usleep(60000);
    tw_stepper_times t = {.forward = 0.02,
                          .text = 0.005,
                          .exchange = 0.001,
                          .loss = 0.002,
                          .backward = 0.03,
                          .waited = 0.004,
                          .reduced = 0.016};
    tw_profile_lap_step(&p, &t);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_IMAGE], 0.015, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_TEXT], 0.005, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_EXCHANGE], 0.001, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_LOSS], 0.002, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_BACKWARD], 0.03, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_REDUCTION], 0.004, 1e-12);
    ck_assert_double_eq_tol(p.seconds[TW_PROFILE_OTHER], p.at - start - 0.057, 1e-9);
    ck_assert_double_eq_tol(tw_profile_total(&p), p.at - start, 1e-9);
    ck_assert_double_eq_tol(tw_profile_hidden(&p), 0.75, 1e-12);
}
END_TEST

START_TEST(hidden_is_a_share) {
    tw_profile p = {0};
    ck_assert(isnan(tw_profile_hidden(&p))); /* one rank: nothing is reduced */
    p.reduced = 2;
    ck_assert_double_eq(tw_profile_hidden(&p), 1);
    p.seconds[TW_PROFILE_REDUCTION] = 2.1; /* the wait has a little of its own */
    ck_assert_double_eq(tw_profile_hidden(&p), 0);
}
END_TEST

/* Waiting makes no rank slow: it is slow to those who wait. */
START_TEST(the_slowest_has_most_to_do) {
    tw_profile all[3] = {0};
    for (int r = 0; r < 3; r++) all[r].seconds[TW_PROFILE_BACKWARD] = 1;
    all[0].seconds[TW_PROFILE_EXCHANGE] = 9;
    all[1].seconds[TW_PROFILE_DATA] = 0.5;
    all[2].seconds[TW_PROFILE_IMAGE] = 0.4;
    ck_assert_int_eq(tw_profile_slowest(all, 3), 1);
    ck_assert_int_eq(tw_profile_slowest(all, 1), 0);
}
END_TEST

START_TEST(a_line_has_both_ranks) {
    char text[200];
    tw_profile p = {.steps = 4}, q = {.steps = 4};
    p.seconds[TW_PROFILE_LOSS] = 1, p.seconds[TW_PROFILE_BACKWARD] = 3;
    q.seconds[TW_PROFILE_LOSS] = 2, q.seconds[TW_PROFILE_BACKWARD] = 2;
    tw_profile_line(&p, NULL, TW_PROFILE_LOSS, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "1.00     250.00   25.0 %"));
    ck_assert_ptr_null(strchr(text, '|'));
    tw_profile_line(&p, &q, TW_PROFILE_LOSS, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "|       2.00     500.00   50.0 %"));
    for (int i = 0; i < TW_PROFILE_PARTS; i++) {
        ck_assert_str_ne(tw_profile_part_name((tw_profile_part)i), "");
        ck_assert_str_ne(tw_profile_part_key((tw_profile_part)i), "");
    }
}
END_TEST

TW_TEST_MAIN("profile", every_moment_belongs_to_one_part, a_step_knows_its_parts, hidden_is_a_share,
             the_slowest_has_most_to_do, a_line_has_both_ranks)
