/* Memory brought in behind its user's back: what is written meanwhile stays, and what is not taken goes. */
#include "tw_test.h"

#include "autograd/device.h"
#include "autograd/expected.h"

enum { MIB = 1 << 20, LARGE = 160 * MIB };

START_TEST(what_is_written_while_pages_come_in_stays) {
    tw_device *d;
    TW_ASSERT_OK(tw_device_cpu(1, &d));
    for (int round = 0; round < 2; round++) {
        void *p;
        d->expect(d, LARGE);
        TW_ASSERT_OK(d->alloc(d, LARGE - MIB, &p));
        uint32_t *values = p;
        size_t n = (LARGE - MIB) / sizeof *values, bad = 0;
        for (size_t i = n; i-- > 0;) values[i] = (uint32_t)i + 1; /* towards the thread, not behind it */
        for (size_t i = 0; i < n; i++) bad += values[i] != (uint32_t)i + 1;
        ck_assert_uint_eq(bad, 0);
        d->release(d, p);
    }
    tw_device_free(d);
}
END_TEST

START_TEST(only_about_what_was_expected_is_taken) {
    tw_expected *e = tw_expected_create();
    ck_assert_ptr_nonnull(e);
    ck_assert_ptr_null(tw_expected_take(e, LARGE));
    tw_expected_begin(e, LARGE);
    ck_assert_ptr_null(tw_expected_take(e, LARGE + 4 * MIB));
    ck_assert_ptr_null(tw_expected_take(e, LARGE / 2));
    tw_expected_begin(e, LARGE - MIB); /* the one there will do */
    void *p = tw_expected_take(e, LARGE);
    ck_assert_ptr_nonnull(p);
    ck_assert_ptr_null(tw_expected_take(e, LARGE)); /* once */
    int other;
    ck_assert(!tw_expected_release(e, &other));
    ck_assert(!tw_expected_release(e, NULL));
    ck_assert(tw_expected_release(e, p));
    ck_assert(!tw_expected_release(e, p));
    tw_expected_free(e);
}
END_TEST

START_TEST(what_is_not_taken_is_given_back) {
    tw_expected *e = tw_expected_create();
    tw_expected_begin(e, LARGE);
    tw_expected_begin(e, 0);
    ck_assert_ptr_null(tw_expected_take(e, LARGE));
    tw_expected_begin(e, MIB); /* too small to matter */
    ck_assert_ptr_null(tw_expected_take(e, MIB));
    tw_expected_begin(e, LARGE);
    tw_expected_free(e);
    tw_expected_begin(NULL, LARGE); /* where there was no memory for it */
    ck_assert_ptr_null(tw_expected_take(NULL, LARGE));
    ck_assert(!tw_expected_release(NULL, NULL));
    tw_expected_free(NULL);
}
END_TEST

TW_TEST_MAIN("expected", what_is_written_while_pages_come_in_stays, only_about_what_was_expected_is_taken,
             what_is_not_taken_is_given_back)
