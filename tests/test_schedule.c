#include "optim/schedule.h"
#include "tw_test.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* FACTS 6: base (s+1)/warmup below it, then half (1 + cos(pi (s - w)/(S - w))) base. */
static double expected(tw_schedule_kind kind, double peak, int64_t w, int64_t total, int64_t s) {
    if (s < w) return peak * (double)(s + 1) / (double)w;
    double x = total > w ? fmin((double)(s - w) / (double)(total - w), 1) : 1;
    return kind == TW_SCHEDULE_COSINE   ? 0.5 * (1 + cos(pi * x)) * peak
           : kind == TW_SCHEDULE_LINEAR ? (1 - x) * peak
                                        : peak;
}

START_TEST(follows_the_formula_everywhere) {
    static const int64_t warmups[] = {0, 1, 2, 100, 499, 500}, totals[] = {1, 2, 500, 1234};
    for (int kind = TW_SCHEDULE_COSINE; kind <= TW_SCHEDULE_LINEAR; kind++)
        for (int i = 0; i < 6; i++)
            for (int k = 0; k < 4; k++) {
                tw_schedule schedule = {(tw_schedule_kind)kind, 5e-5, warmups[i], totals[k]};
                for (int64_t s = 0; s < totals[k] + 20; s++) {
                    double rate = tw_schedule_rate(&schedule, s),
                           wanted = expected((tw_schedule_kind)kind, 5e-5, warmups[i], totals[k], s);
                    ck_assert_msg(fabs(rate - wanted) <= 1e-12 * 5e-5,
                                  "kind %d, warm-up %d of %d, step %d: %g", kind, (int)warmups[i],
                                  (int)totals[k], (int)s, rate);
                }
            }
}
END_TEST

START_TEST(borders_are_where_they_should_be) {
    tw_schedule s = {TW_SCHEDULE_COSINE, 1e-3, 100, 1000};
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 0), 1e-5, 1e-15); /* the first step is not lost on 0 */
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 98), 0.99e-3, 1e-15);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 99), 1e-3, 1e-15);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 100), 1e-3, 1e-15); /* the peak twice, as the original has */
    ck_assert(tw_schedule_rate(&s, 101) < 1e-3);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 550), 0.5e-3, 1e-15);
    ck_assert(tw_schedule_rate(&s, 999) > 0 && tw_schedule_rate(&s, 999) < 1e-8);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 1000), 0, 1e-15);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 5000), 0, 1e-15); /* and does not rise again */
    s.kind = TW_SCHEDULE_LINEAR;
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 325), 0.75e-3, 1e-15);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 5000), 0, 1e-15);
    s.kind = TW_SCHEDULE_CONSTANT;
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 49), 0.5e-3, 1e-15);
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 5000), 1e-3, 1e-15);
    s.kind = TW_SCHEDULE_COSINE, s.warmup = 0;
    ck_assert_double_eq_tol(tw_schedule_rate(&s, 0), 1e-3, 1e-15);
}
END_TEST

TW_TEST_MAIN("schedule", follows_the_formula_everywhere, borders_are_where_they_should_be)
