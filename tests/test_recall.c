#include "train/recall.h"
#include "tw_test.h"

#include <math.h>

/* Four queries over lists of ten: first hit at rank 1, 5, 6 and never; a fifth without positives. */
START_TEST(counts_the_first_hit) {
    int32_t indexes[50];
    for (int i = 0; i < 50; i++) indexes[i] = i % 10;
    int64_t start[] = {0, 1, 2, 4, 5, 5}, of[] = {0, 4, 9, 5, 77};
    tw_recall r = tw_recall_of(indexes, 5, 10, start, of, false);
    ck_assert_double_eq(r.r1, 1.0 / 5.0 * 100.0);
    ck_assert_double_eq(r.r5, 2.0 / 5.0 * 100.0);
    ck_assert_double_eq(r.r10, 3.0 / 5.0 * 100.0);
    ck_assert_double_eq_tol(r.mean, 40.0, 1e-12);
    r = tw_recall_of(indexes, 5, 10, start, of, true);
    ck_assert_double_eq(r.r1, 25.0);
    ck_assert_double_eq(r.r10, 75.0);
}
END_TEST

START_TEST(ranks_six_to_ten_count_for_ten_only) {
    int32_t indexes[10] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
    int64_t start[] = {0, 1}, of[] = {4};
    tw_recall r = tw_recall_of(indexes, 1, 10, start, of, false);
    ck_assert_double_eq(r.r5, 0.0);
    ck_assert_double_eq(r.r10, 100.0);
}
END_TEST

START_TEST(finds_the_nearest_and_keeps_ties_in_order) {
    tw_device *device;
    TW_ASSERT_OK(tw_device_cpu(2, &device));
    const float gallery[] = {1, 0, 0, 1, 0, 1, -1, 0}, queries[] = {0, 2, 3, 1};
    int32_t indexes[8];
    float scores[8];
    int k;
    TW_ASSERT_OK(tw_retrieve(device, queries, 2, gallery, 4, 2, 9, indexes, scores, &k));
    ck_assert_int_eq(k, 4);
    const int32_t want[] = {1, 2, 0, 3, 0, 1, 2, 3};
    for (int i = 0; i < 8; i++) ck_assert_int_eq(indexes[i], want[i]);
    ck_assert_float_eq(scores[0], 2.0f);
    ck_assert_float_eq(scores[7], -3.0f);
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("recall", counts_the_first_hit, ranks_six_to_ten_count_for_ten_only,
             finds_the_nearest_and_keeps_ties_in_order)
